//! What counts as a mend: pure, from the changes of pods and nodes to repairs.
//!
//! Promises: nothing is told of what was meant to happen (scaling down, a finished pod); a repeat of the same fault of
//! the same subject is the same repair; what is remembered is bounded.

// Long because the tests of all faults stand beside them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use client::Changed;
use controllers::suspicion::Nodes;
use model::diagnosis;
use model::fence::SUSPECTED;
use model::repair::{Outcome, ROLLED_BACK, Repair, Subject};
use model::tree::whole;
use model::{Gvr, Key, Object, Time, World};
use serde::Deserialize;

use crate::metrics::Phase;

/// How long after a pod went a new one of the same owner counts as its replacement.
///
/// Replacing takes 100 ms; a server that restarts meanwhile takes seconds. Later ones are somebody's scaling up.
pub const REPLACED_WITHIN: Duration = Duration::from_secs(30);

/// How many mends may be under way at once; beyond that the oldest by name are no longer watched to their end.
pub const OPEN_MAX: usize = 1000;

/// After how many restarts a container that ends again is told as one that people have to look at.
///
/// Three restarts come at once and mend what was passing; one more means that a restart does not help.
pub const RESTARTS_IN_VAIN: i64 = 4;

/// Faults that a pod has until it is ready again, or gone.
const LASTING: [&str; 7] = [
    "ReadinessFailed",
    "ContainerExited",
    "LivenessFailed",
    "StartupFailed",
    "CrashLooping",
    "CannotStart",
    "StorageSilent",
];

/// Faults that a restart mends: they are over when the container runs.
const RESTARTED: [&str; 3] = ["ContainerExited", "LivenessFailed", "StartupFailed"];

/// The fault of a pod that was moved because it failed on its node alone.
const FAILS_ON_NODE: &str = "FailsOnNode";

/// How the action of a mend begins in which another pod takes the place of one that went.
const REPLACED: &str = "replaced by";

const PODS: Gvr = Gvr::new("", "v1", "pods");
const NODES: Gvr = Gvr::new("", "v1", "nodes");
const DEPLOYMENTS: Gvr = Gvr::new("apps", "v1", "deployments");

/// The mends under way.
#[derive(Debug, Default)]
pub struct Cases {
    /// Mends that are not over, by where they are kept.
    open: BTreeMap<Key, Repair>,
    /// Pods that went and have no replacement yet, by the uid of their owner.
    gone: BTreeMap<String, VecDeque<Repair>>,
    /// Which mend a new pod ends by becoming ready, by the pod's uid.
    replacements: BTreeMap<String, Key>,
    /// When the last phase of an open mend ended.
    since: BTreeMap<Key, Time>,
    /// Phases that are over and were not told yet.
    phases: Vec<Passed>,
}

/// A phase of a mend that is over: of which fault, which one, and how long it took.
pub type Passed = (&'static str, Phase, Duration);

/// A repair to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What to tell.
    pub repair: Repair,
    /// Whether it is a new occurrence, to be counted.
    pub is_new: bool,
}

impl Cases {
    /// The repairs to write when something has changed.
    pub fn take(&mut self, changed: &Changed, world: &dyn World, now: Time) -> Vec<Entry> {
        let entries = match &changed.key.gvr {
            gvr if *gvr == PODS => self.pod(changed, world, now),
            gvr if *gvr == NODES => {
                let suspicion = self.suspicion(changed, world, now);
                suspicion.into_iter().chain(self.node(changed, world, now)).collect()
            }
            gvr if *gvr == DEPLOYMENTS => self.deployment(changed, now).into_iter().collect(),
            _ => Vec::new(),
        };
        while self.open.len() > OPEN_MAX {
            self.open.pop_first();
        }
        while self.replacements.len() > OPEN_MAX {
            self.replacements.pop_first();
        }
        let open = &self.open;
        self.since.retain(|key, _| open.contains_key(key));
        entries
    }

    /// The phases that are over since the last call.
    pub fn passed(&mut self) -> Vec<Passed> {
        std::mem::take(&mut self.phases)
    }

    /// A phase of an open mend is over.
    fn pass(&mut self, key: &Key, fault: &'static str, phase: Phase, now: Time) {
        if let Some(since) = self.since.insert(key.clone(), now) {
            self.phases.push((fault, phase, between(since, now)));
        }
    }

    /// The repair to write when the world begins to look wrong (`Some`: why), or right again.
    pub fn alarm(&mut self, why: Option<&str>, now: Time) -> Option<Entry> {
        let subject = Subject {
            api_version: "v1".into(),
            kind: "Cluster",
            namespace: String::new(),
            name: "cluster".into(),
            uid: String::new(),
        };
        let blank = begin(subject, "WorldLooksWrong", now, why.unwrap_or_default());
        let key = blank.key();
        match (why, self.open.contains_key(&key)) {
            (Some(_), false) => {
                let action = "held back what rests on suspicion".to_owned();
                let repair = Repair { action, outcome: Outcome::Suppressed, ..blank };
                Some(self.begin(repair, now))
            }
            (None, true) => self.end(&key, Outcome::Recovered, now),
            _ => None,
        }
    }

