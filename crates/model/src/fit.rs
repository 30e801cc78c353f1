//! Whether a pod fits a node: by name, selectors, taints, ports and room. Pure; the scheduler and the DaemonSet ask.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinityTerm, Taint, Toleration,
};

use crate::pod::{self, Amounts};
use crate::{Quantity, Selector, selector};

/// Why a pod does not fit a node. The order is that in which they are found.
#[derive(Debug, Clone, PartialEq)]
pub enum Misfit {
    /// It names another node.
    OtherNode,
    /// The node takes no new pods.
    Unschedulable,
    /// Its node selector or its required node affinity does not match.
    Selector,
    /// A taint keeps it away.
    Taint(Taint),
    /// A port of the node is taken.
    Ports,
    /// The node runs as many pods as it may.
    TooManyPods,
    /// These resources are short.
    Short(Vec<String>),
}

impl Misfit {
    /// The reason as it stands in the scheduler's message.
    pub fn reasons(&self) -> Vec<String> {
        let one = |text: &str| vec![text.to_owned()];
        match self {
            Self::OtherNode => one("node(s) didn't match the requested node name"),
            Self::Unschedulable => one("node(s) were unschedulable"),
            Self::Selector => one("node(s) didn't match Pod's node affinity/selector"),
            Self::Taint(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                one(&format!("node(s) had untolerated taint {{{}: {value}}}", taint.key))
            }
            Self::Ports => one("node(s) didn't have free ports for the requested pod ports"),
            Self::TooManyPods => one("Too many pods"),
            Self::Short(names) => names.iter().map(|name| format!("Insufficient {name}")).collect(),
        }
    }
}

/// What the pods of a node take of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Used {
    /// The requests of its pods together.
    pub requests: Amounts,
    /// How many pods it has.
    pub pods: i64,
    /// The ports of the node that they hold.
    pub ports: BTreeSet<HostPort>,
}

/// A port of a node that a pod holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number.
    pub port: i32,
    /// On which address; `0.0.0.0` for all.
    pub ip: String,
}

impl HostPort {
    /// Whether the two cannot be held at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        let everywhere = |ip: &str| matches!(ip, "0.0.0.0" | "::");
        self.protocol == other.protocol
            && self.port == other.port
            && (self.ip == other.ip || everywhere(&self.ip) || everywhere(&other.ip))
    }
}

impl Used {
    /// Counts one more pod.
    pub fn add(&mut self, pod: &Pod) {
        pod::add(&mut self.requests, &pod::requests(pod));
        self.pods += 1;
        self.ports.extend(host_ports(pod));
    }

    /// What these pods take together; those that are over take nothing.
    pub fn by<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Self {
        let mut used = Self::default();
        pods.into_iter().filter(|pod| !pod::is_terminal(pod)).for_each(|pod| used.add(pod));
        used
    }
}

/// Whether the pod may run on the node beside what is there; if not, every reason.
pub fn fits(pod: &Pod, node: &Node, used: &Used) -> Result<(), Vec<Misfit>> {
    let mut misfits = Vec::new();
    misfits.extend(keeps_away(pod, node));
    let wanted = host_ports(pod);
    if wanted.iter().any(|port| used.ports.iter().any(|held| held.conflicts(port))) {
        misfits.push(Misfit::Ports);
    }
    let room = allocatable(node);
    if room.get("pods").is_some_and(|most| used.pods >= most.value()) {
        misfits.push(Misfit::TooManyPods);
    }
    let short = short_of(&pod::requests(pod), &room, &used.requests);
    if !short.is_empty() {
        misfits.push(Misfit::Short(short));
    }
    if misfits.is_empty() { Ok(()) } else { Err(misfits) }
}

/// What keeps the pod away from the node whatever else runs there.
pub fn keeps_away(pod: &Pod, node: &Node) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    let bound_to = pod::node(pod);
    if !bound_to.is_empty() && Some(bound_to) != node.metadata.name.as_deref() {
        misfits.push(Misfit::OtherNode);
    }
    let tolerations = tolerations(pod);
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    if unschedulable && !tolerations.iter().any(|toleration| tolerates(toleration, &unschedulable_taint())) {
        misfits.push(Misfit::Unschedulable);
    }
    if !selects(pod, node) {
        misfits.push(Misfit::Selector);
    }
    let taint = untolerated(tolerations, taints(node), &["NoSchedule", "NoExecute"]);
    misfits.extend(taint.cloned().map(Misfit::Taint));
    misfits
}

