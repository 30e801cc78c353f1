//! A pod's interface: `eth0` with one address, behind a link of the node of its own.
//!
//! Routed, not bridged: each pod's only neighbour is the node, at an address that means "next hop" everywhere, with
//! a hardware address that everybody knows beforehand. So there is no address resolution and no broadcast, and
//! every packet between pods passes the node's rules.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use super::addresses::Addresses;
use super::{Inner, Settings};
use crate::links::{Link, Links, Route, Steps, Veth, inside, link_name};
use crate::{Cidr, NetworkError, PodNetwork, failed};

/// The pod's name for its interface, as Kubernetes has it.
const POD_LINK: &str = "eth0";
/// The next hop of every pod: link-local, so never anyone's address.
const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The hardware address of the node's end of every pod link. Each link is a segment of its own.
const NODE_END: [u8; 6] = [0xee; 6];

impl Inner {
    pub(super) fn attach(&self, pod: &PodNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        let (address, has_ports) = {
            let mut addresses = self.addresses();
            let had_ports = addresses.has_host_ports(&pod.pod_uid);
            let address = addresses.lease(&pod.pod_uid, &pod.host_ports)?;
            (address, had_ports || !pod.host_ports.is_empty())
        };
        let (name, peer) = (pod_link_name(&self.settings, address), open_namespace(pod)?);
        let links = self.links();
        let link = match links.find(&name)? {
            Some(link) if is_joined(&link, &peer.links)? => link,
            stale => self.join(&links, &name, &peer, address, stale.is_some())?,
        };
        self.furnish_pod(&peer.links, address)?;
        self.furnish_node(&links, &link, address, &pod.pod_uid)?;
        drop(links);
        if has_ports {
            self.lead_host_ports()?;
        }
        Ok(vec![address.into()])
    }

    /// Makes the rules lead host ports where the book says. The book is read under the rules' lock, so that of two
    /// changes at once the later one knows both.
    fn lead_host_ports(&self) -> Result<(), NetworkError> {
        let mut packets = self.packets();
        let ports = self.addresses().host_ports();
        packets.set_host_ports(ports)
    }

    fn join(
        &self,
        links: &Links,
        name: &str,
        peer: &PodNamespace,
        address: Ipv4Addr,
        stale: bool,
    ) -> Result<Link, NetworkError> {
        let mut steps = Steps::default();
        if stale {
            steps.remove_link(name);
        }
        steps.veth(&Veth {
            name,
            mac: NODE_END,
            peer_name: POD_LINK,
            peer_mac: pod_mac(address),
            peer_netns: peer.file.as_fd(),
            mtu: self.mtu,
        });
        links.carry_out(steps)?;
        links.expect(name)
    }

    fn furnish_pod(&self, links: &Links, address: Ipv4Addr) -> Result<(), NetworkError> {
        let link = links.expect(POD_LINK)?;
        let route = |to, via| Route { to, via, link: link.index, source: None, metric: 0, mtu: 0 };
        links.raise_loopback()?;
        let mut steps = Steps::default();
        steps.without_ipv6(link.index);
        steps.address(link.index, address, 32);
        steps.up(link.index);
        steps.neighbour(link.index, NEXT_HOP, NODE_END);
        steps.route(&route(Cidr::host(NEXT_HOP), None));
        steps.route(&route(Cidr::EVERYWHERE, Some(NEXT_HOP)));
        links.carry_out(steps)
    }

    fn furnish_node(
        &self,
        links: &Links,
        link: &Link,
        address: Ipv4Addr,
        uid: &str,
    ) -> Result<(), NetworkError> {
        let mut steps = Steps::default();
        steps.alias(link.index, uid);
        steps.without_ipv6(link.index);
        steps.behind_loopback(link.index);
        steps.up(link.index);
        steps.neighbour(link.index, address, pod_mac(address));
        steps.route(&Route {
            to: Cidr::host(address),
            via: None,
            link: link.index,
            source: self.node_source,
            metric: self.metric(),
            mtu: 0,
        });
        links.carry_out(steps)
    }

    pub(super) fn detach(&self, uid: &str) -> Result<(), NetworkError> {
        let Some(address) = self.addresses().address(uid) else { return Ok(()) };
        let mut steps = Steps::default();
        steps.remove_link(&pod_link_name(&self.settings, address));
        // By a socket of its own: the kernel answers only when nobody can see the link any more, which takes it tens
        // of milliseconds that pods being attached need not wait.
        Links::open().map_err(failed("open a netlink socket"))?.carry_out(steps)?;
        // The address is free only when its host ports lead nowhere any more.
        if self.addresses().drop_host_ports(uid) {
            self.lead_host_ports()?;
        }
        self.addresses().release(uid)
    }

    pub(super) fn attached(&self) -> Result<Vec<(String, Vec<IpAddr>)>, NetworkError> {
        let here = self.links().list()?;
        let is_here = |address| has_link(&here, &self.settings, address);
        let addresses = self.addresses();
        let found = addresses.all().filter(|(_, address)| is_here(*address));
        Ok(found.map(|(uid, address)| (uid.to_owned(), vec![IpAddr::V4(address)])).collect())
    }
}

/// Drops what is remembered of pods whose link is gone (the machine was restarted), and removes links that nobody
/// remembers (a pod's file was lost).
pub(super) fn forget_lost(
    links: &Links,
    settings: &Settings,
    book: &mut Addresses,
) -> Result<(), NetworkError> {
    let here = links.list()?;
    let known: Vec<(String, Ipv4Addr)> = book.all().map(|(uid, address)| (uid.to_owned(), address)).collect();
    for (uid, address) in &known {
        if !has_link(&here, settings, *address) {
            book.release(uid)?;
        }
    }
    let mut steps = Steps::default();
    let ours = link_name(&settings.name_prefix, POD_PART);
    for link in here.iter().filter(|link| link.name.starts_with(&ours)) {
        if !known.iter().any(|(_, address)| pod_link_name(settings, *address) == link.name) {
            steps.remove_link(&link.name);
        }
    }
    links.carry_out(steps)
}

fn has_link(links: &[Link], settings: &Settings, address: Ipv4Addr) -> bool {
    let name = pod_link_name(settings, address);
    links.iter().any(|link| link.name == name)
}

/// How the part of a link's name begins that says it is a pod's.
const POD_PART: &str = "p";

/// The name of the node's end: made from the address, which no other pod has, so no two names are the same.
fn pod_link_name(settings: &Settings, address: Ipv4Addr) -> String {
    let offset = u32::from(address).wrapping_sub(u32::from(settings.pod_cidr.first()));
    link_name(&settings.name_prefix, &format!("{POD_PART}{offset:x}"))
}

fn pod_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// A pod's namespace: the file to send links to, and a socket inside.
struct PodNamespace {
    file: File,
    links: Links,
}

fn open_namespace(pod: &PodNetwork) -> Result<PodNamespace, NetworkError> {
    let doing = || failed(format!("enter the network namespace {}", pod.netns.display()));
    let file = File::open(&pod.netns).map_err(doing())?;
    let links = inside(&pod.netns, Links::open).map_err(doing())?;
    Ok(PodNamespace { file, links })
}

/// Whether the node's end and the pod's `eth0` are two ends of one pair.
fn is_joined(link: &Link, pod: &Links) -> Result<bool, NetworkError> {
    Ok(pod.find(POD_LINK)?.is_some_and(|end| end.peer == link.index && link.peer == end.index))
}
