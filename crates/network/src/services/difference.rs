//! From the rules that are to the rules that are wanted: what to change. Pure.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddrV4;

use super::program::{Chain, Entry, Manner, ServiceKey, endpoints, entries, keys};
use crate::{Cidr, HostPort, Protocol, ServicePort};

/// What is in the kernel, as far as Services go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    /// Ordered by name and protocol, no key twice.
    pub ports: Vec<ServicePort>,
    /// How many keys name each manner. One that none names any more is kept for one change: a packet that is on
    /// its way while rules change may still be led to its chain.
    pub manners: BTreeMap<Manner, usize>,
}

/// What turns one state into another. To be carried out in the order of the fields: first, and for itself, what is
/// added for packets to be led to (a packet sees all entries as they are now, but chains as they were when it came),
/// then the rest at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub chains_added: Vec<Chain>,
    pub manners_added: Vec<Manner>,
    pub removed: Vec<Entry>,
    pub added: Vec<Entry>,
    pub manners_removed: Vec<Manner>,
    pub chains_removed: Vec<Chain>,
    /// UDP keys that changed, and where connections to them may still lead.
    pub udp: BTreeMap<ServiceKey, Vec<SocketAddrV4>>,
    /// TCP keys that changed: connections to them may lead where nobody answers any more.
    pub tcp: BTreeSet<ServiceKey>,
}

impl Change {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Change::default()
    }
}

/// The host ports of pods as ports of Services: one endpoint, and the client's address is kept.
pub(super) fn host_port(uid: &str, pod: std::net::Ipv4Addr, port: &HostPort) -> ServicePort {
    let endpoint = (pod, port.pod_port).into();
    ServicePort {
        // No namespace begins with a tilde, and it sorts after all that can: Services win over host ports.
        name: format!(
            "~{uid}:{}:{}",
            port.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
            port.host_port
        ),
        protocol: port.protocol,
        addresses: port.host_ip.into_iter().collect(),
        port: port.host_port,
        node_port: if port.host_ip.is_none() { port.host_port } else { 0 },
        affinity_seconds: None,
        endpoints: vec![endpoint],
        external_endpoints: vec![endpoint],
        keep_source: true,
    }
}

/// Orders ports and takes from each what an earlier one has: a name, an address with its port, a node port.
pub(super) fn normal(mut ports: Vec<ServicePort>) -> Vec<ServicePort> {
    if !ports.is_sorted_by(|a, b| place(a) < place(b)) {
        ports.sort_by(|a, b| place(a).cmp(&place(b)));
        ports.dedup_by(|later, earlier| place(later) == place(earlier));
    }
    let mut taken = HashSet::with_capacity(ports.len() * 2);
    for port in &mut ports {
        let lost: Vec<ServiceKey> = keys(port).filter(|key| !taken.insert(*key)).collect();
        for key in lost {
            if key.address.is_unspecified() {
                port.node_port = 0;
            } else {
                port.addresses.retain(|address| *address != key.address);
            }
        }
    }
    ports
}

fn place(port: &ServicePort) -> (&str, Protocol) {
    (&port.name, port.protocol)
}

/// What turns `old` into `ports`, which are [`normal`], and the count of manners after it.
pub(super) fn difference(
    old: &Served,
    ports: &[ServicePort],
    services: Cidr,
) -> (Change, BTreeMap<Manner, usize>) {
    let mut change = Change::default();
    let mut manners = old.manners.clone();
    for (before, after) in changed(&old.ports, ports) {
        let (mut was, was_manners) = before.map(|port| entries(port, services)).unwrap_or_default();
        let (mut will, will_manners) = after.map(|port| entries(port, services)).unwrap_or_default();
        if let Some(before) = before {
            let kept: BTreeSet<Entry> = was.iter().filter(|entry| will.contains(entry)).cloned().collect();
            was.retain(|entry| !kept.contains(entry));
            will.retain(|entry| !kept.contains(entry));
            note_udp(&mut change.udp, before, &[]);
            change.tcp.extend(tcp_keys(before));
        }
        if let Some(after) = after {
            note_udp(&mut change.udp, after, &endpoints_of(after));
        }
        change.removed.append(&mut was);
        change.added.append(&mut will);
        count(&mut manners, &was_manners, &will_manners);
    }
    change.removed.sort_by_key(|entry| entry.set);
    change.added.sort_by_key(|entry| entry.set);
    let unused = |manner: &Manner, uses: usize| uses == 0 && old.manners.get(manner) == Some(&0);
    manners.retain(|manner, uses| !unused(manner, *uses));
    compare_manners(&mut change, &old.manners, &manners);
    (change, manners)
}

