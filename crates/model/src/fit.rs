//! Whether a node would take a pod, by what the two objects say: names, labels, taints. Used wherever pods meet nodes.
//!
//! What depends on the other pods of the node (room, ports, neighbours) is the scheduler's business.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1 as api;
use serde::Deserialize;

use crate::avoid::{self, AVOIDED_BY, Avoided};
use crate::pod::{self, Amounts};
use crate::selector::{self, Requirement};

/// What of a pod decides on which node it may run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "api::Pod")]
pub struct PodFacts {
    /// The node it is bound to or asks for; empty when it does not.
    pub node: String,
    /// The labels that the node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Terms of which one must hold; `None`: no such demand.
    pub required: Option<Vec<Term>>,
    /// Terms that are preferred, with their weights.
    pub preferred: Vec<(i64, Term)>,
    /// What it endures.
    pub tolerations: Vec<api::Toleration>,
    /// What it asks for.
    pub requests: Amounts,
    /// The ports of the node that it takes: address, protocol and number.
    pub ports: Vec<HostPort>,
    /// Its priority.
    pub priority: i32,
}

/// A port of a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The address; `0.0.0.0` for all.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number.
    pub port: i32,
}

/// A term of a node selector: all of it must hold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Term {
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
    /// Whether it makes no sense or asks for nothing: then it matches nothing.
    is_void: bool,
}

/// What of a node decides which pods it takes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(from = "api::Node")]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it wards off pods with.
    pub taints: Vec<api::Taint>,
    /// Whether it takes no new pods.
    pub is_unschedulable: bool,
    /// What it has for pods.
    pub allocatable: Amounts,
    /// Whose pods keep away from it, or did.
    pub avoided: Vec<Avoided>,
}

/// Why a node does not take a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misfit {
    /// It takes no new pods at all.
    Unschedulable,
    /// The pod asks for another node by name.
    Name,
    /// It has a taint that the pod does not endure.
    Taint,
    /// It has not the labels that the pod asks for.
    Affinity,
}

/// The taint that stands for a node which takes no new pods.
pub const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Why the node does not take the pod; `None` when it does.
pub fn misfit(pod: &PodFacts, node: &NodeFacts) -> Option<Misfit> {
    match () {
        () if !endures_cordon(pod, node) => Some(Misfit::Unschedulable),
        () if !pod.node.is_empty() && pod.node != node.name => Some(Misfit::Name),
        () if untolerated(pod, node, &["NoSchedule", "NoExecute"]).is_some() => Some(Misfit::Taint),
        () if !is_chosen(pod, node) => Some(Misfit::Affinity),
        () => None,
    }
}

fn endures_cordon(pod: &PodFacts, node: &NodeFacts) -> bool {
    let cordon = api::Taint { key: UNSCHEDULABLE.into(), effect: "NoSchedule".into(), ..Default::default() };
    !node.is_unschedulable || tolerates(&pod.tolerations, &cordon)
}

/// The first taint of these effects that the pod does not endure.
pub fn untolerated<'n>(pod: &PodFacts, node: &'n NodeFacts, effects: &[&str]) -> Option<&'n api::Taint> {
    let mut taints = node.taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    taints.find(|taint| !tolerates(&pod.tolerations, taint))
}

/// Whether one of the tolerations endures the taint.
pub fn tolerates(tolerations: &[api::Toleration], taint: &api::Taint) -> bool {
    tolerations.iter().any(|toleration| endures(toleration, taint))
}

/// Whether the toleration endures the taint.
pub fn endures(toleration: &api::Toleration, taint: &api::Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    let (own, theirs) = (text(&toleration.value), text(&taint.value));
    let numbers = || Some((theirs.parse::<i64>().ok()?, own.parse::<i64>().ok()?));
    let value = match text(&toleration.operator).as_str() {
        "" | "Equal" => own == theirs,
        "Exists" => true,
        "Gt" => numbers().is_some_and(|(theirs, own)| theirs > own),
        "Lt" => numbers().is_some_and(|(theirs, own)| theirs < own),
        _ => false,
    };
    (key.is_empty() || key == taint.key) && (effect.is_empty() || effect == taint.effect) && value
}

/// Whether the node is among those that the pod's selector and required affinity ask for.
pub fn is_chosen(pod: &PodFacts, node: &NodeFacts) -> bool {
    let has = |(name, value): (&String, &String)| node.labels.get(name) == Some(value);
    pod.node_selector.iter().all(has)
        && pod.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(node)))
}

impl Term {
    /// Reads a term.
    pub fn read(term: &api::NodeSelectorTerm) -> Self {
        let read = |requirements: &Option<Vec<api::NodeSelectorRequirement>>| {
            let all = requirements.iter().flatten();
            let read = all.map(|one| {
                let values: BTreeSet<String> = one.values.iter().flatten().cloned().collect();
                selector::requirement(&one.key, &one.operator, values)
            });
            read.collect::<Result<Vec<_>, _>>()
        };
        match (read(&term.match_expressions), read(&term.match_fields)) {
            (Ok(labels), Ok(fields)) => {
                let is_void = labels.is_empty() && fields.is_empty();
                Self { labels, fields, is_void }
            }
            _ => Self { is_void: true, ..Self::default() },
        }
    }

