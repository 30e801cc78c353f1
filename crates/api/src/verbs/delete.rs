//! DELETE: an object goes, or begins to go.

use jiff::SignedDuration;
use model::{Time, Tree, kinds};
use serde_json::{Value, json};

use super::{Verdict, check_preconditions, child, finalizers, is_ending, meta, metadata, read_stamp, stamp};
use crate::refusal::Refusal;
use crate::registry::Resource;

/// The finalizer by which the collector removes children first.
const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer by which the collector frees children first.
const ORPHAN: &str = "orphan";
/// How long a pod may take to stop when it does not say, in seconds.
const POD_GRACE_SECONDS: i64 = 30;
/// No grace is longer: 10 years in seconds, so that times stay in range.
const GRACE_SECONDS_MAX: i64 = 315_360_000;

/// What a DELETE asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeleteOptions {
    /// How long it may take, in seconds.
    pub grace_seconds: Option<i64>,
    /// The uid and revision that must be the object's: `{"uid": …, "resourceVersion": …}`.
    pub preconditions: Tree,
    /// What becomes of the children.
    pub propagation: Option<Propagation>,
    /// Whether nothing is to be stored.
    pub dry_run: bool,
}

/// What becomes of an object's children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

impl DeleteOptions {
    /// Reads them from a body, and from the query where the body says nothing.
    pub fn read(body: &Tree, query: &crate::request::Query) -> Result<Self, Refusal> {
        let bad = |what: &str| Refusal::bad_request(format!("invalid DeleteOptions: {what}"));
        let grace = match (&body["gracePeriodSeconds"], query.get("gracePeriodSeconds")) {
            (Value::Null, None) => None,
            (Value::Null, Some(text)) => {
                Some(text.parse().map_err(|_| bad("gracePeriodSeconds is no integer"))?)
            }
            (value, _) => Some(value.as_i64().ok_or_else(|| bad("gracePeriodSeconds is no integer"))?),
        };
        let policy = body["propagationPolicy"].as_str().or(query.get("propagationPolicy"));
        let orphan =
            body["orphanDependents"].as_bool().or(query.get("orphanDependents").map(|text| text == "true"));
        let propagation = match (policy, orphan) {
            (Some(_), Some(_)) => {
                return Err(bad("orphanDependents and propagationPolicy cannot both be set"));
            }
            (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some(other), None) => return Err(bad(&format!("unknown propagationPolicy {other:?}"))),
            (None, None) => None,
        };
        let dry = |value: &str| value == "All";
        let in_body = body["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).any(dry);
        Ok(Self {
            grace_seconds: grace,
            preconditions: body["preconditions"].clone(),
            propagation,
            dry_run: in_body || query.all("dryRun").any(dry),
        })
    }
}

/// Decides what becomes of an object.
pub fn delete(
    resource: &Resource,
    old: &Tree,
    options: &DeleteOptions,
    now: Time,
) -> Result<Verdict, Refusal> {
    let about = resource.about(meta(old, "name"));
    check_preconditions(&about, old, &options.preconditions)?;
    if resource.is(&kinds::NAMESPACE) {
        return delete_namespace(resource, old, now);
    }
    let grace = grace_seconds(resource, old, options);
    let mut new = old.clone();
    let kept = set_finalizers(&mut new, options.propagation);
    if grace == 0 && !kept {
        return Ok(Verdict::Remove(ending(new, 0, now)));
    }
    if !is_ending(old) {
        return Ok(Verdict::Put(count(ending(new, grace, now))));
    }
    let had = old["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
    if grace < had {
        new = shorten(new, grace, had, now);
    }
    Ok(if new == *old { Verdict::Keep(new) } else { Verdict::Put(new) })
}

/// A namespace goes when the namespace controller lets it go.
fn delete_namespace(resource: &Resource, old: &Tree, now: Time) -> Result<Verdict, Refusal> {
    let held = old["spec"]["finalizers"].as_array().is_some_and(|list| !list.is_empty());
    if !held && finalizers(old).is_empty() {
        return Ok(Verdict::Remove(ending(old.clone(), 0, now)));
    }
    if is_ending(old) {
        let why = "The system is ensuring all content is removed from this namespace.  Upon completion, this namespace will automatically be purged by the system.";
        return Err(Refusal::conflict(&resource.about(meta(old, "name")), why));
    }
    let mut new = ending(old.clone(), 0, now);
    metadata(&mut new).remove("deletionGracePeriodSeconds");
    child(&mut new, "status").insert("phase".into(), json!("Terminating"));
    Ok(Verdict::Put(new))
}

/// How long the deletion may take: only pods that run somewhere take time.
fn grace_seconds(resource: &Resource, old: &Tree, options: &DeleteOptions) -> i64 {
    if !resource.is(&kinds::POD) {
        return 0;
    }
    let runs = old["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let over = matches!(old["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if !runs || over {
        return 0;
    }
    let own = old["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(POD_GRACE_SECONDS);
    let grace = options.grace_seconds.unwrap_or(own);
    // A negative grace means: as little as can be, and yet in order.
    if grace < 0 { 1 } else { grace.min(GRACE_SECONDS_MAX) }
}

/// Puts the collector's finalizers as the caller wishes; says whether any finalizer holds the object.
fn set_finalizers(object: &mut Tree, propagation: Option<Propagation>) -> bool {
    let mut names: Vec<String> = finalizers(object).into_iter().map(str::to_owned).collect();
    let before = names.clone();
    if let Some(propagation) = propagation {
        names.retain(|name| name != FOREGROUND && name != ORPHAN);
        match propagation {
            Propagation::Background => {}
            Propagation::Foreground => names.push(FOREGROUND.to_owned()),
            Propagation::Orphan => names.push(ORPHAN.to_owned()),
        }
    }
    let held = !names.is_empty();
    if names != before {
        if held {
            metadata(object).insert("finalizers".into(), json!(names));
        } else {
            metadata(object).remove("finalizers");
        }
    }
    held
}

fn ending(mut object: Tree, grace: i64, now: Time) -> Tree {
    if !is_ending(&object) {
        let at = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
        metadata(&mut object).insert("deletionTimestamp".into(), stamp(at));
    }
    metadata(&mut object).insert("deletionGracePeriodSeconds".into(), json!(grace));
    object
}

/// Asking for a deletion changes what is desired.
fn count(mut object: Tree) -> Tree {
    if let Some(generation) = object["metadata"]["generation"].as_i64() {
        metadata(&mut object).insert("generation".into(), json!(generation + 1));
    }
    object
}

fn shorten(mut object: Tree, grace: i64, had: i64, now: Time) -> Tree {
    let ends = read_stamp(&object["metadata"]["deletionTimestamp"]).unwrap_or(now);
    let asked = ends.checked_sub(SignedDuration::from_secs(had)).unwrap_or(now);
    let ends = asked.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    let metadata = metadata(&mut object);
    metadata.insert("deletionTimestamp".into(), stamp(ends));
    metadata.insert("deletionGracePeriodSeconds".into(), json!(grace));
    object
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{drawn, resource};

    fn pod(spec: Tree, phase: &str, more: Tree) -> Tree {
        let mut pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u", "generation": 1}, "spec": spec,
            "status": {"phase": phase}});
        for (key, value) in more.as_object().into_iter().flatten() {
            pod["metadata"][key] = value.clone();
        }
        pod
    }

    /// `remove`, or `put` with the grace that is left and the time of the end.
    fn check(old: &Tree, options: &DeleteOptions, wanted: &str) {
        let told = match delete(&resource(&kinds::POD), old, options, drawn().now) {
            Ok(Verdict::Remove(_)) => "remove".to_owned(),
            Ok(Verdict::Keep(_)) => "keep".to_owned(),
            Ok(Verdict::Put(new)) => {
                let end = meta(&new, "deletionTimestamp").get(11..19).unwrap_or_default().to_owned();
                let grace = &new["metadata"]["deletionGracePeriodSeconds"];
                format!("put {grace} {end} {}", finalizers(&new).join(",")).trim_end().to_owned()
            }
            Err(refusal) => format!("{:?}", refusal.reason),
        };
        assert_eq!(told, wanted, "{old} {options:?}");
    }

    fn grace(seconds: i64) -> DeleteOptions {
        DeleteOptions { grace_seconds: Some(seconds), ..DeleteOptions::default() }
    }

    #[test]
    fn a_running_pod_gets_its_grace_and_others_go_at_once() {
        let spec = json!({"nodeName": "n", "terminationGracePeriodSeconds": 20});
        let any = DeleteOptions::default();
        check(&pod(spec.clone(), "Running", json!({})), &any, "put 20 00:00:20");
        check(&pod(spec.clone(), "Running", json!({})), &grace(5), "put 5 00:00:05");
        check(&pod(spec.clone(), "Running", json!({})), &grace(-1), "put 1 00:00:01");
        check(&pod(spec.clone(), "Running", json!({})), &grace(0), "remove");
        check(&pod(spec, "Succeeded", json!({})), &any, "remove");
        check(&pod(json!({}), "Pending", json!({})), &any, "remove");
    }

    #[test]
    fn a_second_deletion_can_only_shorten() {
        let spec = json!({"nodeName": "n"});
        let going = pod(
            spec,
            "Running",
            json!({"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30}),
        );
        check(&going, &grace(60), "keep");
        check(&going, &grace(10), "put 10 00:00:10");
        check(&going, &grace(0), "remove");
    }

    #[test]
    fn finalizers_and_propagation_hold_the_object() {
        let held = pod(json!({}), "Pending", json!({"finalizers": ["x"]}));
        let policy = |p| DeleteOptions { propagation: Some(p), ..DeleteOptions::default() };
        check(&held, &DeleteOptions::default(), "put 0 00:00:00 x");
        check(&held, &policy(Propagation::Foreground), "put 0 00:00:00 x,foregroundDeletion");
        let free = pod(json!({}), "Pending", json!({}));
        check(&free, &policy(Propagation::Orphan), "put 0 00:00:00 orphan");
        check(&free, &policy(Propagation::Background), "remove");
    }

    #[test]
    fn preconditions_must_hold() {
        let options = DeleteOptions { preconditions: json!({"uid": "other"}), ..DeleteOptions::default() };
        check(&pod(json!({}), "Pending", json!({})), &options, "Conflict");
    }
}
