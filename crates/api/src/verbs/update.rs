//! PUT and PATCH: an object becomes another version of itself.

use model::{Tree, kinds};
use serde_json::{Map, Value, json};

use super::create::{check_namespace, check_type, set_type};
use super::{Verdict, carry, finalizers, is_ending, meta, metadata};
use crate::refusal::Refusal;
use crate::registry::{Meaning, Resource};

/// What the server alone says in metadata, whatever a writer sends.
const SERVER_OWNED: [&str; 6] =
    ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink"];

/// Makes what a PUT of `new` over `old` asks for, before defaults and admission: names, preconditions and what is the
/// server's to say. `part` is the subresource; empty for the object itself.
pub fn update(resource: &Resource, old: &Tree, mut new: Tree, part: &str) -> Result<Tree, Refusal> {
    let about = resource.about(meta(old, "name"));
    check_type(resource, &new)?;
    set_type(resource, &mut new);
    check_namespace(resource, meta(old, "namespace"), &mut new)?;
    let name = meta(&new, "name");
    if !name.is_empty() && name != about.name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            about.name
        )));
    }
    check_identity(resource, old, &new)?;
    metadata(&mut new).insert("name".into(), json!(about.name));
    inherit(old, &mut new);
    super::part::limit(resource, old, &mut new, part);
    Ok(new)
}

/// The uid and the revision that a writer names must be those of the object.
fn check_identity(resource: &Resource, old: &Tree, new: &Tree) -> Result<(), Refusal> {
    let about = resource.about(meta(old, "name"));
    let uid = meta(new, "uid");
    if !uid.is_empty() && uid != meta(old, "uid") {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            meta(old, "uid")
        );
        return Err(Refusal::conflict(&about, why));
    }
    let revision = meta(new, "resourceVersion");
    if !matches!(revision, "" | "0") && revision != meta(old, "resourceVersion") {
        return Err(Refusal::stale(&about));
    }
    Ok(())
}

fn inherit(old: &Tree, new: &mut Tree) {
    let empty = Map::new();
    let from = old["metadata"].as_object().unwrap_or(&empty);
    let to = metadata(new);
    for name in SERVER_OWNED {
        carry(from, to, name);
    }
    carry(from, to, "resourceVersion");
    if !to.contains_key("managedFields") {
        carry(from, to, "managedFields");
    }
    if !to.contains_key("generateName") {
        carry(from, to, "generateName");
    }
}

/// What the API itself writes into a changed object, once it has its defaults: its generation, and what no writer may
/// change through `part`.
pub fn prepare(resource: &Resource, old: &Tree, new: &mut Tree, part: &str) {
    match (&resource.meaning, part) {
        (Meaning::BuiltIn(_), "status" | "approval") => kinds::prepare_status(old, new),
        // Who holds a namespace changes there, and nothing else of it.
        (Meaning::BuiltIn(_), "finalize") => {}
        (Meaning::BuiltIn(kind), _) => kinds::prepare_update(kind, old, new),
        (Meaning::Custom(_), "status") => {}
        (Meaning::Custom(_), _) => {
            if desired_differs(old, new) {
                let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
                metadata(new).insert("generation".into(), json!(generation));
            }
        }
    }
}

/// Says what is to be stored once `new` has its defaults and is admitted.
pub fn conclude(resource: &Resource, old: &Tree, new: Tree) -> Verdict {
    if may_go(resource, &new) {
        return Verdict::Remove(new);
    }
    if same(old, &new) { Verdict::Keep(old.clone()) } else { Verdict::Put(new) }
}

/// Whether nothing holds an ending object any more.
fn may_go(resource: &Resource, object: &Tree) -> bool {
    if !is_ending(object) || !finalizers(object).is_empty() {
        return false;
    }
    if resource.is(&kinds::NAMESPACE) {
        return object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty);
    }
    object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0
}

fn desired_differs(old: &Tree, new: &Tree) -> bool {
    let desired = |object: &Tree| -> Vec<(String, Value)> {
        let members = object.as_object().into_iter().flatten();
        let members = members.filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status"));
        members.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    desired(old) != desired(new)
}

/// Whether two versions differ in nothing but when managers last wrote.
fn same(old: &Tree, new: &Tree) -> bool {
    if old == new {
        return true;
    }
    let members = |object: &Tree| -> Vec<(String, Value)> {
        let members = object.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata");
        members.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    members(old) == members(new) && timeless(&old["metadata"]) == timeless(&new["metadata"])
}

fn timeless(metadata: &Tree) -> Tree {
    let mut metadata = metadata.clone();
    for entry in metadata.get_mut("managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(entry) = entry.as_object_mut() {
            entry.remove("time");
        }
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::resource;

    fn old() -> Tree {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default", "uid": "u", "resourceVersion": "7", "generation": 3,
                "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": 1}, "status": {"replicas": 1}})
    }

    fn put(new: Tree, part: &str) -> Result<Verdict, Refusal> {
        let resource = resource(&kinds::DEPLOYMENT);
        let mut new = update(&resource, &old(), new, part)?;
        prepare(&resource, &old(), &mut new, part);
        Ok(conclude(&resource, &old(), new))
    }

    #[test]
    fn an_unchanged_object_is_kept() {
        assert_eq!(put(old(), ""), Ok(Verdict::Keep(old())));
    }

    #[test]
    fn a_new_spec_is_a_new_generation_and_leaves_the_status() {
        let new = json!({"metadata": {"name": "web"}, "spec": {"replicas": 2}, "status": {"replicas": 9}});
        let Ok(Verdict::Put(made)) = put(new, "") else { panic!("not put") };
        assert_eq!((&made["metadata"]["generation"], &made["status"]["replicas"]), (&json!(4), &json!(1)));
        assert_eq!(made["metadata"]["uid"], json!("u"));
    }

    #[test]
    fn a_new_status_leaves_spec_and_generation() {
        let new = json!({"metadata": {"name": "web", "annotations": {"a": "b"}}, "spec": {"replicas": 2}, "status": {"replicas": 9}});
        let Ok(Verdict::Put(made)) = put(new, "status") else { panic!("not put") };
        assert_eq!((&made["spec"]["replicas"], &made["status"]["replicas"]), (&json!(1), &json!(9)));
        assert_eq!(
            (&made["metadata"]["generation"], &made["metadata"]["annotations"]["a"]),
            (&json!(3), &json!("b"))
        );
    }

    #[test]
    fn an_old_revision_or_another_uid_conflicts() {
        for metadata in [json!({"resourceVersion": "6"}), json!({"uid": "v"})] {
            let refusal = put(json!({"metadata": metadata}), "").expect_err("must conflict");
            assert_eq!(refusal.reason, crate::refusal::Reason::Conflict);
        }
    }

    #[test]
    fn the_last_finalizer_lets_an_ending_object_go() {
        let resource = resource(&kinds::DEPLOYMENT);
        let mut ending = old();
        ending["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        ending["metadata"]["finalizers"] = json!(["a"]);
        let mut freed = ending.clone();
        freed["metadata"]["finalizers"] = json!([]);
        let made = update(&resource, &ending, freed, "").expect("a good request");
        assert!(matches!(conclude(&resource, &ending, made), Verdict::Remove(_)));
    }
}
