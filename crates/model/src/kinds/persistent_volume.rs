//! PersistentVolume of `v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{access_modes, column, or, or_unset, wide};
use super::{Column, Faults, Kind, Part, of};
use crate::tree::{entries, is_set, is_there, items, text};
use crate::{Tree, tree};

/// What the house knows of `v1` PersistentVolume.
pub static KIND: Kind = Kind::new(
    of::PERSISTENT_VOLUME,
    "PersistentVolume",
    "persistentvolume",
    "io.k8s.api.core.v1.PersistentVolume",
)
.short(&["pv"])
.parts(&[Part::Status])
.columns(COLUMNS)
.filling(fill)
.checking(check)
.changing(change)
.beginning(first);

const COLUMNS: &[Column] = &[
    column("Capacity", |object, _| or(object, "spec.capacity.storage", "0")),
    column("Access Modes", |object, _| access_modes(object, "spec.accessModes")),
    column("Reclaim Policy", |object, _| or(object, "spec.persistentVolumeReclaimPolicy", "")),
    column("Status", |object, _| phase(object)),
    column("Claim", |object, _| claim(object)),
    column("StorageClass", |object, _| or(object, "spec.storageClassName", "")),
    column("VolumeAttributesClass", |object, _| or_unset(object, "spec.volumeAttributesClassName")),
    column("Reason", |object, _| or(object, "status.reason", "")),
    wide("VolumeMode", |object, _| or_unset(object, "spec.volumeMode")),
];

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "persistentVolumeReclaimPolicy", "Retain");
    tree::fill(spec, "volumeMode", "Filesystem");
    spec.get_mut("hostPath").into_iter().for_each(|path| tree::fill(path, "type", ""));
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({"phase": "Pending"}));
}

fn check(object: &Tree, faults: &mut Faults) {
    check_access_modes(object, "spec.accessModes", faults);
    if !is_there(object, "spec.capacity.storage") {
        faults.required("spec.capacity", "");
    }
    let policies = &["Retain", "Delete", "Recycle"];
    faults.one_of(
        "spec.persistentVolumeReclaimPolicy",
        text(object, "spec.persistentVolumeReclaimPolicy"),
        policies,
    );
    const OTHERS: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let sources = entries(object, "spec").filter(|(name, _)| !OTHERS.contains(name)).count();
    match sources {
        0 => faults.required("spec", "must specify a volume type"),
        1 => {}
        _ => faults.forbidden("spec", "may not specify more than 1 volume type"),
    }
    if is_there(object, "spec.local") && !is_there(object, "spec.nodeAffinity") {
        faults.required("spec.nodeAffinity", "Local volume requires node affinity");
    }
}

/// A volume has at least one access mode, each of them known.
pub(super) fn check_access_modes(object: &Tree, path: &str, faults: &mut Faults) {
    const MODES: &[&str] = &["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];
    let modes = items(object, path);
    if modes.is_empty() {
        faults.required(path, "at least 1 access mode is required");
    }
    modes.iter().filter_map(Tree::as_str).for_each(|mode| faults.one_of(path, mode, MODES));
    if modes.len() > 1 && modes.iter().any(|mode| mode == "ReadWriteOncePod") {
        faults.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("spec.volumeMode", &old["spec"]["volumeMode"], &new["spec"]["volumeMode"]);
    const MAY: [&str; 9] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let source = |object: &Tree| -> Vec<(String, Tree)> {
        let kept = entries(object, "spec").filter(|(name, _)| !MAY.contains(name));
        kept.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    };
    if source(old) != source(new) {
        faults.forbidden(
            "spec.persistentvolumesource",
            "spec.persistentvolumesource is immutable after creation",
        );
    }
}

fn claim(object: &Tree) -> Tree {
    if !is_there(object, "spec.claimRef") {
        return "".into();
    }
    format!("{}/{}", text(object, "spec.claimRef.namespace"), text(object, "spec.claimRef.name")).into()
}

/// What a volume or a claim shows as its state.
pub(super) fn phase(object: &Tree) -> Tree {
    if is_set(object, "metadata.deletionTimestamp") {
        "Terminating".into()
    } else {
        or(object, "status.phase", "")
    }
}
