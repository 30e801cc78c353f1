//! NetworkPolicies, Pods and Namespaces → what the pods of one node may send and receive. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use model::Selector;

use crate::{Allowed, Cidr, Peer, PolicyRules, PortSpan, Protocol};

/// The labels of namespaces, by name.
pub type NamespaceLabels = BTreeMap<String, BTreeMap<String, String>>;

/// A pod as policies see it: one that has an address of its own and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedPod {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its address.
    pub address: Ipv4Addr,
    /// The node it is on.
    pub node: String,
    /// Its ports that have names.
    pub ports: Vec<(String, Protocol, u16)>,
}

/// What the pods on the node of that name may send and receive.
pub fn policies<'a>(
    all: impl IntoIterator<Item = &'a NetworkPolicy>,
    pods: &[GuardedPod],
    namespaces: &NamespaceLabels,
    node: &str,
) -> PolicyRules {
    let mut deciding = Deciding { pods, namespaces, rules: PolicyRules::default() };
    for policy in all {
        let (Some(namespace), Some(spec)) = (&policy.metadata.namespace, &policy.spec) else { continue };
        // A selector that cannot be read was refused by the API; should one be stored, it selects nobody.
        let Some(selector) = selector(spec.pod_selector.as_ref(), true) else { continue };
        let is_meant = |pod: &&GuardedPod| {
            pod.node == node && pod.namespace == *namespace && selector.matches(&pod.labels)
        };
        for pod in pods.iter().filter(is_meant) {
            deciding.hold(pod, namespace, spec);
        }
    }
    deciding.rules
}

struct Deciding<'a> {
    pods: &'a [GuardedPod],
    namespaces: &'a NamespaceLabels,
    rules: PolicyRules,
}

impl Deciding<'_> {
    fn hold(&mut self, pod: &GuardedPod, namespace: &str, spec: &NetworkPolicySpec) {
        if is_about(spec, "Ingress") {
            let mut allowed = Vec::new();
            for rule in spec.ingress.iter().flatten() {
                let ports = rule.ports.as_deref().filter(|ports| !ports.is_empty());
                let ports =
                    ports.map(|ports| ports.iter().flat_map(|port| own_ports(port, pod)).collect::<Vec<_>>());
                for peer in self.peers(rule.from.as_deref(), namespace, None) {
                    allowed.push(Allowed { peer, ports: ports.clone() });
                }
            }
            add(self.rules.incoming.entry(pod.address).or_default(), allowed);
        }
        if is_about(spec, "Egress") {
            let mut allowed = Vec::new();
            for rule in spec.egress.iter().flatten() {
                self.sent(rule.to.as_deref(), rule.ports.as_deref(), namespace, &mut allowed);
            }
            add(self.rules.outgoing.entry(pod.address).or_default(), allowed);
        }
    }

    /// What one rule lets out. A port that is named has the number that each receiver gives it.
    fn sent(
        &mut self,
        to: Option<&[NetworkPolicyPeer]>,
        ports: Option<&[NetworkPolicyPort]>,
        namespace: &str,
        allowed: &mut Vec<Allowed>,
    ) {
        let Some(ports) = ports.filter(|ports| !ports.is_empty()) else {
            let peers = self.peers(to, namespace, None);
            return allowed.extend(peers.into_iter().map(|peer| Allowed { peer, ports: None }));
        };
        let spans: Vec<PortSpan> = ports.iter().filter_map(numbered).collect();
        if !spans.is_empty() {
            for peer in self.peers(to, namespace, None) {
                allowed.push(Allowed { peer, ports: Some(spans.clone()) });
            }
        }
        for (name, protocol) in ports.iter().filter_map(named) {
            let mut numbers = BTreeSet::new();
            for pod in self.pods {
                numbers.extend(numbers_of(pod, name, protocol));
            }
            for number in numbers {
                let span = PortSpan { protocol, first: number, last: number };
                for peer in self.peers(to, namespace, Some((name, span))) {
                    allowed.push(Allowed { peer, ports: Some(vec![span]) });
                }
            }
        }
    }

    /// Whom a rule means; of pods, where a port is named, those that give it this number.
    fn peers(
        &mut self,
        peers: Option<&[NetworkPolicyPeer]>,
        namespace: &str,
        port: Option<(&str, PortSpan)>,
    ) -> Vec<Peer> {
        match (peers.filter(|peers| !peers.is_empty()), port) {
            (None, None) => vec![Peer::Anyone],
            // Only pods have names for ports.
            (None, Some(_)) => vec![self.group(namespace, &everybody(), port)],
            (Some(peers), _) => peers.iter().filter_map(|peer| self.peer(namespace, peer, port)).collect(),
        }
    }

    fn peer(
        &mut self,
        namespace: &str,
        peer: &NetworkPolicyPeer,
        port: Option<(&str, PortSpan)>,
    ) -> Option<Peer> {
        match &peer.ip_block {
            None => Some(self.group(namespace, peer, port)),
            Some(_) if port.is_some() => None,
            Some(block) => {
                let holes = block.except.iter().flatten();
                // A range of IPv6 means nobody here.
                let range = block.cidr.parse::<Cidr>().ok()?;
                Some(Peer::Range { range, except: holes.filter_map(|hole| hole.parse().ok()).collect() })
            }
        }
    }

    /// The group of the pods that a peer means, by a name that says how it was chosen.
    fn group(&mut self, namespace: &str, peer: &NetworkPolicyPeer, port: Option<(&str, PortSpan)>) -> Peer {
        let own = if peer.namespace_selector.is_some() { "" } else { namespace };
        let text = serde_json::to_string(peer).unwrap_or_default();
        let suffix = port
            .map(|(name, span)| format!(" {name}={}/{:?}", span.first, span.protocol))
            .unwrap_or_default();
        let name = format!("{own}:{text}{suffix}");
        if !self.rules.groups.contains_key(&name) {
            let addresses = self.addresses(namespace, peer, port);
            self.rules.groups.insert(name.clone(), addresses);
        }
        Peer::Group(name)
    }

    fn addresses(
        &self,
        namespace: &str,
        peer: &NetworkPolicyPeer,
        port: Option<(&str, PortSpan)>,
    ) -> BTreeSet<Ipv4Addr> {
        let (Some(spaces), Some(pods)) = (
            selector(peer.namespace_selector.as_ref(), false),
            selector(peer.pod_selector.as_ref(), peer.namespace_selector.is_some()),
        ) else {
            return BTreeSet::new();
        };
        let is_in = |pod: &GuardedPod| match &peer.namespace_selector {
            None => pod.namespace == namespace,
            Some(_) => self.namespaces.get(&pod.namespace).is_some_and(|labels| spaces.matches(labels)),
        };
        let gives = |pod: &GuardedPod| {
            port.is_none_or(|(name, span)| {
                numbers_of(pod, name, span.protocol).any(|number| number == span.first)
            })
        };
        let meant = self.pods.iter().filter(|pod| is_in(pod) && pods.matches(&pod.labels) && gives(pod));
        meant.map(|pod| pod.address).collect()
    }
}

