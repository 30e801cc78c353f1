//! ControllerRevision of `apps/v1`: its constants, and what its schema cannot say.

use super::table::{column, count, number};
use super::{Column, Faults, Kind, of};
use crate::Tree;
use crate::tree::{flag, is_there, items, text};

/// What the house knows of `apps/v1` ControllerRevision.
pub static KIND: Kind = Kind::new(
    of::CONTROLLER_REVISION,
    "ControllerRevision",
    "controllerrevision",
    "io.k8s.api.apps.v1.ControllerRevision",
)
.namespaced()
.columns(COLUMNS)
.checking(check)
.changing(change);

const COLUMNS: &[Column] = &[
    column("Controller", |object, _| owner(object)),
    number("Revision", |object, _| count(object, "revision")),
];

fn check(object: &Tree, faults: &mut Faults) {
    if !is_there(object, "data") {
        faults.required("data", "data is mandatory");
    }
    faults.non_negative("revision", &object["revision"]);
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("data", &old["data"], &new["data"]);
}

fn owner(object: &Tree) -> Tree {
    let owner = items(object, "metadata.ownerReferences").iter().find(|owner| flag(owner, "controller"));
    let Some(owner) = owner else { return "<none>".into() };
    let kind = text(owner, "kind").to_lowercase();
    match text(owner, "apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", text(owner, "name")).into(),
        None => format!("{kind}/{}", text(owner, "name")).into(),
    }
}
