//! Who manages which fields: `metadata.managedFields`, kept on every write. Pure.

use model::schema::{Schema, Shape};
use model::{Time, Tree};
use serde_json::{Map, Value};

use super::owned::Fields;

/// Update managers kept apart on one object; the oldest beyond them become one (as upstream's `ancient-changes`).
const UPDATE_MANAGERS_MAX: usize = 10;
/// The manager into which the oldest ones are folded.
const ANCIENT: &str = "ancient-changes";

/// Who writes, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// Its name: `fieldManager`, or what precedes the slash of the user agent.
    pub name: String,
    /// Whether it applies (server-side apply) or updates.
    pub applies: bool,
    /// The version in which it writes.
    pub api_version: String,
    /// The part through which it writes; empty for the object itself.
    pub part: String,
}

/// One entry of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Who.
    pub manager: Manager,
    /// When it last changed what it owns; as it is written.
    pub time: Value,
    /// What it owns.
    pub fields: Fields,
}

impl Manager {
    /// An entry of `managedFields`: what it owns, and since when.
    fn entry(&self, time: Value, fields: Value) -> Value {
        let mut entry = Map::new();
        entry.insert("manager".into(), self.name.as_str().into());
        entry.insert("operation".into(), if self.applies { "Apply" } else { "Update" }.into());
        entry.insert("apiVersion".into(), self.api_version.as_str().into());
        entry.insert("fieldsType".into(), "FieldsV1".into());
        entry.insert("fieldsV1".into(), fields);
        if !time.is_null() {
            entry.insert("time".into(), time);
        }
        if !self.part.is_empty() {
            entry.insert("subresource".into(), self.part.as_str().into());
        }
        Value::Object(entry)
    }

    fn is(&self, other: &Manager) -> bool {
        self.name == other.name
            && self.applies == other.applies
            && self.part == other.part
            && (self.applies || self.api_version == other.api_version)
    }
}

/// Reads the entries of an object.
pub fn read(object: &Tree) -> Vec<Entry> {
    let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries
        .map(|entry| Entry {
            manager: Manager {
                name: text(entry, "manager"),
                applies: entry["operation"] == "Apply",
                api_version: text(entry, "apiVersion"),
                part: text(entry, "subresource"),
            },
            time: entry["time"].clone(),
            fields: Fields::from_v1(&entry["fieldsV1"]),
        })
        .collect()
}

/// Writes the entries into an object, appliers first; none leaves no trace.
pub fn write(object: &mut Tree, entries: &[Entry]) {
    let (appliers, updaters): (Vec<&Entry>, Vec<&Entry>) =
        entries.iter().filter(|entry| !entry.fields.is_empty()).partition(|entry| entry.manager.applies);
    let written: Vec<Value> = appliers.into_iter().chain(updaters).map(Entry::written).collect();
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if written.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), Value::Array(written));
    }
}

impl Entry {
    fn written(&self) -> Value {
        self.manager.entry(self.time.clone(), self.fields.to_v1())
    }
}

/// Notes the creation of an object, when it was no apply: all of it is the manager's.
pub fn note_creation(schema: &Schema, shape: &Shape, new: &mut Tree, manager: &Manager, now: Time) {
    let fields = Fields::v1_of_object(schema, shape, new);
    let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if fields.as_object().is_none_or(Map::is_empty) {
        metadata.remove("managedFields");
    } else {
        let entry = manager.entry(crate::verbs::stamp(now), fields);
        metadata.insert("managedFields".into(), Value::Array(vec![entry]));
    }
}

/// Notes a change that is no apply: what `new` changes against `old` is the manager's from now on, and nobody else's.
///
/// `new` may carry `managedFields` of its own, where it is the object itself that is written and no part of it: an empty list
/// (with or without an empty entry) resets them, and others take the place of those that were, before what changed is noted.
/// Who moves an object from client-side to server-side apply relies on it. What is no list of managers counts as left out.
pub fn note_update(schema: &Schema, shape: &Shape, old: &Tree, new: &mut Tree, manager: &Manager, now: Time) {
    let is_whole = manager.part.is_empty();
    let resets = is_whole && is_reset(new);
    let mut entries = match resets {
        true => Vec::new(),
        false if is_whole && says_who(new) => read(new),
        false => read(old),
    };
    let (changed, removed) = Fields::difference(schema, shape, old, new);
    if !resets {
        take(&mut entries, manager, changed, &removed, now);
        fold_oldest(&mut entries);
    }
    write(new, &entries);
}

/// A client empties `managedFields` by sending `[]` or `[{}]` (upstream's rule).
fn is_reset(object: &Tree) -> bool {
    object["metadata"]["managedFields"].as_array().is_some_and(|list| match list.as_slice() {
        [] => true,
        [only] => only.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    })
}

/// Whether an object's `managedFields` name managers, and all of them well.
fn says_who(object: &Tree) -> bool {
    let entries = object["metadata"]["managedFields"].as_array();
    entries.is_some_and(|entries| {
        !entries.is_empty()
            && entries.iter().all(|entry| {
                matches!(entry["operation"].as_str(), Some("Apply" | "Update"))
                    && entry["fieldsType"] == "FieldsV1"
                    && entry["fieldsV1"].is_object()
            })
    })
}

