//! What the scheduler reads of a pod, decoded once for each of its revisions.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as api;
use model::fit::PodFacts;
use model::{Object, Selector};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::NAME;

/// A pod as the scheduler sees it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "api::Pod")]
pub struct Facts {
    /// What decides which nodes would take it.
    pub fit: PodFacts,
    /// Which scheduler is to place it.
    pub scheduler: String,
    /// What holds it back from being placed.
    pub is_gated: bool,
    /// Whether it is over.
    pub is_terminal: bool,
    /// Pods it must be near to.
    pub near: Vec<Near>,
    /// Pods it must not be near to.
    pub apart: Vec<Near>,
    /// Pods it would be near to (positive weight) or apart from (negative).
    pub prefers: Vec<(i64, Near)>,
    /// How evenly it must be spread.
    pub spread: Vec<Even>,
    /// The claims it uses.
    pub claims: Vec<String>,
    /// Whether it may drive out pods of lower priority.
    pub may_preempt: bool,
    /// The node on which room is being made for it.
    pub nominated: String,
    /// What its `PodScheduled` condition says: status, reason, message.
    pub said: Option<(String, String, String)>,
    /// When it started, for choosing the youngest.
    pub started: Option<model::Time>,
}

/// Nearness to pods.
#[derive(Debug, Clone, Default)]
pub struct Near {
    /// Which pods.
    pub selector: Selector,
    /// In which namespaces; empty with no selector of namespaces: in the pod's own.
    pub namespaces: Vec<String>,
    /// In the namespaces that match this as well.
    pub namespace_selector: Option<Selector>,
    /// The label whose equal values mean near.
    pub topology: String,
}

/// Evenness over a topology.
#[derive(Debug, Clone)]
pub struct Even {
    /// Which pods are counted.
    pub selector: Selector,
    /// The label whose values are the domains.
    pub topology: String,
    /// How much fuller than the emptiest a domain may be.
    pub skew_max: i64,
    /// How many domains there must be; fewer count as if one were empty.
    pub domains_min: usize,
    /// Whether it must hold, or is only wished for.
    pub is_required: bool,
    /// Whether nodes that the pod's affinity excludes don't count.
    pub honors_affinity: bool,
    /// Whether nodes whose taints it does not endure don't count.
    pub honors_taints: bool,
}

/// What says whether a pod is to be placed at all: most are bound, and nobody needs to know more of them until one is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Outline")]
pub struct Glance {
    /// Whether nothing holds it back: it is ours, not bound, not gated and not over.
    pub is_free: bool,
    /// Whether it is over.
    pub is_terminal: bool,
}

impl Glance {
    /// Whether the pod is to be placed.
    pub fn waits(self, pod: &Object) -> bool {
        self.is_free && !pod.is_ending()
    }
}

