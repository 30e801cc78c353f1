//! What a Deployment says of itself: its counts, and whether it is available and gets on.

use model::{Plan, Time, Tree, time};
use serde_json::json;

use super::{Seen, Set};
use crate::status;

/// The deadline that stands for none.
const NO_DEADLINE: i64 = i32::MAX as i64;

/// A condition's status, reason and message.
type Says = (&'static str, &'static str, String);

/// The counts of a Deployment's status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    replicas: i64,
    updated: i64,
    ready: i64,
    available: i64,
    unavailable: i64,
    terminating: i64,
}

/// Whether the new pods are all there and available, and the old ones gone.
pub(super) fn is_complete(seen: &Seen<'_>) -> bool {
    completes(&counts(seen), seen.wanted())
}

fn completes(counts: &Counts, wanted: i64) -> bool {
    counts.updated == wanted && counts.replicas == wanted && counts.available == wanted
}

/// Brings the status up to date.
pub(super) fn report(plan: &mut Plan, seen: &Seen<'_>) {
    let known = status::of(&seen.object);
    let counts = counts(seen);
    let mut conditions = status::conditions(&known);
    set_available(&mut conditions, seen, &counts);
    set_failure(&mut conditions, seen);
    if has_deadline(seen) {
        set_progress(plan, &mut conditions, seen, &counts, &known);
    } else {
        status::drop_condition(&mut conditions, "Progressing");
    }
    let wanted = json!({
        "observedGeneration": seen.object.meta().generation,
        "replicas": status::count(counts.replicas), "updatedReplicas": status::count(counts.updated),
        "readyReplicas": status::count(counts.ready), "availableReplicas": status::count(counts.available),
        "unavailableReplicas": status::count(counts.unavailable), "terminatingReplicas": counts.terminating,
        "conditions": status::written(conditions),
    });
    status::write(plan, &seen.key, &seen.object, &wanted, "its ReplicaSets changed");
}

fn counts(seen: &Seen<'_>) -> Counts {
    let sum = |count: fn(&Set) -> i64| seen.sets().map(count).sum::<i64>();
    let available = sum(|set| set.status().available_replicas);
    Counts {
        replicas: sum(|set| set.status().replicas),
        updated: seen.new.as_ref().map_or(0, |new| new.status().replicas),
        ready: sum(|set| set.status().ready_replicas),
        available,
        unavailable: (sum(Set::size) - available).max(0),
        terminating: sum(|set| set.status().terminating_replicas),
    }
}

fn set_available(conditions: &mut Vec<Tree>, seen: &Seen<'_>, counts: &Counts) {
    let says: Says = if counts.available >= seen.wanted() - seen.bounds().1 {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.".into())
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.".into())
    };
    put(conditions, "Available", says, seen.now);
}

/// A ReplicaSet that cannot make its pods says why; so does its Deployment.
fn set_failure(conditions: &mut Vec<Tree>, seen: &Seen<'_>) {
    let failing = seen.new.iter().chain(seen.old.iter().rev());
    let failure =
        failing.flat_map(|set| status::condition(&set.status().conditions, "ReplicaFailure")).next();
    status::drop_condition(conditions, "ReplicaFailure");
    if let Some(failure) = failure {
        let mut failure = failure.clone();
        failure["lastUpdateTime"] = failure["lastTransitionTime"].clone();
        conditions.push(failure);
    }
}

fn has_deadline(seen: &Seen<'_>) -> bool {
    seen.body.spec.progress_deadline_seconds.is_some_and(|deadline| deadline != NO_DEADLINE)
}

