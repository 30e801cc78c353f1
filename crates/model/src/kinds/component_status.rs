//! ComponentStatus of `v1`: its constants.

use super::table::{column, or};
use super::{Column, Kind, Verbs, of};

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

const COLUMNS: &[Column] = &[column("Status", |object, _| or(object, "conditions.0.type", "Unknown"))];
