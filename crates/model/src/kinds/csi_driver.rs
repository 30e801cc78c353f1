//! CSIDriver of `storage.k8s.io/v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{column, joined, or, or_unset};
use super::{Column, Kind, of};
use crate::tree::{is_set, items};
use crate::{Tree, tree};

/// What the house knows of `storage.k8s.io/v1` CSIDriver.
pub static KIND: Kind =
    Kind::new(of::CSI_DRIVER, "CSIDriver", "csidriver", "io.k8s.api.storage.v1.CSIDriver")
        .columns(COLUMNS)
        .filling(fill);

const COLUMNS: &[Column] = &[
    column("AttachRequired", |object, _| or(object, "spec.attachRequired", "true")),
    column("PodInfoOnMount", |object, _| or(object, "spec.podInfoOnMount", "false")),
    column("StorageCapacity", |object, _| or(object, "spec.storageCapacity", "false")),
    column("TokenRequests", |object, _| or_unset(object, "spec.tokenRequests.0.audience")),
    column("RequiresRepublish", |object, _| or(object, "spec.requiresRepublish", "false")),
    column("Modes", |object, _| {
        joined(items(object, "spec.volumeLifecycleModes").iter().filter_map(Tree::as_str)).into()
    }),
];

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "attachRequired", true);
    for name in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
        tree::fill(spec, name, false);
    }
    tree::fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    if !is_set(spec, "volumeLifecycleModes") {
        tree::set(spec, "volumeLifecycleModes", json!(["Persistent"]));
    }
}
