//! ResourceClaim of `resource.k8s.io/v1`, `resource.k8s.io/v1beta2`, `resource.k8s.io/v1beta1`: its constants, and what its schema cannot say.

use super::table::{column, joined};
use super::{Column, Faults, Kind, Part, of};
use crate::tree::{is_set, is_there, text, whole};
use crate::{Tree, tree};

/// What the house knows of `resource.k8s.io/v1` ResourceClaim.
pub static KIND: Kind =
    Kind::new(of::RESOURCE_CLAIM, "ResourceClaim", "resourceclaim", "io.k8s.api.resource.v1.ResourceClaim")
        .namespaced()
        .parts(&[Part::Status])
        .columns(COLUMNS)
        .filling(fill)
        .changing(change);

/// What the house knows of `resource.k8s.io/v1beta2` ResourceClaim.
pub static V1BETA2: Kind = Kind::new(
    of::RESOURCE_CLAIM_V1BETA2,
    "ResourceClaim",
    "resourceclaim",
    "io.k8s.api.resource.v1beta2.ResourceClaim",
)
.namespaced()
.parts(&[Part::Status])
.columns(COLUMNS)
.filling(fill)
.changing(change)
.stored_as(&super::RESOURCE_CLAIM);

/// What the house knows of `resource.k8s.io/v1beta1` ResourceClaim.
pub static V1BETA1: Kind = Kind::new(
    of::RESOURCE_CLAIM_V1BETA1,
    "ResourceClaim",
    "resourceclaim",
    "io.k8s.api.resource.v1beta1.ResourceClaim",
)
.namespaced()
.parts(&[Part::Status])
.columns(COLUMNS)
.filling(fill_v1beta1)
.changing(change)
.stored_as(&super::RESOURCE_CLAIM)
.converting(to_stored, from_stored);

const COLUMNS: &[Column] = &[column("State", |object, _| state(object))];

fn fill(object: &mut Tree) {
    object.get_mut("spec").into_iter().for_each(fill_claim);
}

/// What a claim, or the template of one, leaves out.
pub(super) fn fill_claim(spec: &mut Tree) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in tree::items_mut(devices, "requests") {
        request.get_mut("exactly").into_iter().for_each(fill_request);
        tree::items_mut(request, "firstAvailable").for_each(fill_request);
    }
}

/// The older version's requests are what the stored one has within `exactly`.
fn fill_v1beta1(object: &mut Tree) {
    object.get_mut("spec").into_iter().for_each(fill_older_claim);
}

/// The same for the claim, or the template of one.
pub(super) fn fill_older_claim(spec: &mut Tree) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in tree::items_mut(devices, "requests") {
        if is_there(request, "firstAvailable") {
            tree::items_mut(request, "firstAvailable").for_each(fill_request);
        } else {
            fill_request(request);
        }
    }
}

fn fill_request(request: &mut Tree) {
    tree::fill(request, "allocationMode", "ExactCount");
    if text(request, "allocationMode") == "ExactCount" && whole(request, "count").unwrap_or(0) == 0 {
        tree::set(request, "count", 1);
    }
    tree::items_mut(request, "tolerations")
        .for_each(|toleration| tree::fill(toleration, "operator", "Equal"));
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("spec", &old["spec"], &new["spec"]);
}

/// What `v1beta1` writes beside a request's name, the stored version writes within `exactly`.
pub(super) fn to_stored(object: &mut Tree) {
    object.get_mut("spec").into_iter().for_each(claim_to_stored);
}

pub(super) fn from_stored(object: &mut Tree) {
    object.get_mut("spec").into_iter().for_each(claim_from_stored);
}

pub(super) fn claim_to_stored(spec: &mut Tree) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in tree::items_mut(devices, "requests").filter_map(Tree::as_object_mut) {
        if request.contains_key("firstAvailable") {
            continue;
        }
        let names: Vec<String> = request.keys().filter(|name| *name != "name").cloned().collect();
        let inner: serde_json::Map<String, Tree> =
            names.into_iter().filter_map(|name| request.remove(&name).map(|value| (name, value))).collect();
        request.insert("exactly".into(), inner.into());
    }
}

pub(super) fn claim_from_stored(spec: &mut Tree) {
    let Some(devices) = spec.get_mut("devices") else { return };
    for request in tree::items_mut(devices, "requests").filter_map(Tree::as_object_mut) {
        if let Some(Tree::Object(inner)) = request.remove("exactly") {
            request.extend(inner);
        }
    }
}

fn state(object: &Tree) -> Tree {
    let going = is_set(object, "metadata.deletionTimestamp");
    let allocated = is_there(object, "status.allocation");
    let reserved = allocated && is_set(object, "status.reservedFor");
    let words = [
        (going, "deleted"),
        (!going && !allocated, "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ];
    joined(words.iter().filter(|(yes, _)| *yes).map(|(_, word)| *word)).into()
}
