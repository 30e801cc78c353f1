//! Pods that want to be near others, or apart from them.

use std::collections::BTreeSet;

use model::fit::NodeFacts;

use crate::cluster::{Cluster, Resident};
use crate::facts::Near;

/// Why a node cannot take a pod that must be near others.
pub const NOT_NEAR: &str = "node(s) didn't match pod affinity rules";
const TOO_NEAR: &str = "node(s) didn't match pod anti-affinity rules";
const SHUNNED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

/// A value of a topology label: where a domain is.
type Domain = (String, String);

/// Where a pod may be, as its neighbours go.
pub struct Neighbours {
    /// For each demand of nearness: its topology, where it is met, and whether the pod itself is enough.
    near: Vec<(String, BTreeSet<String>, bool)>,
    apart: BTreeSet<Domain>,
    shunned: BTreeSet<Domain>,
}

impl Neighbours {
    /// Looks at all pods once.
    pub fn of(pod: &Resident, cluster: &Cluster<'_>) -> Self {
        let near = pod.facts.near.iter().map(|near| {
            let met = domains(near, pod, cluster);
            let first = met.is_empty()
                && pod.facts.near.iter().all(|near| cluster.means(near, &pod.object, &pod.object));
            (near.topology.clone(), met, first)
        });
        let apart = pod.facts.apart.iter().flat_map(|near| {
            domains(near, pod, cluster).into_iter().map(|value| (near.topology.clone(), value))
        });
        Self { near: near.collect(), apart: apart.collect(), shunned: shunned(pod, cluster) }
    }

    /// Why the node is no place for the pod.
    pub fn refuses(&self, node: &NodeFacts) -> Option<&'static str> {
        let met = |(topology, values, first): &(String, BTreeSet<String>, bool)| {
            node.labels.get(topology).is_some_and(|value| *first || values.contains(value))
        };
        match () {
            () if !self.near.iter().all(met) => Some(NOT_NEAR),
            () if is_in(&self.apart, node) => Some(TOO_NEAR),
            () if is_in(&self.shunned, node) => Some(SHUNNED),
            () => None,
        }
    }
}

fn is_in(domains: &BTreeSet<Domain>, node: &NodeFacts) -> bool {
    domains.iter().any(|(topology, value)| node.labels.get(topology) == Some(value))
}

/// The domains in which there is a pod that `near` means.
fn domains(near: &Near, pod: &Resident, cluster: &Cluster<'_>) -> BTreeSet<String> {
    let places =
        cluster.places.iter().filter_map(|place| Some((place, place.node.labels.get(&near.topology)?)));
    let met = places
        .filter(|(place, _)| place.pods.iter().any(|other| cluster.means(near, &pod.object, &other.object)));
    met.map(|(_, value)| value.clone()).collect()
}

/// The domains of pods that must not be near this one.
fn shunned(pod: &Resident, cluster: &Cluster<'_>) -> BTreeSet<Domain> {
    let mut shunned = BTreeSet::new();
    if cluster.shy == 0 {
        return shunned;
    }
    for place in &cluster.places {
        for other in &place.pods {
            for near in &other.facts.apart {
                let Some(value) = place.node.labels.get(&near.topology) else { continue };
                if cluster.means(near, &other.object, &pod.object) {
                    shunned.insert((near.topology.clone(), value.clone()));
                }
            }
        }
    }
    shunned
}

/// How much the pod would like to be on each node, by its wishes to be near others and theirs to be near it.
pub fn liking(pod: &Resident, cluster: &Cluster<'_>) -> Vec<i64> {
    let mut values: std::collections::BTreeMap<Domain, i64> = std::collections::BTreeMap::new();
    for place in &cluster.places {
        for other in &place.pods {
            let own =
                pod.facts.prefers.iter().filter(|(_, near)| cluster.means(near, &pod.object, &other.object));
            let theirs = other
                .facts
                .prefers
                .iter()
                .filter(|(_, near)| cluster.means(near, &other.object, &pod.object));
            for (weight, near) in own.chain(theirs) {
                if let Some(value) = place.node.labels.get(&near.topology) {
                    *values.entry((near.topology.clone(), value.clone())).or_default() += weight;
                }
            }
        }
    }
    let likes = |node: &NodeFacts| {
        let here = values.iter().filter(|((topology, value), _)| node.labels.get(topology) == Some(value));
        here.map(|(_, weight)| *weight).sum()
    };
    cluster.places.iter().map(|place| likes(&place.node)).collect()
}
