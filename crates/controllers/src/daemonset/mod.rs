//! Decides which pods of a DaemonSet to start and stop.
//!
//! When nothing changes any more, every node that welcomes the set runs exactly one of its pods, made from its present
//! template, except where the set is updated by hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Toleration;
use model::fit::{self, NodeFacts, PodFacts};
use model::kinds::{DAEMON_SET, NODE, POD, of};
use model::{
    Controller, EventNote, Key, Object, Plan, Precondition, Selector, Time, Tree, Watch, World, time,
};
use serde::Deserialize;
use serde_json::json;

use crate::pods::{Availability, Pod};
use crate::revisions::{self, History};
use crate::{naming, owning, replicas, status, templates};

#[cfg(test)]
mod tests;

/// How long a failed pod stays in place before it is replaced.
///
/// Long enough to read its log, short enough that no node lacks its daemon for a minute.
pub const FAILED_POD_REST_SECONDS: i64 = 10;

/// How many pods one pass starts or stops.
const BURST_MAX: usize = 250;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "daemonset-controller",
    primary: of::DAEMON_SET,
    also: &[
        Watch { gvr: of::POD, wakes: |pod, world| replicas::wakes(pod, world, &DAEMON_SET, "DaemonSet") },
        Watch { gvr: of::NODE, wakes: all_sets },
        Watch {
            gvr: of::CONTROLLER_REVISION,
            wakes: |revision, _| model::controller::owner(revision, &DAEMON_SET, "DaemonSet"),
        },
    ],
    reconcile,
};

fn all_sets(_: &Object, world: &dyn World) -> Vec<Key> {
    let sets = world.list(&DAEMON_SET, "");
    sets.iter().map(|set| Key::new(&DAEMON_SET, set.namespace(), set.name())).collect()
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    selector: Tree,
    template: Tree,
    min_ready_seconds: i32,
    update_strategy: Strategy,
    revision_history_limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Strategy {
    #[serde(rename = "type")]
    kind: String,
    rolling_update: Rolling,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rolling {
    max_unavailable: Tree,
    max_surge: Tree,
}

/// A DaemonSet, its nodes and its pods.
struct Seen<'a> {
    world: &'a dyn World,
    set: Object,
    body: Arc<Body>,
    /// What decides where its pods may run.
    facts: PodFacts,
    nodes: Vec<Arc<NodeFacts>>,
    /// Its pods by node, the oldest first.
    pods: BTreeMap<String, Vec<Pod>>,
    /// The hash of its present template.
    hash: String,
    now: Time,
}

/// Whom a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Welcome {
    /// Any pod of the set.
    Anyone,
    /// Only pods that are there already.
    Residents,
    /// None.
    Nobody,
}

/// What becomes of a node's pods.
enum Fate<'a> {
    Keep,
    Start,
    Stop { pods: Vec<&'a Pod>, why: &'static str },
    Wait { until: Time },
}

/// Decides on one DaemonSet.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some((seen, history)) = see(key, world, now, &mut plan) else { return plan };
    if !plan.is_quiet() || history.update.is_none() {
        return plan;
    }
    if !seen.set.is_ending() {
        for node in &seen.nodes {
            place(&mut plan, &seen, node);
        }
        sweep(&mut plan, &seen);
        if plan.is_quiet() {
            roll(&mut plan, &seen);
        }
        let used: BTreeSet<String> =
            seen.pods.values().flatten().filter_map(|pod| hash_of(pod).map(str::to_owned)).collect();
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
        gvr: &DAEMON_SET,
        kind: "DaemonSet",
        selector: &selector,
        template: &body.spec.template,
    };
    let history = owner.history(plan, world);
    let hash = history.update.as_ref().map(|update| update.hash().to_owned()).unwrap_or_default();
    let pods = claim(plan, world, &set, &selector);
    let facts = facts(&body.spec.template);
    let nodes = world.list(&NODE, "").iter().filter_map(Object::seen).collect();
    Some((Seen { world, set, body, facts, nodes, pods, hash, now }, history))
}

