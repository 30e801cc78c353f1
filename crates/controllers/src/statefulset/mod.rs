//! StatefulSet: pods with an identity each, started in order, stopped in reverse, updated from the last to the first.
//!
//! When nothing changes any more, each ordinal has one ready pod of the right revision with its claims. No pod is made
//! while another of its name exists, so an identity is never given twice; claims are deleted only where the author asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::kinds::{POD, STATEFUL_SET, of};
use model::{Controller, EventNote, Key, Object, Plan, Precondition, Time, Tree, Watch, World};
use serde::Deserialize;
use serde_json::json;

use crate::pods::{Availability, Pod};
use crate::revisions::{self, History, Revision};
use crate::{owning, replicas, status};

mod claims;
mod identity;
#[cfg(test)]
mod tests;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "statefulset-controller",
    primary: of::STATEFUL_SET,
    also: &[
        Watch { gvr: of::POD, wakes: |pod, world| replicas::wakes(pod, world, &STATEFUL_SET, "StatefulSet") },
        Watch { gvr: of::PERSISTENT_VOLUME_CLAIM, wakes: model::controller::nobody },
        Watch {
            gvr: of::CONTROLLER_REVISION,
            wakes: |revision, _| model::controller::owner(revision, &STATEFUL_SET, "StatefulSet"),
        },
    ],
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
    replicas: Option<i64>,
    selector: Tree,
    template: Tree,
    service_name: String,
    pod_management_policy: String,
    update_strategy: Strategy,
    revision_history_limit: Option<usize>,
    min_ready_seconds: i32,
    volume_claim_templates: Vec<Tree>,
    persistent_volume_claim_retention_policy: Retention,
    ordinals: Ordinals,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Strategy {
    #[serde(rename = "type")]
    kind: String,
    rolling_update: Option<Rolling>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rolling {
    partition: i64,
    max_unavailable: Tree,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Retention {
    when_deleted: String,
    when_scaled: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ordinals {
    start: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    current_revision: String,
    current_replicas: i64,
}

/// A StatefulSet and its pods.
struct Seen<'a> {
    world: &'a dyn World,
    set: Object,
    body: Arc<Body>,
    /// Its pods by ordinal.
    pods: BTreeMap<i64, Pod>,
    /// The revision that is being left.
    current: Revision,
    /// The revision of the present template.
    update: Revision,
    now: Time,
}

/// What becomes of an ordinal that should have a pod.
enum Fate {
    Keep,
    Start,
    /// Its pod is over: it makes place for a new one of the same name.
    Restart,
    /// Its pod is not ready yet, or is going.
    Wait,
    /// Its pod or its claims are not as they should be.
    Mend,
}

/// Decides on one StatefulSet.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some((seen, history)) = see(key, world, now, &mut plan) else { return plan };
    if !plan.is_quiet() {
        return plan;
    }
    if !seen.set.is_ending() {
        claims::own(&mut plan, &seen);
        let is_settled = fill(&mut plan, &seen) && shrink(&mut plan, &seen);
        if is_settled {
            roll(&mut plan, &seen);
        }
        let mut used: BTreeSet<String> =
            seen.pods.values().filter_map(|pod| revision_of(pod).map(str::to_owned)).collect();
        used.insert(seen.current.object.name().to_owned());
        history.clean(&mut plan, &used, seen.body.spec.revision_history_limit);
    }
    report(&mut plan, key, &seen);
    plan
}

fn see<'a>(key: &Key, world: &'a dyn World, now: Time, plan: &mut Plan) -> Option<(Seen<'a>, History)> {
    let set = world.get(key)?;
    let body: Arc<Body> = set.seen()?;
    let selector = crate::selector(&body.spec.selector);
    if selector.is_everything() {
        return None;
    }
    let owner = revisions::Owner {
        object: &set,
        gvr: &STATEFUL_SET,
        kind: "StatefulSet",
        selector: &selector,
        template: &body.spec.template,
    };
    let history = owner.history(plan, world);
    let all = world.list(&POD, set.namespace());
    let named = all.into_iter().filter(|pod| identity::ordinal(&set, pod.name()).is_some()).collect();
    let claim = owning::claim(&set, &selector, named);
    claim.write(plan, &POD, &set, &STATEFUL_SET, "StatefulSet");
    let pods = Pod::all(claim.mine).into_iter();
    let pods = pods.filter_map(|pod| Some((identity::ordinal(&set, pod.name())?, pod))).collect();
    let update = history.update.clone()?;
    let current = history.named(&body.status.current_revision).cloned().unwrap_or_else(|| update.clone());
    Some((Seen { world, set, body, pods, current, update, now }, history))
}