/// The taint that an unschedulable node is taken to have.
pub fn unschedulable_taint() -> Taint {
    let key = "node.kubernetes.io/unschedulable".to_owned();
    Taint { key, effect: "NoSchedule".to_owned(), ..Taint::default() }
}

/// The pod's tolerations.
pub fn tolerations(pod: &Pod) -> &[Toleration] {
    pod.spec.as_ref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
}

/// The node's taints.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

/// The first taint of one of these effects that nothing tolerates.
pub fn untolerated<'a>(
    tolerations: &[Toleration],
    taints: &'a [Taint],
    effects: &[&str],
) -> Option<&'a Taint> {
    let mut of_effect = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    of_effect.find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether the toleration covers the taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let said = |field: &Option<String>| field.as_deref().unwrap_or_default().to_owned();
    let (key, effect) = (said(&toleration.key), said(&toleration.effect));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "" | "Equal" => !key.is_empty() && said(&toleration.value) == said(&taint.value),
        _ => false,
    }
}

/// Whether the pod's node selector and its required node affinity match the node.
pub fn selects(pod: &Pod, node: &Node) -> bool {
    let Some(spec) = &pod.spec else { return true };
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let by_labels = spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    by_labels && required.is_none_or(|required| node_selector_matches(required, node))
}

/// Whether one of the selector's terms matches the node.
pub fn node_selector_matches(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// The weights of the preferred node affinity terms that match, together.
pub fn preference(pod: &Pod, node: &Node) -> i64 {
    let affinity = pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
    let preferred =
        affinity.and_then(|node| node.preferred_during_scheduling_ignored_during_execution.as_ref());
    let matching = preferred.into_iter().flatten().filter(|term| term_matches(&term.preference, node));
    matching.map(|term| i64::from(term.weight)).sum()
}

/// An empty term matches nothing.
fn term_matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let (labels, fields) = (term.match_expressions.as_deref(), term.match_fields.as_deref());
    let (labels, fields) = (labels.unwrap_or_default(), fields.unwrap_or_default());
    if labels.is_empty() && fields.is_empty() {
        return false;
    }
    let known = node.metadata.labels.clone().unwrap_or_default();
    let name = BTreeMap::from([("metadata.name".to_owned(), node.metadata.name.clone().unwrap_or_default())]);
    labels.iter().all(|wanted| holds(wanted, &known)) && fields.iter().all(|wanted| holds(wanted, &name))
}

fn holds(wanted: &NodeSelectorRequirement, known: &BTreeMap<String, String>) -> bool {
    let values = wanted.values.iter().flatten().cloned().collect();
    selector::requirement(&wanted.key, &wanted.operator, values)
        .is_ok_and(|requirement| requirement.matches(known))
}

/// Whether an affinity term of `own` speaks of `other`; `namespace` gives the labels of the other's namespace.
pub fn speaks_of(
    term: &PodAffinityTerm,
    own: &Pod,
    other: &Pod,
    namespace: &BTreeMap<String, String>,
) -> bool {
    let home = |pod: &Pod| pod.metadata.namespace.clone().unwrap_or_default();
    let named = term.namespaces.as_deref().unwrap_or_default();
    let in_namespace = match (named, &term.namespace_selector) {
        ([], None) => home(own) == home(other),
        (named, selector) => {
            let selected = selector.as_ref().and_then(|view| Selector::of_view(Some(view)).ok());
            named.contains(&home(other)) || selected.is_some_and(|selector| selector.matches(namespace))
        }
    };
    let labels = other.metadata.labels.clone().unwrap_or_default();
    let selector = Selector::of_view(term.label_selector.as_ref());
    in_namespace && selector.is_ok_and(|selector| selector.matches(&labels))
}

/// The ports of its node that the pod holds.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|init| pod::is_sidecar(init));
    let containers = spec.containers.iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let held = ports.filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let or = |field: &Option<String>, instead: &str| match field.as_deref() {
            None | Some("") => instead.to_owned(),
            Some(said) => said.to_owned(),
        };
        Some(HostPort { protocol: or(&port.protocol, "TCP"), port: number, ip: or(&port.host_ip, "0.0.0.0") })
    });
    held.collect()
}

