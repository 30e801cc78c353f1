//! NetworkPolicies, as packets meet them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use network::{Allowed, Cidr, Network, Peer, PolicyRules, PortSpan, Protocol};

use crate::world::{Cluster, Pod, ask_udp, on_a_machine, service};

/// A cluster address.
const WEB: [u8; 4] = [10, 61, 0, 9];

fn span(protocol: Protocol, first: u16, last: u16) -> PortSpan {
    PortSpan { protocol, first, last }
}

fn group(name: &str, ports: Option<Vec<PortSpan>>) -> Allowed {
    Allowed { peer: Peer::Group(name.to_owned()), ports }
}

fn groups(of: &[(&str, &[&Pod])]) -> BTreeMap<String, BTreeSet<Ipv4Addr>> {
    let one = |(name, pods): &(&str, &[&Pod])| {
        ((*name).to_owned(), pods.iter().map(|pod| pod.address).collect::<BTreeSet<_>>())
    };
    of.iter().map(one).collect()
}

#[test]
fn a_pod_receives_what_is_allowed_and_nothing_else() {
    on_a_machine(|| async {
        let cluster = Cluster::new(60).await;
        let node = &cluster.node;
        let (a, friend, other) = (node.pod("a").await, node.pod("friend").await, node.pod("other").await);
        node.serve(vec![service("web", WEB, &[&a])]).await;
        let rules = |ports| PolicyRules {
            groups: groups(&[("friends", &[&friend]), ("nobody", &[])]),
            incoming: [(a.address, vec![group("nobody", None), group("friends", ports)])].into(),
            outgoing: BTreeMap::new(),
        };
        node.network.guard(rules(None)).await.expect("the rules are taken");
        assert_eq!(friend.namespace.ask(a.endpoint()).expect("it is allowed").0, "a");
        assert_eq!(friend.namespace.ask((WEB, 80)).expect("so it is through a Service").0, "a");
        assert!(other.namespace.ask((WEB, 80)).is_err(), "no other pod is");
        assert_eq!(node.own.ask(a.endpoint()).expect("the node asks its probes").0, "a");
        assert_eq!(a.namespace.ask((WEB, 80)).expect("it reaches itself").0, "a");
        assert_eq!(a.namespace.ask(friend.endpoint()).expect("it may send").0, "friend");
        let only_tcp = Some(vec![span(Protocol::Tcp, 79, 80)]);
        node.network.guard(rules(only_tcp)).await.expect("the rules are taken");
        assert_eq!(friend.namespace.ask(a.endpoint()).expect("the span has the port").0, "a");
        assert!(ask_udp(&friend.namespace.udp(a.endpoint())).is_err(), "the other protocol is not allowed");
        node.network.guard(PolicyRules::default()).await.expect("the rules are taken");
        assert_eq!(other.namespace.ask(a.endpoint()).expect("nobody is held back").0, "a");
    });
}

#[test]
fn a_pod_sends_what_is_allowed_and_nothing_else() {
    on_a_machine(|| async {
        let cluster = Cluster::new(62).await;
        let node = &cluster.node;
        let (a, b, c) = (node.pod("a").await, node.pod("b").await, node.pod("c").await);
        let range = Cidr::new(a.address, 24).expect("24 bits are a prefix");
        let peer = Peer::Range { range, except: vec![Cidr::host(c.address)] };
        let ports = Some(vec![span(Protocol::Udp, 0, u16::MAX), span(Protocol::Tcp, 80, 80)]);
        let rules = PolicyRules {
            outgoing: [(a.address, vec![Allowed { peer, ports }])].into(),
            ..PolicyRules::default()
        };
        node.network.guard(rules).await.expect("the rules are taken");
        assert_eq!(a.namespace.ask(b.endpoint()).expect("it is in the range").0, "b");
        assert_eq!(ask_udp(&a.namespace.udp(b.endpoint())).expect("every port of UDP is allowed"), "b");
        assert!(a.namespace.ask(c.endpoint()).is_err(), "it is left out of the range");
        assert_eq!(c.namespace.ask(a.endpoint()).expect("answers are not held back").0, "a");
    });
}
