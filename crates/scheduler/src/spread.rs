//! Pods that must be spread evenly over the values of a label of their nodes.

use std::collections::BTreeMap;

use model::fit::{self, NodeFacts};

use crate::cluster::{Cluster, Place, Resident};
use crate::facts::Even;

const UNEVEN: &str = "node(s) didn't match pod topology spread constraints";
/// Why a node without the label cannot take the pod.
pub const MISSING_LABEL: &str =
    "node(s) didn't match pod topology spread constraints (missing required label)";

/// How many pods each domain may still take.
pub struct Spread(Vec<Counted>);

struct Counted {
    topology: String,
    counts: BTreeMap<String, i64>,
    /// As many as a domain may hold before this pod.
    most: i64,
}

impl Spread {
    /// Counts each required constraint.
    pub fn of(pod: &Resident, cluster: &Cluster<'_>) -> Self {
        let required = pod.facts.spread.iter().filter(|even| even.is_required);
        Self(required.map(|even| counted(even, pod, cluster)).collect())
    }

    /// Why the node is no place for the pod.
    pub fn refuses(&self, node: &NodeFacts) -> Option<&'static str> {
        self.0.iter().find_map(|counted| {
            let Some(value) = node.labels.get(&counted.topology) else { return Some(MISSING_LABEL) };
            let here = counted.counts.get(value).copied().unwrap_or(0);
            (here > counted.most).then_some(UNEVEN)
        })
    }
}

fn counted(even: &Even, pod: &Resident, cluster: &Cluster<'_>) -> Counted {
    let counts = counts(even, pod, cluster);
    let least = counts.values().copied().min().unwrap_or(0);
    let least = if counts.len() < even.domains_min { 0 } else { least };
    let own = i64::from(even.selector.matches(&pod.object.meta().labels));
    Counted { topology: even.topology.clone(), counts, most: least + even.skew_max - own }
}

/// How many pods of the kind meant each domain has.
pub fn counts(even: &Even, pod: &Resident, cluster: &Cluster<'_>) -> BTreeMap<String, i64> {
    let mut counts = BTreeMap::new();
    for place in cluster.places.iter().filter(|place| takes_part(even, pod, place)) {
        let Some(value) = place.node.labels.get(&even.topology) else { continue };
        let meant = place.pods.iter().filter(|other| {
            other.object.namespace() == pod.object.namespace()
                && !other.object.is_ending()
                && even.selector.matches(&other.object.meta().labels)
        });
        *counts.entry(value.clone()).or_default() += i64::try_from(meant.count()).unwrap_or(i64::MAX);
    }
    counts
}

fn takes_part(even: &Even, pod: &Resident, place: &Place) -> bool {
    let facts = &pod.facts.fit;
    (!even.honors_affinity || fit::is_chosen(facts, &place.node))
        && (!even.honors_taints
            || fit::untolerated(facts, &place.node, &["NoSchedule", "NoExecute"]).is_none())
}