    fn begin(&mut self, repair: Repair, now: Time) -> Entry {
        // Of a pod that went it is known at once; that another takes its place is decided.
        let phase = match repair.action.split(' ').next() {
            Some("replaced") => Phase::Decide,
            // From the exit to the next start, whatever part of that was the pause between restarts.
            Some("restarted") => Phase::Act,
            _ => Phase::Detect,
        };
        let took = repair.detected_after.unwrap_or_else(|| between(repair.began, now));
        self.phases.push((repair.fault, phase, took));
        self.since.insert(repair.key(), now);
        self.open.insert(repair.key(), repair.clone());
        Entry { repair, is_new: true }
    }

    fn end(&mut self, key: &Key, outcome: Outcome, now: Time) -> Option<Entry> {
        let repair = self.open.remove(key)?;
        if outcome == Outcome::Recovered {
            self.pass(key, repair.fault, Phase::Verify, now);
        }
        self.since.remove(key);
        let recovered = (outcome == Outcome::Recovered).then_some(now);
        Some(Entry { repair: Repair { outcome, recovered, ..repair }, is_new: false })
    }

    fn pod(&mut self, changed: &Changed, world: &dyn World, now: Time) -> Vec<Entry> {
        if let (None, Some(pod)) = (&changed.old, &changed.new) {
            return self.replaces(pod, now).into_iter().collect();
        }
        let mut entries = Vec::new();
        let seen = |object: &Option<Object>| object.as_ref().map(|pod| (pod.clone(), view(pod)));
        match (seen(&changed.old), seen(&changed.new)) {
            (Some(old), Some(new)) if old.0.uid() == new.0.uid() => {
                entries.extend(self.containers(&old.1, &new, now));
                entries.extend(self.readiness(&old.1, &new, now));
                entries.extend(self.trouble(&new, world, now));
                self.runs(&old.1, &new, now);
                if has_gone(&new) && !has_gone(&old) {
                    entries.extend(self.went(&new, world, now));
                }
            }
            (Some(old), new) => {
                if !has_gone(&old) {
                    entries.extend(self.went(&old, world, now));
                }
                for fault in LASTING {
                    let key = begin(subject(&old.0, "Pod"), fault, now, "").key();
                    entries.extend(self.end(&key, Outcome::Unneeded, now));
                }
                entries.extend(new.and_then(|(pod, _)| self.replaces(&pod, now)));
            }
            (None, _) => {}
        }
        entries
    }

    /// Containers that ended and were restarted.
    fn containers(&mut self, old: &Pod, (pod, new): &(Object, Pod), now: Time) -> Vec<Entry> {
        let mut entries = Vec::new();
        for container in &new.status.container_statuses {
            let before = old.status.container_statuses.iter().find(|one| one.name == container.name);
            let is_restarted = before.is_some_and(|before| container.restart_count > before.restart_count);
            let exit = container.last_state.terminated.as_ref();
            let began = exit.and_then(|exit| exit.finished_at).unwrap_or(now).min(now);
            if let Some(exit) = exit.filter(|_| is_restarted) {
                let probe = model::pod::failed_probe(&container.name, &exit.message);
                let repair = begin(subject(pod, "Pod"), probe.unwrap_or("ContainerExited"), began, "");
                let evidence = match exit.message.split(',').next().filter(|_| probe.is_some()) {
                    Some(why) => format!("{why}; it ended with exit code {}", exit.exit_code),
                    None => format!("container {} ended with exit code {}", container.name, exit.exit_code),
                };
                let how = match exit.reason.as_str() {
                    "" | "Error" | "Completed" => format!("exit {}", exit.exit_code),
                    reason => reason.to_owned(),
                };
                entries.push(
                    self.begin(Repair { evidence, action: format!("restarted ({how})"), ..repair }, now),
                );
            }
            if container.state.running.is_none() || self.open.is_empty() {
                continue;
            }
            for fault in RESTARTED {
                let key = begin(subject(pod, "Pod"), fault, began, "").key();
                if !self.open.contains_key(&key) {
                    continue;
                }
                let ended = self.end(&key, Outcome::Recovered, now);
                match entries.last_mut().filter(|entry| entry.repair.key() == key) {
                    Some(entry) => ended.into_iter().for_each(|end| entry.repair = end.repair),
                    None => entries.extend(ended),
                }
            }
        }
        entries
    }

    /// A running pod that is no longer ready although nothing in it was restarted, or that is ready again.
    fn readiness(&mut self, old: &Pod, (pod, new): &(Object, Pod), now: Time) -> Option<Entry> {
        let repair = begin(subject(pod, "Pod"), "ReadinessFailed", now, "its readiness probe failed");
        match (old.is_ready(), new.is_ready()) {
            (true, false) if new.runs_on_from(old) && !pod.is_ending() => {
                Some(self.begin(Repair { action: "taken out of its Services".into(), ..repair }, now))
            }
            (false, true) => {
                let ready = self.end(&repair.key(), Outcome::Recovered, now);
                ready.or_else(|| {
                    let key = self.replacements.remove(pod.uid())?;
                    let lost = self.open.get_mut(&key)?;
                    if let (Some(to), "NodeLost" | FAILS_ON_NODE) = (&new.spec.node_name, lost.fault) {
                        lost.action = format!("{} on {to}", lost.action);
                    }
                    self.end(&key, Outcome::Recovered, now)
                })
            }
            _ => None,
        }
    }

