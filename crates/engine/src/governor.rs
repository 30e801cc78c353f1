//! May this healer act now? One governor sees all acts that rest on suspicion, and holds back what would harm.
//!
//! Pure, but for what it remembers of its own answers. Promises: when too many nodes fall silent at once, the likelier
//! explanation is us, and nothing is evicted or dropped, nor for a while after that: the last of them to come back is not
//! dead. Suspicion never empties a Service; nodes are condemned one after the other, and so are leases taken, which is
//! proof and never forbidden. It ends by itself when the world looks right again.

use std::collections::BTreeMap;
use std::time::Duration;

use controllers::suspicion::Nodes;
use model::fence::{self, pod_epoch};
use model::{Gvr, Key, Object, Texts, Time, Tree, World, Write};
use serde::Deserialize;

/// How long after one node was condemned the next may be: time for the first one's pods to run elsewhere.
pub const NODE_PACE: Duration = Duration::from_secs(5);

/// How long an act that is held back rests before it is asked about again, unless something wakes it before.
pub const HELD_REST: Duration = Duration::from_secs(5);

/// How long after the world was last found to look wrong an act that rests on silence waits: time for the last nodes to
/// come back. What is held back asks again every [`HELD_REST`], so that is 10 s at least from when it no longer did.
pub const AFTERMATH: Duration = Duration::from_secs(15);

/// How long after one lease was taken the next may be: time to bind and attach elsewhere what the first one held.
pub const TAKEOVER_PACE: Duration = Duration::from_secs(1);

/// How long after one pod was moved, because it fails where its like do not, the next may be: time to see whether that
/// helped.
pub const MOVE_PACE: Duration = Duration::from_secs(10);

const LEASE: Gvr = crate::ballot::LEASE;
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

/// An act that rests on the silence of a node, or on a comparison of nodes.
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
    /// A pod that keeps failing on its node is to go to another.
    Move {
        /// Its uid.
        pod: String,
    },
    /// The node's lease is to be taken from it.
    TakeOver {
        /// Whose lease.
        node: String,
    },
}

/// Judges acts, remembering which node was condemned last, and when the world last looked wrong.
#[derive(Debug, Default)]
pub struct Governor {
    wrong: Option<Time>,
    condemned: Option<(String, Time)>,
    taken: Option<(String, Time)>,
    moved: Option<(String, Time)>,
}

impl Governor {
    /// A governor that remembers nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// May this be done now?
    pub fn judge(&mut self, deed: &Deed, nodes: &Nodes, now: Time) -> Verdict {
        if let Deed::TakeOver { node } = deed {
            return pace(&mut self.taken, node, TAKEOVER_PACE, now);
        }
        if let Some(why) = nodes.looks_wrong() {
            self.wrong = Some(now);
            return Verdict::No { why };
        }
        if let Some(until) = self.wrong.map(|at| at + AFTERMATH).filter(|until| now < *until) {
            return Verdict::Wait { until, why: "too many nodes were silent just before".into() };
        }
        match deed {
            Deed::Drop { node, empties } if !empties.is_empty() && nodes.suspects.contains_key(node) => {
                Verdict::No { why: format!("it would leave {} without an address", empties.join(", ")) }
            }
            Deed::Drop { .. } => Verdict::Go,
            Deed::Move { pod } => match pace(&mut self.moved, pod, MOVE_PACE, now) {
                Verdict::Wait { until, .. } => {
                    Verdict::Wait { until, why: "another pod was moved just before".into() }
                }
                verdict => verdict,
            },
            Deed::Evict { node } | Deed::TakeOver { node } => pace(&mut self.condemned, node, NODE_PACE, now),
        }
    }

    /// May this write be done now? Those that rest on no silence may.
    pub fn judge_write(&mut self, write: &Write, world: &dyn World, now: Time) -> Verdict {
        if let Some(node) = taken_over(write) {
            return self.judge(&Deed::TakeOver { node }, &Nodes::default(), now);
        }
        let Some(pod) = disrupted(write).and_then(|key| world.get(key)) else {
            return Verdict::Go;
        };
        let nodes = Nodes::look(world);
        let Some(node) = node_of(&pod).filter(|node| nodes.is_silent(node)) else {
            return match write {
                Write::Evict { .. } => self.judge(&Deed::Move { pod: pod.uid().to_owned() }, &nodes, now),
                _ => Verdict::Go,
            };
        };
        // A fenced pod is let go once its lease is lost: that it runs no more is proven.
        if pod_epoch(&pod).is_some() && nodes.proven.contains_key(&node) {
            return Verdict::Go;
        }
        let deed = match write {
            Write::Patch { .. } => Deed::Drop { empties: emptied(&pod, &nodes, world), node },
            _ => Deed::Evict { node },
        };
        self.judge(&deed, &nodes, now)
    }
}

/// One node after the other.
fn pace(last: &mut Option<(String, Time)>, node: &str, pace: Duration, now: Time) -> Verdict {
    match last {
        Some((last, at)) if last != node && now < *at + pace => {
            let why = format!("node {last} was given up just before");
            return Verdict::Wait { until: *at + pace, why };
        }
        Some((last, _)) if last == node => {}
        _ => *last = Some((node.to_owned(), now)),
    }
    Verdict::Go
}

