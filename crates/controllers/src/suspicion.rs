//! Suspicion: which nodes are not heard of, and whether so many at once say more about us than about them.
//!
//! A node that has not renewed its lease for a while is *suspected*: an annotation of its Node says since when (kept by
//! [`crate::node_lifecycle`]). All who act on it read it here, so that they agree. What rests on suspicion can be undone.

use std::collections::BTreeMap;
use std::time::Duration;

use model::fence::{Record, SUSPECTED, State};
use model::kinds::{LEASE, NODE, POD};
use model::{Key, Object, Time, World};
use serde::Deserialize;

use crate::node_lifecycle::LEASES;
use crate::pods::{Condition, Pod, Taint};
use crate::services;

/// How close together suspicions must come to have one cause. A cut switch is noticed by all within a lease time;
/// half would miss the slowest, double would take two real failures of a bad day for one.
pub const ONE_CAUSE: Duration = Duration::from_secs(30);

/// Of at least six nodes, more than this share at once (in percent) is too many. A rack is a fifth of a small cluster.
pub const SUSPECTS_PERCENT_MAX: usize = 20;

/// From how many nodes on the share counts; of three to five, more than one at once is too many.
pub const MANY_NODES: usize = 6;

/// The taint by which an operator proves that a node is out of service.
pub const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The nodes, as far as they are silent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// How many there are.
    pub count: usize,
    /// Those under suspicion, and since when.
    pub suspects: BTreeMap<String, Time>,
    /// Those that are silent and of which more is known: their lease is lost, or an operator says that they are off.
    pub proven: BTreeMap<String, Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    taints: Vec<Taint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

impl Nodes {
    /// Looks at all nodes.
    pub fn look(world: &dyn World) -> Self {
        let all = world.list(&NODE, "");
        let mut nodes = Nodes { count: all.len(), ..Nodes::default() };
        for node in &all {
            let Some(since) = silent_since(node) else { continue };
            let known = if is_proven(node, world) { &mut nodes.proven } else { &mut nodes.suspects };
            known.insert(node.name().to_owned(), since);
        }
        nodes
    }

    /// Why so much silence looks like a fault of ours rather than of the nodes.
    ///
    /// Too many suspects at once do. Proof speaks for itself, unless more than half of all fell silent at once: nobody
    /// could take over what they carry, and most of them may well be at work.
    pub fn looks_wrong(&self) -> Option<String> {
        let suspects = at_once(self.suspects.values());
        let too_many = match self.count {
            MANY_NODES.. => suspects * 100 > self.count * SUSPECTS_PERCENT_MAX,
            3..MANY_NODES => suspects > 1,
            _ => false,
        };
        let silent = at_once(self.suspects.values().chain(self.proven.values()));
        let most = self.count > 2 && silent * 2 > self.count;
        (too_many || most).then(|| format!("{silent} of {} nodes fell silent at once", self.count))
    }

    /// Whether nothing is heard of the node.
    pub fn is_silent(&self, node: &str) -> bool {
        self.suspects.contains_key(node) || self.proven.contains_key(node)
    }
}

/// How many of these times may have one cause, at most.
fn at_once<'a>(times: impl Iterator<Item = &'a Time>) -> usize {
    let mut times: Vec<Time> = times.copied().collect();
    times.sort();
    let together =
        |first: usize| times[first..].iter().take_while(|&&time| time < times[first] + ONE_CAUSE).count();
    (0..times.len()).map(together).max().unwrap_or(0)
}

/// Since when nothing is heard of a node; `None`: it is heard of.
pub(crate) fn silent_since(node: &Object) -> Option<Time> {
    let said = node.meta().annotations.get(SUSPECTED).map(|since| since.parse::<Time>());
    let unknown = || {
        let body = node.seen::<Body>()?;
        let ready = body.status.conditions.iter().find(|one| one.kind == "Ready")?;
        (ready.status == "Unknown").then_some(ready.last_transition_time.unwrap_or(Time::UNIX_EPOCH))
    };
    said.map(|since| since.unwrap_or(Time::UNIX_EPOCH)).or_else(unknown)
}

/// Whether more than silence speaks against a node: its lease is lost, or an operator says that it is out of service.
fn is_proven(node: &Object, world: &dyn World) -> bool {
    let says_so = node
        .seen::<Body>()
        .is_some_and(|body| body.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE));
    let is_lost = || {
        let lease = world.get(&Key::new(&LEASE, LEASES, node.name()));
        lease.as_ref().and_then(Record::read).is_some_and(|record| record.state == State::Lost)
    };
    says_so || is_lost()
}

