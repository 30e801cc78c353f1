//! Job: pods that run to their end, so many of them, so many at once, with so many failures allowed.
//!
//! Each end of a pod is counted exactly once: a finalizer keeps the pod until its uid stands in the status, and the
//! uid stays there until the pod has been let go. A Job says that it is over only when none of its pods runs any more.
//! What is counted never becomes less.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::kinds::{JOB, POD, of};
use model::{Controller, EventNote, Key, Object, Plan, Precondition, Time, Tree, Watch, World, time};
use serde::Deserialize;
use serde_json::json;

use crate::pods::Pod;
use crate::status::{self, Says};
use crate::{owning, replicas};

mod counting;
mod indexes;
mod policy;
mod start;
#[cfg(test)]
mod tests;

use counting::Counts;
use indexes::Indexes;

/// Keeps a pod until its end has been counted.
pub(crate) const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "job-controller",
    primary: of::JOB,
    also: &[Watch { gvr: of::POD, wakes: |pod, world| replicas::wakes(pod, world, &JOB, "Job") }],
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
    parallelism: Option<i64>,
    completions: Option<i64>,
    backoff_limit: Option<i64>,
    backoff_limit_per_index: Option<i64>,
    max_failed_indexes: Option<i64>,
    active_deadline_seconds: Option<i64>,
    ttl_seconds_after_finished: Option<i64>,
    completion_mode: String,
    suspend: bool,
    selector: Tree,
    template: Tree,
    pod_failure_policy: policy::PodFailurePolicy,
    success_policy: policy::SuccessPolicy,
    pod_replacement_policy: String,
    managed_by: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    start_time: Option<Time>,
    succeeded: i64,
    failed: i64,
    completed_indexes: String,
    failed_indexes: String,
    uncounted_terminated_pods: Uncounted,
    conditions: Vec<Tree>,
}

/// Pods whose end is known and not yet counted, by uid.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Uncounted {
    succeeded: BTreeSet<String>,
    failed: BTreeSet<String>,
}

/// A Job and its pods.
struct Seen<'a> {
    world: &'a dyn World,
    job: Object,
    body: Arc<Body>,
    pods: Vec<Pod>,
    now: Time,
}

/// How a Job ends.
#[derive(Debug, Clone, PartialEq, Eq)]
struct End {
    is_success: bool,
    reason: String,
    message: String,
}

/// Who keeps a Job when it does not say.
const OURS: &str = "kubernetes.io/job-controller";

/// Decides on one Job.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    forget(&mut plan, key, world);
    let Some(seen) = see(key, world, now, &mut plan) else { return plan };
    if is_over(&seen.body.status.conditions) {
        release(&mut plan, &seen, &BTreeSet::new(), true);
        expire(&mut plan, key, &seen);
        return plan;
    }
    let counts = Counts::of(&seen);
    release(&mut plan, &seen, &counts.counted_before, seen.job.is_ending());
    let end = end(&seen, &counts);
    match &end {
        _ if seen.job.is_ending() => {}
        Some(_) => stop_all(&mut plan, &seen, "the job is over"),
        None if seen.body.spec.suspend => stop_all(&mut plan, &seen, "the job is suspended"),
        None => start::manage(&mut plan, &seen, &counts),
    }
    report(&mut plan, key, &seen, &counts, end);
    plan
}

/// Lets go the pods of an earlier Job of this name: nobody will count them.
fn forget(plan: &mut Plan, key: &Key, world: &dyn World) {
    let job = world.get(key);
    let is_earlier = |pod: &Object| {
        let owner = pod.controller().filter(|owner| owner.kind == "Job" && owner.name == key.name);
        owner.is_some_and(|owner| job.as_ref().is_none_or(|job| job.uid() != owner.uid))
    };
    for pod in world.list(&POD, &key.namespace).into_iter().filter(is_earlier) {
        let_go(plan, &pod, "its job is gone");
    }
}

fn see<'a>(key: &Key, world: &'a dyn World, now: Time, plan: &mut Plan) -> Option<Seen<'a>> {
    let job = world.get(key)?;
    let body: Arc<Body> = job.seen()?;
    if !matches!(body.spec.managed_by.as_str(), "" | OURS) {
        return None;
    }
    let selector = crate::selector(&body.spec.selector);
    if selector.is_everything() {
        return None;
    }
    let claim = owning::claim(&job, &selector, world.list(&POD, job.namespace())).held_by(TRACKING);
    claim.write(plan, &POD, &job, &JOB, "Job");
    Some(Seen { world, job, body, pods: Pod::all(claim.mine), now })
}

