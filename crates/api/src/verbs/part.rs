//! Subresources that are parts of the object itself: which members a write through one of them may change.

use model::Tree;
use serde_json::{Map, Value};

use super::{carry, child};
use crate::registry::Resource;

/// Takes from `old` all that a write through `part` may not change.
pub fn limit(resource: &Resource, old: &Tree, new: &mut Tree, part: &str) {
    match part {
        "" => keep_from(old, new, if resource.status { &["status"] } else { &[] }),
        "status" => only(old, new, &["status"]),
        "approval" => only(old, new, &["status"]),
        "finalize" => only_within(old, new, "spec", &["finalizers"]),
        "ephemeralcontainers" => only_within(old, new, "spec", &["ephemeralContainers"]),
        "resize" => only_within(old, new, "spec", &["containers", "initContainers"]),
        _ => {}
    }
}

fn keep_from(old: &Tree, new: &mut Tree, names: &[&str]) {
    let empty = Map::new();
    let from = old.as_object().unwrap_or(&empty);
    if let Value::Object(to) = new {
        names.iter().for_each(|name| carry(from, to, name));
    }
}

/// Leaves of `new` the metadata and these members; the rest is as in `old`.
fn only(old: &Tree, new: &mut Tree, names: &[&str]) {
    let (Some(from), Value::Object(to)) = (old.as_object(), new) else { return };
    let mine = |name: &str| names.contains(&name) || matches!(name, "metadata" | "apiVersion" | "kind");
    to.retain(|name, _| mine(name));
    for (name, value) in from.iter().filter(|(name, _)| !mine(name)) {
        to.insert(name.clone(), value.clone());
    }
}

/// Leaves of `new` the metadata and these members of one member.
fn only_within(old: &Tree, new: &mut Tree, outer: &str, names: &[&str]) {
    let mut made = old.clone();
    made["metadata"] = new["metadata"].clone();
    within(new, &mut made, outer, names);
    *new = made;
}

/// Takes members of one member of `from` into that of `to`.
fn within(from: &Tree, to: &mut Tree, outer: &str, names: &[&str]) {
    let empty = Map::new();
    let inner = from[outer].as_object().unwrap_or(&empty);
    if inner.is_empty() && to[outer].is_null() {
        return;
    }
    let to = child(to, outer);
    names.iter().for_each(|name| carry(inner, to, name));
}
