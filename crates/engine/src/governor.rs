//! May this healer act now? One governor sees all acts that rest on suspicion, and holds back what would harm.
//!
//! Pure, but for what it remembers of its own answers. Promises: when too many nodes fall silent at once, the likelier
//! explanation is us, and nothing is evicted or dropped; suspicion never empties a Service; nodes are condemned one
//! after the other. It ends by itself when the world looks right again.

use std::collections::BTreeMap;
use std::time::Duration;

use model::{Gvr, Key, Object, Time, Tree, World, Write};
use serde::Deserialize;

/// How close together suspicions must come to have one cause. A cut switch is noticed by all within a lease time;
/// half would miss the slowest, double would take two real failures of a bad day for one.
pub const ONE_CAUSE: Duration = Duration::from_secs(30);

/// Of at least six nodes, more than this share at once (in percent) is too many. A rack is a fifth of a small cluster.
pub const SUSPECTS_PERCENT_MAX: usize = 20;

/// From how many nodes on the share counts; of three to five, more than one at once is too many.
pub const MANY_NODES: usize = 6;

/// How long after one node was condemned the next may be: time for the first one's pods to run elsewhere.
pub const NODE_PACE: Duration = Duration::from_secs(5);

/// How long an act that is held back rests before it is asked about again, unless something wakes it before.
pub const HELD_REST: Duration = Duration::from_secs(5);

/// The taint by which an operator proves that a node is out of service.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

const NODES: Gvr = Gvr::new("", "v1", "nodes");
const PODS: Gvr = Gvr::new("", "v1", "pods");
const SERVICES: Gvr = Gvr::new("", "v1", "services");

/// The governor's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be done.
    Go,
    /// Not before then.
    Wait {
        /// When to ask again.
        until: Time,
        /// Why not now.
        why: String,
    },
    /// Not while the world looks like this.
    No {
        /// Why not.
        why: String,
    },
}

/// An act that rests on the suspicion of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// A pod is to be taken from the node.
    Evict {
        /// The suspected node.
        node: String,
    },
    /// A pod's address is to be marked not ready.
    Drop {
        /// The suspected node.
        node: String,
        /// The Services that would be left without a ready address.
        empties: Vec<String>,
    },
}

/// The nodes, as the governor sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// How many there are.
    pub count: usize,
    /// Those under suspicion, and since when.
    pub suspects: BTreeMap<String, Time>,
}

/// Judges acts, remembering which node was condemned last.
#[derive(Debug, Default)]
pub struct Governor {
    condemned: Option<(String, Time)>,
    /// What was read out of each node, at which revision: a burst of acts reads each node once.
    read: BTreeMap<String, (u64, Option<Time>)>,
}

impl Governor {
    /// A governor that remembers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// May this be done now?
    pub fn judge(&mut self, deed: &Deed, nodes: &Nodes, now: Time) -> Verdict {
        if let Some(why) = looks_wrong(nodes) {
            return Verdict::No { why };
        }
        match deed {
            Deed::Drop { empties, .. } if !empties.is_empty() => {
                Verdict::No { why: format!("it would leave {} without an address", empties.join(", ")) }
            }
            Deed::Drop { .. } => Verdict::Go,
            Deed::Evict { node } => self.pace(node, now),
        }
    }

    /// May this write be done now? Those that rest on no suspicion may.
    pub fn judge_write(&mut self, write: &Write, world: &dyn World, now: Time) -> Verdict {
        let Some(pod) = disrupted(write).and_then(|key| world.get(key)) else {
            return Verdict::Go;
        };
        let nodes = self.nodes(world);
        match node_of(&pod).filter(|node| nodes.suspects.contains_key(node)) {
            None => Verdict::Go,
            Some(node) => {
                let deed = match write {
                    Write::Patch { .. } => Deed::Drop { empties: emptied(&pod, &nodes, world), node },
                    _ => Deed::Evict { node },
                };
                self.judge(&deed, &nodes, now)
            }
        }
    }

    /// Why the world looks wrong, if it does.
    pub fn alarm(&mut self, world: &dyn World) -> Option<String> {
        looks_wrong(&self.nodes(world))
    }

