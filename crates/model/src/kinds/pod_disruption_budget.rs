//! PodDisruptionBudget of `policy/v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{column, count, number, or};
use super::{Column, Faults, Kind, Part, check_selector, of, templates};
use crate::tree::{is_there, text};
use crate::{Tree, tree};

/// What the house knows of `policy/v1` PodDisruptionBudget.
pub static KIND: Kind = Kind::new(
    of::POD_DISRUPTION_BUDGET,
    "PodDisruptionBudget",
    "poddisruptionbudget",
    "io.k8s.api.policy.v1.PodDisruptionBudget",
)
.short(&["pdb"])
.namespaced()
.parts(&[Part::Status])
.columns(COLUMNS)
.checking(check)
.beginning(first)
.counts();

const COLUMNS: &[Column] = &[
    column("Min Available", |object, _| or(object, "spec.minAvailable", "N/A")),
    column("Max Unavailable", |object, _| or(object, "spec.maxUnavailable", "N/A")),
    number("Allowed Disruptions", |object, _| count(object, "status.disruptionsAllowed")),
];

fn first(object: &mut Tree) {
    let none = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
    tree::set(object, "status", none);
}

fn check(object: &Tree, faults: &mut Faults) {
    let spec = &object["spec"];
    if is_there(spec, "minAvailable") && is_there(spec, "maxUnavailable") {
        faults.invalid("spec", "", "minAvailable and maxUnavailable cannot be both set");
    }
    for name in ["minAvailable", "maxUnavailable"] {
        templates::check_count_or_share(&spec[name], &format!("spec.{name}"), faults);
    }
    check_selector(&spec["selector"], "spec.selector", faults);
    match text(spec, "unhealthyPodEvictionPolicy") {
        "" => {}
        policy => {
            faults.one_of("spec.unhealthyPodEvictionPolicy", policy, &["AlwaysAllow", "IfHealthyBudget"])
        }
    }
}