/// The node whose lease a write takes from it.
fn taken_over(write: &Write) -> Option<String> {
    let Write::Patch { key, patch, .. } = write else { return None };
    let takes = key.gvr == LEASE && patch["metadata"]["annotations"][fence::STATE] == "Lost";
    takes.then(|| key.name.clone())
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

/// The parts of a pod or a Service that are read here.
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
    /// Of a Service.
    selector: BTreeMap<String, String>,
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
}

fn parts(object: &Object) -> Parts {
    object.view().unwrap_or_default()
}

fn node_of(pod: &Object) -> Option<String> {
    parts(pod).spec.node_name.filter(|name| !name.is_empty())
}

/// The Services that select the pod and would have no other ready address on a node that is not suspected.
fn emptied(pod: &Object, nodes: &Nodes, world: &dyn World) -> Vec<String> {
    let selects = |selector: &BTreeMap<String, String>, labels: &Texts| {
        !selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value.as_str()))
    };
    let others = world.list(&PODS, pod.namespace());
    let helps = |other: &&Object, selector: &BTreeMap<String, String>| {
        other.uid() != pod.uid()
            && !other.is_ending()
            && selects(selector, &other.meta().labels)
            && is_ready(other)
            && node_of(other).is_some_and(|node| !nodes.is_silent(&node))
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
        Nodes { count, suspects: named.collect(), ..Nodes::default() }
    }

    #[test]
    fn a_lease_with_its_votes_is_taken_whatever_the_world_looks_like_but_one_after_the_other() {
        let mut governor = Governor::new();
        let wrong = nodes(3, &[0, 0]);
        let take = |node: &str| Deed::TakeOver { node: node.into() };
        assert_eq!(governor.judge(&take("n0"), &wrong, at(5)), Verdict::Go);
        let waits = governor.judge(&take("n1"), &wrong, at(5));
        assert_eq!(waits, Verdict::Wait { until: at(6), why: "node n0 was given up just before".into() });
        assert_eq!(governor.judge(&take("n1"), &wrong, at(6)), Verdict::Go);
        assert!(matches!(
            governor.judge(&Deed::Evict { node: "n1".into() }, &wrong, at(6)),
            Verdict::No { .. }
        ));
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

    #[test]
    fn the_last_nodes_to_come_back_are_not_given_up_at_once() {
        let mut governor = Governor::new();
        let evict = Deed::Evict { node: "n0".into() };
        assert!(matches!(governor.judge(&evict, &nodes(5, &[0, 0, 0]), at(10)), Verdict::No { .. }));
        assert!(matches!(governor.judge(&evict, &nodes(5, &[0, 0]), at(15)), Verdict::No { .. }));
        let waits = governor.judge(&evict, &nodes(5, &[0]), at(16));
        assert_eq!(
            waits,
            Verdict::Wait { until: at(30), why: "too many nodes were silent just before".into() }
        );
        let drop = Deed::Drop { node: "n0".into(), empties: Vec::new() };
        assert!(matches!(governor.judge(&drop, &nodes(5, &[0]), at(29)), Verdict::Wait { .. }));
        assert_eq!(governor.judge(&evict, &nodes(5, &[0]), at(30)), Verdict::Go);
    }

    #[test]
    fn a_node_that_dies_long_after_the_world_looked_wrong_is_given_up_as_ever() {
        let mut governor = Governor::new();
        let evict = Deed::Evict { node: "n0".into() };
        assert!(matches!(governor.judge(&evict, &nodes(5, &[0, 0]), at(10)), Verdict::No { .. }));
        assert_eq!(governor.judge(&evict, &nodes(5, &[50]), at(54)), Verdict::Go);
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
    fn pods_are_moved_one_after_the_other_and_not_while_the_world_looks_wrong() {
        let mut governor = Governor::new();
        let shift = |pod: &str| Deed::Move { pod: pod.into() };
        assert_eq!(governor.judge(&shift("x"), &nodes(3, &[]), at(5)), Verdict::Go);
        let waits = governor.judge(&shift("y"), &nodes(3, &[]), at(6));
        assert_eq!(waits, Verdict::Wait { until: at(15), why: "another pod was moved just before".into() });
        assert!(matches!(governor.judge(&shift("y"), &nodes(3, &[0, 0]), at(20)), Verdict::No { .. }));
        assert!(matches!(governor.judge(&shift("y"), &nodes(3, &[]), at(20)), Verdict::Wait { .. }));
        assert_eq!(governor.judge(&shift("y"), &nodes(3, &[]), at(35)), Verdict::Go);
        let evict = Write::Evict { pod: Key::new(&PODS, "a", "web-2"), when: Default::default() };
        let world = Text::new(WORLD);
        assert!(matches!(governor.judge_write(&evict, &world, at(36)), Verdict::Wait { .. }));
        assert_eq!(governor.judge_write(&evict, &world, at(45)), Verdict::Go);
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