/// Moves `changed` to `manager`, and takes both from all others.
fn take(entries: &mut Vec<Entry>, manager: &Manager, changed: Fields, removed: &Fields, now: Time) {
    for entry in entries.iter_mut() {
        let mut left = entry.fields.minus(removed);
        if !entry.manager.is(manager) {
            left = left.minus(&changed);
        }
        entry.fields = left;
    }
    if !changed.is_empty() {
        let stamp = crate::verbs::stamp(now);
        match entries.iter_mut().find(|entry| entry.manager.is(manager)) {
            Some(entry) => {
                entry.fields = std::mem::take(&mut entry.fields).union(&changed);
                entry.time = stamp;
            }
            None => entries.push(Entry { manager: manager.clone(), time: stamp, fields: changed }),
        }
    }
    entries.retain(|entry| !entry.fields.is_empty());
}

fn fold_oldest(entries: &mut Vec<Entry>) {
    let updaters = |entries: &[Entry]| entries.iter().filter(|entry| !entry.manager.applies).count();
    while updaters(entries) > UPDATE_MANAGERS_MAX {
        let oldest = |entries: &[Entry]| {
            let named = entries.iter().enumerate().filter(|(_, entry)| !entry.manager.applies);
            let named = named.filter(|(_, entry)| entry.manager.name != ANCIENT);
            named
                .min_by_key(|(_, entry)| entry.time.as_str().unwrap_or_default().to_owned())
                .map(|(at, _)| at)
        };
        let Some(at) = oldest(entries) else { return };
        let mut folded = entries.remove(at);
        folded.manager.name = ANCIENT.into();
        match entries.iter_mut().find(|entry| entry.manager.name == ANCIENT) {
            Some(entry) => entry.fields = std::mem::take(&mut entry.fields).union(&folded.fields),
            None => entries.push(folded),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::schema::builtin;
    use serde_json::json;

    use super::*;

    fn shape() -> Shape {
        Shape::Object(builtin().type_named("io.k8s.api.core.v1.ConfigMap").expect("a published type"))
    }

    fn manager(name: &str) -> Manager {
        Manager { name: name.into(), applies: false, api_version: "v1".into(), part: String::new() }
    }

    fn at(second: i64) -> Time {
        Time::from_second(second).expect("in range")
    }

    fn owned(object: &Tree) -> Vec<(String, Vec<String>)> {
        read(object).into_iter().map(|entry| (entry.manager.name, entry.fields.paths())).collect()
    }

    #[test]
    fn a_writer_owns_what_it_changes_and_others_lose_it() {
        let mut first = json!({"metadata": {"name": "a"}, "data": {"x": "1", "y": "1"}});
        note_creation(builtin(), &shape(), &mut first, &manager("ann"), at(1));
        let mut second = first.clone();
        second["data"] = json!({"x": "2", "z": "1"});
        note_update(builtin(), &shape(), &first, &mut second, &manager("bob"), at(2));
        assert_eq!(owned(&first), [("ann".into(), vec![".data.x".into(), ".data.y".into()])]);
        assert_eq!(owned(&second), [("bob".to_owned(), vec![".data.x".to_owned(), ".data.z".to_owned()])]);
    }

    #[test]
    fn an_empty_list_resets_and_an_unchanged_write_changes_nothing() {
        let mut first = json!({"metadata": {"name": "a"}, "data": {"x": "1"}});
        note_creation(builtin(), &shape(), &mut first, &manager("ann"), at(1));
        let mut same = first.clone();
        note_update(builtin(), &shape(), &first, &mut same, &manager("bob"), at(2));
        assert_eq!(same, first);
        same["metadata"]["managedFields"] = json!([]);
        note_update(builtin(), &shape(), &first, &mut same, &manager("bob"), at(2));
        assert!(same["metadata"].get("managedFields").is_none());
    }

    #[test]
    fn who_writes_an_object_may_say_who_manages_it_and_who_writes_a_part_may_not() {
        let mut first = json!({"metadata": {"name": "a"}, "data": {"x": "1", "y": "1"}});
        note_creation(builtin(), &shape(), &mut first, &manager("kubectl-client-side-apply"), at(1));
        let check = |entries: Tree, part: &str, wanted: &[&str]| {
            let mut second = first.clone();
            second["metadata"]["managedFields"] = entries;
            second["data"]["z"] = json!("1");
            let writer = Manager { part: part.into(), ..manager("kubectl") };
            note_update(builtin(), &shape(), &first, &mut second, &writer, at(2));
            let told: Vec<String> = read(&second)
                .iter()
                .map(|entry| format!("{} {}", entry.manager.name, entry.fields.paths().join(" ")))
                .collect();
            assert_eq!(told, wanted);
        };
        let moved = |operation: &str| {
            json!([{"manager": "ann", "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:data": {"f:x": {}, "f:y": {}}}}])
        };
        check(moved("Apply"), "", &["ann .data.x .data.y", "kubectl .data.z"]);
        let before = ["kubectl-client-side-apply .data.x .data.y", "kubectl .data.z"];
        check(moved("Apply"), "status", &before);
        check(json!([]), "status", &before);
        check(moved("Guess"), "", &before);
    }

    #[test]
    fn old_writers_are_folded_into_one() {
        let mut object = json!({"metadata": {"name": "a"}, "data": {}});
        for writer in 0..15 {
            let old = object.clone();
            object["data"][format!("k{writer:02}")] = json!("1");
            note_update(builtin(), &shape(), &old, &mut object, &manager(&format!("w{writer}")), at(writer));
        }
        let names: Vec<String> = owned(&object).into_iter().map(|(name, _)| name).collect();
        assert_eq!((names.len(), names.iter().filter(|name| *name == ANCIENT).count()), (10, 1));
    }
}
