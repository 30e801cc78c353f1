//! Job of `batch/v1`: its constants, and what its schema cannot say.

use std::collections::BTreeMap;

use serde_json::json;

use super::table::{column, containers, images, label_selector, wide};
use super::{Column, Faults, Kind, Part, check_selector, of, templates};
use crate::tree::{at, entries, flag, is_set, is_there, items, text, whole};
use crate::{Selector, Time, Tree, time, tree};

/// What the house knows of `batch/v1` Job.
pub static KIND: Kind = Kind::new(of::JOB, "Job", "job", "io.k8s.api.batch.v1.Job")
    .categories(&["all"])
    .namespaced()
    .parts(&[Part::Status])
    .columns(COLUMNS)
    .fields(&["status.successful"])
    .filling(fill)
    .checking(check)
    .changing(change)
    .beginning(first)
    .counts();

const COLUMNS: &[Column] = &[
    column("Status", |object, _| state(object)),
    column("Completions", |object, _| completions(object)),
    column("Duration", duration),
    wide("Containers", |object, _| containers(object, "spec.template.spec.containers")),
    wide("Images", |object, _| images(object, "spec.template.spec.containers")),
    wide("Selector", |object, _| label_selector(object, "spec.selector")),
];

/// How often a job's pods may fail, when its author does not say.
const BACKOFF_LIMIT: i64 = 6;

/// The labels that tie a job's pods to it: the plain ones are of older clients.
const LABELS: [&str; 2] = ["batch.kubernetes.io/controller-uid", "controller-uid"];

fn fill(object: &mut Tree) {
    label_like_pods(object);
    tree::object(object, "spec").into_iter().for_each(fill_job);
    select_own_pods(object);
    label_like_pods(object);
}

/// A job without labels gets those of its pods.
fn label_like_pods(object: &mut Tree) {
    let labels = at(object, "spec.template.metadata.labels").clone();
    if is_set(object, "spec.template.metadata.labels") && !is_set(object, "metadata.labels") {
        tree::object(object, "metadata")
            .into_iter()
            .for_each(|meta| tree::set(meta, "labels", labels.clone()));
    }
}

/// What a job, or the template of one, leaves out.
pub(super) fn fill_job(spec: &mut Tree) {
    if !is_there(spec, "completions") && !is_there(spec, "parallelism") {
        tree::fill(spec, "completions", 1);
    }
    tree::fill(spec, "parallelism", 1);
    let limit = if is_there(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { BACKOFF_LIMIT };
    tree::fill(spec, "backoffLimit", limit);
    tree::fill(spec, "completionMode", "NonIndexed");
    tree::fill(spec, "suspend", false);
    let replacing = if is_there(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    tree::fill(spec, "podReplacementPolicy", replacing);
    tree::fill(spec, "manualSelector", false);
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in tree::items_mut(policy, "rules") {
            tree::items_mut(rule, "onPodConditions")
                .for_each(|pattern| tree::fill(pattern, "status", "True"));
        }
    }
    templates::fill_template(spec);
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({}));
}

/// Ties the job's pods to it by labels that carry its uid and its name, once it has both.
fn select_own_pods(object: &mut Tree) {
    let (uid, name) = (text(object, "metadata.uid").to_owned(), text(object, "metadata.name").to_owned());
    if uid.is_empty() || name.is_empty() || flag(object, "spec.manualSelector") {
        return;
    }
    let Some(spec) = tree::object(object, "spec") else { return };
    let labels = tree::object(spec, "template").and_then(|template| tree::object(template, "metadata"));
    if let Some(labels) = labels.and_then(|meta| tree::object(meta, "labels")) {
        LABELS.iter().for_each(|label| tree::set(labels, label, uid.clone()));
        ["batch.kubernetes.io/job-name", "job-name"]
            .iter()
            .for_each(|label| tree::set(labels, label, name.clone()));
    }
    if is_set(spec, "selector") {
        return;
    }
    if let Some(selector) =
        tree::object(spec, "selector").and_then(|selector| tree::object(selector, "matchLabels"))
    {
        tree::set(selector, LABELS[0], uid);
    }
}