    /// A pod that restarts and retries do not help, told with what is known of it; until it is ready.
    fn trouble(&mut self, (pod, body): &(Object, Pod), world: &dyn World, now: Time) -> Vec<Entry> {
        let mut entries = Vec::new();
        let found: Vec<_> = body.trouble().into_iter().chain(body.silence()).collect();
        for (fault, action) in [
            ("CrashLooping", "held back between restarts"),
            ("CannotStart", "tried again and again, with pauses"),
            ("StorageSilent", "left waiting for its storage, and no other pod with it"),
        ] {
            let repair = begin(subject(pod, "Pod"), fault, now, "");
            let key = repair.key();
            let is_open = self.open.contains_key(&key);
            let is_over = if fault == "StorageSilent" { true } else { body.is_ready() };
            match found.iter().find(|(found, _)| *found == fault) {
                Some((_, evidence)) if !is_open && !pod.is_ending() => {
                    let known = diagnosis::of_object(pod, &peers(pod, world));
                    entries.push(self.begin(
                        Repair {
                            evidence: evidence.clone(),
                            action: action.into(),
                            outcome: Outcome::Escalated,
                            diagnosis: known.lines().collect(),
                            next: known.next,
                            ..repair
                        },
                        now,
                    ));
                }
                Some(_) if is_open && fault == "CrashLooping" => {
                    entries.extend(body.tried().and_then(|why| self.tells_more(&key, why)));
                }
                None if is_open && is_over => entries.extend(self.end(&key, Outcome::Recovered, now)),
                _ => {}
            }
        }
        entries
    }

    /// A mend under way for which more was tried, which is told once.
    fn tells_more(&mut self, key: &Key, what: &str) -> Option<Entry> {
        let open = self.open.get_mut(key).filter(|open| !open.action.contains(what))?;
        open.action = format!("{}; {what}", open.action);
        Some(Entry { repair: open.clone(), is_new: false })
    }

    /// A replacement that runs now: the act is done.
    fn runs(&mut self, old: &Pod, (pod, new): &(Object, Pod), now: Time) {
        if new.status.phase == "Running"
            && old.status.phase != "Running"
            && let Some(key) = self.replacements.get(pod.uid()).cloned()
            && let Some(fault) = self.open.get(&key).map(|repair| repair.fault)
        {
            self.pass(&key, fault, Phase::Act, now);
        }
    }

