//! StorageClass of `storage.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::{column, or};
use super::{Column, Faults, Kind, NAME, of};
use crate::tree::text;
use crate::{Tree, syntax, tree};

/// What the house knows of `storage.k8s.io/v1` StorageClass.
pub static KIND: Kind =
    Kind::new(of::STORAGE_CLASS, "StorageClass", "storageclass", "io.k8s.api.storage.v1.StorageClass")
        .short(&["sc"])
        .columns(COLUMNS)
        .filling(fill)
        .checking(check)
        .changing(change);

const COLUMNS: &[Column] = &[
    Column { cell: |object, _| name(object), ..NAME },
    column("Provisioner", |object, _| or(object, "provisioner", "")),
    column("ReclaimPolicy", |object, _| or(object, "reclaimPolicy", "")),
    column("VolumeBindingMode", |object, _| or(object, "volumeBindingMode", "")),
    column("AllowVolumeExpansion", |object, _| or(object, "allowVolumeExpansion", "false")),
];

fn fill(object: &mut Tree) {
    tree::fill(object, "reclaimPolicy", "Delete");
    tree::fill(object, "volumeBindingMode", "Immediate");
}

fn check(object: &Tree, faults: &mut Faults) {
    match text(object, "provisioner") {
        "" => faults.required("provisioner", ""),
        name => faults.each("provisioner", name, syntax::qualified_name(&name.to_lowercase())),
    }
    faults.one_of("reclaimPolicy", text(object, "reclaimPolicy"), &["Delete", "Retain"]);
    faults.one_of(
        "volumeBindingMode",
        text(object, "volumeBindingMode"),
        &["Immediate", "WaitForFirstConsumer"],
    );
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    for name in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
        if old[name] != new[name] {
            faults.forbidden(name, "updates to parameters are forbidden.");
        }
    }
}

fn is_default(object: &Tree) -> bool {
    let note = object["metadata"]["annotations"].get("storageclass.kubernetes.io/is-default-class");
    note.and_then(Tree::as_str) == Some("true")
}

fn name(object: &Tree) -> Tree {
    let name = text(object, "metadata.name");
    if is_default(object) { format!("{name} (default)").into() } else { name.into() }
}