fn check(object: &Tree, faults: &mut Faults) {
    check_job(&object["spec"], "spec", faults);
    templates::check_pods(at(object, "spec.template"), "spec.template", &["Never", "OnFailure"], faults);
    let selector = at(object, "spec.selector");
    if selector.is_null() && flag(object, "spec.manualSelector") {
        faults.required("spec.selector", "");
    }
    check_selector(selector, "spec.selector", faults);
    check_own_selector(object, faults);
}

/// A job's selector must find the job's own pods.
fn check_own_selector(object: &Tree, faults: &mut Faults) {
    let Ok(selector) = Selector::of_tree(Some(at(object, "spec.selector"))) else { return };
    let labels = entries(object, "spec.template.metadata.labels");
    let labels: BTreeMap<String, String> =
        labels.map(|(key, value)| (key.to_owned(), value.as_str().unwrap_or_default().to_owned())).collect();
    if !selector.is_nothing() && !selector.matches(&labels) {
        let shown = at(object, "spec.template.metadata.labels").clone();
        faults.invalid("spec.template.metadata.labels", shown, "`selector` does not match template `labels`");
    }
}

/// May a job, or the template of one, ask for this?
pub(super) fn check_job(spec: &Tree, field: &str, faults: &mut Faults) {
    const COUNTS: [&str; 7] = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    COUNTS.iter().for_each(|name| faults.non_negative(format_args!("{field}.{name}"), &spec[name]));
    let mode = text(spec, "completionMode");
    faults.one_of(format_args!("{field}.completionMode"), mode, &["Indexed", "NonIndexed"]);
    if mode == "Indexed" && !is_there(spec, "completions") {
        faults.required(format!("{field}.completions"), "when completion mode is Indexed");
    }
    if mode == "NonIndexed" {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if is_there(spec, name) {
                let detail = "may be specified only when completionMode is Indexed";
                faults.invalid(format!("{field}.{name}"), spec[name].clone(), detail);
            }
        }
    }
    let replacing = text(spec, "podReplacementPolicy");
    faults.one_of(
        format_args!("{field}.podReplacementPolicy"),
        replacing,
        &["Failed", "TerminatingOrFailed"],
    );
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    let (before, after) = (&old["spec"], &new["spec"]);
    for name in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        faults.immutable(format_args!("spec.{name}"), &before[name], &after[name]);
    }
    let elastic = text(before, "completionMode") == "Indexed" && after["completions"] == after["parallelism"];
    if !elastic {
        faults.immutable("spec.completions", &before["completions"], &after["completions"]);
    }
    // A job that has not started may still be told where to run.
    let waiting = flag(before, "suspend") && !is_set(old, "status.startTime");
    if !waiting {
        faults.immutable("spec.template", &before["template"], &after["template"]);
    }
}

fn has(object: &Tree, kind: &str) -> bool {
    let conditions = items(object, "status.conditions");
    conditions.iter().any(|condition| text(condition, "type") == kind && text(condition, "status") == "True")
}

fn state(object: &Tree) -> Tree {
    match () {
        () if has(object, "Complete") => "Complete",
        () if has(object, "Failed") => "Failed",
        () if is_set(object, "metadata.deletionTimestamp") => "Terminating",
        () if has(object, "Suspended") => "Suspended",
        () if has(object, "FailureTarget") => "FailureTarget",
        () if has(object, "SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
    .into()
}

fn completions(object: &Tree) -> Tree {
    let done = whole(object, "status.succeeded").unwrap_or(0);
    match (whole(object, "spec.completions"), whole(object, "spec.parallelism").unwrap_or(0)) {
        (Some(wanted), _) => format!("{done}/{wanted}"),
        (None, side_by_side @ 2..) => format!("{done}/1 of {side_by_side}"),
        (None, _) => format!("{done}/1"),
    }
    .into()
}

fn duration(object: &Tree, now: Time) -> Tree {
    let Ok(start) = time::parse(text(object, "status.startTime")) else { return "".into() };
    let end = time::parse(text(object, "status.completionTime")).unwrap_or(now);
    time::age(start, end).into()
}