/// The ports that differ: before and after.
fn changed<'a>(
    old: &'a [ServicePort],
    new: &'a [ServicePort],
) -> Vec<(Option<&'a ServicePort>, Option<&'a ServicePort>)> {
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    let mut found = Vec::new();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return found,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => place(a).cmp(&place(b)),
        };
        let pair = match order {
            std::cmp::Ordering::Less => (old.next(), None),
            std::cmp::Ordering::Greater => (None, new.next()),
            std::cmp::Ordering::Equal => (old.next(), new.next()),
        };
        if pair.0 != pair.1 {
            found.push(pair);
        }
    }
}

fn endpoints_of(port: &ServicePort) -> Vec<SocketAddrV4> {
    let mut all = endpoints(&port.endpoints);
    all.extend(endpoints(&port.external_endpoints));
    all
}

/// The keys of a TCP port.
fn tcp_keys(port: &ServicePort) -> impl Iterator<Item = ServiceKey> {
    keys(port).filter(|_| port.protocol == Protocol::Tcp)
}

/// Where connections to these keys may lead, or to all: of TCP.
pub(super) fn led_to(
    ports: &[ServicePort],
    of: Option<&BTreeSet<ServiceKey>>,
) -> BTreeMap<ServiceKey, Vec<SocketAddrV4>> {
    let mut led: BTreeMap<ServiceKey, Vec<SocketAddrV4>> =
        of.into_iter().flatten().map(|key| (*key, Vec::new())).collect();
    for port in ports {
        let mut endpoints = None;
        for key in tcp_keys(port).filter(|key| of.is_none_or(|of| of.contains(key))) {
            led.entry(key).or_default().extend(endpoints.get_or_insert_with(|| endpoints_of(port)).iter());
        }
    }
    led
}

fn note_udp(
    udp: &mut BTreeMap<ServiceKey, Vec<SocketAddrV4>>,
    port: &ServicePort,
    endpoints: &[SocketAddrV4],
) {
    if port.protocol == Protocol::Udp {
        for key in keys(port) {
            udp.entry(key).or_default().extend(endpoints);
        }
    }
}

fn count(manners: &mut BTreeMap<Manner, usize>, fewer: &[Manner], more: &[Manner]) {
    for manner in more {
        *manners.entry(*manner).or_default() += 1;
    }
    for manner in fewer {
        if let Some(uses) = manners.get_mut(manner) {
            *uses -= 1;
        }
    }
}

fn compare_manners(change: &mut Change, old: &BTreeMap<Manner, usize>, new: &BTreeMap<Manner, usize>) {
    let (was, will) = (chains(old), chains(new));
    change.chains_added = will.difference(&was).copied().collect();
    // A chain that leads to another goes first.
    change.chains_removed = was.iter().rev().filter(|chain| !will.contains(chain)).copied().collect();
    change.manners_added = new.keys().filter(|manner| !old.contains_key(manner)).copied().collect();
    change.manners_removed = old.keys().filter(|manner| !new.contains_key(manner)).copied().collect();
}

