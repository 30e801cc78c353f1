//! CustomResourceDefinitions are told at once whether their names are theirs, and served from then on.

use model::tree::{items, text};
use model::{Key, Time, Tree, World, kinds};
use serde_json::{Value, json};
use store::Expect;

use super::{Asked, Extra, Operation};
use crate::refusal::{Reason, Refusal};
use crate::registry::{Meaning, Resource};
use crate::verbs::delete::{self, DeleteOptions};
use crate::verbs::{Verdict, child, finalizers, is_ending, meta, metadata, stamp};
use crate::view::path_of;

/// The finalizer that holds a definition while there are objects of it; its controller deletes them and takes it away.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// What the condition `Terminating` says of a definition whose objects are to be deleted.
const PENDING: &str = "InstanceDeletionPending";
/// What it says when they are gone.
const COMPLETED: &str = "InstanceDeletionCompleted";

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

/// Refuses schemas that could not be held to, and word that all objects are gone while some are left.
pub fn judge(asked: &Asked<'_>, object: &Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    check_completed(asked, object)?;
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

/// That all objects of a definition are gone must be so in the store. It stays so: none is made while it ends, and what was made
/// before it ended is seen by whoever sees that it ends.
fn check_completed(asked: &Asked<'_>, object: &Tree) -> Result<(), Refusal> {
    let completed = |definition: &Tree| {
        let mut conditions = items(definition, "status.conditions").iter();
        conditions.any(|condition| condition["type"] == "Terminating" && condition["reason"] == COMPLETED)
    };
    let Some(old) = asked.old.filter(|_| asked.resource.is(&kinds::CUSTOM_RESOURCE_DEFINITION)) else {
        return Ok(());
    };
    if !completed(object) || completed(old) {
        return Ok(());
    }
    match objects_of(old, asked.world) {
        0 => Ok(()),
        left => Err(Refusal::conflict(
            &asked.resource.about(meta(object, "name")),
            format!("{left} instances are left"),
        )),
    }
}

/// Refuses new objects of a definition that is going; those of one that stays are made while it is as it was seen.
pub fn admit(asked: &Asked<'_>, _object: &mut Tree, extra: &mut Extra) -> Result<(), Refusal> {
    if !matches!(&asked.resource.meaning, Meaning::Custom(_)) || asked.operation != Operation::Create {
        return Ok(());
    }
    let gvr = &asked.resource.gvr;
    let key = Key::new(&kinds::CUSTOM_RESOURCE_DEFINITION, "", format!("{}.{}", gvr.plural, gvr.group));
    let Some(definition) = asked.world.get(&key) else { return Err(Refusal::no_such_path()) };
    if definition.is_ending() {
        let why = "create not allowed while custom resource definition is terminating";
        return Err(Refusal::new(Reason::MethodNotAllowed, why));
    }
    extra.expect.push((path_of(&key).into(), Expect::At(definition.revision())));
    Ok(())
}

/// A definition that has objects stays until its controller has deleted them.
pub fn end(resource: &Resource, old: &Tree, verdict: Verdict, world: &dyn World, now: Time) -> Verdict {
    let is_asked = resource.is(&kinds::CUSTOM_RESOURCE_DEFINITION) && !is_ending(old);
    if !is_asked || objects_of(old, world) == 0 {
        return verdict;
    }
    let hold = |definition: &mut Tree| {
        let mut held: Vec<String> = finalizers(definition).into_iter().map(str::to_owned).collect();
        held.push(CLEANUP.to_owned());
        metadata(definition).insert("finalizers".into(), json!(held));
        let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        set_condition(definition, "Terminating", "True", PENDING, message, &stamp(now));
    };
    match verdict {
        Verdict::Put(mut ending) => {
            hold(&mut ending);
            Verdict::Put(ending)
        }
        Verdict::Remove(last) => {
            let mut held = old.clone();
            hold(&mut held);
            delete::delete(resource, &held, &DeleteOptions::default(), now).unwrap_or(Verdict::Remove(last))
        }
        keep @ Verdict::Keep(_) => keep,
    }
}

/// How many objects of a definition there are, whatever versions are served.
fn objects_of(definition: &Tree, world: &dyn World) -> usize {
    crate::custom::stored(definition).map_or(0, |stored| world.list(&stored, "").len())
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
