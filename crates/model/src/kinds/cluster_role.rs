//! ClusterRole of `rbac.authorization.k8s.io/v1`: its constants, and what its schema cannot say.

use super::{Faults, Kind, of, rbac};
use crate::Tree;

/// What the house knows of `rbac.authorization.k8s.io/v1` ClusterRole.
pub static KIND: Kind =
    Kind::new(of::CLUSTER_ROLE, "ClusterRole", "clusterrole", "io.k8s.api.rbac.v1.ClusterRole")
        .named(crate::syntax::path_segment)
        .checking(check);

fn check(object: &Tree, faults: &mut Faults) {
    rbac::check_rules(object, true, faults);
}
