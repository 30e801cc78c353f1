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
    /// How many keys name each manner.
    pub manners: BTreeMap<Manner, usize>,
}

/// What turns one state into another. To be carried out in the order of the fields.
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
            if *uses == 0 {
                manners.remove(manner);
            }
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
