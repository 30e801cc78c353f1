//! ComponentStatus of `v1`: its constants.

use super::table::column;
use super::{Column, Kind, Verbs, of};
use crate::Tree;
use crate::tree::{items, text};

/// What the house knows of `v1` ComponentStatus.
pub static KIND: Kind = Kind::new(
    of::COMPONENT_STATUS,
    "ComponentStatus",
    "componentstatus",
    "io.k8s.api.core.v1.ComponentStatus",
)
.short(&["cs"])
.verbs(Verbs::ReadOnly)
.columns(COLUMNS)
.ageless();

const COLUMNS: &[Column] = &[
    column("Status", |object, _| match healthy(object) {
        Some(condition) if condition["status"] == "True" => "Healthy".into(),
        Some(_) => "Unhealthy".into(),
        None => "Unknown".into(),
    }),
    column("Message", |object, _| said(object, "message")),
    column("Error", |object, _| said(object, "error")),
];

fn healthy(object: &Tree) -> Option<&Tree> {
    items(object, "conditions").iter().find(|condition| condition["type"] == "Healthy")
}

fn said(object: &Tree, what: &str) -> Tree {
    healthy(object).map_or("", |condition| text(condition, what)).into()
}
