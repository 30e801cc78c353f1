//! Namespace of `v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{column, or};
use super::{Column, Kind, Part, of};
use crate::tree::{items, text};
use crate::{Tree, tree};

/// What the house knows of `v1` Namespace.
pub static KIND: Kind = Kind::new(of::NAMESPACE, "Namespace", "namespace", "io.k8s.api.core.v1.Namespace")
    .short(&["ns"])
    .parts(&[
        Part::Other { name: "finalize", kind: ("", "v1", "Namespace"), verbs: &["update"] },
        Part::Status,
    ])
    .columns(COLUMNS)
    .fields(&["status.phase"])
    .named(crate::syntax::dns1123_label)
    .filling(fill)
    .beginning(first)
    .continuing(next);

const COLUMNS: &[Column] = &[column("Status", |object, _| or(object, "status.phase", ""))];

/// Its label carries its name, and the API holds it until its contents are gone.
fn fill(object: &mut Tree) {
    let name = text(object, "metadata.name").to_owned();
    let meta = object.get_mut("metadata").filter(|_| !name.is_empty());
    if let Some(labels) = meta.and_then(|meta| tree::object(meta, "labels")) {
        tree::set(labels, "kubernetes.io/metadata.name", name);
    }
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({"phase": "Active"}));
    let Some(spec) = tree::object(object, "spec") else { return };
    let held = items(spec, "finalizers").iter().any(|name| name == "kubernetes");
    if !held {
        let mut finalizers = items(spec, "finalizers").to_vec();
        finalizers.push("kubernetes".into());
        tree::set(spec, "finalizers", finalizers);
    }
}

/// Who holds it is changed through `/finalize` alone.
fn next(old: &Tree, new: &mut Tree) {
    match old.get("spec") {
        Some(spec) => tree::set(new, "spec", spec.clone()),
        None => tree::remove(new, "spec"),
    }
}
