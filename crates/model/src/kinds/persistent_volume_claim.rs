//! PersistentVolumeClaim of `v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::persistent_volume::{check_access_modes, phase};
use super::table::{access_modes, column, or, or_unset, wide};
use super::{Column, Faults, Kind, Part, check_selector, of};
use crate::tree::{at, is_set, is_there, text};
use crate::{Quantity, Tree, tree};

/// What the house knows of `v1` PersistentVolumeClaim.
pub static KIND: Kind = Kind::new(
    of::PERSISTENT_VOLUME_CLAIM,
    "PersistentVolumeClaim",
    "persistentvolumeclaim",
    "io.k8s.api.core.v1.PersistentVolumeClaim",
)
.short(&["pvc"])
.namespaced()
.parts(&[Part::Status])
.columns(COLUMNS)
.filling(fill)
.checking(check)
.changing(change)
.beginning(first);

const COLUMNS: &[Column] = &[
    column("Status", |object, _| phase(object)),
    column("Volume", |object, _| or(object, "spec.volumeName", "")),
    column("Capacity", |object, _| capacity(object)),
    column("Access Modes", |object, _| modes(object)),
    column("StorageClass", |object, _| or(object, "spec.storageClassName", "")),
    column("VolumeAttributesClass", |object, _| or_unset(object, "spec.volumeAttributesClassName")),
    wide("VolumeMode", |object, _| or_unset(object, "spec.volumeMode")),
];

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    fill_claim(spec);
    begin_with(spec);
}

/// What a volume begins with is said in two fields, which agree where both can say it.
fn begin_with(spec: &mut Tree) {
    let source = &spec["dataSource"];
    let known = match text(source, "apiGroup") {
        "" => text(source, "kind") == "PersistentVolumeClaim",
        group => group == "snapshot.storage.k8s.io" && text(source, "kind") == "VolumeSnapshot",
    };
    if !source.is_null() && !known {
        // The older field takes these two kinds alone.
        tree::remove(spec, "dataSource");
    }
    let (source, reference) = (spec["dataSource"].clone(), spec["dataSourceRef"].clone());
    if reference.is_null() && !source.is_null() {
        tree::set(spec, "dataSourceRef", source);
    } else if source.is_null() && !reference.is_null() && text(&reference, "namespace").is_empty() {
        tree::set(spec, "dataSource", reference);
    }
}

/// What a claim, or the template of one, leaves out.
pub(super) fn fill_claim(spec: &mut Tree) {
    tree::fill(spec, "volumeMode", "Filesystem");
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({"phase": "Pending"}));
}

fn check(object: &Tree, faults: &mut Faults) {
    check_claim(&object["spec"], "spec", faults);
}

/// May a claim, or the template of one, ask for this?
pub(super) fn check_claim(spec: &Tree, field: &str, faults: &mut Faults) {
    let mut own = Faults::default();
    check_access_modes(spec, "accessModes", &mut own);
    faults.0.extend(
        own.0.into_iter().map(|fault| super::Fault { field: format!("{field}.{}", fault.field), ..fault }),
    );
    match at(spec, "resources.requests.storage").as_str().map(str::parse::<Quantity>) {
        Some(Ok(amount)) if amount > Quantity::ZERO => {}
        Some(_) => {
            let asked = at(spec, "resources.requests.storage").clone();
            faults.invalid(format!("{field}.resources.requests.storage"), asked, "must be greater than zero");
        }
        None => faults.required(format!("{field}.resources[storage]"), ""),
    }
    if !matches!(text(spec, "volumeMode"), "" | "Filesystem" | "Block") {
        faults.not_supported(
            format!("{field}.volumeMode"),
            text(spec, "volumeMode"),
            &["Block", "Filesystem"],
        );
    }
    check_selector(&spec["selector"], &format!("{field}.selector"), faults);
}

/// Once made, a claim may grow, be bound, and change its attributes' class; nothing else of it changes.
fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    let rest = |object: &Tree| {
        let mut spec = object["spec"].clone();
        tree::remove(&mut spec, "volumeAttributesClassName");
        if !is_set(old, "spec.volumeName") {
            tree::remove(&mut spec, "volumeName");
        }
        if !is_there(old, "spec.storageClassName") {
            tree::remove(&mut spec, "storageClassName");
        }
        if let Some(requests) = spec.get_mut("resources").and_then(|resources| resources.get_mut("requests"))
        {
            tree::remove(requests, "storage");
        }
        spec
    };
    if rest(old) != rest(new) {
        let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        faults.forbidden("spec", detail);
    }
    let asked =
        |object| text(object, "spec.resources.requests.storage").parse::<Quantity>().unwrap_or_default();
    if asked(new) < asked(old) {
        let detail = "field can not be less than previous value";
        faults.forbidden("spec.resources.requests.storage", detail);
    }
}

fn capacity(object: &Tree) -> Tree {
    if is_set(object, "spec.volumeName") { or(object, "status.capacity.storage", "0") } else { "".into() }
}

fn modes(object: &Tree) -> Tree {
    if is_set(object, "spec.volumeName") { access_modes(object, "status.accessModes") } else { "".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_volume_begins_with_is_said_in_both_fields_where_both_can_say_it() {
        let check = |spec: Tree, source: Tree, reference: Tree| {
            let mut claim = json!({ "spec": spec.clone() });
            fill(&mut claim);
            let said = (claim["spec"]["dataSource"].clone(), claim["spec"]["dataSourceRef"].clone());
            assert_eq!(said, (source, reference), "{spec}");
        };
        let none = Tree::Null;
        let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
        check(json!({"dataSource": snapshot}), snapshot.clone(), snapshot.clone());
        check(json!({"dataSourceRef": snapshot}), snapshot.clone(), snapshot.clone());
        let other = json!({"apiGroup": "example.com", "kind": "Backup", "name": "b"});
        check(json!({"dataSource": other}), none.clone(), none.clone());
        check(json!({"dataSourceRef": other}), other.clone(), other.clone());
        let afar = json!({"kind": "PersistentVolumeClaim", "name": "c", "namespace": "elsewhere"});
        check(json!({"dataSourceRef": afar}), none, afar.clone());
    }
}