impl Seen<'_> {
    fn is_indexed(&self) -> bool {
        self.body.spec.completion_mode == "Indexed"
    }

    fn indexes(&self) -> i64 {
        self.body.spec.completions.unwrap_or(0)
    }

    fn failed_indexes(&self) -> Indexes {
        Indexes::read(&self.body.status.failed_indexes)
    }

    fn event(&self, reason: &str, message: String) -> EventNote {
        EventNote::normal(&self.job, &JOB, "Job", reason, message)
    }

    /// Pods that run or may come to run.
    fn active(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| pod.is_active())
    }

    /// Pods that are going and have not ended.
    fn terminating(&self) -> usize {
        self.pods.iter().filter(|pod| pod.is_ending() && !pod.is_terminal()).count()
    }
}

fn holds(conditions: &[Tree], kind: &str) -> bool {
    status::condition(conditions, kind).is_some_and(|condition| condition["status"] == "True")
}

fn is_over(conditions: &[Tree]) -> bool {
    holds(conditions, "Complete") || holds(conditions, "Failed")
}

/// How the Job ends; `None` while it goes on. What was once decided stands.
fn end(seen: &Seen<'_>, counts: &Counts) -> Option<End> {
    for (kind, is_success) in [("FailureTarget", false), ("SuccessCriteriaMet", true)] {
        if let Some(known) =
            status::condition(&seen.body.status.conditions, kind).filter(|one| one["status"] == "True")
        {
            let text = |field: &str| known[field].as_str().unwrap_or_default().to_owned();
            return Some(End { is_success, reason: text("reason"), message: text("message") });
        }
    }
    failure(seen, counts).or_else(|| success(seen, counts))
}

fn failure(seen: &Seen<'_>, counts: &Counts) -> Option<End> {
    let spec = &seen.body.spec;
    let failed =
        |reason: &str, message: String| Some(End { is_success: false, reason: reason.into(), message });
    if let Some(message) = policy::fails_job(seen) {
        return failed("PodFailurePolicy", message);
    }
    let deadline = deadline(seen);
    if deadline.is_some_and(|deadline| deadline <= seen.now) && !spec.suspend {
        return failed("DeadlineExceeded", "Job was active longer than specified deadline".into());
    }
    if spec.backoff_limit_per_index.is_none() {
        let limit = spec.backoff_limit.unwrap_or(6);
        if counts.failed > limit || start::restarts(seen) > limit {
            return failed("BackoffLimitExceeded", "Job has reached the specified backoff limit".into());
        }
        return None;
    }
    let failed_count = counts.failed_indexes.len();
    if spec.max_failed_indexes.is_some_and(|max| failed_count > max) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return failed("MaxFailedIndexesExceeded", message.into());
    }
    if failed_count > 0 && failed_count + counts.completed.len() >= seen.indexes() {
        return failed("FailedIndexes", "Job has failed indexes".into());
    }
    None
}

fn success(seen: &Seen<'_>, counts: &Counts) -> Option<End> {
    let succeeded =
        |reason: &str, message: String| Some(End { is_success: true, reason: reason.into(), message });
    if let Some(message) = policy::succeeds_job(seen, &counts.completed) {
        return succeeded("SuccessPolicy", message);
    }
    let is_complete = match seen.body.spec.completions {
        Some(_) if seen.is_indexed() => counts.completed.len() >= seen.indexes(),
        Some(completions) => counts.succeeded >= completions,
        // A work queue: one pod that succeeds says that there is no work, the others finish theirs.
        None => counts.succeeded > 0 && seen.active().count() == 0,
    };
    if is_complete {
        succeeded("CompletionsReached", "Reached expected number of succeeded pods".into())
    } else {
        None
    }
}

/// When the Job has been active for too long.
fn deadline(seen: &Seen<'_>) -> Option<Time> {
    Some(time::after_seconds(seen.body.status.start_time?, seen.body.spec.active_deadline_seconds?))
}

fn stop_all(plan: &mut Plan, seen: &Seen<'_>, why: &str) {
    for pod in seen.active() {
        start::stop(plan, seen, pod, why);
    }
}

/// Lets go the pods whose end is counted, or all.
fn release(plan: &mut Plan, seen: &Seen<'_>, counted: &BTreeSet<String>, all: bool) {
    for pod in seen.pods.iter().filter(|pod| all || counted.contains(pod.object.uid())) {
        let_go(plan, &pod.object, "its end is counted");
    }
}

fn let_go(plan: &mut Plan, pod: &Object, why: &str) {
    let held = &pod.meta().finalizers;
    if held.iter().any(|held| held == TRACKING) {
        let left: Vec<&String> = held.iter().filter(|held| *held != TRACKING).collect();
        let key = Key::new(&POD, pod.namespace(), pod.name());
        plan.patch(key, "", json!({"metadata": {"finalizers": left}}), Precondition::exactly(pod), why);
    }
}

