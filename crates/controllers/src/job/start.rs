//! Which pods of a Job to start and stop while it goes on.

use std::collections::{BTreeMap, BTreeSet};

use model::kinds::{JOB, POD};
use model::{Key, Plan, Precondition, Time, Tree, time};
use serde_json::json;

use super::{Counts, Seen, TRACKING, counting};
use crate::pods::Pod;
use crate::{naming, owning, templates};

/// The label and annotation of a pod's index.
pub(super) const INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The annotation that counts the failures of an index before this pod.
const FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";

/// How long a Job rests after its first failed pod, in seconds; twice as long after each further one.
const REST_SECONDS: i64 = 10;
/// How long it rests at most, in seconds.
const REST_SECONDS_MAX: i64 = 600;
/// How many pods one pass starts or stops.
const BURST_MAX: usize = 500;

/// Starts what is missing and stops what is too much.
pub(super) fn manage(plan: &mut Plan, seen: &Seen<'_>, counts: &Counts) {
    let spec = &seen.body.spec;
    let mut active: Vec<&Pod> = seen.active().collect();
    if seen.is_indexed() {
        active = stop_doubles(plan, seen, counts, active);
    }
    let count = i64::try_from(active.len()).unwrap_or(i64::MAX);
    let parallel = spec.parallelism.unwrap_or(1);
    let open = match spec.completions {
        Some(completions) => completions - counts.succeeded - counts.failed_indexes.len(),
        None if counts.succeeded > 0 => count,
        None => parallel,
    };
    let wanted = parallel.min(open).max(0);
    if count > wanted {
        active.sort_by_key(|pod| (pod.is_ready(), !pod.node().is_empty(), std::cmp::Reverse(index_of(pod))));
        for pod in active.into_iter().take(usize::try_from(count - wanted).unwrap_or(0)) {
            stop(plan, seen, pod, "more pods than asked for");
        }
        return;
    }
    let waiting = if waits_for_ending(seen) { i64::try_from(seen.terminating()).unwrap_or(0) } else { 0 };
    let missing = usize::try_from(wanted - count - waiting).unwrap_or(0).min(BURST_MAX);
    if missing == 0 {
        return;
    }
    if seen.is_indexed() {
        start_indexes(plan, seen, counts, &active, missing);
    } else {
        match rested_at(seen, seen.pods.iter(), counts.failed) {
            Some(at) if at > seen.now => plan.wake(at),
            _ => start(plan, seen, &vec![None; missing]),
        }
    }
}

/// Whether a pod that is going is replaced only when it has gone.
fn waits_for_ending(seen: &Seen<'_>) -> bool {
    seen.body.spec.pod_replacement_policy == "Failed" || !seen.body.spec.pod_failure_policy.rules.is_empty()
}

/// An index that is done, out of range or taken twice needs no further pod.
fn stop_doubles<'p>(plan: &mut Plan, seen: &Seen<'_>, counts: &Counts, active: Vec<&'p Pod>) -> Vec<&'p Pod> {
    let mut taken = BTreeSet::new();
    let (keep, surplus): (Vec<&Pod>, Vec<&Pod>) = active.into_iter().partition(|pod| {
        index_of(pod).is_some_and(|index| {
            (0..seen.indexes()).contains(&index)
                && !counts.completed.contains(index)
                && !counts.failed_indexes.contains(index)
                && taken.insert(index)
        })
    });
    for pod in surplus {
        stop(plan, seen, pod, "its index needs no pod");
    }
    keep
}

/// Starts the first indexes that are open.
fn start_indexes(plan: &mut Plan, seen: &Seen<'_>, counts: &Counts, active: &[&Pod], missing: usize) {
    let mut taken: BTreeSet<i64> = active.iter().filter_map(|pod| index_of(pod)).collect();
    if waits_for_ending(seen) {
        taken.extend(
            seen.pods.iter().filter(|pod| pod.is_ending() && !pod.is_terminal()).filter_map(index_of),
        );
    }
    let mut failed: BTreeMap<i64, Vec<&Pod>> = BTreeMap::new();
    for pod in seen.pods.iter().filter(|pod| counting::has_failed(seen, pod)) {
        failed.entry(index_of(pod).unwrap_or(-1)).or_default().push(pod);
    }
    let per_index = seen.body.spec.backoff_limit_per_index.is_some();
    let job_rest = rested_at(seen, seen.pods.iter(), counts.failed);
    let mut chosen = Vec::new();
    for index in 0..seen.indexes() {
        if chosen.len() == missing {
            break;
        }
        if taken.contains(&index) || counts.completed.contains(index) || counts.failed_indexes.contains(index)
        {
            continue;
        }
        let own = failed.get(&index);
        let failures =
            own.map_or(0, |pods| pods.iter().map(|pod| failures_before(pod) + 1).max().unwrap_or(0));
        let rest =
            if per_index { rested_at(seen, own.into_iter().flatten().copied(), failures) } else { job_rest };
        match rest {
            Some(at) if at > seen.now => plan.wake(at),
            _ => chosen.push(Some((index, failures))),
        }
    }
    start(plan, seen, &chosen);
}

