//! PriorityClass of `scheduling.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::{column, count, number, or};
use super::{AGE, Column, Faults, Kind, of};
use crate::tree::{text, whole};
use crate::{Tree, tree};

/// What the house knows of `scheduling.k8s.io/v1` PriorityClass.
pub static KIND: Kind =
    Kind::new(of::PRIORITY_CLASS, "PriorityClass", "priorityclass", "io.k8s.api.scheduling.v1.PriorityClass")
        .short(&["pc"])
        .columns(COLUMNS)
        .filling(fill)
        .checking(check)
        .changing(change)
        .counts();

const COLUMNS: &[Column] = &[
    number("Value", |object, _| count(object, "value")),
    column("Global-Default", |object, _| or(object, "globalDefault", "false")),
    AGE,
    column("PreemptionPolicy", |object, _| or(object, "preemptionPolicy", "")),
];

/// The highest value that a class may have which is not the system's own.
const VALUE_MAX: i64 = 1_000_000_000;

fn fill(object: &mut Tree) {
    tree::fill(object, "preemptionPolicy", "PreemptLowerPriority");
}

fn check(object: &Tree, faults: &mut Faults) {
    let (name, value) = (text(object, "metadata.name"), whole(object, "value").unwrap_or(0));
    if name.starts_with("system-") {
        if !matches!(name, "system-node-critical" | "system-cluster-critical") {
            let detail = "priority class names with 'system-' prefix are reserved for system use only. \
                          error: priority class is not one of the system classes";
            faults.forbidden("metadata.name", detail);
        }
    } else if value > VALUE_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {VALUE_MAX}");
        faults.forbidden("value", &detail);
    }
    faults.one_of("preemptionPolicy", text(object, "preemptionPolicy"), &["Never", "PreemptLowerPriority"]);
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    if whole(old, "value").unwrap_or(0) != whole(new, "value").unwrap_or(0) {
        faults.forbidden("value", "may not be changed in an update.");
    }
    faults.immutable("preemptionPolicy", &old["preemptionPolicy"], &new["preemptionPolicy"]);
}