fn set_progress(plan: &mut Plan, conditions: &mut Vec<Tree>, seen: &Seen<'_>, counts: &Counts, known: &Tree) {
    let before = status::condition(conditions, "Progressing").cloned().unwrap_or_default();
    let reason = before["reason"].as_str().unwrap_or_default();
    let timed_out = reason == "ProgressDeadlineExceeded";
    let subject = match &seen.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name()),
        None => format!("Deployment \"{}\"", seen.object.name()),
    };
    let deadline = deadline(seen, &before);
    let is_current = known["observedGeneration"] == seen.object.meta().generation;
    match () {
        () if seen.body.spec.paused && (timed_out || reason == "DeploymentPaused") => {}
        () if seen.body.spec.paused => {
            set(conditions, ("Unknown", "DeploymentPaused", "Deployment is paused".into()), seen.now);
        }
        () if reason == "DeploymentPaused" => {
            set(conditions, ("Unknown", "DeploymentResumed", "Deployment is resumed".into()), seen.now);
        }
        () if is_current && reason == "NewReplicaSetAvailable" && counts.replicas == counts.updated => {}
        () if completes(counts, seen.wanted()) && seen.new.is_some() => {
            let message = format!("{subject} has successfully progressed.");
            set(conditions, ("True", "NewReplicaSetAvailable", message), seen.now);
        }
        () if before.is_null() => begin(conditions, seen),
        () if gets_on(counts, known) => {
            set(conditions, ("True", "ReplicaSetUpdated", format!("{subject} is progressing.")), seen.now);
        }
        () if timed_out || reason == "NewReplicaSetAvailable" => {}
        () => match deadline {
            Some(deadline) if deadline <= seen.now => {
                let message = format!("{subject} has timed out progressing.");
                set(conditions, ("False", "ProgressDeadlineExceeded", message), seen.now);
            }
            Some(deadline) => plan.wake(deadline),
            None => {}
        },
    }
    if seen.body.spec.paused {
        return;
    }
    let after = status::condition(conditions, "Progressing").cloned().unwrap_or_default();
    let settled =
        matches!(after["reason"].as_str(), Some("NewReplicaSetAvailable" | "ProgressDeadlineExceeded"));
    if let (false, Some(deadline)) = (settled, self::deadline(seen, &after)) {
        plan.wake(deadline);
    }
}

/// The first word on a new rollout.
fn begin(conditions: &mut Vec<Tree>, seen: &Seen<'_>) {
    let says = match &seen.new {
        Some(new) => ("True", "NewReplicaSetCreated", format!("Created new replica set \"{}\"", new.name())),
        None => return,
    };
    set(conditions, says, seen.now);
}

/// When the present rollout has taken too long.
fn deadline(seen: &Seen<'_>, progressing: &Tree) -> Option<Time> {
    let since = progressing["lastUpdateTime"].as_str()?.parse().ok()?;
    Some(time::after_seconds(since, seen.body.spec.progress_deadline_seconds?))
}

/// Whether there are more new, ready or available pods than the status knows, or fewer old ones.
fn gets_on(counts: &Counts, known: &Tree) -> bool {
    let before = |field: &str| known[field].as_i64().unwrap_or(0);
    let old_before = before("replicas") - before("updatedReplicas");
    counts.updated > before("updatedReplicas")
        || counts.replicas - counts.updated < old_before
        || counts.ready > before("readyReplicas")
        || counts.available > before("availableReplicas")
}

/// Says how it gets on; the time of the update is renewed each time.
pub(super) fn set(conditions: &mut Vec<Tree>, says: Says, now: Time) {
    put(conditions, "Progressing", says, now);
    if let Some(condition) = conditions.iter_mut().find(|condition| condition["type"] == "Progressing") {
        condition["lastUpdateTime"] = time::seconds(now).into();
    }
}

/// Sets a condition, touching nothing when it already says so.
fn put(conditions: &mut Vec<Tree>, kind: &str, (value, reason, message): Says, now: Time) {
    let same = status::condition(conditions, kind).is_some_and(|known| {
        known["status"] == value && known["reason"] == reason && known["message"] == *message
    });
    if same {
        return;
    }
    let says = status::Says { kind, status: value, reason, message: &message };
    status::set_condition(conditions, says, now);
    if let Some(condition) = conditions.iter_mut().find(|condition| condition["type"] == kind) {
        condition["lastUpdateTime"] = time::seconds(now).into();
    }
}
