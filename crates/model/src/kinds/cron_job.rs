//! CronJob of `batch/v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{age_at, column, containers, images, label_selector, number, or, or_none, wide};
use super::{Column, Faults, Kind, Part, of, templates};
use crate::tree::{at, is_set, items, text};
use crate::{Time, Tree, tree};

/// What the house knows of `batch/v1` CronJob.
pub static KIND: Kind = Kind::new(of::CRON_JOB, "CronJob", "cronjob", "io.k8s.api.batch.v1.CronJob")
    .short(&["cj"])
    .categories(&["all"])
    .namespaced()
    .parts(&[Part::Status])
    .columns(COLUMNS)
    .filling(fill)
    .checking(check)
    .beginning(first)
    .counts();

/// Where the containers of the template of its jobs stand.
const TEMPLATE: &str = "spec.jobTemplate.spec.template.spec.containers";

const COLUMNS: &[Column] = &[
    column("Schedule", |object, _| or(object, "spec.schedule", "")),
    column("Timezone", |object, _| or_none(object, "spec.timeZone")),
    column("Suspend", |object, _| suspended(object)),
    number("Active", |object, _| items(object, "status.active").len().into()),
    column("Last Schedule", last),
    wide("Containers", |object, _| containers(object, TEMPLATE)),
    wide("Images", |object, _| images(object, TEMPLATE)),
    wide("Selector", |object, _| label_selector(object, "spec.jobTemplate.spec.selector")),
];

/// How long a name may be, in bytes: eleven are left for what the jobs' names add (upstream's limit).
const NAME_LEN_MAX: usize = 52;

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "concurrencyPolicy", "Allow");
    tree::fill(spec, "suspend", false);
    tree::fill(spec, "successfulJobsHistoryLimit", 3);
    tree::fill(spec, "failedJobsHistoryLimit", 1);
    let Some(template) = tree::object(spec, "jobTemplate") else { return };
    tree::object(template, "metadata");
    if let Some(spec) = tree::object(template, "spec") {
        templates::fill_template(spec);
    }
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({}));
}

fn check(object: &Tree, faults: &mut Faults) {
    let name = text(object, "metadata.name");
    if name.len() > NAME_LEN_MAX {
        faults.invalid("metadata.name", name, &format!("must be no more than {NAME_LEN_MAX} characters"));
    }
    let schedule = text(object, "spec.schedule");
    if schedule.is_empty() {
        faults.required("spec.schedule", "");
    } else if !is_schedule(schedule) {
        faults.invalid("spec.schedule", schedule, "expected 5 to 6 fields or a descriptor such as @daily");
    }
    if schedule.contains("TZ") {
        faults.invalid(
            "spec.schedule",
            schedule,
            "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        );
    }
    let policy = text(object, "spec.concurrencyPolicy");
    faults.one_of("spec.concurrencyPolicy", policy, &["Allow", "Forbid", "Replace"]);
    for name in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        faults.non_negative(format_args!("spec.{name}"), &object["spec"][name]);
    }
    let template = at(object, "spec.jobTemplate.spec");
    for name in
        ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"]
    {
        faults.non_negative(format_args!("spec.jobTemplate.spec.{name}"), &template[name]);
    }
    let policies = &["Never", "OnFailure"];
    templates::check_pods(&template["template"], "spec.jobTemplate.spec.template", policies, faults);
}

/// Whether this looks like a cron schedule; that its numbers are in range is the controller's matter.
fn is_schedule(schedule: &str) -> bool {
    let plain = |field: &str| field.bytes().all(|b| b.is_ascii_alphanumeric() || b"*/,-?#".contains(&b));
    match schedule.strip_prefix('@') {
        Some(word) => {
            matches!(word, "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly")
                || word.starts_with("every ")
        }
        None => {
            let schedule =
                schedule.split_whitespace().filter(|field| !field.contains("TZ=")).collect::<Vec<_>>();
            schedule.len() == 5 && schedule.iter().all(|field| plain(field))
        }
    }
}

fn suspended(object: &Tree) -> Tree {
    match at(object, "spec.suspend").as_bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    }
    .into()
}

fn last(object: &Tree, now: Time) -> Tree {
    if is_set(object, "status.lastScheduleTime") {
        age_at(object, "status.lastScheduleTime", now)
    } else {
        "<none>".into()
    }
}