    /// One node after the other.
    fn pace(&mut self, node: &str, now: Time) -> Verdict {
        match &self.condemned {
            Some((last, at)) if last != node && now < *at + NODE_PACE => {
                let why = format!("node {last} was given up just before");
                return Verdict::Wait { until: *at + NODE_PACE, why };
            }
            Some((last, _)) if last == node => {}
            _ => self.condemned = Some((node.to_owned(), now)),
        }
        Verdict::Go
    }

    fn nodes(&mut self, world: &dyn World) -> Nodes {
        let all = world.list(&NODES, "");
        self.read.retain(|name, _| all.iter().any(|node| node.name() == name));
        let mut nodes = Nodes { count: all.len(), suspects: BTreeMap::new() };
        for node in &all {
            let known = self.read.get(node.name()).filter(|(revision, _)| *revision == node.revision());
            let since = match known {
                Some((_, since)) => *since,
                None => suspected_since(node),
            };
            self.read.insert(node.name().to_owned(), (node.revision(), since));
            nodes.suspects.extend(since.map(|since| (node.name().to_owned(), since)));
        }
        nodes
    }
}

/// Why so many suspicions look like a fault of ours rather than of the nodes.
pub fn looks_wrong(nodes: &Nodes) -> Option<String> {
    let mut times: Vec<Time> = nodes.suspects.values().copied().collect();
    times.sort();
    let at_once = (0..times.len())
        .map(|first| times[first..].iter().take_while(|&&time| time < times[first] + ONE_CAUSE).count())
        .max()
        .unwrap_or(0);
    let too_many = match nodes.count {
        MANY_NODES.. => at_once * 100 > nodes.count * SUSPECTS_PERCENT_MAX,
        3..MANY_NODES => at_once > 1,
        _ => false,
    };
    too_many.then(|| format!("{at_once} of {} nodes fell silent at once", nodes.count))
}

/// The pod that a write takes away or marks not ready.
fn disrupted(write: &Write) -> Option<&Key> {
    let (key, disrupts) = match write {
        Write::Delete { key, .. } => (key, true),
        Write::Evict { pod, .. } => (pod, true),
        Write::Patch { key, part: "status", patch, .. } => (key, makes_unready(patch)),
        _ => return None,
    };
    (disrupts && key.gvr == PODS).then_some(key)
}