/// A Job that is over goes after its time.
fn expire(plan: &mut Plan, key: &Key, seen: &Seen<'_>) {
    let conditions = &seen.body.status.conditions;
    let over = conditions
        .iter()
        .find(|one| one["status"] == "True" && (one["type"] == "Complete" || one["type"] == "Failed"));
    let since = over.and_then(|one| one["lastTransitionTime"].as_str()?.parse::<Time>().ok());
    let (Some(seconds), Some(since)) = (seen.body.spec.ttl_seconds_after_finished, since) else { return };
    if seen.job.is_ending() {
        return;
    }
    match time::after_seconds(since, seconds) {
        at if at > seen.now => plan.wake(at),
        _ => plan.act(
            model::Write::Delete {
                key: key.clone(),
                when: Precondition::exactly(&seen.job),
                grace_seconds: None,
                propagation: model::Propagation::Foreground,
            },
            "it has been over for its time",
        ),
    }
}

fn report(plan: &mut Plan, key: &Key, seen: &Seen<'_>, counts: &Counts, end: Option<End>) {
    let spec = &seen.body.spec;
    let mut conditions = seen.body.status.conditions.clone();
    let mut start_time = seen.body.status.start_time;
    let mut completion_time = None;
    if end.is_none() {
        suspend(&mut conditions, seen, &mut start_time);
    }
    let active = i64::try_from(seen.active().count()).unwrap_or(i64::MAX);
    let terminating = i64::try_from(seen.terminating()).unwrap_or(i64::MAX);
    let ready = seen.active().filter(|pod| pod.is_ready()).count();
    let mut told = None;
    if let Some(end) = end {
        let is_still = active == 0 && terminating == 0 && counts.uncounted_len() == 0;
        let kind = match (end.is_success, is_still) {
            (true, true) => "Complete",
            (false, true) => "Failed",
            (true, false) => "SuccessCriteriaMet",
            (false, false) => "FailureTarget",
        };
        if is_still && end.is_success {
            completion_time = Some(seen.now);
        }
        let interim = if end.is_success { "SuccessCriteriaMet" } else { "FailureTarget" };
        for kind in [interim, kind] {
            put(&mut conditions, kind, &end, seen.now);
        }
        told = is_still.then(|| {
            if end.is_success {
                seen.event("Completed", "Job completed".into())
            } else {
                seen.event(&end.reason, end.message.clone()).warning()
            }
        });
    } else if let Some(deadline) = deadline(seen).filter(|_| !spec.suspend) {
        plan.wake(deadline);
    }
    let mut wanted = json!({
        "active": status::count(active), "ready": ready, "terminating": terminating,
        "succeeded": status::count(counts.succeeded_counted), "failed": status::count(counts.failed_counted),
        "uncountedTerminatedPods": counts.uncounted(), "conditions": status::written(conditions),
        "startTime": start_time.map_or(Tree::Null, |at| time::seconds(at).into()),
    });
    if let Some(at) = completion_time {
        wanted["completionTime"] = time::seconds(at).into();
    }
    if seen.is_indexed() {
        wanted["completedIndexes"] = counts.completed_counted.written();
        if spec.backoff_limit_per_index.is_some() {
            wanted["failedIndexes"] = counts.failed_indexes.to_string().into();
        }
    }
    let before = plan.acts.len();
    status::write(plan, key, &seen.job, &wanted, "its pods changed");
    if let (true, Some(event)) = (plan.acts.len() > before, told) {
        plan.tell(event);
    }
}

/// A condition is set once; an end that was decided keeps its words.
fn put(conditions: &mut Vec<Tree>, kind: &str, end: &End, now: Time) {
    if holds(conditions, kind) {
        return;
    }
    let says = Says { kind, status: "True", reason: &end.reason, message: &end.message };
    status::set_condition(conditions, says, now);
    probed(conditions, kind, now);
}

fn probed(conditions: &mut [Tree], kind: &str, now: Time) {
    if let Some(condition) = conditions.iter_mut().find(|one| one["type"] == kind) {
        condition["lastProbeTime"] = time::seconds(now).into();
    }
}

/// A Job that is suspended has not started; one that goes on starts anew.
fn suspend(conditions: &mut Vec<Tree>, seen: &Seen<'_>, start_time: &mut Option<Time>) {
    let was = holds(conditions, "Suspended");
    let says = match (seen.body.spec.suspend, was) {
        (true, false) => {
            Says { kind: "Suspended", status: "True", reason: "JobSuspended", message: "Job suspended" }
        }
        (false, true) => {
            Says { kind: "Suspended", status: "False", reason: "JobResumed", message: "Job resumed" }
        }
        (true, true) => return,
        (false, false) => {
            *start_time = start_time.or(Some(seen.now));
            return;
        }
    };
    status::set_condition(conditions, says, seen.now);
    probed(conditions, "Suspended", seen.now);
    *start_time = if seen.body.spec.suspend { None } else { Some(seen.now) };
}