    /// Whether the node satisfies it.
    pub fn matches(&self, node: &NodeFacts) -> bool {
        let name = BTreeMap::from([("metadata.name".to_owned(), node.name.clone())]);
        !self.is_void
            && self.labels.iter().all(|one| one.matches(&node.labels))
            && self.fields.iter().all(|one| one.matches(&name))
    }
}

impl From<api::Pod> for PodFacts {
    fn from(pod: api::Pod) -> Self {
        Self::of(&pod)
    }
}

impl PodFacts {
    /// What a pod says.
    pub fn of(pod: &api::Pod) -> Self {
        let requests = pod::requests(pod);
        let Some(spec) = &pod.spec else { return Self { requests, ..Self::default() } };
        let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            affinity.and_then(|one| one.required_during_scheduling_ignored_during_execution.as_ref());
        let preferred =
            affinity.and_then(|one| one.preferred_during_scheduling_ignored_during_execution.as_ref());
        let preferred = preferred.into_iter().flatten();
        Self {
            node: spec.node_name.clone().unwrap_or_default(),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required: required.map(|one| one.node_selector_terms.iter().map(Term::read).collect()),
            preferred: preferred.map(|one| (one.weight.into(), Term::read(&one.preference))).collect(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            requests,
            ports: host_ports(spec),
            priority: spec.priority.unwrap_or(0),
        }
    }
}

fn host_ports(spec: &api::PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|init| pod::is_sidecar(init));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let taken = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let ip = port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into());
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some(HostPort { ip, protocol, port: number })
    });
    taken.collect()
}

impl HostPort {
    /// Whether both cannot be taken at once.
    pub fn clashes(&self, other: &Self) -> bool {
        let everywhere = |port: &Self| matches!(port.ip.as_str(), "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || everywhere(self) || everywhere(other))
    }
}

impl From<api::Node> for NodeFacts {
    fn from(node: api::Node) -> Self {
        let spec = node.spec.unwrap_or_default();
        let allocatable = node.status.and_then(|status| status.allocatable).unwrap_or_default();
        Self {
            name: node.metadata.name.unwrap_or_default(),
            avoided: avoid::read(
                node.metadata.annotations.as_ref().and_then(|all| all.get(AVOIDED_BY)).map(String::as_str),
            ),
            labels: node.metadata.labels.unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
            is_unschedulable: spec.unschedulable.unwrap_or(false),
            allocatable: pod::amounts(&allocatable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn judge(pod: serde_json::Value, node: serde_json::Value) -> Option<Misfit> {
        let pod = serde_json::from_value(json!({"spec": pod})).expect("a pod");
        let mut whole = json!({"metadata": {"name": "a", "labels": {"zone": "z1", "n": "5"}}});
        whole["spec"] = node;
        misfit(&pod, &serde_json::from_value(whole).expect("a node"))
    }

    fn affinity(terms: serde_json::Value) -> serde_json::Value {
        let required = json!({"nodeSelectorTerms": terms});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}})
    }

    #[test]
    fn a_plain_pod_fits_a_plain_node() {
        assert_eq!(judge(json!({}), json!({})), None);
        assert_eq!(judge(json!({}), json!({"unschedulable": true})), Some(Misfit::Unschedulable));
        assert_eq!(judge(json!({"nodeName": "b"}), json!({})), Some(Misfit::Name));
    }

    #[test]
    fn taints_ward_off_whom_does_not_endure_them() {
        let tainted = json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
        assert_eq!(judge(json!({}), tainted.clone()), Some(Misfit::Taint));
        let by = |toleration| judge(json!({"tolerations": [toleration]}), tainted.clone());
        assert_eq!(by(json!({"key": "k", "value": "v"})), None);
        assert_eq!(by(json!({"key": "k", "value": "w"})), Some(Misfit::Taint));
        assert_eq!(by(json!({"operator": "Exists"})), None);
        assert_eq!(by(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"})), Some(Misfit::Taint));
        assert_eq!(judge(json!({}), json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]})), None);
    }

    #[test]
    fn affinity_is_one_of_its_terms() {
        let term = |operator: &str, values: serde_json::Value| json!({"matchExpressions": [{"key": "zone", "operator": operator, "values": values}]});
        assert_eq!(judge(affinity(json!([term("In", json!(["z1"]))])), json!({})), None);
        assert_eq!(judge(affinity(json!([term("NotIn", json!(["z1"]))])), json!({})), Some(Misfit::Affinity));
        assert_eq!(judge(affinity(json!([{}])), json!({})), Some(Misfit::Affinity));
        let number = json!([{"matchExpressions": [{"key": "n", "operator": "Gt", "values": ["4"]}]}]);
        assert_eq!(judge(affinity(number), json!({})), None);
        let named = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]);
        assert_eq!(judge(affinity(named), json!({})), None);
        assert_eq!(judge(json!({"nodeSelector": {"zone": "z2"}}), json!({})), Some(Misfit::Affinity));
    }

    #[test]
    fn ports_clash_on_the_same_address_or_on_all() {
        let port = |ip: &str, protocol: &str| HostPort { ip: ip.into(), protocol: protocol.into(), port: 80 };
        assert!(port("0.0.0.0", "TCP").clashes(&port("1.2.3.4", "TCP")));
        assert!(!port("1.2.3.5", "TCP").clashes(&port("1.2.3.4", "TCP")));
        assert!(!port("0.0.0.0", "UDP").clashes(&port("1.2.3.4", "TCP")));
    }
}