fn makes_unready(patch: &Tree) -> bool {
    let conditions = patch["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] != "True")
}

/// The parts of a pod or a node that are read here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parts {
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: Option<String>,
    taints: Vec<Taint>,
    /// Of a Service.
    selector: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Taint {
    key: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    r#type: String,
    status: String,
    last_transition_time: Option<Time>,
}

fn parts(object: &Object) -> Parts {
    object.view().unwrap_or_default()
}

fn node_of(pod: &Object) -> Option<String> {
    parts(pod).spec.node_name.filter(|name| !name.is_empty())
}

/// Since when a node is silent; an operator's word that it is out of service is proof, no suspicion.
fn suspected_since(node: &Object) -> Option<Time> {
    let parts = parts(node);
    let ready = parts.status.conditions.into_iter().find(|one| one.r#type == "Ready")?;
    let is_proven = parts.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE);
    (ready.status == "Unknown" && !is_proven)
        .then_some(ready.last_transition_time.unwrap_or(Time::UNIX_EPOCH))
}

/// The Services that select the pod and would have no other ready address on a node that is not suspected.
fn emptied(pod: &Object, nodes: &Nodes, world: &dyn World) -> Vec<String> {
    let selects = |selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>| {
        !selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
    };
    let others = world.list(&PODS, pod.namespace());
    let helps = |other: &&Object, selector: &BTreeMap<String, String>| {
        other.uid() != pod.uid()
            && !other.is_ending()
            && selects(selector, &other.meta().labels)
            && is_ready(other)
            && node_of(other).is_some_and(|node| !nodes.suspects.contains_key(&node))
    };
    let services = world.list(&SERVICES, pod.namespace());
    let named = services.iter().filter(|service| {
        let selector = parts(service).spec.selector;
        selects(&selector, &pod.meta().labels) && !others.iter().any(|other| helps(&other, &selector))
    });
    named.map(|service| format!("service {}", service.name())).collect()
}

fn is_ready(pod: &Object) -> bool {
    parts(pod).status.conditions.iter().any(|one| one.r#type == "Ready" && one.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Text, at};

    fn nodes(count: usize, suspects: &[i64]) -> Nodes {
        let named = suspects.iter().enumerate().map(|(n, since)| (format!("n{n}"), at(*since)));
        Nodes { count, suspects: named.collect() }
    }

    #[test]
    fn many_nodes_silent_at_once_look_like_a_fault_of_ours() {
        let check = |count: usize, suspects: &[i64], wrong: bool| {
            assert_eq!(looks_wrong(&nodes(count, suspects)).is_some(), wrong, "{count} nodes, {suspects:?}");
        };
        check(1, &[0], false);
        check(2, &[0, 0], false);
        check(3, &[0], false);
        check(3, &[0, 10], true);
        check(3, &[0, 31], false);
        check(5, &[0, 29], true);
        check(6, &[0], false);
        check(6, &[0, 5], true);
        check(10, &[0, 5], false);
        check(10, &[0, 5, 7], true);
        check(10, &[0, 20, 40, 60], false);
    }

    #[test]
    fn nodes_are_given_up_one_after_the_other() {
        let mut governor = Governor::new();
        let world = nodes(20, &[0, 40]);
        let evict = |node: &str| Deed::Evict { node: node.into() };
        assert_eq!(governor.judge(&evict("n0"), &world, at(50)), Verdict::Go);
        assert_eq!(governor.judge(&evict("n0"), &world, at(51)), Verdict::Go);
        let waits = governor.judge(&evict("n1"), &world, at(52));
        assert_eq!(waits, Verdict::Wait { until: at(55), why: "node n0 was given up just before".into() });
        assert_eq!(governor.judge(&evict("n1"), &world, at(55)), Verdict::Go);
    }

    const WORLD: &str = r#"
        nodes {"metadata":{"name":"dead"},"status":{"conditions":[{"type":"Ready","status":"Unknown","lastTransitionTime":"1970-01-01T00:00:10Z"}]}}
        nodes {"metadata":{"name":"well"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}
        pods {"metadata":{"name":"web-1","namespace":"a","uid":"1","labels":{"app":"web"}},"spec":{"nodeName":"dead"}}
        pods {"metadata":{"name":"db-1","namespace":"a","uid":"3","labels":{"app":"db"}},"spec":{"nodeName":"dead"}}
        pods {"metadata":{"name":"web-2","namespace":"a","uid":"2","labels":{"app":"web"}},"spec":{"nodeName":"well"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}
        services {"metadata":{"name":"web","namespace":"a"},"spec":{"selector":{"app":"web"}}}
        services {"metadata":{"name":"db","namespace":"a"},"spec":{"selector":{"app":"db"}}}
    "#;

    fn unready(pod: &str) -> Write {
        let patch = serde_json::json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
        Write::Patch { key: Key::new(&PODS, "a", pod), part: "status", patch, when: Default::default() }
    }

    #[test]
    fn suspicion_never_empties_a_service() {
        let world = Text::new(WORLD);
        let mut governor = Governor::new();
        assert_eq!(governor.judge_write(&unready("web-1"), &world, at(20)), Verdict::Go);
        let held = governor.judge_write(&unready("db-1"), &world, at(20));
        assert_eq!(held, Verdict::No { why: "it would leave service db without an address".into() });
        let evict = Write::Evict { pod: Key::new(&PODS, "a", "db-1"), when: Default::default() };
        assert_eq!(
            governor.judge_write(&evict, &world, at(20)),
            Verdict::Go,
            "else it would never be replaced"
        );
    }

    #[test]
    fn what_rests_on_no_suspicion_is_not_held_back() {
        let world = Text::new(&WORLD.replace("Unknown", "True"));
        assert_eq!(Governor::new().judge_write(&unready("db-1"), &world, at(20)), Verdict::Go);
    }

    #[test]
    fn an_operators_word_is_proof() {
        let tainted = r#""spec":{"taints":[{"key":"node.kubernetes.io/out-of-service"}]},"status":{"conditions":[{"type":"Ready","status":"Unknown""#;
        let world = Text::new(
            &WORLD.replace(r#""status":{"conditions":[{"type":"Ready","status":"Unknown""#, tainted),
        );
        assert_eq!(Governor::new().judge_write(&unready("db-1"), &world, at(20)), Verdict::Go);
    }
}
