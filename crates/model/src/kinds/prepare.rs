//! What the API itself writes when an object is created or changed: who owns the status, and how generations count.

use super::{Kind, Part};
use crate::Tree;
use crate::tree::{remove, set, whole};

/// Makes an object that is about to be created begin at its beginning: no status but the kind's first one,
/// generation 1 where generations are counted. Comes before defaults.
pub fn prepare_create(kind: &Kind, object: &mut Tree) {
    if kind.parts.contains(&Part::Status) && !kind.keeps_status {
        remove(object, "status");
    }
    if let Some(meta) = object.get_mut("metadata") {
        remove(meta, "generation");
        if kind.counts {
            set(meta, "generation", 1);
        }
    }
    (kind.first)(object);
}

/// Makes a changed object keep what only `/status` may change, and counts its generation.
pub fn prepare_update(kind: &Kind, old: &Tree, new: &mut Tree) {
    if kind.parts.contains(&Part::Status) {
        keep(old, new, "status");
    }
    (kind.next)(old, new);
    let generation = whole(old, "metadata.generation").unwrap_or(0);
    let grows = kind.counts && is_other_intent(kind, old, new);
    set_generation(new, generation + i64::from(grows));
}

/// Makes an object that came to `/status` keep everything but its status and its metadata.
pub fn prepare_status(old: &Tree, new: &mut Tree) {
    let names = |tree: &Tree| {
        tree.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    for name in names(old).into_iter().chain(names(new)) {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status") {
            keep(old, new, &name);
        }
    }
    set_generation(new, whole(old, "metadata.generation").unwrap_or(0));
    if let Some(meta) = new.get_mut("metadata") {
        for name in ["ownerReferences", "finalizers", "deletionTimestamp"] {
            keep(&old["metadata"], meta, name);
        }
    }
}

fn set_generation(object: &mut Tree, generation: i64) {
    let Some(meta) = object.get_mut("metadata") else { return };
    match generation {
        0 => remove(meta, "generation"),
        _ => set(meta, "generation", generation),
    }
}

/// Whether anything differs that its author wants, as opposed to what is observed.
fn is_other_intent(kind: &Kind, old: &Tree, new: &Tree) -> bool {
    let intent = |tree: &Tree| -> Vec<(String, Tree)> {
        let fields = tree.as_object().into_iter().flatten();
        let wanted = fields
            .filter(|(name, _)| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
        wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let notes = |tree: &Tree| tree["metadata"]["annotations"].clone();
    intent(old) != intent(new) || (kind.counts_annotations && notes(old) != notes(new))
}

fn keep(old: &Tree, new: &mut Tree, name: &str) {
    match old.get(name) {
        Some(value) => set(new, name, value.clone()),
        None => remove(new, name),
    }
}