/// The chains that manners need; those led to come before those that lead.
fn chains(manners: &BTreeMap<Manner, usize>) -> BTreeSet<Chain> {
    let each =
        |manner: &Manner| manner.picks().map(Chain::Pick).chain([Chain::Manner(*manner)]).collect::<Vec<_>>();
    manners.keys().flat_map(each).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::program::{MANNERS, REFUSED, SERVICES};
    use super::*;

    fn services() -> Cidr {
        "10.96.0.0/16".parse().expect("a range")
    }

    /// A kernel that knows what ours knows: adding what is there and removing what is not are refused.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Kernel {
        entries: BTreeMap<(&'static str, Vec<u8>), Vec<u8>>,
        chains: BTreeSet<Chain>,
    }

    impl Kernel {
        fn apply(&mut self, change: &Change) {
            for chain in &change.chains_added {
                assert!(self.chains.insert(*chain), "{chain:?} is there");
                if let Chain::Manner(manner) = chain {
                    assert!(
                        manner.picks().all(|pick| self.chains.contains(&Chain::Pick(pick))),
                        "{chain:?} leads away"
                    );
                }
            }
            for manner in &change.manners_added {
                self.add(MANNERS, manner.key(), Chain::Manner(*manner).name().into_bytes());
            }
            for entry in &change.removed {
                let was = self.entries.remove(&(entry.set, entry.key.clone()));
                assert_eq!(was.as_ref(), Some(&entry.data), "{entry:?}");
            }
            for entry in &change.added {
                self.add(entry.set, entry.key.clone(), entry.data.clone());
            }
            for manner in &change.manners_removed {
                assert!(self.entries.remove(&(MANNERS, manner.key())).is_some(), "{manner:?}");
            }
            for chain in &change.chains_removed {
                assert!(self.chains.remove(chain), "{chain:?}");
                let led_to = |other: &Chain| matches!(other, Chain::Manner(m) if m.picks().any(|p| Chain::Pick(p) == *chain));
                assert!(!self.chains.iter().any(led_to), "{chain:?} is still led to");
            }
        }

        fn add(&mut self, set: &'static str, key: Vec<u8>, data: Vec<u8>) {
            assert!(self.entries.insert((set, key.clone()), data).is_none(), "{set} {key:?} is there");
        }

        /// Every entry of `services` names a manner that leads to a chain.
        fn is_whole(&self) {
            for ((set, key), data) in &self.entries {
                if *set == SERVICES {
                    let manner = data[8..].to_vec();
                    let chain = self.entries.get(&(MANNERS, manner)).expect("its manner leads somewhere");
                    assert!(self.chains.iter().any(|known| known.name().as_bytes() == chain));
                    assert!(!self.entries.contains_key(&(REFUSED, key.clone())), "it is refused as well");
                }
            }
        }
    }

    fn step(kernel: &mut Kernel, served: &Served, ports: Vec<ServicePort>) -> Served {
        let ports = normal(ports);
        let (change, manners) = difference(served, &ports, services());
        kernel.apply(&change);
        kernel.is_whole();
        Served { ports, manners }
    }

    /// Once more with the same rules: what was kept for packets on their way goes.
    fn settle(kernel: &mut Kernel, served: &Served) -> Served {
        step(kernel, served, served.ports.clone())
    }

    prop_compose! {
        fn port()(
            name in 0..4u8,
            protocol in prop_oneof![Just(Protocol::Tcp), Just(Protocol::Udp)],
            addresses in prop::collection::vec(prop_oneof![
                (1..4u8).prop_map(|n| [10, 96, 0, n].into()),
                (1..3u8).prop_map(|n| [192, 0, 2, n].into()),
            ], 0..3),
            node_port in prop_oneof![Just(0), Just(30000), Just(30001)],
            affinity_seconds in prop_oneof![Just(None), Just(Some(10)), Just(Some(u32::MAX))],
            inside in prop::collection::vec(1..6u8, 0..4),
            outside in prop::collection::vec(1..6u8, 0..4),
            is_split in any::<bool>(),
            keep_source in any::<bool>(),
        ) -> ServicePort {
            let at = |list: &[u8]| list.iter().map(|n| ([10, 244, 0, *n], 80).into()).collect::<Vec<_>>();
            ServicePort {
                name: format!("n/s{name}:p"),
                protocol,
                addresses,
                port: 80,
                node_port,
                affinity_seconds,
                endpoints: at(&inside),
                external_endpoints: if is_split { at(&outside) } else { at(&inside) },
                keep_source,
            }
        }
    }

    fn all_ports() -> impl Strategy<Value = Vec<ServicePort>> {
        prop::collection::vec(port(), 0..6)
    }

    proptest! {
        #[test]
        fn step_by_step_leads_to_the_same_as_all_at_once(worlds in prop::collection::vec(all_ports(), 1..6)) {
            let (mut kernel, mut served) = (Kernel::default(), Served::default());
            for ports in &worlds {
                served = step(&mut kernel, &served, ports.clone());
                served = settle(&mut kernel, &served);
                let mut fresh = Kernel::default();
                step(&mut fresh, &Served::default(), ports.clone());
                prop_assert_eq!(&kernel, &fresh);
            }
            served = step(&mut kernel, &served, Vec::new());
            settle(&mut kernel, &served);
            prop_assert_eq!(&kernel, &Kernel::default());
        }

        #[test]
        fn what_leads_packets_stays_for_one_change(one in all_ports(), two in all_ports()) {
            let served = step(&mut Kernel::default(), &Served::default(), one);
            let (change, _) = difference(&served, &normal(two), services());
            prop_assert!(change.manners_removed.is_empty() && change.chains_removed.is_empty());
        }

        #[test]
        fn the_same_rules_again_change_nothing(ports in all_ports()) {
            let served = step(&mut Kernel::default(), &Served::default(), ports.clone());
            let (change, manners) = difference(&served, &normal(ports), services());
            prop_assert!(change.is_empty());
            prop_assert_eq!(manners, served.manners);
        }
    }

    #[test]
    fn one_endpoint_less_changes_a_few_entries_however_many_services_there_are() {
        let each = |n: u8, count: u8| ServicePort {
            name: format!("n/s{n:03}:p"),
            protocol: Protocol::Udp,
            addresses: vec![[10, 96, 1, n].into()],
            port: 53,
            node_port: 0,
            affinity_seconds: None,
            endpoints: (1..=count).map(|m| ([10, 244, n, m], 53).into()).collect(),
            external_endpoints: Vec::new(),
            keep_source: false,
        };
        let ports: Vec<ServicePort> = (0..200).map(|n| each(n, 3)).collect();
        let served = step(&mut Kernel::default(), &Served::default(), ports.clone());
        let mut fewer = ports;
        fewer[100] = each(100, 2);
        let (change, _) = difference(&served, &fewer, services());
        // The manner of before goes and that of now comes; one endpoint goes.
        assert_eq!((change.removed.len(), change.added.len()), (2, 1));
        assert_eq!((change.chains_added.len(), change.chains_removed.len()), (2, 0));
        assert_eq!(change.udp.values().map(Vec::len).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn what_changes_in_tcp_is_noted_by_its_keys_and_leads_where_it_is_served_now() {
        let port = |count: u8| ServicePort {
            name: "n/web:p".into(),
            protocol: Protocol::Tcp,
            addresses: vec![[10, 96, 0, 9].into()],
            port: 80,
            node_port: 30080,
            affinity_seconds: None,
            endpoints: (1..=count).map(|n| ([10, 244, 0, n], 80).into()).collect(),
            external_endpoints: Vec::new(),
            keep_source: false,
        };
        let served = step(&mut Kernel::default(), &Served::default(), vec![port(2)]);
        let check = |ports: Vec<ServicePort>, led: usize| {
            let (change, _) = difference(&served, &ports, services());
            assert_eq!(change.tcp.len(), 2, "its address and its node port");
            let keys = led_to(&ports, Some(&change.tcp));
            assert_eq!(keys.values().map(Vec::len).collect::<Vec<_>>(), [led, led], "{ports:?}");
        };
        check(vec![port(1)], 1);
        check(vec![port(3)], 3);
        check(vec![], 0);
        assert_eq!(led_to(&[port(1)], None).len(), 2, "of all");
        assert!(difference(&served, &[port(2)], services()).0.tcp.is_empty());
    }
}