    /// A pod that goes: perhaps somebody replaces it. The mend it was to end itself ends without it.
    fn went(&mut self, (pod, body): &(Object, Pod), world: &dyn World, now: Time) -> Option<Entry> {
        let ended =
            self.replacements.remove(pod.uid()).and_then(|key| self.end(&key, Outcome::Unneeded, now));
        let Some(owner) = pod.controller().filter(|_| body.status.phase != "Succeeded") else {
            return ended;
        };
        let is_node_lost = body.spec.node_name.as_ref().is_some_and(|name| {
            world
                .get(&Key::new(&NODES, "", name.as_str()))
                .is_some_and(|node| view(&node).ready() == "Unknown")
        });
        let evicted =
            body.status.conditions.iter().any(|one| one.r#type == "DisruptionTarget" && one.status == "True");
        let fails_here = body.keeps_failing().filter(|one| evicted && one.reason == diagnosis::FAILS_HERE);
        let compared = fails_here.map(|one| {
            let node = body.spec.node_name.as_deref().unwrap_or_default();
            format!("{} on node {node}; others of its kind do not fail elsewhere", one.message)
        });
        let (fault, evidence) = match (is_node_lost, body.status.phase.as_str()) {
            (true, _) => ("NodeLost", "its node fell silent"),
            (false, _) if let Some(compared) = &compared => (FAILS_ON_NODE, compared.as_str()),
            (false, _) if evicted || body.status.reason == "Evicted" => ("PodEvicted", "it was evicted"),
            (false, "Failed") => ("PodFailed", "its containers failed for good"),
            (false, _) => ("PodDeleted", "it was deleted"),
        };
        let gone = self.gone.entry(owner.uid.clone()).or_default();
        gone.push_back(begin(subject(pod, "Pod"), fault, now, evidence));
        self.forget_old(now);
        ended
    }

    /// A new pod: perhaps it replaces one that went.
    fn replaces(&mut self, pod: &Object, now: Time) -> Option<Entry> {
        self.forget_old(now);
        let gone = self.gone.get_mut(&pod.controller()?.uid)?;
        let lost = gone.pop_front()?;
        let detected_after = Some(between(lost.began, now));
        let repair = Repair { action: format!("{REPLACED} {}", pod.name()), detected_after, ..lost };
        self.replacements.insert(pod.uid().to_owned(), repair.key());
        Some(self.begin(repair, now))
    }

    fn forget_old(&mut self, now: Time) {
        self.gone.retain(|_, all| {
            all.retain(|repair| repair.began + REPLACED_WITHIN > now);
            while all.len() > OPEN_MAX {
                all.pop_front();
            }
            !all.is_empty()
        });
    }

    /// A node that is late with a renewal, until it is heard again.
    fn suspicion(&mut self, changed: &Changed, world: &dyn World, now: Time) -> Option<Entry> {
        let node = changed.new.as_ref().or(changed.old.as_ref())?;
        let said =
            |object: &Option<Object>| object.as_ref()?.meta().annotations.get(SUSPECTED).map(str::to_owned);
        let (old, new) = (said(&changed.old), said(&changed.new));
        let began = new.as_ref().and_then(|since| since.parse::<Time>().ok()).unwrap_or(now).min(now);
        let repair =
            begin(subject(node, "Node"), "NodeSuspected", began, "it did not renew its lease in time");
        match (old, &new) {
            (None, Some(_)) if changed.old.is_some() => {
                let detected_after = Some(between(began, now));
                let deed =
                    ("its addresses are left out of Services", "leaving its addresses out of Services");
                Some(self.begin(Repair { detected_after, ..unless_wrong(repair, deed, world) }, now))
            }
            (_, None) => {
                let is_there = changed.new.is_some();
                let outcome = if is_there { Outcome::Recovered } else { Outcome::Unneeded };
                self.end(&repair.key(), outcome, now)
            }
            _ => None,
        }
    }

    fn node(&mut self, changed: &Changed, world: &dyn World, now: Time) -> Option<Entry> {
        let node = changed.new.as_ref().or(changed.old.as_ref())?;
        let ready = |object: &Option<Object>| object.as_ref().map(|node| view(node).ready().to_owned());
        let (old, new) = (ready(&changed.old), ready(&changed.new));
        let repair = begin(subject(node, "Node"), "NodeLost", now, "its lease ran out");
        match (old.as_deref(), new.as_deref()) {
            (Some("True" | "False"), Some("Unknown")) => {
                let deed = ("its pods are replaced elsewhere", "replacing its pods");
                Some(self.begin(unless_wrong(repair, deed, world), now))
            }
            (_, Some("True")) => self.end(&repair.key(), Outcome::Recovered, now),
            (_, None) => self.end(&repair.key(), Outcome::Unneeded, now),
            _ => None,
        }
    }
}

impl Cases {
    /// A Deployment that was rolled back, until all its replicas are available again.
    fn deployment(&mut self, changed: &Changed, now: Time) -> Option<Entry> {
        let said =
            |object: &Option<Object>| object.as_ref()?.meta().annotations.get(ROLLED_BACK).map(str::to_owned);
        let object = changed.new.as_ref().or(changed.old.as_ref())?;
        let mut subject = subject(object, "Deployment");
        subject.api_version = DEPLOYMENTS.api_version();
        let (old, new) = (said(&changed.old), said(&changed.new));
        let blank = begin(subject, "RevisionFailing", now, new.as_deref().unwrap_or_default());
        match &changed.new {
            None => self.end(&blank.key(), Outcome::Unneeded, now),
            // A cache that begins sees old annotations as new ones.
            Some(_) if new.is_some() && changed.old.is_some() && old != new => {
                let action = "rolled back, as its annotation allows".into();
                Some(self.begin(Repair { action, ..blank }, now))
            }
            Some(object) if self.open.contains_key(&blank.key()) && is_rolled_out(object) => {
                self.end(&blank.key(), Outcome::Recovered, now)
            }
            Some(_) => None,
        }
    }
}

/// A repair with what is done about a silent node (as an act, as what it rejects), or with why it is not.
fn unless_wrong(repair: Repair, (done, undone): (&str, &str), world: &dyn World) -> Repair {
    match Nodes::look(world).looks_wrong() {
        None => Repair { action: done.into(), ..repair },
        Some(why) => {
            let action = "nothing while so many are silent".into();
            let rejected = vec![format!("{undone}: {why}")];
            Repair { action, rejected, outcome: Outcome::Suppressed, ..repair }
        }
    }
}

fn between(began: Time, now: Time) -> Duration {
    Duration::try_from(now.duration_since(began)).unwrap_or_default()
}

/// Whether all replicas of a Deployment are of its present template and available.
fn is_rolled_out(deployment: &Object) -> bool {
    let tree = deployment.tree().unwrap_or_default();
    let count = |path: &str| whole(&tree, path);
    let wanted = count("spec.replicas").unwrap_or(1);
    count("status.observedGeneration") == Some(deployment.meta().generation)
        && ["status.replicas", "status.updatedReplicas", "status.availableReplicas"]
            .iter()
            .all(|path| count(path).unwrap_or(0) == wanted)
}

fn begin(subject: Subject, fault: &'static str, began: Time, evidence: &str) -> Repair {
    Repair {
        subject,
        fault,
        began,
        evidence: evidence.into(),
        action: String::new(),
        rejected: Vec::new(),
        detected_after: None,
        recovered: None,
        outcome: Outcome::Ongoing,
        diagnosis: Vec::new(),
        next: Vec::new(),
    }
}

fn subject(object: &Object, kind: &'static str) -> Subject {
    Subject {
        api_version: "v1".into(),
        kind,
        namespace: object.namespace().into(),
        name: object.name().into(),
        uid: object.uid().into(),
    }
}

/// The other pods of the same controller.
fn peers(pod: &Object, world: &dyn World) -> Vec<Object> {
    let Some(owner) = pod.controller() else { return Vec::new() };
    let mut all = world.list(&PODS, pod.namespace());
    all.retain(|peer| {
        peer.uid() != pod.uid() && peer.controller().is_some_and(|other| other.uid == owner.uid)
    });
    all
}

/// Whether a pod is on its way out or has failed.
fn has_gone((pod, body): &(Object, Pod)) -> bool {
    pod.is_ending() || body.status.phase == "Failed"
}

/// What is read of a pod, or of a node.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    reason: String,
    conditions: Vec<Condition>,
    container_statuses: Vec<Container>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Condition {
    r#type: String,
    status: String,
    reason: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    name: String,
    restart_count: i64,
    state: State,
    last_state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    running: Option<serde::de::IgnoredAny>,
    waiting: Option<Waiting>,
    terminated: Option<Exit>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Exit {
    exit_code: i64,
    reason: String,
    message: String,
    finished_at: Option<Time>,
}

fn view(object: &Object) -> Pod {
    object.view().unwrap_or_default()
}

impl Pod {
    fn ready(&self) -> &str {
        self.status.conditions.iter().find(|one| one.r#type == "Ready").map_or("", |one| one.status.as_str())
    }

    fn is_ready(&self) -> bool {
        self.ready() == "True"
    }

    /// What keeps one of its containers from running that trying again does not mend, and what shows it.
    fn trouble(&self) -> Option<(&'static str, String)> {
        self.status.container_statuses.iter().find_map(|container| {
            let waiting = container.state.waiting.as_ref()?;
            let name = &container.name;
            match waiting.reason.as_str() {
                "CrashLoopBackOff" if container.restart_count >= RESTARTS_IN_VAIN => {
                    let times = container.restart_count;
                    Some(("CrashLooping", format!("container {name} ended again after {times} restarts")))
                }
                "ImagePullBackOff"
                | "ErrImageNeverPull"
                | "InvalidImageName"
                | "CreateContainerConfigError"
                | "CreateContainerError"
                | "RunContainerError" => {
                    let (reason, message) = (&waiting.reason, &waiting.message);
                    Some(("CannotStart", format!("container {name} waits: {reason}: {message}")))
                }
                _ => None,
            }
        })
    }

    /// What its node says of a container that keeps failing.
    fn keeps_failing(&self) -> Option<&Condition> {
        let mut all = self.status.conditions.iter();
        all.find(|one| one.r#type == diagnosis::KEEPS_FAILING && one.status == "True")
    }

    /// What was tried for it beside restarts.
    fn tried(&self) -> Option<&'static str> {
        let reason = self.keeps_failing()?.reason.as_str();
        (reason == diagnosis::FRESH_SANDBOX).then_some("given a fresh sandbox")
    }

    /// Whether its storage is silent, and what its node says of that.
    fn silence(&self) -> Option<(&'static str, String)> {
        let mut all = self.status.conditions.iter();
        let silent = all.find(|one| one.r#type == diagnosis::STORAGE_SILENT && one.status == "True")?;
        Some(("StorageSilent", silent.message.clone()))
    }

    /// Whether all containers run, and are those that ran before.
    fn runs_on_from(&self, old: &Pod) -> bool {
        let same = |new: &Container| {
            let before = old.status.container_statuses.iter().find(|one| one.name == new.name);
            new.state.running.is_some()
                && before.is_some_and(|before| before.restart_count == new.restart_count)
        };
        !self.status.container_statuses.is_empty() && self.status.container_statuses.iter().all(same)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{Text, at};

    /// A pod of a set; `status` is merged into it.
    fn pod(name: &str, ready: &str, restarts: i64, status: Value) -> Option<Object> {
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "a", "uid": name, "ownerReferences": [{"uid": "set", "controller": true}]},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{"name": "web", "restartCount": restarts, "state": {"running": {}}}]},
        });
        for (name, value) in status.as_object().into_iter().flatten() {
            pod["status"][name] = value.clone();
        }
        Some(Object::read(pod.to_string().into()).expect("an object"))
    }

