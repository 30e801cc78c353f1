//! ResourceClaimTemplate of `resource.k8s.io/v1`, `resource.k8s.io/v1beta2`, `resource.k8s.io/v1beta1`: its constants, and what its schema cannot say.

use super::{Faults, Kind, of};
use crate::Tree;

/// What the house knows of `resource.k8s.io/v1` ResourceClaimTemplate.
pub static KIND: Kind = Kind::new(
    of::RESOURCE_CLAIM_TEMPLATE,
    "ResourceClaimTemplate",
    "resourceclaimtemplate",
    "io.k8s.api.resource.v1.ResourceClaimTemplate",
)
.namespaced()
.filling(fill)
.changing(change);

/// What the house knows of `resource.k8s.io/v1beta2` ResourceClaimTemplate.
pub static V1BETA2: Kind = Kind::new(
    of::RESOURCE_CLAIM_TEMPLATE_V1BETA2,
    "ResourceClaimTemplate",
    "resourceclaimtemplate",
    "io.k8s.api.resource.v1beta2.ResourceClaimTemplate",
)
.namespaced()
.filling(fill)
.changing(change)
.stored_as(&super::RESOURCE_CLAIM_TEMPLATE);

/// What the house knows of `resource.k8s.io/v1beta1` ResourceClaimTemplate.
pub static V1BETA1: Kind = Kind::new(
    of::RESOURCE_CLAIM_TEMPLATE_V1BETA1,
    "ResourceClaimTemplate",
    "resourceclaimtemplate",
    "io.k8s.api.resource.v1beta1.ResourceClaimTemplate",
)
.namespaced()
.filling(fill_v1beta1)
.changing(change)
.stored_as(&super::RESOURCE_CLAIM_TEMPLATE)
.converting(to_stored, from_stored);

fn fill(object: &mut Tree) {
    let claim = object.get_mut("spec").and_then(|spec| spec.get_mut("spec"));
    claim.into_iter().for_each(super::resource_claim::fill_claim);
}

fn fill_v1beta1(object: &mut Tree) {
    let claim = object.get_mut("spec").and_then(|spec| spec.get_mut("spec"));
    claim.into_iter().for_each(super::resource_claim::fill_older_claim);
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("spec", &old["spec"], &new["spec"]);
}

fn to_stored(object: &mut Tree) {
    let claim = object.get_mut("spec").and_then(|spec| spec.get_mut("spec"));
    claim.into_iter().for_each(super::resource_claim::claim_to_stored);
}

fn from_stored(object: &mut Tree) {
    let claim = object.get_mut("spec").and_then(|spec| spec.get_mut("spec"));
    claim.into_iter().for_each(super::resource_claim::claim_from_stored);
}
