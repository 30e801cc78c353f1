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
    tree::object(object, "spec").into_iter().for_each(fill_claim);
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
