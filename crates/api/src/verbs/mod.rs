//! What a verb makes of an object: pure functions of the old object, the request and the time.
//!
//! They never read or write anything; the service reads, calls one of them, admits what it says and commits that at the
//! revision that was read.

pub mod bind;
pub mod create;
pub mod delete;
pub mod evict;
pub mod part;
pub mod scale;
pub mod update;

use jiff::tz::TimeZone;
use model::{Time, Tree};
use serde_json::{Map, Value};

use crate::refusal::{About, Refusal};

/// What is drawn from outside for one attempt at a write.
#[derive(Debug, Clone)]
pub struct Drawn {
    /// The time.
    pub now: Time,
    /// A new uid.
    pub uid: String,
    /// Five characters for `generateName`.
    pub suffix: String,
}

/// What is to be stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// This object.
    Put(Tree),
    /// Nothing: it is stored like this already.
    Keep(Tree),
    /// Nothing any more; watchers see this go.
    Remove(Tree),
}

/// A time as `metadata` carries it, to the second.
pub fn stamp(time: Time) -> Value {
    Value::String(time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A time that `metadata` carries.
pub fn read_stamp(value: &Value) -> Option<Time> {
    value.as_str()?.parse().ok()
}

/// The metadata of an object; put there when it is missing.
pub fn metadata(object: &mut Tree) -> &mut Map<String, Value> {
    child(object, "metadata")
}

/// An object in an object by name; put there when it is missing or is none.
pub fn child<'a>(object: &'a mut Tree, name: &str) -> &'a mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let Value::Object(map) = object else { unreachable!("made an object just above") };
    let slot = map.entry(name).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    let Value::Object(inner) = slot else { unreachable!("made an object just above") };
    inner
}

/// A text in the metadata; empty when it is missing.
pub fn meta<'a>(object: &'a Tree, name: &str) -> &'a str {
    object["metadata"][name].as_str().unwrap_or_default()
}

/// The finalizers of an object.
pub fn finalizers(object: &Tree) -> Vec<&str> {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Whether the deletion of an object was asked for.
pub fn is_ending(object: &Tree) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Copies one member from an object to another, or its absence.
pub fn carry(from: &Map<String, Value>, to: &mut Map<String, Value>, name: &str) {
    match from.get(name) {
        Some(value) => {
            to.insert(name.to_owned(), value.clone());
        }
        None => {
            to.remove(name);
        }
    }
}

/// Refuses when a uid or revision that the caller asks for is not that of the object.
pub fn check_preconditions(about: &About, old: &Tree, wanted: &Tree) -> Result<(), Refusal> {
    let pairs = [("uid", "UID"), ("resourceVersion", "ResourceVersion")];
    for (field, word) in pairs {
        let (wanted, actual) = (wanted[field].as_str().unwrap_or_default(), meta(old, field));
        if !wanted.is_empty() && wanted != actual {
            let why = format!(
                "the {word} in the precondition ({wanted}) does not match the {word} in record ({actual}). The object might have been deleted and then recreated"
            );
            return Err(Refusal::conflict(about, why));
        }
    }
    Ok(())
}