impl Seen<'_> {
    /// The ordinals that should have pods.
    fn ordinals(&self) -> std::ops::Range<i64> {
        let start = self.body.spec.ordinals.start;
        start..start + self.body.spec.replicas.unwrap_or(1).max(0)
    }

    /// Whether each pod waits for the one before it.
    fn is_ordered(&self) -> bool {
        self.body.spec.pod_management_policy != "Parallel"
    }

    fn is_available(&self, pod: &Pod) -> bool {
        self.availability(pod) == Availability::Yes
    }

    fn availability(&self, pod: &Pod) -> Availability {
        match pod.phase() {
            "Running" if !pod.is_ending() => pod.availability(self.body.spec.min_ready_seconds, self.now),
            _ => Availability::No,
        }
    }

    /// Which revision a new pod of this ordinal is made from.
    fn revision_for(&self, ordinal: i64) -> &Revision {
        let strategy = &self.body.spec.update_strategy;
        let start = self.body.spec.ordinals.start;
        let old_until = match &strategy.rolling_update {
            _ if strategy.kind == "OnDelete" => start,
            Some(rolling) => start.max(rolling.partition),
            None => start + self.body.status.current_replicas,
        };
        if ordinal < old_until { &self.current } else { &self.update }
    }

    fn event(&self, reason: &str, message: String) -> EventNote {
        EventNote::normal(&self.set, &STATEFUL_SET, "StatefulSet", reason, message)
    }
}

fn revision_of(pod: &Pod) -> Option<&str> {
    pod.object.meta().labels.get(revisions::HASH)
}

/// Sees to it that each ordinal has its pod; says whether there is nothing to wait for.
fn fill(plan: &mut Plan, seen: &Seen<'_>) -> bool {
    for ordinal in seen.ordinals() {
        let is_done = match fate(seen, ordinal) {
            Fate::Keep => true,
            Fate::Start => {
                start(plan, seen, ordinal);
                false
            }
            Fate::Restart => {
                if let Some(pod) = seen.pods.get(&ordinal) {
                    stop(plan, seen, pod, "its pod is over", "SuccessfulDelete");
                }
                false
            }
            Fate::Wait => false,
            Fate::Mend => {
                mend(plan, seen, ordinal);
                false
            }
        };
        if !is_done && seen.is_ordered() {
            return false;
        }
    }
    true
}

fn fate(seen: &Seen<'_>, ordinal: i64) -> Fate {
    let Some(pod) = seen.pods.get(&ordinal) else {
        // A pod of this name that is not ours keeps the name.
        let name = identity::name(&seen.set, ordinal);
        let is_taken = seen.world.get(&Key::new(&POD, seen.set.namespace(), name)).is_some();
        return if is_taken { Fate::Wait } else { Fate::Start };
    };
    match () {
        () if pod.is_ending() => Fate::Wait,
        () if pod.is_terminal() => Fate::Restart,
        () if !identity::holds(pod) || !claims::missing(seen, ordinal).is_empty() => Fate::Mend,
        () if seen.is_available(pod) => Fate::Keep,
        () => Fate::Wait,
    }
}

/// Stops what is beyond the wanted ordinals, the last first; says whether there is nothing to wait for.
fn shrink(plan: &mut Plan, seen: &Seen<'_>) -> bool {
    let wanted = seen.ordinals();
    let surplus: Vec<&Pod> =
        seen.pods.iter().rev().filter(|(ordinal, _)| !wanted.contains(ordinal)).map(|(_, pod)| pod).collect();
    let Some(first_unhealthy) =
        surplus.iter().rev().find(|pod| !seen.is_available(pod)).map(|pod| pod.name())
    else {
        return shrink_healthy(plan, seen, &surplus);
    };
    for pod in surplus {
        let is_blocked = !seen.is_available(pod) && pod.name() != first_unhealthy;
        if pod.is_ending() || is_blocked {
            if seen.is_ordered() {
                return false;
            }
            if pod.is_ending() {
                continue;
            }
        }
        stop(plan, seen, pod, "beyond the replicas asked for", "SuccessfulDelete");
        if seen.is_ordered() {
            return false;
        }
    }
    true
}

