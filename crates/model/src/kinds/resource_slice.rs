//! ResourceSlice of `resource.k8s.io/v1`, `resource.k8s.io/v1beta2`, `resource.k8s.io/v1beta1`: its constants, and what its schema cannot say.

use super::table::{column, or, or_unset};
use super::{Column, Kind, of};
use crate::{Tree, tree};

/// What the house knows of `resource.k8s.io/v1` ResourceSlice.
pub static KIND: Kind =
    Kind::new(of::RESOURCE_SLICE, "ResourceSlice", "resourceslice", "io.k8s.api.resource.v1.ResourceSlice")
        .columns(COLUMNS)
        .fields(&["spec.nodeName", "spec.driver"])
        .counts();

/// What the house knows of `resource.k8s.io/v1beta2` ResourceSlice.
pub static V1BETA2: Kind = Kind::new(
    of::RESOURCE_SLICE_V1BETA2,
    "ResourceSlice",
    "resourceslice",
    "io.k8s.api.resource.v1beta2.ResourceSlice",
)
.columns(COLUMNS)
.fields(&["spec.nodeName", "spec.driver"])
.counts()
.stored_as(&super::RESOURCE_SLICE);

/// What the house knows of `resource.k8s.io/v1beta1` ResourceSlice.
pub static V1BETA1: Kind = Kind::new(
    of::RESOURCE_SLICE_V1BETA1,
    "ResourceSlice",
    "resourceslice",
    "io.k8s.api.resource.v1beta1.ResourceSlice",
)
.columns(COLUMNS)
.fields(&["spec.nodeName", "spec.driver"])
.counts()
.stored_as(&super::RESOURCE_SLICE)
.converting(to_stored, from_stored);

const COLUMNS: &[Column] = &[
    column("Node", |object, _| or_unset(object, "spec.nodeName")),
    column("Driver", |object, _| or(object, "spec.driver", "")),
    column("Pool", |object, _| or(object, "spec.pool.name", "")),
];

/// What `v1beta1` writes within a device's `basic`, the stored version writes beside its name.
fn to_stored(object: &mut Tree) {
    let Some(spec) = object.get_mut("spec") else { return };
    for device in tree::items_mut(spec, "devices").filter_map(Tree::as_object_mut) {
        if let Some(Tree::Object(inner)) = device.remove("basic") {
            device.extend(inner);
        }
    }
}

fn from_stored(object: &mut Tree) {
    let Some(spec) = object.get_mut("spec") else { return };
    for device in tree::items_mut(spec, "devices").filter_map(Tree::as_object_mut) {
        let names: Vec<String> = device.keys().filter(|name| *name != "name").cloned().collect();
        let inner: serde_json::Map<String, Tree> =
            names.into_iter().filter_map(|name| device.remove(&name).map(|value| (name, value))).collect();
        device.insert("basic".into(), inner.into());
    }
}
