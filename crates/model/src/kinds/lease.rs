//! Lease of `coordination.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::{column, or};
use super::{Column, Faults, Kind, of};
use crate::Tree;
use crate::tree::{at, whole};

/// What the house knows of `coordination.k8s.io/v1` Lease.
pub static KIND: Kind = Kind::new(of::LEASE, "Lease", "lease", "io.k8s.api.coordination.v1.Lease")
    .namespaced()
    .columns(COLUMNS)
    .checking(check);

const COLUMNS: &[Column] = &[column("Holder", |object, _| or(object, "spec.holderIdentity", ""))];

fn check(object: &Tree, faults: &mut Faults) {
    if whole(object, "spec.leaseDurationSeconds").is_some_and(|seconds| seconds <= 0) {
        let value = at(object, "spec.leaseDurationSeconds").clone();
        faults.invalid("spec.leaseDurationSeconds", value, "must be greater than 0");
    }
    faults.non_negative("spec.leaseTransitions", at(object, "spec.leaseTransitions"));
}