/// What the node has for pods.
pub fn allocatable(node: &Node) -> Amounts {
    let listed =
        node.status.as_ref().and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
    listed.map(pod::amounts).unwrap_or_default()
}

/// The resources of which less is left than is asked for.
pub fn short_of(requests: &Amounts, room: &Amounts, used: &Amounts) -> Vec<String> {
    let amount = |of: &Amounts, name: &str| of.get(name).copied().unwrap_or_default();
    let short = requests.iter().filter(|(name, asked)| {
        **asked > Quantity::ZERO && amount(used, name) + **asked > amount(room, name)
    });
    short.map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(more: serde_json::Value) -> Node {
        let mut node = json!({"metadata": {"name": "n", "labels": {"zone": "a", "cpus": "8"}},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "2"}}});
        node["spec"] = more;
        serde_json::from_value(node).expect("a node")
    }

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).expect("a pod")
    }

    fn check(spec: serde_json::Value, on: serde_json::Value, used: &Used, reasons: &[&str]) {
        let found = fits(&pod(spec.clone()), &node(on), used).err().unwrap_or_default();
        let found: Vec<String> = found.iter().flat_map(Misfit::reasons).collect();
        assert_eq!(found, reasons, "{spec}");
    }

    #[test]
    fn a_pod_fits_where_there_is_room_for_it() {
        let asks =
            |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        let mut used = Used::default();
        check(asks("2"), json!({}), &used, &[]);
        check(asks("2001m"), json!({}), &used, &["Insufficient cpu"]);
        used.add(&pod(asks("1500m")));
        check(asks("500m"), json!({}), &used, &[]);
        check(asks("501m"), json!({}), &used, &["Insufficient cpu"]);
        used.add(&pod(asks("0")));
        check(asks("0"), json!({}), &used, &["Too many pods"]);
    }

    #[test]
    fn taints_keep_pods_away_that_do_not_tolerate_them() {
        let tainted = || json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]});
        let with = |toleration| json!({"containers": [], "tolerations": [toleration]});
        let used = Used::default();
        let refused = ["node(s) had untolerated taint {k: v}"];
        check(json!({"containers": []}), tainted(), &used, &refused);
        check(with(json!({"operator": "Exists"})), tainted(), &used, &[]);
        check(with(json!({"key": "k", "value": "v"})), tainted(), &used, &[]);
        check(with(json!({"key": "k", "value": "w"})), tainted(), &used, &refused);
        check(
            with(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"})),
            tainted(),
            &used,
            &refused,
        );
        check(
            json!({"containers": []}),
            json!({"unschedulable": true}),
            &used,
            &["node(s) were unschedulable"],
        );
        let soft = json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]});
        check(json!({"containers": []}), soft, &used, &[]);
    }

    #[test]
    fn selectors_and_affinity_choose_nodes() {
        let used = Used::default();
        let refused = ["node(s) didn't match Pod's node affinity/selector"];
        check(json!({"containers": [], "nodeSelector": {"zone": "a"}}), json!({}), &used, &[]);
        check(json!({"containers": [], "nodeSelector": {"zone": "b"}}), json!({}), &used, &refused);
        let wants = |part: &str, key: &str, operator: &str, value: &str| {
            let term = json!({part: [{"key": key, "operator": operator, "values": [value]}]});
            let required = json!({"nodeSelectorTerms": [{}, term]});
            json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": required}}})
        };
        check(wants("matchExpressions", "zone", "In", "a"), json!({}), &used, &[]);
        check(wants("matchExpressions", "zone", "NotIn", "a"), json!({}), &used, &refused);
        check(wants("matchExpressions", "cpus", "Gt", "4"), json!({}), &used, &[]);
        check(wants("matchFields", "metadata.name", "In", "n"), json!({}), &used, &[]);
        check(wants("matchFields", "metadata.name", "In", "m"), json!({}), &used, &refused);
    }

    #[test]
    fn a_port_is_held_by_one_pod() {
        let holds = |port, ip| json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": port, "hostIP": ip}]}]});
        let used = Used::by([&pod(holds(80, "10.0.0.1"))]);
        let refused = ["node(s) didn't have free ports for the requested pod ports"];
        check(holds(80, ""), json!({}), &used, &refused);
        check(holds(80, "10.0.0.2"), json!({}), &used, &[]);
        check(holds(81, ""), json!({}), &used, &[]);
    }
}