    fn ending(name: &str) -> Option<Object> {
        let mut tree = pod(name, "True", 0, json!({}))?.tree().expect("a tree");
        tree["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:01Z");
        Some(Object::read(tree.to_string().into()).expect("an object"))
    }

    #[test]
    fn a_pod_that_is_moved_tells_what_was_compared_and_where_it_went() {
        let says = |reason: &str, more: bool| {
            let mut all = vec![json!({"type": "Ready", "status": "False"})];
            all.push(json!({"type": diagnosis::KEEPS_FAILING, "status": "True", "reason": reason, "message": "it failed 3 times"}));
            if more {
                all.push(
                    json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}),
                );
            }
            let waits = json!({"waiting": {"reason": "CrashLoopBackOff"}});
            json!({"conditions": all, "containerStatuses": [{"name": "web", "restartCount": 6, "state": waits}]})
        };
        let mut cases = Cases::default();
        let mut take = |old: Option<Object>, new: Option<Object>, second: i64| {
            let changed = Changed { key: Key::new(&PODS, "a", "x"), old, new };
            let told = cases.take(&changed, &Text::new(""), at(second));
            told.into_iter().map(|entry| (entry.repair.fault, entry.repair.action)).collect::<Vec<_>>()
        };
        let failing = || pod("x", "False", 6, says(diagnosis::FAILS_HERE, false));
        take(failing(), pod("x", "False", 6, says(diagnosis::FRESH_SANDBOX, false)), 5);
        let tried = take(failing(), pod("x", "False", 6, says(diagnosis::FRESH_SANDBOX, false)), 6);
        assert_eq!(tried, [("CrashLooping", "held back between restarts; given a fresh sandbox".into())]);
        let mut gone =
            pod("x", "False", 6, says(diagnosis::FAILS_HERE, true)).expect("a pod").tree().expect("a tree");
        gone["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:00:01Z");
        let gone = Some(Object::read(gone.to_string().into()).expect("an object"));
        take(failing(), gone, 7);
        let next = || pod("y", "False", 0, json!({"containerStatuses": []}));
        assert_eq!(take(None, next(), 8), [(FAILS_ON_NODE, "replaced by y".into())]);
        let ready = pod("y", "True", 0, json!({}));
        assert_eq!(take(next(), ready, 9), [(FAILS_ON_NODE, "replaced by y on n".into())]);
    }

    fn exited(restarts: i64, state: &str) -> Option<Object> {
        let status = json!({"containerStatuses": [{"name": "web", "restartCount": restarts, "state": {(state): {}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "Error", "finishedAt": "1970-01-01T00:00:05Z"}}}]});
        pod("x", "False", restarts, status)
    }

    /// Plays changes of pods, one a second from 6 on, and gives the repairs told.
    fn check(changes: &[(Option<Object>, Option<Object>)], told: &[&str]) {
        let mut cases = Cases::default();
        let mut said = Vec::new();
        for (second, (old, new)) in (6..).zip(changes.iter().cloned()) {
            let key = Key::new(&PODS, "a", "x");
            for entry in cases.take(&Changed { key, old, new }, &Text::new(""), at(second)) {
                let Repair { subject, fault, action, recovered, began, outcome, .. } = entry.repair;
                let after = recovered.map(|at| at.duration_since(began).as_secs());
                let new = if entry.is_new { "new " } else { "" };
                said.push(format!("{new}{} {fault}: {action}, {outcome:?} {after:?}", subject.name));
            }
        }
        assert_eq!(said, told);
    }

    #[test]
    fn a_restarted_container_is_told_once_with_how_it_ended() {
        let before = || pod("x", "True", 0, json!({}));
        let told = "new x ContainerExited: restarted (exit 137), Recovered Some(1)";
        check(&[(before(), exited(1, "running"))], &[told]);
        check(
            &[(before(), exited(1, "waiting")), (exited(1, "waiting"), exited(1, "running"))],
            &[
                "new x ContainerExited: restarted (exit 137), Ongoing None",
                "x ContainerExited: restarted (exit 137), Recovered Some(2)",
            ],
        );
    }

    #[test]
    fn a_container_that_a_probe_ended_is_told_by_the_probe() {
        let message = "Container web failed liveness probe, will be restarted";
        let status = |restarts: i64, state: &str| {
            json!({"containerStatuses": [{"name": "web", "restartCount": restarts, "state": {(state): {}},
                "lastState": {"terminated": {"exitCode": 0, "message": message, "finishedAt": "1970-01-01T00:00:05Z"}}}]})
        };
        let before =
            || pod("x", "True", 0, json!({"containerStatuses": [{"name": "web", "restartCount": 0}]}));
        let (waits, runs) =
            (|| pod("x", "False", 1, status(1, "waiting")), pod("x", "False", 1, status(1, "running")));
        check(
            &[(before(), waits()), (waits(), runs)],
            &[
                "new x LivenessFailed: restarted (exit 0), Ongoing None",
                "x LivenessFailed: restarted (exit 0), Recovered Some(2)",
            ],
        );
    }

    #[test]
    fn a_failed_probe_is_told_and_a_restart_is_not_one() {
        let (ready, unready) = (pod("x", "True", 0, json!({})), pod("x", "False", 0, json!({})));
        check(
            &[(ready.clone(), unready.clone()), (unready, ready)],
            &[
                "new x ReadinessFailed: taken out of its Services, Ongoing None",
                "x ReadinessFailed: taken out of its Services, Recovered Some(1)",
            ],
        );
    }

    #[test]
    fn what_trying_again_does_not_mend_is_told_with_what_is_known_until_the_pod_is_ready() {
        let waits = |restarts: i64, reason: &str| {
            let status = json!({"containerStatuses": [{"name": "web", "restartCount": restarts,
                "state": {"waiting": {"reason": reason, "message": "m"}},
                "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}}]});
            pod("x", "False", restarts, status)
        };
        let (looping, ready) = (|| waits(4, "CrashLoopBackOff"), || pod("x", "True", 4, json!({})));
        check(
            &[(looping(), looping()), (looping(), looping()), (looping(), ready())],
            &[
                "new x CrashLooping: held back between restarts, Escalated None",
                "x CrashLooping: held back between restarts, Recovered Some(2)",
            ],
        );
        let told = "new x CannotStart: tried again and again, with pauses, Escalated None";
        let image = || waits(0, "ImagePullBackOff");
        check(
            &[(image(), image()), (image(), None)],
            &[told, "x CannotStart: tried again and again, with pauses, Unneeded None"],
        );
        check(&[(waits(1, "CrashLoopBackOff"), waits(1, "CrashLoopBackOff"))], &[]);
        let mut cases = Cases::default();
        let changed = Changed { key: Key::new(&PODS, "a", "x"), old: looping(), new: looping() };
        let entry = cases.take(&changed, &Text::new(""), at(6)).pop().expect("a repair");
        assert!(entry.repair.diagnosis[0].starts_with("container web gave up with exit code 1 ("));
        assert!(entry.repair.next[0].contains("kubectl logs x -n a -c web --previous"));
    }

    #[test]
    fn silent_storage_is_told_with_what_helps_until_it_answers() {
        let with = |silence: Option<&str>| {
            let ready = json!({"type": "Ready", "status": "True"});
            let silent = silence
                .map(|why| json!({"type": diagnosis::STORAGE_SILENT, "status": "True", "message": why}));
            let conditions: Vec<_> = std::iter::once(ready).chain(silent).collect();
            pod("x", "True", 0, json!({ "conditions": conditions }))
        };
        let why = "the storage behind /mnt has not answered for 4 s";
        check(
            &[
                (with(None), with(Some(why))),
                (with(Some(why)), with(Some(why))),
                (with(Some(why)), with(None)),
            ],
            &[
                "new x StorageSilent: left waiting for its storage, and no other pod with it, Escalated None",
                "x StorageSilent: left waiting for its storage, and no other pod with it, Recovered Some(2)",
            ],
        );
    }

    #[test]
    fn a_pod_that_went_is_told_when_another_takes_its_place() {
        let (old, new) = (|| pod("x", "True", 0, json!({})), |ready: &str| pod("y", ready, 0, json!({})));
        check(
            &[(old(), ending("x")), (ending("x"), None), (None, new("False")), (new("False"), new("True"))],
            &[
                "new x PodDeleted: replaced by y, Ongoing None",
                "x PodDeleted: replaced by y, Recovered Some(3)",
            ],
        );
        check(
            &[(old(), None), (None, new("False")), (new("False"), None)],
            &["new x PodDeleted: replaced by y, Ongoing None", "x PodDeleted: replaced by y, Unneeded None"],
        );
        check(&[(old(), None)], &[]);
        check(&[(None, new("False")), (new("False"), new("True"))], &[]);
    }

    #[test]
    fn the_phases_of_a_replacement_are_told_apart() {
        let made = || pod("y", "False", 0, json!({"phase": "Pending", "containerStatuses": []}));
        let steps = [
            (10, pod("x", "True", 0, json!({})), None),
            (11, None, made()),
            (13, made(), pod("y", "False", 0, json!({}))),
            (16, pod("y", "False", 0, json!({})), pod("y", "True", 0, json!({}))),
        ];
        let mut cases = Cases::default();
        for (second, old, new) in steps {
            cases.take(&Changed { key: Key::new(&PODS, "a", "x"), old, new }, &Text::new(""), at(second));
        }
        let told = cases.passed().into_iter().map(|(fault, phase, took)| (fault, phase, took.as_secs()));
        assert_eq!(
            told.collect::<Vec<_>>(),
            [
                ("PodDeleted", Phase::Decide, 1),
                ("PodDeleted", Phase::Act, 2),
                ("PodDeleted", Phase::Verify, 3)
            ]
        );
        assert!(cases.passed().is_empty());
    }

    #[test]
    fn a_failed_pod_counts_as_gone_and_a_finished_one_does_not() {
        let old = || pod("x", "True", 0, json!({}));
        let failed = pod("x", "False", 0, json!({"phase": "Failed", "containerStatuses": []}));
        let done = pod("x", "False", 0, json!({"phase": "Succeeded", "containerStatuses": []}));
        let new = || pod("y", "False", 0, json!({}));
        check(&[(old(), failed), (None, new())], &["new x PodFailed: replaced by y, Ongoing None"]);
        check(&[(old(), done.clone()), (done, None), (None, new())], &[]);
    }

    #[test]
    fn a_rollback_is_told_until_the_deployment_is_rolled_out() {
        let deployment = |said: Option<&str>, available: i64| {
            let mut tree = json!({
                "metadata": {"name": "web", "namespace": "a", "generation": 3, "annotations": {}},
                "spec": {"replicas": 2},
                "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": available},
            });
            if let Some(said) = said {
                tree["metadata"]["annotations"][ROLLED_BACK] = json!(said);
            }
            Some(Object::read(tree.to_string().into()).expect("an object"))
        };
        let mut cases = Cases::default();
        let mut take = |old: Option<Object>, new: Option<Object>| {
            let changed = Changed { key: Key::new(&DEPLOYMENTS, "a", "web"), old, new };
            cases
                .take(&changed, &Text::new(""), at(9))
                .pop()
                .map(|entry| (entry.repair.evidence, entry.repair.outcome))
        };
        assert_eq!(take(None, deployment(Some("long ago"), 2)), None);
        let why = "from revision 2 to revision 1: 3 of 3 new pods fail".to_owned();
        assert_eq!(
            take(deployment(None, 1), deployment(Some(&why), 1)),
            Some((why.clone(), Outcome::Ongoing))
        );
        assert_eq!(
            take(deployment(Some(&why), 1), deployment(Some(&why), 2)),
            Some((why.clone(), Outcome::Recovered))
        );
        assert_eq!(take(deployment(Some(&why), 2), deployment(Some(&why), 2)), None);
    }

    #[test]
    fn a_silent_node_is_told_until_it_is_back() {
        let node = |ready: &str| {
            let text = json!({"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
            Some(Object::read(text.to_string().into()).expect("an object"))
        };
        let mut cases = Cases::default();
        let mut take = |old: &str, new: &str| {
            let changed = Changed { key: Key::new(&NODES, "", "n"), old: node(old), new: node(new) };
            cases.take(&changed, &Text::new(""), at(9)).pop().map(|entry| entry.repair.outcome)
        };
        assert_eq!(take("True", "Unknown"), Some(Outcome::Ongoing));
        assert_eq!(take("Unknown", "Unknown"), None);
        assert_eq!(take("Unknown", "True"), Some(Outcome::Recovered));
        assert_eq!(take("False", "True"), None);
    }

    #[test]
    fn a_suspicion_is_told_until_the_node_is_heard_again() {
        let node = |since: Option<&str>| {
            let mut tree = json!({"metadata": {"name": "n"}});
            if let Some(since) = since {
                tree["metadata"]["annotations"][SUSPECTED] = since.into();
            }
            Some(Object::read(tree.to_string().into()).expect("an object"))
        };
        let late = || node(Some("1970-01-01T00:00:07.500Z"));
        let mut cases = Cases::default();
        let mut take = |old: Option<Object>, new: Option<Object>| {
            let changed = Changed { key: Key::new(&NODES, "", "n"), old, new };
            let entry = cases.take(&changed, &Text::new(""), at(9)).pop()?;
            Some((entry.repair.outcome, entry.repair.detected_after))
        };
        let after = Some(Duration::from_millis(1500));
        assert_eq!(take(node(None), late()), Some((Outcome::Ongoing, after)));
        assert_eq!(take(late(), late()), None);
        assert_eq!(take(late(), node(None)), Some((Outcome::Recovered, after)));
        assert_eq!(take(None, late()), None, "a cache that begins sees old news");
        assert_eq!(take(node(None), late()), Some((Outcome::Ongoing, after)));
        assert_eq!(take(late(), None), Some((Outcome::Unneeded, after)));
    }

    #[test]
    fn of_one_of_many_silent_nodes_it_is_told_that_nothing_is_done_and_why() {
        let node = |name: &str, ready: &str| {
            let since = "1970-01-01T00:00:07Z";
            format!(
                r#"{{"metadata":{{"name":"{name}"}},"status":{{"conditions":[{{"type":"Ready","status":"{ready}","lastTransitionTime":"{since}"}}]}}}}"#
            )
        };
        let told = |others: [&str; 2]| {
            let object = |ready: &str| Some(Object::read(node("a", ready).into()).expect("an object"));
            let changed =
                Changed { key: Key::new(&NODES, "", "a"), old: object("True"), new: object("Unknown") };
            let [b, c] = others;
            let world =
                format!("nodes {}\nnodes {}\nnodes {}", node("a", "Unknown"), node("b", b), node("c", c));
            let repair = Cases::default().take(&changed, &Text::new(&world), at(9)).remove(0).repair;
            (repair.action, repair.rejected.join(", "), repair.outcome)
        };
        assert_eq!(
            told(["True", "True"]),
            ("its pods are replaced elsewhere".into(), String::new(), Outcome::Ongoing)
        );
        let rejected = "replacing its pods: 2 of 3 nodes fell silent at once".to_owned();
        assert_eq!(
            told(["Unknown", "True"]),
            ("nothing while so many are silent".into(), rejected, Outcome::Suppressed)
        );
    }

    #[test]
    fn a_world_that_looks_wrong_is_told_once_and_again_when_it_is_right() {
        let mut cases = Cases::default();
        let mut alarm = |why: Option<&str>| cases.alarm(why, at(1)).map(|entry| entry.repair.outcome);
        assert_eq!(alarm(None), None);
        assert_eq!(alarm(Some("3 of 10")), Some(Outcome::Suppressed));
        assert_eq!(alarm(Some("4 of 10")), None);
        assert_eq!(alarm(None), Some(Outcome::Recovered));
    }
}