fn claim(
    plan: &mut Plan,
    world: &dyn World,
    set: &Object,
    selector: &Selector,
) -> BTreeMap<String, Vec<Pod>> {
    let claim = owning::claim(set, selector, world.list(&POD, set.namespace()));
    claim.write(plan, &POD, set, &DAEMON_SET, "DaemonSet");
    let mut pods: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
    for pod in Pod::all(claim.mine) {
        pods.entry(node_of(&pod)).or_default().push(pod);
    }
    for pods in pods.values_mut() {
        pods.sort_by_key(|pod| (pod.object.meta().creation_timestamp, pod.name().to_owned()));
    }
    pods
}

/// The node a pod is bound to, or was made for.
fn node_of(pod: &Pod) -> String {
    if !pod.node().is_empty() {
        return pod.node().to_owned();
    }
    let tree = pod.object.tree().unwrap_or_default();
    let required =
        &tree["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let field = &required["nodeSelectorTerms"][0]["matchFields"][0];
    if field["key"] == "metadata.name" {
        field["values"][0].as_str().unwrap_or_default().to_owned()
    } else {
        String::new()
    }
}

/// What every daemon endures beside what its template says: troubles of its node are no reason to leave it.
fn endured(host_network: bool) -> Vec<(&'static str, &'static str)> {
    let mut all = vec![
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    if host_network {
        all.push(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    }
    all
}

fn facts(template: &Tree) -> PodFacts {
    let pod = json!({"spec": naming::plain(template["spec"].clone())});
    let mut facts: PodFacts = serde_json::from_value(pod).unwrap_or_default();
    let host_network = template["spec"]["hostNetwork"] == true;
    facts.tolerations.extend(endured(host_network).into_iter().map(|(key, effect)| Toleration {
        key: Some(key.into()),
        operator: Some("Exists".into()),
        effect: Some(effect.into()),
        ..Toleration::default()
    }));
    facts
}

fn welcome(seen: &Seen<'_>, node: &NodeFacts) -> Welcome {
    let named = seen.facts.node.is_empty() || seen.facts.node == node.name;
    match () {
        () if !named || !fit::is_chosen(&seen.facts, node) => Welcome::Nobody,
        () if fit::untolerated(&seen.facts, node, &["NoExecute"]).is_some() => Welcome::Nobody,
        () if fit::untolerated(&seen.facts, node, &["NoSchedule"]).is_some() => Welcome::Residents,
        () => Welcome::Anyone,
    }
}

fn place(plan: &mut Plan, seen: &Seen<'_>, node: &NodeFacts) {
    if plan.acts.len() >= BURST_MAX {
        return plan.wake(seen.now);
    }
    match fate(seen, node) {
        Fate::Keep => {}
        Fate::Start => start(plan, seen, &node.name, "node has no daemon pod"),
        Fate::Stop { pods, why } => pods.into_iter().for_each(|pod| stop(plan, seen, pod, why)),
        Fate::Wait { until } => plan.wake(until),
    }
}

fn fate<'a>(seen: &'a Seen<'_>, node: &NodeFacts) -> Fate<'a> {
    let pods = seen.pods.get(&node.name).map(Vec::as_slice).unwrap_or_default();
    let staying: Vec<&Pod> = pods.iter().filter(|pod| !pod.is_ending()).collect();
    let over: Vec<&Pod> = staying.iter().copied().filter(|pod| pod.is_terminal()).collect();
    match (welcome(seen, node), staying.as_slice()) {
        (Welcome::Anyone, []) if pods.is_empty() || seen.surge() > 0 => Fate::Start,
        (_, []) => Fate::Keep,
        (Welcome::Nobody, _) => Fate::Stop { pods: staying, why: "node does not fit" },
        (_, _) if !over.is_empty() => match over.iter().map(|pod| rested_at(pod)).max() {
            Some(until) if seen.now < until => Fate::Wait { until },
            _ => Fate::Stop { pods: over, why: "pod is over" },
        },
        (_, [_]) => Fate::Keep,
        (_, [_, _]) if seen.surge() > 0 => Fate::Keep,
        (_, [_oldest, extra @ ..]) => Fate::Stop { pods: extra.to_vec(), why: "one pod per node" },
    }
}

/// When a pod that is over may be replaced.
fn rested_at(pod: &Pod) -> Time {
    let ends =
        pod.status().container_statuses.iter().filter_map(|one| one.state.terminated.as_ref()?.finished_at);
    ends.max().map_or(Time::MIN, |end| time::after_seconds(end, FAILED_POD_REST_SECONDS))
}

/// Pods on nodes that are gone are nobody's daemons.
fn sweep(plan: &mut Plan, seen: &Seen<'_>) {
    let known: BTreeSet<&str> = seen.nodes.iter().map(|node| node.name.as_str()).collect();
    let lost = seen.pods.iter().filter(|(node, _)| !known.contains(node.as_str()));
    for pod in lost.flat_map(|(_, pods)| pods).filter(|pod| !pod.is_ending() && pod.node().is_empty()) {
        stop(plan, seen, pod, "its node is gone");
    }
}

/// Exchanges old pods for new ones, no more at once than may be unavailable.
fn roll(plan: &mut Plan, seen: &Seen<'_>) {
    if seen.body.spec.update_strategy.kind == "OnDelete" {
        return;
    }
    let hosts: Vec<&str> = seen
        .nodes
        .iter()
        .filter(|node| welcome(seen, node) != Welcome::Nobody)
        .map(|node| node.name.as_str())
        .collect();
    if seen.surge() > 0 {
        return surge(plan, seen, &hosts);
    }
    let rolling = &seen.body.spec.update_strategy.rolling_update;
    let whole = i64::try_from(hosts.len()).unwrap_or(i64::MAX);
    let allowed = match &rolling.max_unavailable {
        Tree::Null => 1,
        share => crate::share(share, whole, true).max(1),
    };
    let (mut unavailable, mut broken, mut sound) = (0, Vec::new(), Vec::new());
    for pods in hosts.iter().filter_map(|host| seen.pods.get(*host)) {
        let pod = pods.iter().find(|pod| !pod.is_ending());
        let is_available = pod.is_some_and(|pod| seen.is_available(pod));
        unavailable += i64::from(!is_available);
        match pod.filter(|pod| !seen.is_new(pod)) {
            None => {}
            Some(old) if is_available => sound.push(old),
            Some(old) => broken.push(old),
        }
    }
    let room = usize::try_from(allowed - unavailable).unwrap_or(0);
    for old in broken.into_iter().chain(sound.into_iter().take(room)) {
        stop(plan, seen, old, "its template is an old one");
    }
}

/// New pods beside old ones: an old one goes once its successor is available.
fn surge(plan: &mut Plan, seen: &Seen<'_>, hosts: &[&str]) {
    let mut room = usize::try_from(seen.surge()).unwrap_or(0);
    let on = |host: &&str| seen.pods.get(*host).map(Vec::as_slice).unwrap_or_default();
    let active = |host: &&str| on(host).iter().filter(|pod| !pod.is_ending()).collect::<Vec<_>>();
    room = room.saturating_sub(hosts.iter().filter(|host| active(host).len() > 1).count());
    for host in hosts {
        let (new, old): (Vec<&Pod>, Vec<&Pod>) = active(host).into_iter().partition(|pod| seen.is_new(pod));
        match (new.first(), old.as_slice()) {
            (_, []) => {}
            (Some(new), old) if seen.is_available(new) => {
                old.iter().for_each(|old| stop(plan, seen, old, "its successor is available"));
            }
            (Some(_), _) => {}
            (None, [old, ..]) if !seen.is_available(old) => {
                start(plan, seen, host, "an old pod does not serve")
            }
            (None, _) if room > 0 => {
                room -= 1;
                start(plan, seen, host, "its template is an old one");
            }
            (None, _) => {}
        }
    }
}

impl Seen<'_> {
    fn surge(&self) -> i64 {
        let whole = i64::try_from(self.nodes.len()).unwrap_or(i64::MAX);
        crate::share(&self.body.spec.update_strategy.rolling_update.max_surge, whole, true)
    }

    fn is_new(&self, pod: &Pod) -> bool {
        hash_of(pod).is_some_and(|hash| hash == self.hash)
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod.availability(self.body.spec.min_ready_seconds, self.now) == Availability::Yes
    }
}

fn hash_of(pod: &Pod) -> Option<&str> {
    pod.object.meta().labels.get(revisions::HASH)
}

fn start(plan: &mut Plan, seen: &Seen<'_>, node: &str, why: &str) {
    let (set, template) = (&seen.set, &seen.body.spec.template);
    let stem = format!("{}-", set.name());
    let seed = [set.uid(), node, &seen.hash, set.meta().resource_version()];
    let name = naming::fresh(seen.world, &POD, set.namespace(), &stem, &seed, 1).remove(0);
    let reference = owning::reference(set, &DAEMON_SET, "DaemonSet");
    let mut pod = templates::pod(template, set.namespace(), &name, reference);
    pod["metadata"]["generateName"] = stem.into();
    pod["metadata"]["labels"][revisions::HASH] = seen.hash.as_str().into();
    pin(&mut pod["spec"], node);
    plan.create(&POD, set.namespace(), pod, why);
    plan.tell(event(seen, "SuccessfulCreate", "Created pod: {name}".into()));
}

/// Lets the pod go to this node alone, and endure its troubles.
fn pin(spec: &mut Tree, node: &str) {
    let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let required = &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"].as_array_mut() {
        Some(terms) => terms.iter_mut().for_each(|term| term["matchFields"] = field.clone()),
        None => *required = json!({"nodeSelectorTerms": [{"matchFields": field}]}),
    }
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for (key, effect) in endured(spec["hostNetwork"] == true) {
        let toleration = json!({"key": key, "operator": "Exists", "effect": effect});
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    spec["tolerations"] = tolerations.into();
}

fn stop(plan: &mut Plan, seen: &Seen<'_>, pod: &Pod, why: &str) {
    let key = Key::new(&POD, pod.object.namespace(), pod.name());
    plan.delete(key, Precondition::same(&pod.object), why);
    plan.tell(event(seen, "SuccessfulDelete", format!("Deleted pod: {}", pod.name())));
}

fn event(seen: &Seen<'_>, reason: &str, message: String) -> EventNote {
    EventNote::normal(&seen.set, &DAEMON_SET, "DaemonSet", reason, message)
}

fn report(plan: &mut Plan, key: &Key, seen: &Seen<'_>) {
    let (mut desired, mut current, mut misplaced, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0, 0);
    for node in &seen.nodes {
        let pods = seen.pods.get(&node.name).map(Vec::as_slice).unwrap_or_default();
        let wanted = welcome(seen, node) == Welcome::Anyone;
        desired += i64::from(wanted);
        misplaced += i64::from(!wanted && !pods.is_empty());
        let Some(oldest) = pods.first().filter(|_| wanted) else { continue };
        current += 1;
        let best = pods.iter().find(|pod| !pod.is_ending() && seen.is_available(pod)).unwrap_or(oldest);
        ready += i64::from(best.is_ready());
        available += i64::from(seen.is_available(best));
        updated += i64::from(pods.iter().any(|pod| seen.is_new(pod)));
        let waits = pods.iter().map(|pod| pod.availability(seen.body.spec.min_ready_seconds, seen.now));
        for wait in waits {
            if let Availability::From(at) = wait {
                plan.wake(at);
            }
        }
    }
    let wanted = json!({
        "observedGeneration": seen.set.meta().generation, "desiredNumberScheduled": desired,
        "currentNumberScheduled": current, "numberMisscheduled": misplaced, "numberReady": ready,
        "updatedNumberScheduled": status::count(updated), "numberAvailable": status::count(available),
        "numberUnavailable": status::count(desired - available),
    });
    status::write(plan, key, &seen.set, &wanted, "its pods or nodes changed");
}
