//! PriorityLevelConfiguration of `flowcontrol.apiserver.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::{column, or, or_none};
use super::{Column, Kind, Part, of};
use crate::{Tree, tree};

/// What the house knows of `flowcontrol.apiserver.k8s.io/v1` PriorityLevelConfiguration.
pub static KIND: Kind = Kind::new(
    of::PRIORITY_LEVEL_CONFIGURATION,
    "PriorityLevelConfiguration",
    "prioritylevelconfiguration",
    "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
)
.parts(&[Part::Status])
.columns(COLUMNS)
.filling(fill)
.counts();

const COLUMNS: &[Column] = &[
    column("Type", |object, _| or(object, "spec.type", "")),
    column("NominalConcurrencyShares", |object, _| or_none(object, "spec.limited.nominalConcurrencyShares")),
    column("Queues", |object, _| or_none(object, "spec.limited.limitResponse.queuing.queues")),
    column("HandSize", |object, _| or_none(object, "spec.limited.limitResponse.queuing.handSize")),
    column("QueueLengthLimit", |object, _| {
        or_none(object, "spec.limited.limitResponse.queuing.queueLengthLimit")
    }),
];

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    for (name, shares) in [("exempt", 0), ("limited", 30)] {
        if let Some(level) = spec.get_mut(name) {
            tree::fill(level, "nominalConcurrencyShares", shares);
            tree::fill(level, "lendablePercent", 0);
        }
    }
    let response = spec.get_mut("limited").and_then(|limited| limited.get_mut("limitResponse"));
    if let Some(queuing) = response.and_then(|response| response.get_mut("queuing")) {
        for (name, value) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
            if tree::whole(queuing, name).unwrap_or(0) == 0 {
                tree::set(queuing, name, value);
            }
        }
    }
}