/// Every pod of every namespace.
fn everybody() -> NetworkPolicyPeer {
    NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() }
}

fn add(known: &mut Vec<Allowed>, more: Vec<Allowed>) {
    for one in more {
        if !known.contains(&one) {
            known.push(one);
        }
    }
}

/// A selector; one that was left out means everything, or nothing. `None`: it cannot be read.
fn selector(view: Option<&LabelSelector>, absent_means_all: bool) -> Option<Selector> {
    match view {
        None if absent_means_all => Some(Selector::default()),
        view => Selector::of_view(view).ok(),
    }
}

fn is_about(spec: &NetworkPolicySpec, kind: &str) -> bool {
    match spec.policy_types.as_deref().filter(|kinds| !kinds.is_empty()) {
        Some(kinds) => kinds.iter().any(|known| known == kind),
        None => kind == "Ingress" || spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()),
    }
}

fn protocol(port: &NetworkPolicyPort) -> Option<Protocol> {
    match port.protocol.as_deref().unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// The ports that are meant by number, or all of a protocol.
fn numbered(port: &NetworkPolicyPort) -> Option<PortSpan> {
    let protocol = protocol(port)?;
    let number = |number: i32| u16::try_from(number).ok();
    match &port.port {
        None => Some(PortSpan { protocol, first: 0, last: u16::MAX }),
        Some(IntOrString::Int(first)) => {
            let last = port.end_port.unwrap_or(*first);
            Some(PortSpan { protocol, first: number(*first)?, last: number(last)? })
        }
        Some(IntOrString::String(_)) => None,
    }
}

fn named(port: &NetworkPolicyPort) -> Option<(&str, Protocol)> {
    match &port.port {
        Some(IntOrString::String(name)) => Some((name, protocol(port)?)),
        _ => None,
    }
}

/// The ports of the pod itself that are meant.
fn own_ports(port: &NetworkPolicyPort, pod: &GuardedPod) -> Vec<PortSpan> {
    match named(port) {
        None => numbered(port).into_iter().collect(),
        Some((name, protocol)) => numbers_of(pod, name, protocol)
            .map(|number| PortSpan { protocol, first: number, last: number })
            .collect(),
    }
}

/// The numbers that a pod gives a named port.
fn numbers_of<'a>(pod: &'a GuardedPod, name: &'a str, protocol: Protocol) -> impl Iterator<Item = u16> + 'a {
    let fits = move |port: &&(String, Protocol, u16)| port.0 == name && port.1 == protocol;
    pod.ports.iter().filter(fits).map(|port| port.2)
}

#[cfg(test)]
mod tests;
