//! LeaseCandidate of `coordination.k8s.io/v1beta1`, `coordination.k8s.io/v1alpha2`: its constants.

use super::table::{column, or};
use super::{Column, Kind, of};

/// What the house knows of `coordination.k8s.io/v1beta1` LeaseCandidate.
pub static KIND: Kind = Kind::new(
    of::LEASE_CANDIDATE,
    "LeaseCandidate",
    "leasecandidate",
    "io.k8s.api.coordination.v1beta1.LeaseCandidate",
)
.namespaced()
.columns(COLUMNS);

/// What the house knows of `coordination.k8s.io/v1alpha2` LeaseCandidate.
pub static V1ALPHA2: Kind = Kind::new(
    of::LEASE_CANDIDATE_V1ALPHA2,
    "LeaseCandidate",
    "leasecandidate",
    "io.k8s.api.coordination.v1alpha2.LeaseCandidate",
)
.namespaced()
.columns(COLUMNS)
.stored_as(&super::LEASE_CANDIDATE);

const COLUMNS: &[Column] = &[
    column("LeaseName", |object, _| or(object, "spec.leaseName", "")),
    column("BinaryVersion", |object, _| or(object, "spec.binaryVersion", "")),
    column("EmulationVersion", |object, _| or(object, "spec.emulationVersion", "")),
];