/// The little of a pod that a glance takes.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    spec: OutlineSpec,
    #[serde(default)]
    status: OutlineStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OutlineSpec {
    node_name: Option<String>,
    scheduler_name: Option<String>,
    scheduling_gates: Option<Vec<IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OutlineStatus {
    phase: Option<String>,
}

impl From<Outline> for Glance {
    fn from(Outline { spec, status }: Outline) -> Self {
        let is_terminal = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
        let is_bound = spec.node_name.is_some_and(|node| !node.is_empty());
        let is_gated = spec.scheduling_gates.is_some_and(|gates| !gates.is_empty());
        let is_ours = is_ours(spec.scheduler_name.as_deref().unwrap_or_default());
        Self { is_free: is_ours && !is_bound && !is_gated && !is_terminal, is_terminal }
    }
}

/// Whether the pods of a scheduler of this name are ours to place.
fn is_ours(scheduler: &str) -> bool {
    scheduler.is_empty() || scheduler == NAME
}

impl Facts {
    /// Whether the pod is to be placed.
    pub fn waits(&self, pod: &Object) -> bool {
        let is_bound = !self.fit.node.is_empty();
        is_ours(&self.scheduler) && !is_bound && !self.is_gated && !self.is_terminal && !pod.is_ending()
    }

    /// Whether the pod takes up room on a node.
    pub fn resides(&self) -> bool {
        !self.fit.node.is_empty() && !self.is_terminal
    }
}

impl From<api::Pod> for Facts {
    fn from(pod: api::Pod) -> Self {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        let name = pod.metadata.name.clone().unwrap_or_default();
        let fit = PodFacts::of(&pod);
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let affinity = spec.affinity.unwrap_or_default();
        let (near, wished) = nearness(affinity.pod_affinity);
        let (apart, shunned) = remoteness(affinity.pod_anti_affinity);
        let prefers = wished.into_iter().chain(shunned.into_iter().map(|(weight, near)| (-weight, near)));
        let scheduled = status.conditions.iter().flatten().find(|one| one.type_ == "PodScheduled").cloned();
        Self {
            fit,
            scheduler: spec.scheduler_name.unwrap_or_default(),
            is_gated: spec.scheduling_gates.is_some_and(|gates| !gates.is_empty()),
            is_terminal: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            near,
            apart,
            prefers: prefers.collect(),
            spread: spec.topology_spread_constraints.iter().flatten().map(|one| even(one, &labels)).collect(),
            claims: spec.volumes.iter().flatten().filter_map(|volume| claim(volume, &name)).collect(),
            may_preempt: spec.preemption_policy.as_deref() != Some("Never"),
            nominated: status.nominated_node_name.unwrap_or_default(),
            said: scheduled
                .map(|one| (one.status, one.reason.unwrap_or_default(), one.message.unwrap_or_default())),
            started: status.start_time.map(|time| time.0),
        }
    }
}

type Wished = Vec<(i64, Near)>;

fn nearness(affinity: Option<api::PodAffinity>) -> (Vec<Near>, Wished) {
    let affinity = affinity.unwrap_or_default();
    terms(
        affinity.required_during_scheduling_ignored_during_execution,
        affinity.preferred_during_scheduling_ignored_during_execution,
    )
}

fn remoteness(affinity: Option<api::PodAntiAffinity>) -> (Vec<Near>, Wished) {
    let affinity = affinity.unwrap_or_default();
    terms(
        affinity.required_during_scheduling_ignored_during_execution,
        affinity.preferred_during_scheduling_ignored_during_execution,
    )
}

fn terms(
    required: Option<Vec<api::PodAffinityTerm>>,
    preferred: Option<Vec<api::WeightedPodAffinityTerm>>,
) -> (Vec<Near>, Wished) {
    let required = required.unwrap_or_default();
    let preferred = preferred.unwrap_or_default();
    (
        required.iter().map(near).collect(),
        preferred.iter().map(|one| (i64::from(one.weight), near(&one.pod_affinity_term))).collect(),
    )
}

fn near(term: &api::PodAffinityTerm) -> Near {
    let read = |view| Selector::of_view(view).unwrap_or_else(|_| Selector::nothing());
    Near {
        selector: read(term.label_selector.as_ref()),
        namespaces: term.namespaces.clone().unwrap_or_default(),
        namespace_selector: term.namespace_selector.as_ref().map(|view| read(Some(view))),
        topology: term.topology_key.clone(),
    }
}

fn even(constraint: &api::TopologySpreadConstraint, labels: &BTreeMap<String, String>) -> Even {
    let mut selector =
        Selector::of_view(constraint.label_selector.as_ref()).unwrap_or_else(|_| Selector::nothing());
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = labels.get(key) {
            for requirement in
                Selector::of_map(&BTreeMap::from([(key.clone(), value.clone())])).requirements()
            {
                selector = selector.and(requirement.clone());
            }
        }
    }
    Even {
        selector,
        topology: constraint.topology_key.clone(),
        skew_max: i64::from(constraint.max_skew),
        domains_min: constraint.min_domains.and_then(|min| usize::try_from(min).ok()).unwrap_or(1),
        is_required: constraint.when_unsatisfiable == "DoNotSchedule",
        honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

fn claim(volume: &api::Volume, pod: &str) -> Option<String> {
    match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{pod}-{}", volume.name)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_glance_sees_what_the_facts_say() {
        let specs = [
            json!({}),
            json!({"schedulerName": NAME}),
            json!({"schedulerName": "another"}),
            json!({"nodeName": "a"}),
            json!({"nodeName": ""}),
            json!({"schedulingGates": []}),
            json!({"schedulingGates": [{"name": "g"}]}),
        ];
        let phases = [
            json!({}),
            json!({"phase": "Pending"}),
            json!({"phase": "Failed"}),
            json!({"phase": "Succeeded"}),
        ];
        let ends = [Value::Null, json!("2026-01-01T00:00:00Z")];
        let all = specs.iter().flat_map(|spec| phases.iter().map(move |phase| (spec, phase)));
        for ((spec, phase), end) in all.flat_map(|pod| ends.iter().map(move |end| (pod, end))) {
            let mut spec = spec.clone();
            spec["containers"] = json!([{"name": "c"}]);
            let pod =
                json!({"metadata": {"name": "p", "deletionTimestamp": end}, "spec": spec, "status": phase});
            let pod = Object::read(pod.to_string().into()).expect("an object");
            let (facts, glance) =
                (pod.seen::<Facts>().expect("facts"), pod.seen::<Glance>().expect("a glance"));
            assert_eq!(glance.waits(&pod), facts.waits(&pod), "{spec} {phase} {end}");
            assert_eq!(glance.is_terminal, facts.is_terminal, "{spec} {phase} {end}");
        }
    }
}
