//! FlowSchema of `flowcontrol.apiserver.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::{column, count, number, or, or_none};
use super::{Column, Kind, Part, of};
use crate::{Tree, tree};

/// What the house knows of `flowcontrol.apiserver.k8s.io/v1` FlowSchema.
pub static KIND: Kind =
    Kind::new(of::FLOW_SCHEMA, "FlowSchema", "flowschema", "io.k8s.api.flowcontrol.v1.FlowSchema")
        .parts(&[Part::Status])
        .columns(COLUMNS)
        .filling(fill)
        .counts();

const COLUMNS: &[Column] = &[
    column("PriorityLevel", |object, _| or(object, "spec.priorityLevelConfiguration.name", "")),
    number("MatchingPrecedence", |object, _| count(object, "spec.matchingPrecedence")),
    column("DistinguisherMethod", |object, _| or_none(object, "spec.distinguisherMethod.type")),
];

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    if tree::whole(spec, "matchingPrecedence").unwrap_or(0) == 0 {
        tree::set(spec, "matchingPrecedence", 1000);
    }
}
