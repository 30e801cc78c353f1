//! CronJob: Jobs at the times of a schedule.
//!
//! A Job's name is derived from its time, so a time makes one Job at most. Times that were missed are made up for by
//! the last of them alone, and not at all when the author's deadline for starting is over.

use std::sync::Arc;

use jiff::tz::TimeZone;
use model::kinds::{CRON_JOB, JOB, of};
use model::{
    Controller, EventNote, Key, Object, Plan, Precondition, Propagation, Time, Tree, Watch, World, Write,
    time,
};
use serde::Deserialize;
use serde_json::json;

use crate::{naming, owning, status};

mod schedule;

use schedule::Schedule;

/// The annotation that says for which time a Job was made.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// How many Jobs that succeeded are kept when the author does not say: the API's default.
const SUCCEEDED_KEPT: usize = 3;
/// How many Jobs that failed are kept when the author does not say: the API's default.
const FAILED_KEPT: usize = 1;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "cronjob-controller",
    primary: of::CRON_JOB,
    also: &[Watch { gvr: of::JOB, wakes: |job, _| model::controller::owner(job, &CRON_JOB, "CronJob") }],
    reconcile,
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    schedule: String,
    time_zone: Option<String>,
    starting_deadline_seconds: Option<i64>,
    concurrency_policy: String,
    suspend: bool,
    job_template: Tree,
    successful_jobs_history_limit: Option<usize>,
    failed_jobs_history_limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    last_schedule_time: Option<Time>,
    last_successful_time: Option<Time>,
}

/// A CronJob and its Jobs.
struct Seen {
    cron: Object,
    body: Arc<Body>,
    jobs: Vec<Job>,
    now: Time,
}

