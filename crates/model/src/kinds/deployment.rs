//! A deployment: so many pods of a template, changed from one template to the next step by step.

use serde_json::json;

use super::table::{column, containers, count, images, label_selector, number, wide};
use super::{Column, Faults, Kind, Part, of, templates};
use crate::tree::{at, text, whole};
use crate::{Tree, tree};

/// What the house knows of `apps/v1` Deployment.
pub static KIND: Kind =
    Kind::new(of::DEPLOYMENT, "Deployment", "deployment", "io.k8s.api.apps.v1.Deployment")
        .short(&["deploy"])
        .categories(&["all"])
        .namespaced()
        .parts(&[
            Part::Scale { spec: "spec.replicas", status: "status.replicas", selector: "spec.selector" },
            Part::Status,
        ])
        .columns(COLUMNS)
        .filling(fill)
        .checking(check)
        .changing(change)
        .beginning(first)
        .counts_annotations();

const COLUMNS: &[Column] = &[
    column("Ready", |object, _| ready(object)),
    number("Up-to-date", |object, _| count(object, "status.updatedReplicas")),
    number("Available", |object, _| count(object, "status.availableReplicas")),
    wide("Containers", |object, _| containers(object, "spec.template.spec.containers")),
    wide("Images", |object, _| images(object, "spec.template.spec.containers")),
    wide("Selector", |object, _| label_selector(object, "spec.selector")),
];

/// How many old ReplicaSets are kept to go back to.
const HISTORY: i64 = 10;
/// After how many seconds without progress a rollout counts as failed.
const DEADLINE_SECONDS: i64 = 600;
/// How much of the whole may be away, and how much may be added, while rolling.
const STEP: &str = "25%";

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "replicas", 1);
    tree::fill(spec, "revisionHistoryLimit", HISTORY);
    tree::fill(spec, "progressDeadlineSeconds", DEADLINE_SECONDS);
    if let Some(strategy) = tree::object(spec, "strategy") {
        tree::fill(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate"
            && let Some(rolling) = tree::object(strategy, "rollingUpdate")
        {
            tree::fill(rolling, "maxUnavailable", STEP);
            tree::fill(rolling, "maxSurge", STEP);
        }
    }
    templates::fill_template(spec);
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({}));
}

fn check(object: &Tree, faults: &mut Faults) {
    for name in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        faults.non_negative(format_args!("spec.{name}"), &object["spec"][name]);
    }
    let (ready, deadline) =
        (whole(object, "spec.minReadySeconds"), whole(object, "spec.progressDeadlineSeconds"));
    if deadline.is_some_and(|deadline| deadline <= ready.unwrap_or(0)) {
        faults.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds");
    }
    check_strategy(at(object, "spec.strategy"), faults);
    templates::check_selected_template(object, &["Always"], faults);
}

fn check_strategy(strategy: &Tree, faults: &mut Faults) {
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "Recreate" if !rolling.is_null() => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            faults.forbidden("spec.strategy.rollingUpdate", detail);
        }
        "RollingUpdate" => {
            for name in ["maxUnavailable", "maxSurge"] {
                templates::check_count_or_share(
                    &rolling[name],
                    &format!("spec.strategy.rollingUpdate.{name}"),
                    faults,
                );
            }
            let none = |value: &Tree| value == &Tree::from(0) || value == "0%";
            if none(&rolling["maxUnavailable"]) && none(&rolling["maxSurge"]) {
                let value = rolling["maxUnavailable"].clone();
                let detail = "may not be 0 when `maxSurge` is 0";
                faults.invalid("spec.strategy.rollingUpdate.maxUnavailable", value, detail);
            }
        }
        kind => faults.one_of("spec.strategy.type", kind, &["Recreate", "RollingUpdate"]),
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("spec.selector", at(old, "spec.selector"), at(new, "spec.selector"));
}

fn ready(object: &Tree) -> Tree {
    let (ready, wanted) = (whole(object, "status.readyReplicas"), whole(object, "spec.replicas"));
    format!("{}/{}", ready.unwrap_or(0), wanted.unwrap_or(0)).into()
}
