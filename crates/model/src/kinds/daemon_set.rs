//! DaemonSet of `apps/v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{column, containers, count, images, label_map, label_selector, number, wide};
use super::{Column, Faults, Kind, Part, of, templates};
use crate::tree::{at, text};
use crate::{Tree, tree};

/// What the house knows of `apps/v1` DaemonSet.
pub static KIND: Kind = Kind::new(of::DAEMON_SET, "DaemonSet", "daemonset", "io.k8s.api.apps.v1.DaemonSet")
    .short(&["ds"])
    .categories(&["all"])
    .namespaced()
    .parts(&[Part::Status])
    .columns(COLUMNS)
    .filling(fill)
    .checking(check)
    .changing(change)
    .beginning(first)
    .counts();

const COLUMNS: &[Column] = &[
    number("Desired", |object, _| count(object, "status.desiredNumberScheduled")),
    number("Current", |object, _| count(object, "status.currentNumberScheduled")),
    number("Ready", |object, _| count(object, "status.numberReady")),
    number("Up-to-date", |object, _| count(object, "status.updatedNumberScheduled")),
    number("Available", |object, _| count(object, "status.numberAvailable")),
    column("Node Selector", |object, _| label_map(object, "spec.template.spec.nodeSelector")),
    wide("Containers", |object, _| containers(object, "spec.template.spec.containers")),
    wide("Images", |object, _| images(object, "spec.template.spec.containers")),
    wide("Selector", |object, _| label_selector(object, "spec.selector")),
];

/// How many old templates are kept to go back to.
const HISTORY: i64 = 10;

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "revisionHistoryLimit", HISTORY);
    if let Some(strategy) = tree::object(spec, "updateStrategy") {
        tree::fill(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = tree::object(strategy, "rollingUpdate")
        {
            tree::fill(rolling, "maxUnavailable", 1);
            tree::fill(rolling, "maxSurge", 0);
        }
    }
    templates::fill_template(spec);
}

fn first(object: &mut Tree) {
    let zero = json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0});
    tree::set(object, "status", zero);
}

fn check(object: &Tree, faults: &mut Faults) {
    for name in ["minReadySeconds", "revisionHistoryLimit"] {
        faults.non_negative(format_args!("spec.{name}"), &object["spec"][name]);
    }
    let strategy = at(object, "spec.updateStrategy");
    faults.one_of("spec.updateStrategy.type", text(strategy, "type"), &["OnDelete", "RollingUpdate"]);
    if text(strategy, "type") == "RollingUpdate" {
        let rolling = &strategy["rollingUpdate"];
        for name in ["maxUnavailable", "maxSurge"] {
            templates::check_count_or_share(
                &rolling[name],
                &format!("spec.updateStrategy.rollingUpdate.{name}"),
                faults,
            );
        }
        let some = |value: &Tree| value != &Tree::from(0) && value != "0%";
        let (away, extra) = (some(&rolling["maxUnavailable"]), some(&rolling["maxSurge"]));
        let field = "spec.updateStrategy.rollingUpdate.maxSurge";
        match (away, extra) {
            (true, true) => faults.invalid(
                field,
                rolling["maxSurge"].clone(),
                "may not be set when maxUnavailable is non-zero",
            ),
            (false, false) => faults.required(
                "spec.updateStrategy.rollingUpdate.maxUnavailable",
                "cannot be 0 when maxSurge is 0",
            ),
            _ => {}
        }
    }
    templates::check_selected_template(object, &["Always"], faults);
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("spec.selector", at(old, "spec.selector"), at(new, "spec.selector"));
}
