//! LimitRanges: what containers get that say nothing, and what is too little or too much.

use std::collections::BTreeMap;

use model::tree::{entries, items, text};
use model::{Object, Quantity, Tree, kinds, tree};
use serde_json::json;

use super::{Asked, Extra};
use crate::refusal::Refusal;
use crate::verbs::child;

type Amounts = BTreeMap<String, Quantity>;

fn amounts(tree: &Tree, path: &str) -> Amounts {
    let read = |(name, value): (&str, &Tree)| Some((name.to_owned(), value.as_str()?.parse().ok()?));
    entries(tree, path).filter_map(read).collect()
}

fn limits(asked: &Asked<'_>) -> Vec<Tree> {
    let ranges = asked.world.list(&kinds::LIMIT_RANGE, asked.namespace);
    let trees = ranges.iter().filter_map(Object::seen::<Tree>);
    trees.flat_map(|range| items(&range, "spec.limits").to_vec()).collect()
}

/// Gives the containers of a new pod the defaults of its namespace.
pub fn fill(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if !asked.creates(&kinds::POD) {
        return Ok(());
    }
    let mut notes = Vec::new();
    for limit in limits(asked).iter().filter(|limit| text(limit, "type") == "Container") {
        for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
            for container in tree::items_mut(&mut object["spec"], list) {
                let name = text(container, "name").to_owned();
                let said = [("requests", "defaultRequest", "request"), ("limits", "default", "limit")];
                for (field, from, noun) in said {
                    let added = fill_one(container, field, &limit[from]);
                    if !added.is_empty() {
                        notes.push(format!("{} {noun} for {word} {name}", added.join(", ")));
                    }
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        child(&mut object["metadata"], "annotations")
            .insert("kubernetes.io/limit-ranger".into(), json!(note));
    }
    Ok(())
}

fn fill_one(container: &mut Tree, field: &str, defaults: &Tree) -> Vec<String> {
    let mut added = Vec::new();
    for (name, value) in defaults.as_object().into_iter().flatten() {
        let resources = child(container, "resources");
        let own = resources.entry(field).or_insert_with(|| json!({}));
        if own[name].is_null() {
            own[name] = value.clone();
            added.push(name.clone());
        }
    }
    added
}

/// Refuses what is beyond the limits of the namespace.
pub fn judge(asked: &Asked<'_>, object: &Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    let mut faults = Vec::new();
    if asked.creates(&kinds::POD) {
        for limit in limits(asked) {
            match text(&limit, "type") {
                "Container" => {
                    for container in
                        items(object, "spec.containers").iter().chain(items(object, "spec.initContainers"))
                    {
                        let own = Use::of(container);
                        hold(&limit, "Container", &own, &mut faults);
                    }
                }
                "Pod" => hold(&limit, "Pod", &Use::of_pod(object), &mut faults),
                _ => {}
            }
        }
    } else if asked.writes(&kinds::PERSISTENT_VOLUME_CLAIM) {
        for limit in limits(asked).iter().filter(|limit| text(limit, "type") == "PersistentVolumeClaim") {
            let requests = amounts(object, "spec.resources.requests");
            hold(limit, "PersistentVolumeClaim", &Use { limits: requests.clone(), requests }, &mut faults);
        }
    }
    match faults.as_slice() {
        [] => Ok(()),
        [one] => Err(asked.forbid(object, one)),
        all => Err(asked.forbid(object, format!("[{}]", all.join(", ")))),
    }
}

/// What something asks for, and what it may take.
struct Use {
    requests: Amounts,
    limits: Amounts,
}

impl Use {
    fn of(container: &Tree) -> Self {
        Self {
            requests: amounts(container, "resources.requests"),
            limits: amounts(container, "resources.limits"),
        }
    }

    fn of_pod(pod: &Tree) -> Self {
        match serde_json::from_value(pod.clone()) {
            Ok(view) => Self { requests: model::pod::requests(&view), limits: model::pod::limits(&view) },
            Err(_) => Self { requests: Amounts::new(), limits: Amounts::new() },
        }
    }
}

fn hold(limit: &Tree, what: &str, own: &Use, faults: &mut Vec<String>) {
    for (name, least) in amounts(limit, "min") {
        let message = format!("minimum {name} usage per {what} is {least}");
        match (own.requests.get(&name), own.limits.get(&name)) {
            (None, _) => faults.push(format!("{message}.  No request is specified")),
            (Some(request), _) if *request < least => {
                faults.push(format!("{message}, but request is {request}"))
            }
            (_, Some(limit)) if *limit < least => faults.push(format!("{message}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, most) in amounts(limit, "max") {
        let message = format!("maximum {name} usage per {what} is {most}");
        match (own.requests.get(&name), own.limits.get(&name)) {
            (_, None) => faults.push(format!("{message}.  No limit is specified")),
            (_, Some(limit)) if *limit > most => faults.push(format!("{message}, but limit is {limit}")),
            (Some(request), _) if *request > most => {
                faults.push(format!("{message}, but request is {request}"))
            }
            _ => {}
        }
    }
    for (name, ratio) in amounts(limit, "maxLimitRequestRatio") {
        let message = format!("{name} max limit to request ratio per {what} is {ratio}");
        match (own.requests.get(&name), own.limits.get(&name)) {
            (Some(request), Some(limit)) if !request.is_zero() => {
                let actual = limit.as_f64() / request.as_f64();
                if actual > ratio.as_f64() {
                    faults.push(format!("{message}, but provided ratio is {actual:.6}"));
                }
            }
            _ => faults.push(format!("{message}, but no request is specified or request is 0")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    const RANGE: &str = r#"{"metadata": {"name": "r", "namespace": "d"}, "spec": {"limits": [{"type": "Container",
        "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "min": {"cpu": "50m"}, "max": {"cpu": "1"}}]}}"#;

    fn pod(resources: Tree) -> Result<Tree, String> {
        let world = [(&kinds::LIMIT_RANGE, RANGE)];
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": {"containers": [{"name": "c", "resources": resources}]}});
        let made = check(&world, &kinds::POD, fill, pod)?;
        let judged = check(&world, &kinds::POD, |asked, object, extra| judge(asked, object, extra), made)?;
        Ok(judged["spec"]["containers"][0]["resources"].clone())
    }

    #[test]
    fn a_silent_container_gets_the_defaults() {
        let wanted = json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m"}});
        assert_eq!(pod(json!({})), Ok(wanted));
        let own = json!({"requests": {"cpu": "300m"}, "limits": {"cpu": "300m"}});
        assert_eq!(pod(own.clone()), Ok(own));
    }

    #[test]
    fn too_little_and_too_much_are_refused() {
        let little = pod(json!({"requests": {"cpu": "10m"}})).expect_err("too little");
        assert!(little.contains("minimum cpu usage per Container is 50m, but request is 10m"), "{little}");
        let much = pod(json!({"limits": {"cpu": "2"}})).expect_err("too much");
        assert!(much.contains("maximum cpu usage per Container is 1, but limit is 2"), "{much}");
    }
}