fn shrink_healthy(plan: &mut Plan, seen: &Seen<'_>, surplus: &[&Pod]) -> bool {
    let turn = if seen.is_ordered() { surplus.len().min(1) } else { surplus.len() };
    for pod in &surplus[..turn] {
        stop(plan, seen, pod, "beyond the replicas asked for", "SuccessfulDelete");
    }
    surplus.is_empty()
}

/// Replaces pods of old revisions, the last first, down to the partition.
fn roll(plan: &mut Plan, seen: &Seen<'_>) {
    let strategy = &seen.body.spec.update_strategy;
    if strategy.kind == "OnDelete" {
        return;
    }
    let rolling = strategy.rolling_update.as_ref();
    let partition = rolling.map_or(0, |rolling| rolling.partition);
    let ordinals = seen.ordinals();
    let whole = ordinals.end - ordinals.start;
    let allowed = rolling.map_or(1, |rolling| match &rolling.max_unavailable {
        Tree::Null => 1,
        share => crate::share(share, whole, true).max(1),
    });
    let mut unavailable = 0;
    for ordinal in ordinals.rev() {
        let Some(pod) = seen.pods.get(&ordinal) else { return };
        let is_old = revision_of(pod) != Some(seen.update.object.name());
        if is_old && ordinal >= partition && !pod.is_ending() {
            stop(plan, seen, pod, "its template is an old one", "SuccessfulDelete");
            unavailable += 1;
        } else if !seen.is_available(pod) {
            unavailable += 1;
        }
        if unavailable >= allowed || ordinal < partition {
            return;
        }
    }
}

fn start(plan: &mut Plan, seen: &Seen<'_>, ordinal: i64) {
    claims::make(plan, seen, ordinal);
    let pod = identity::pod(seen, ordinal);
    let name = identity::name(&seen.set, ordinal);
    plan.create(&POD, seen.set.namespace(), pod, "its ordinal has no pod");
    let message = format!("create Pod {name} in StatefulSet {} successful", seen.set.name());
    plan.tell(seen.event("SuccessfulCreate", message));
}

fn stop(plan: &mut Plan, seen: &Seen<'_>, pod: &Pod, why: &str, reason: &str) {
    let key = Key::new(&POD, pod.object.namespace(), pod.name());
    plan.delete(key, Precondition::same(&pod.object), why);
    let message = format!("delete Pod {} in StatefulSet {} successful", pod.name(), seen.set.name());
    plan.tell(seen.event(reason, message));
}

fn mend(plan: &mut Plan, seen: &Seen<'_>, ordinal: i64) {
    claims::make(plan, seen, ordinal);
    let Some(pod) = seen.pods.get(&ordinal).filter(|pod| !identity::holds(pod)) else { return };
    let patch = json!({"metadata": {"labels": identity::labels(pod.name(), ordinal)}});
    let key = Key::new(&POD, pod.object.namespace(), pod.name());
    plan.patch(key, "", patch, Precondition::same(&pod.object), "its labels do not name it");
}

fn report(plan: &mut Plan, key: &Key, seen: &Seen<'_>) {
    let (mut all, mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0, 0);
    for pod in seen.pods.values() {
        all += 1;
        let of = |revision: &Revision| revision_of(pod) == Some(revision.object.name());
        current += i64::from(!pod.is_ending() && of(&seen.current));
        updated += i64::from(!pod.is_ending() && of(&seen.update));
        ready += i64::from(pod.phase() == "Running" && pod.is_ready());
        match seen.availability(pod) {
            Availability::Yes => available += 1,
            Availability::From(at) => plan.wake(at),
            Availability::No => {}
        }
    }
    let asked = seen.body.spec.replicas.unwrap_or(1);
    let is_complete =
        updated == all && ready == all && all == asked && seen.body.spec.update_strategy.kind != "OnDelete";
    let (current, revision) = if is_complete { (updated, &seen.update) } else { (current, &seen.current) };
    let wanted = json!({
        "replicas": all, "readyReplicas": status::count(ready), "availableReplicas": available,
        "currentReplicas": status::count(current), "updatedReplicas": status::count(updated),
        "currentRevision": revision.object.name(), "updateRevision": seen.update.object.name(),
        "observedGeneration": seen.set.meta().generation,
        "collisionCount": status::of(&seen.set)["collisionCount"].as_i64().unwrap_or(0),
    });
    status::write(plan, key, &seen.set, &wanted, "its pods changed");
}