/// When the next pod may start after the failures of these.
fn rested_at<'p>(seen: &Seen<'_>, pods: impl Iterator<Item = &'p Pod>, failures: i64) -> Option<Time> {
    let last = pods.filter(|pod| counting::has_failed(seen, pod)).filter_map(ended_at).max()?;
    if failures == 0 {
        return None;
    }
    let doublings = u32::try_from(failures - 1).unwrap_or(u32::MAX).min(10);
    let rest = (REST_SECONDS << doublings).min(REST_SECONDS_MAX);
    Some(time::after_seconds(last, rest))
}

fn ended_at(pod: &Pod) -> Option<Time> {
    let ends =
        pod.status().container_statuses.iter().filter_map(|one| one.state.terminated.as_ref()?.finished_at);
    ends.max().or(pod.object.meta().deletion_timestamp)
}

/// How often containers were started again in pods that restart them in place.
pub(super) fn restarts(seen: &Seen<'_>) -> i64 {
    if seen.body.spec.template["spec"]["restartPolicy"] != "OnFailure" {
        return 0;
    }
    let statuses = seen
        .active()
        .flat_map(|pod| pod.status().container_statuses.iter().chain(&pod.status().init_container_statuses));
    statuses.map(|one| i64::from(one.restart_count)).sum()
}

/// The index of a pod.
pub(super) fn index_of(pod: &Pod) -> Option<i64> {
    pod.object.meta().annotations.get(INDEX)?.parse().ok()
}

/// How often the pod's index had failed before it.
pub(super) fn failures_before(pod: &Pod) -> i64 {
    pod.object.meta().annotations.get(FAILURES).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// Starts pods, each with its index and how often that failed.
fn start(plan: &mut Plan, seen: &Seen<'_>, wanted: &[Option<(i64, i64)>]) {
    let job = &seen.job;
    let seed = [job.uid(), job.meta().resource_version()];
    let free = |stem: &str, count| naming::fresh(seen.world, &POD, job.namespace(), stem, &seed, count);
    let mut plain =
        free(&format!("{}-", job.name()), if seen.is_indexed() { 0 } else { wanted.len() }).into_iter();
    for index in wanted {
        let name = match index {
            Some((index, _)) => free(&format!("{}-{index}-", job.name()), 1).into_iter().next(),
            None => plain.next(),
        };
        let Some(name) = name else { continue };
        let pod = pod(seen, &name, *index);
        plan.create(&POD, job.namespace(), pod, "work is left");
        plan.tell(seen.event("SuccessfulCreate", "Created pod: {name}".into()));
    }
}

fn pod(seen: &Seen<'_>, name: &str, index: Option<(i64, i64)>) -> Tree {
    let job = &seen.job;
    let mut pod =
        templates::pod(&seen.body.spec.template, job.namespace(), name, owning::reference(job, &JOB, "Job"));
    let stem_len = name.len().saturating_sub(5);
    pod["metadata"]["generateName"] = name[..stem_len].into();
    let mut finalizers = pod["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.push(TRACKING.into());
    pod["metadata"]["finalizers"] = finalizers.into();
    let Some((index, failures)) = index else { return pod };
    let text = index.to_string();
    pod["metadata"]["annotations"][INDEX] = text.as_str().into();
    pod["metadata"]["labels"][INDEX] = text.as_str().into();
    if seen.body.spec.backoff_limit_per_index.is_some() {
        pod["metadata"]["annotations"][FAILURES] = failures.to_string().into();
    }
    if pod["spec"]["hostname"].as_str().is_none_or(str::is_empty) {
        pod["spec"]["hostname"] = format!("{}-{index}", job.name()).into();
    }
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            tell_index(container);
        }
    }
    naming::plain(pod)
}

/// A container learns its index from its environment.
fn tell_index(container: &mut Tree) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let mut env = container["env"].as_array().cloned().unwrap_or_default();
    if !env.iter().any(|one| one["name"] == NAME) {
        let path = format!("metadata.labels['{INDEX}']");
        env.push(json!({"name": NAME, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}));
        container["env"] = env.into();
    }
}

/// Stops a pod.
pub(super) fn stop(plan: &mut Plan, seen: &Seen<'_>, pod: &Pod, why: &str) {
    let key = Key::new(&POD, pod.object.namespace(), pod.name());
    plan.delete(key, Precondition::same(&pod.object), why);
    plan.tell(seen.event("SuccessfulDelete", format!("Deleted pod: {}", pod.name())));
}
