//! CustomResourceDefinitions are told at once whether their names are theirs, and served from then on.

use model::tree::{items, text};
use model::{Gvr, Key, Object, Time, Tree, World, kinds};
use serde_json::{Value, json};
use store::{Change, Expect, Path};

use super::{Asked, Extra, Operation};
use crate::encode;
use crate::refusal::{Reason, Refusal};
use crate::registry::{Meaning, Resource};
use crate::verbs::delete::{self, DeleteOptions};
use crate::verbs::{Verdict, child, finalizers, meta, metadata, stamp};
use crate::view::path_of;

/// The finalizer that holds a definition while objects of it are held.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Why a definition is not gone yet.
const DELETING: &str = "InstanceDeletionInProgress";

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
    let same = known
        .map(|at| &conditions[at])
        .is_some_and(|now| now["status"] == status && now["reason"] == reason && now["message"] == message);
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

/// Refuses new objects of a definition that is going.
pub fn admit(asked: &Asked<'_>, _object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    match &asked.resource.meaning {
        Meaning::Custom(custom) if custom.ending && asked.operation == Operation::Create => {
            let why = "create not allowed while custom resource definition is terminating";
            Err(Refusal::new(Reason::MethodNotAllowed, why))
        }
        _ => Ok(()),
    }
}

/// Takes the objects of a definition along, in the transaction in which it goes.
pub fn release(resource: &Resource, old: &Tree, world: &dyn World, extra: &mut Extra) {
    if let Meaning::Custom(custom) = &resource.meaning
        && custom.ending
    {
        let_go(resource, world, extra);
    }
    if !resource.is(&kinds::CUSTOM_RESOURCE_DEFINITION) {
        return;
    }
    for (gvr, object) in objects(old, world) {
        let path = path_of(&Key::new(&gvr, object.namespace(), object.name()));
        extra.expect.push((path.as_str().into(), Expect::At(object.revision())));
        extra.changes.push(Change::Remove { path: path.into(), last: None });
    }
}

/// A definition whose objects are held by finalizers stays until the last of them is gone; the others go at once.
pub fn end(
    resource: &Resource,
    verdict: Verdict,
    world: &dyn World,
    now: Time,
    extra: &mut Extra,
) -> Verdict {
    let Verdict::Remove(last) = verdict else { return verdict };
    let all = objects(&last, world);
    let held = all.iter().any(|(_, object)| !object.meta().finalizers.is_empty());
    let own = crate::custom::resources(&last).into_iter().next();
    let Some(own) = own.filter(|_| held && resource.is(&kinds::CUSTOM_RESOURCE_DEFINITION)) else {
        return Verdict::Remove(last);
    };
    let plain = DeleteOptions::default();
    for (_, object) in all {
        let Ok(tree) = object.tree() else { continue };
        let path: Path = own.path(object.namespace(), object.name()).into();
        match delete::delete(&own, &tree, &plain, now) {
            Ok(Verdict::Remove(_)) => extra.changes.push(Change::Remove { path: path.clone(), last: None }),
            Ok(Verdict::Put(new)) => extra.changes.push(put(path.clone(), &new)),
            // It is going already.
            _ => continue,
        }
        extra.expect.push((path, Expect::At(object.revision())));
    }
    let mut definition = last;
    metadata(&mut definition).insert("finalizers".into(), json!([CLEANUP]));
    metadata(&mut definition).remove("deletionTimestamp");
    let message = "CustomResource deletion is in progress";
    set_condition(&mut definition, "Terminating", "True", DELETING, message, &stamp(now));
    delete::delete(resource, &definition, &plain, now).unwrap_or(Verdict::Keep(definition))
}

/// One object of an ending definition goes: with the last one, the definition does too.
fn let_go(resource: &Resource, world: &dyn World, extra: &mut Extra) {
    let name = format!("{}.{}", resource.gvr.plural, resource.gvr.group);
    let key = Key::new(&kinds::CUSTOM_RESOURCE_DEFINITION, "", &name);
    let Some(held) = world.get(&key) else { return };
    let Ok(mut definition) = held.tree() else { return };
    let mut names: Vec<String> = finalizers(&definition).into_iter().map(str::to_owned).collect();
    if !names.iter().any(|name| name == CLEANUP) {
        return;
    }
    let path: Path = path_of(&key).into();
    extra.expect.push((path.clone(), Expect::At(held.revision())));
    let left = world.list(&resource.stored, "").len().saturating_sub(1);
    if left > 0 {
        // Telling how many are left also keeps two from both taking the other for the last.
        let message = format!("CustomResource deletion is in progress: {left} left");
        let since = definition["metadata"]["deletionTimestamp"].clone();
        set_condition(&mut definition, "Terminating", "True", DELETING, &message, &since);
        extra.changes.push(put(path, &definition));
        return;
    }
    names.retain(|name| name != CLEANUP);
    metadata(&mut definition).insert("finalizers".into(), json!(names));
    extra.changes.push(match names.is_empty() {
        true => Change::Remove { path, last: Some(encode::halves(&definition)) },
        false => put(path, &definition),
    });
}

fn put(path: Path, object: &Tree) -> Change {
    Change::Put { path, body: encode::halves(object), tags: encode::tags(&[], object).into() }
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