/// A Job as its CronJob sees it.
struct Job {
    object: Object,
    /// `Complete`, `Failed`, or neither while it goes on.
    end: Option<(String, Option<Time>)>,
    started: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct JobBody {
    status: JobStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct JobStatus {
    conditions: Vec<Tree>,
    start_time: Option<Time>,
    completion_time: Option<Time>,
}

/// What the present time means for a CronJob.
enum Due {
    /// Nothing, before this time.
    Later(Option<Time>),
    /// A Job is to be made for this time.
    Now(Time),
    /// The last time has passed too long ago.
    Missed(Time),
    /// The schedule makes no sense.
    Never(&'static str, String),
}

/// Decides on one CronJob.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(seen) = see(key, world, now) else { return plan };
    if seen.cron.is_ending() {
        return plan;
    }
    clean(
        &mut plan,
        &seen,
        "Complete",
        seen.body.spec.successful_jobs_history_limit.unwrap_or(SUCCEEDED_KEPT),
    );
    clean(&mut plan, &seen, "Failed", seen.body.spec.failed_jobs_history_limit.unwrap_or(FAILED_KEPT));
    let mut last = seen.body.status.last_schedule_time;
    let mut event = None;
    if !seen.body.spec.suspend {
        match due(&seen) {
            Due::Later(at) => at.into_iter().for_each(|at| plan.wake(at)),
            Due::Now(at) => {
                if run(&mut plan, world, &seen, at) {
                    last = Some(at);
                }
                next(&seen).into_iter().for_each(|at| plan.wake(at));
            }
            Due::Missed(at) => {
                let message = format!("Missed scheduled time to start a job: {}", time::seconds(at));
                event = Some(seen.event("MissSchedule", message).warning());
                last = Some(at);
                next(&seen).into_iter().for_each(|at| plan.wake(at));
            }
            Due::Never(reason, message) => event = Some(seen.event(reason, message).warning()),
        }
    }
    report(&mut plan, key, &seen, last, event);
    plan
}

fn see(key: &Key, world: &dyn World, now: Time) -> Option<Seen> {
    let cron = world.get(key)?;
    let body: Arc<Body> = cron.seen()?;
    let mut jobs: Vec<Job> = world
        .owned_by(&JOB, cron.uid())
        .into_iter()
        .filter(|job| job.controller().is_some_and(|owner| owner.uid == cron.uid()))
        .map(Job::read)
        .collect();
    jobs.sort_by_key(|job| (job.started, job.object.meta().creation_timestamp, job.object.name().to_owned()));
    Some(Seen { cron, body, jobs, now })
}

impl Job {
    fn read(object: Object) -> Self {
        let body: Arc<JobBody> = object.seen().unwrap_or_default();
        let over = |kind: &str| {
            let known = status::condition(&body.status.conditions, kind)?;
            (known["status"] == "True").then(|| (kind.to_owned(), body.status.completion_time))
        };
        let end = over("Complete").or_else(|| over("Failed"));
        Self { end, started: body.status.start_time, object }
    }

    fn is_active(&self) -> bool {
        self.end.is_none() && !self.object.is_ending()
    }
}

impl Seen {
    fn event(&self, reason: &str, message: String) -> EventNote {
        EventNote::normal(&self.cron, &CRON_JOB, "CronJob", reason, message)
    }

    fn zone(&self) -> Option<TimeZone> {
        match self.body.spec.time_zone.as_deref() {
            None | Some("") => Some(TimeZone::UTC),
            Some(name) => TimeZone::get(name).ok(),
        }
    }

    fn active(&self) -> impl Iterator<Item = &Job> {
        self.jobs.iter().filter(|job| job.is_active())
    }
}

/// The next time after now.
fn next(seen: &Seen) -> Option<Time> {
    Schedule::parse(&seen.body.spec.schedule).ok()?.next(seen.now, &seen.zone()?)
}

fn due(seen: &Seen) -> Due {
    let spec = &seen.body.spec;
    let schedule = match Schedule::parse(&spec.schedule) {
        Ok(schedule) => schedule,
        Err(fault) => {
            return Due::Never(
                "UnparseableSchedule",
                format!("unparseable schedule: {} : {}", spec.schedule, fault.0),
            );
        }
    };
    let Some(zone) = seen.zone() else {
        return Due::Never(
            "UnknownTimeZone",
            format!("unknown time zone: {}", spec.time_zone.clone().unwrap_or_default()),
        );
    };
    let born = seen.cron.meta().creation_timestamp.unwrap_or(seen.now);
    let from = seen.body.status.last_schedule_time.unwrap_or(born);
    match schedule.last(from, seen.now, &zone) {
        None => Due::Later(schedule.next(from.max(seen.now), &zone)),
        Some((last, _)) => {
            let until = spec.starting_deadline_seconds.map(|seconds| time::after_seconds(last, seconds));
            if until.is_some_and(|until| until < seen.now) { Due::Missed(last) } else { Due::Now(last) }
        }
    }
}

/// Makes the Job of a time, as far as the policy lets it; says whether the time is dealt with.
fn run(plan: &mut Plan, world: &dyn World, seen: &Seen, at: Time) -> bool {
    let name = format!("{}-{}", seen.cron.name(), at.as_second() / 60);
    if world.get(&Key::new(&JOB, seen.cron.namespace(), name.as_str())).is_some() {
        return true;
    }
    match seen.body.spec.concurrency_policy.as_str() {
        "Forbid" if seen.active().next().is_some() => return false,
        "Replace" => {
            for job in seen.active() {
                delete(plan, job, "a newer job takes its place");
                let message = format!("Deleted job {}", job.object.name());
                plan.tell(seen.event("SuccessfulDelete", message));
            }
        }
        _ => {}
    }
    plan.create(&JOB, seen.cron.namespace(), job(seen, &name, at), "its time has come");
    plan.tell(seen.event("SuccessfulCreate", "Created job {name}".into()));
    true
}

fn job(seen: &Seen, name: &str, at: Time) -> Tree {
    let template = naming::plain(seen.body.spec.job_template.clone());
    let mut meta = json!({
        "name": name, "namespace": seen.cron.namespace(),
        "labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"],
        "ownerReferences": [owning::reference(&seen.cron, &CRON_JOB, "CronJob")],
    });
    let zone = seen.zone().unwrap_or(TimeZone::UTC);
    let local = at.to_zoned(zone);
    let told = if seen.body.spec.time_zone.is_some() {
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    } else {
        time::seconds(at)
    };
    meta["annotations"][SCHEDULED] = told.into();
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": naming::plain(meta), "spec": template["spec"]})
}

fn delete(plan: &mut Plan, job: &Job, why: &str) {
    let key = Key::new(&JOB, job.object.namespace(), job.object.name());
    let when = Precondition::same(&job.object);
    plan.act(Write::Delete { key, when, grace_seconds: None, propagation: Propagation::Background }, why);
}

/// Deletes the oldest Jobs of an end beyond the limit.
fn clean(plan: &mut Plan, seen: &Seen, end: &str, limit: usize) {
    let ended: Vec<&Job> = seen
        .jobs
        .iter()
        .filter(|job| job.end.as_ref().is_some_and(|(kind, _)| kind == end) && !job.object.is_ending())
        .collect();
    let surplus = ended.len().saturating_sub(limit);
    for job in ended.into_iter().take(surplus) {
        delete(plan, job, "beyond the history kept");
    }
}

fn report(plan: &mut Plan, key: &Key, seen: &Seen, last: Option<Time>, event: Option<EventNote>) {
    let active: Vec<Tree> = seen
        .active()
        .map(|job| {
            json!({"apiVersion": "batch/v1", "kind": "Job", "name": job.object.name(),
                "namespace": job.object.namespace(), "uid": job.object.uid()})
        })
        .collect();
    let known = status::of(&seen.cron);
    let same = |known: &Tree, wanted: &Tree| known["uid"] == wanted["uid"];
    let listed = known["active"].as_array().cloned().unwrap_or_default();
    let is_same =
        listed.len() == active.len() && listed.iter().zip(&active).all(|(known, wanted)| same(known, wanted));
    let succeeded =
        seen.jobs.iter().filter_map(|job| job.end.as_ref()).filter(|(kind, _)| kind == "Complete");
    let succeeded = succeeded.filter_map(|(_, at)| *at).max().max(seen.body.status.last_successful_time);
    let mut wanted = json!({});
    if !is_same {
        wanted["active"] = if active.is_empty() { Tree::Null } else { active.into() };
    }
    for (field, at) in [("lastScheduleTime", last), ("lastSuccessfulTime", succeeded)] {
        if let Some(at) = at {
            wanted[field] = time::seconds(at).into();
        }
    }
    let before = plan.acts.len();
    if wanted != json!({}) {
        status::write(plan, key, &seen.cron, &wanted, "its jobs changed");
    }
    if let (true, Some(event)) = (plan.acts.len() > before, event) {
        plan.tell(event);
    }
}

#[cfg(test)]
mod tests {
    use model::tiny::{TinyWorld, at, check};

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&CRON_JOB, "default", "tick"), world, now)
    }

    const TICK: &str = r#"cronjobs tick spec.schedule="*/2\u0020*\u0020*\u0020*\u0020*" spec.jobTemplate.spec.template.spec.restartPolicy=Never"#;

    #[test]
    fn a_job_is_made_when_its_time_comes() {
        check(TICK, 30, decide, "wake 120s");
        check(
            TICK,
            121,
            decide,
            r#"create jobs tick-2 {"metadata":{"annotations":{"batch.kubernetes.io/cronjob-scheduled-timestamp":"1970-01-01T00:02:00Z"},"ownerReferences":[{"kind":"CronJob"}]}}
               patch cronjobs tick/status {"status":{"lastScheduleTime":"1970-01-01T00:02:00Z"}}
               wake 240s"#,
        );
    }

    #[test]
    fn of_the_times_that_were_missed_only_the_last_is_made_up_for() {
        check(TICK, 1000, decide, "create jobs tick-16\n patch cronjobs tick/status\n wake 1080s");
        check(
            &format!("{TICK} spec.startingDeadlineSeconds=10"),
            1000,
            decide,
            r#"patch cronjobs tick/status {"status":{"lastScheduleTime":"1970-01-01T00:16:00Z"}} # its jobs changed ! MissSchedule Missed scheduled time to start a job: 1970-01-01T00:16:00Z
               wake 1080s"#,
        );
    }

    #[test]
    fn what_runs_already_is_minded_as_the_policy_says() {
        let running = "jobs tick-1 owner=cronjobs/tick";
        let with = |policy: &str| {
            format!(
                "{TICK} spec.concurrencyPolicy={policy} status.active=[{{\"uid\":\"jobs-tick-1\"}}]\n{running}"
            )
        };
        check(&with("Forbid"), 121, decide, "wake 240s");
        check(
            &with("Replace"),
            121,
            decide,
            "delete jobs tick-1\n create jobs tick-2\n patch cronjobs tick/status\n wake 240s",
        );
        check(&with("Allow"), 121, decide, "create jobs tick-2\n patch cronjobs tick/status\n wake 240s");
    }

    #[test]
    fn a_suspended_one_makes_nothing_and_history_is_bounded() {
        check(&format!("{TICK} spec.suspend=true"), 1000, decide, "");
        let done = |n: usize| {
            format!(
                r#"jobs tick-{n} owner=cronjobs/tick status.conditions=[{{"type":"Complete","status":"True"}}] status.startTime="1970-01-01T00:00:0{n}Z""#
            )
        };
        check(
            &format!("{TICK} spec.suspend=true spec.successfulJobsHistoryLimit=1\n{}\n{}", done(1), done(2)),
            1000,
            decide,
            "delete jobs tick-1 # beyond the history kept",
        );
    }

    #[test]
    fn it_ends_quiet_until_the_next_time() {
        let mut world = TinyWorld::read(TICK);
        world.settle(5, at(121), |world| decide(world, at(121)));
        assert_eq!(world.list(&JOB, "").len(), 1);
        assert_eq!(decide(&world, at(122)).wake_at, Some(at(240)));
        world.settle(5, at(240), |world| decide(world, at(240)));
        assert_eq!(world.list(&JOB, "").len(), 2);
    }
}
