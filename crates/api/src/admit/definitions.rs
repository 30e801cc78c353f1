//! CustomResourceDefinitions are told at once whether their names are theirs, and served from then on.

use model::tree::{items, text};
use model::{Gvr, Key, Object, Tree, World, kinds};
use serde_json::{Value, json};
use store::{Change, Expect};

use super::{Asked, Extra};
use crate::refusal::Refusal;
use crate::registry::Resource;
use crate::verbs::{child, meta, stamp};
use crate::view::path_of;

/// Tells in the status whether the names are accepted.
pub fn finish(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if !asked.writes(&kinds::CUSTOM_RESOURCE_DEFINITION) {
        return Ok(());
    }
    let taken = conflict(asked.world, object);
    let names = object["spec"]["names"].clone();
    let stored = items(object, "spec.versions").iter().find(|version| version["storage"] == true);
    let stored = stored.map(|version| version["name"].clone());
    let status = child(object, "status");
    if taken.is_none() {
        status.insert("acceptedNames".into(), names);
    } else {
        status.entry("acceptedNames").or_insert_with(|| json!({"plural": "", "kind": ""}));
    }
    let versions = status.entry("storedVersions").or_insert_with(|| json!([]));
    if let (Some(stored), Value::Array(versions)) = (stored, versions)
        && !versions.contains(&stored)
    {
        versions.push(stored);
    }
    let now = stamp(asked.drawn.now);
    let (accepted, reason, message) = match &taken {
        None => ("True", "NoConflicts", "no conflicts found".to_owned()),
        Some(why) => ("False", "NamesConflict", why.clone()),
    };
    set_condition(object, "NamesAccepted", accepted, reason, &message, &now);
    if taken.is_none() {
        let message = "the initial names have been accepted";
        set_condition(object, "Established", "True", "InitialNamesAccepted", message, &now);
    }
    Ok(())
}

/// Refuses schemas that could not be held to.
pub fn judge(asked: &Asked<'_>, object: &Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    let unchanged = asked.old.is_some_and(|old| old["spec"]["versions"] == object["spec"]["versions"]);
    if !asked.writes(&kinds::CUSTOM_RESOURCE_DEFINITION) || unchanged {
        return Ok(());
    }
    let mut faults = kinds::Faults::default();
    crate::custom::check_definition(object, &mut faults);
    if faults.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(&asked.resource.about(meta(object, "name")), &faults.0))
}

fn set_condition(object: &mut Tree, kind: &str, status: &str, reason: &str, message: &str, now: &Value) {
    let conditions = child(object, "status").entry("conditions").or_insert_with(|| json!([]));
    let Value::Array(conditions) = conditions else { return };
    let known = conditions.iter().position(|condition| condition["type"] == kind);
    let same =
        known.is_some_and(|at| conditions[at]["status"] == status && conditions[at]["reason"] == reason);
    if same {
        return;
    }
    let condition = json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now});
    match known {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}

/// Which of the names another definition of the group has.
fn conflict(world: &dyn World, object: &Tree) -> Option<String> {
    let others = world.list(&kinds::CUSTOM_RESOURCE_DEFINITION, "");
    let others = others.iter().filter(|other| other.name() != meta(object, "name"));
    let words = |names: &Tree| -> Vec<String> {
        let plain = ["plural", "singular"].map(|field| text(names, field).to_owned());
        let short = items(names, "shortNames").iter().filter_map(Value::as_str).map(str::to_owned);
        plain.into_iter().chain(short).filter(|word| !word.is_empty()).collect()
    };
    let (wanted, own) = (&object["spec"]["names"], words(&object["spec"]["names"]));
    for other in others.filter_map(|other| other.tree().ok()) {
        if text(&other, "spec.group") != text(object, "spec.group") {
            continue;
        }
        let accepted = &other["status"]["acceptedNames"];
        if let Some(word) = words(accepted).iter().find(|word| own.contains(word)) {
            return Some(format!("\"{word}\" is already in use"));
        }
        let same =
            |field: &str| !text(wanted, field).is_empty() && text(accepted, field) == text(wanted, field);
        if same("kind") || same("listKind") {
            return Some(format!("\"{}\" is already in use", text(wanted, "kind")));
        }
    }
    None
}

/// Takes the objects of a definition along, in the transaction in which it goes.
pub fn release(resource: &Resource, old: &Tree, world: &dyn World, extra: &mut Extra) {
    if !resource.is(&kinds::CUSTOM_RESOURCE_DEFINITION) {
        return;
    }
    for (gvr, object) in objects(old, world) {
        let path = path_of(&Key::new(&gvr, object.namespace(), object.name()));
        extra.expect.push((path.as_str().into(), Expect::At(object.revision())));
        extra.changes.push(Change::Remove { path: path.into(), last: None });
    }
}

/// Refuses the deletion of a definition while finalizers hold objects of it: they would never be heard.
pub fn protect(resource: &Resource, old: &Tree, world: &dyn World) -> Result<(), Refusal> {
    if !resource.is(&kinds::CUSTOM_RESOURCE_DEFINITION) {
        return Ok(());
    }
    let held = objects(old, world).into_iter().find(|(_, object)| !object.meta().finalizers.is_empty());
    match held {
        None => Ok(()),
        Some((gvr, object)) => {
            let why = format!(
                "{gvr} {}/{} is held by finalizers; delete it first",
                object.namespace(),
                object.name()
            );
            Err(Refusal::conflict(&resource.about(meta(old, "name")), why))
        }
    }
}

fn objects(definition: &Tree, world: &dyn World) -> Vec<(Gvr, Object)> {
    let Some(resource) = crate::custom::resources(definition).into_iter().next() else { return Vec::new() };
    world.list(&resource.stored, "").into_iter().map(|object| (resource.stored.clone(), object)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn names_that_others_have_are_not_accepted() {
        let other = r#"{"metadata": {"name": "foos.x.io"}, "spec": {"group": "x.io"},
            "status": {"acceptedNames": {"plural": "foos", "kind": "Foo"}}}"#;
        let established = |plural: &str, kind: &str| {
            let definition = json!({"metadata": {"name": format!("{plural}.x.io")}, "spec": {"group": "x.io",
                "names": {"plural": plural, "kind": kind}, "versions": [{"name": "v1", "storage": true}]}});
            let world = [(&kinds::CUSTOM_RESOURCE_DEFINITION, other)];
            let made = check(&world, &kinds::CUSTOM_RESOURCE_DEFINITION, finish, definition)
                .expect("told in the status");
            assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
            items(&made, "status.conditions").iter().any(|condition| condition["type"] == "Established")
        };
        assert!(established("bars", "Bar"));
        assert!(!established("bars", "Foo"));
    }
}