/// The nodes on which pods of a Service are not to be asked now: they are suspected, the world does not look wrong, and
/// others are ready.
pub(crate) fn doubted(pods: &[Pod], world: &dyn World) -> Vec<String> {
    let mut suspects: Vec<String> =
        pods.iter().map(Pod::node).filter(|node| is_suspected(node, world)).map(str::to_owned).collect();
    suspects.sort();
    suspects.dedup();
    let is_left =
        |pod: &Pod| pod.is_ready() && !pod.is_ending() && !suspects.iter().any(|one| one == pod.node());
    if suspects.is_empty() || !pods.iter().any(is_left) || Nodes::look(world).looks_wrong().is_some() {
        return Vec::new();
    }
    suspects
}

fn is_suspected(node: &str, world: &dyn World) -> bool {
    let node = world.get(&Key::new(&NODE, "", node));
    node.is_some_and(|node| node.meta().annotations.contains_key(SUSPECTED))
}

/// The Services that may go by a node that fell silent or is heard of again: whether the world looks wrong may change, so
/// those on other silent nodes are among them.
pub(crate) fn of_node(node: &Object, world: &dyn World) -> Vec<Key> {
    if silent_since(node).is_none() {
        return Vec::new();
    }
    let concerns = |name: &str| name == node.name() || is_suspected(name, world);
    let pods = Pod::all(world.list(&POD, ""))
        .into_iter()
        .filter(|pod| !pod.node().is_empty() && concerns(pod.node()));
    pods.flat_map(|pod| services::of_pod(&pod.object, world)).collect()
}

/// The same for a lease that is lost: what was suspicion is proven.
pub(crate) fn of_lease(lease: &Object, world: &dyn World) -> Vec<Key> {
    let node = node_of_lost(lease).and_then(|key| world.get(&key));
    node.map(|node| of_node(&node, world)).unwrap_or_default()
}

/// The node whose lease is lost, if it is.
pub(crate) fn node_of_lost(lease: &Object) -> Option<Key> {
    let is_lost = lease.namespace() == LEASES && Record::read(lease)?.state == State::Lost;
    is_lost.then(|| Key::new(&NODE, "", lease.name()))
}

#[cfg(test)]
mod tests {
    use model::tiny::{TinyWorld, at};

    use super::*;

    fn nodes(count: usize, suspects: &[i64], proven: &[i64]) -> Nodes {
        let named = |prefix: &str, all: &[i64]| {
            all.iter().enumerate().map(|(n, since)| (format!("{prefix}{n}"), at(*since))).collect()
        };
        Nodes { count, suspects: named("s", suspects), proven: named("p", proven) }
    }

    #[test]
    fn many_nodes_silent_at_once_look_like_a_fault_of_ours() {
        let check = |count: usize, suspects: &[i64], wrong: bool| {
            assert_eq!(
                nodes(count, suspects, &[]).looks_wrong().is_some(),
                wrong,
                "{count} nodes, {suspects:?}"
            );
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
    fn proof_speaks_for_itself_unless_more_than_half_are_silent() {
        assert_eq!(nodes(5, &[], &[0, 0]).looks_wrong(), None);
        assert_eq!(nodes(5, &[1], &[0]).looks_wrong(), None);
        assert_eq!(nodes(5, &[40], &[0, 0]).looks_wrong(), None);
        assert!(nodes(5, &[], &[0, 0, 0]).looks_wrong().is_some());
        assert!(nodes(10, &[0], &[0, 0, 0, 0, 0]).looks_wrong().is_some());
    }

    #[test]
    fn a_node_is_silent_by_its_annotation_or_its_condition_and_proven_by_its_lease_or_an_operator() {
        let set = r#"{\"number\":1,\"voters\":[],\"leaseMillis\":4000}"#;
        let world = TinyWorld::read(&format!(
            r#"nodes well ready
            nodes mute metadata.annotations={{"healing.kintsugi.dev/suspected":"1970-01-01T00:00:07Z"}}
            nodes off metadata.annotations={{"healing.kintsugi.dev/suspected":"1970-01-01T00:00:08Z"}} spec.taints=[{{"key":"node.kubernetes.io/out-of-service"}}]
            nodes lost status.conditions=[{{"type":"Ready","status":"Unknown","lastTransitionTime":"1970-01-01T00:00:09Z"}}]
            leases kube-node-lease/lost metadata.annotations={{"healing.kintsugi.dev/epoch":"7","healing.kintsugi.dev/incarnation":"1","healing.kintsugi.dev/voters":"{set}","healing.kintsugi.dev/lease-state":"Lost"}}"#
        ));
        let seen = Nodes::look(&world);
        let known = |all: &BTreeMap<String, Time>| {
            all.iter().map(|(name, at)| format!("{name}@{}", at.as_second())).collect::<Vec<_>>()
        };
        assert_eq!(seen.count, 4);
        assert_eq!(known(&seen.suspects), ["mute@7"]);
        assert_eq!(known(&seen.proven), ["lost@9", "off@8"]);
    }
}
