//! RoleBinding of `rbac.authorization.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::{column, wide};
use super::{AGE, Column, Faults, Kind, of, rbac};
use crate::Tree;

/// What the house knows of `rbac.authorization.k8s.io/v1` RoleBinding.
pub static KIND: Kind =
    Kind::new(of::ROLE_BINDING, "RoleBinding", "rolebinding", "io.k8s.api.rbac.v1.RoleBinding")
        .namespaced()
        .columns(COLUMNS)
        .named(crate::syntax::path_segment)
        .checking(check)
        .filling(rbac::fill_binding)
        .changing(rbac::change_binding);

const COLUMNS: &[Column] = &[
    column("Role", |object, _| rbac::role(object)),
    AGE,
    wide("Users", |object, _| rbac::subjects(object, "User")),
    wide("Groups", |object, _| rbac::subjects(object, "Group")),
    wide("ServiceAccounts", |object, _| rbac::subjects(object, "ServiceAccount")),
];

fn check(object: &Tree, faults: &mut Faults) {
    rbac::check_binding(object, &["ClusterRole", "Role"], false, faults);
}
