//! A network of nodes on one machine: a network namespace for each further node, and a link to each.
//!
//! Routed, like pods, not bridged: where bridged packets are shown to packet rules (a setting of the whole machine)
//! a node port that leads back to the node it was asked from would be lost in the bridge. To a node it looks like
//! one network nevertheless: the server answers for the other nodes' addresses.
//!
//! The namespaces are held by files, so a node and its pods outlive the process that made them. A node can be cut
//! off and joined again. Everything is idempotent: a restarted process opens what is there.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::Host;

use super::kernel::Veth;
use super::{Links, Route, Steps, inside, lan_subnet, link_name, make, namespace, remove, route_metric};
use crate::services::cut;
use crate::services::outside::{self, Outside};
use crate::{Cidr, NetworkError, failed};

/// The largest packet between nodes: as on an Ethernet, so that nothing works here that would not there.
const LAN_MTU: u32 = 1500;
/// The hardware address of the server's end of every link. Each link is a segment of its own.
const SERVER_MAC: [u8; 6] = [0x0a, 0x4c, 0, 0, 0, 1];
/// The other end of the link that has the server's address.
const HOME_END_MAC: [u8; 6] = [0x0a, 0x4c, 0, 0, 0, 2];
/// The name of a node's link inside its namespace.
const NODE_LINK: &str = "lan0";
/// The most nodes of a machine: their numbers have to fit a /24 beside the server's.
const NODES_MAX: u32 = 250;
/// The offset of the server's address in the range.
const SERVER_OFFSET: u32 = 1;

/// What a [`Lan`] is made of.
#[derive(Debug, Clone)]
pub struct LanSettings {
    /// The folder of the cluster; namespaces are mounted under `run/netns` in it.
    pub data_dir: PathBuf,
    /// The short name of the cluster, see [`super::prefix_of`].
    pub prefix: String,
    /// The nodes' range, see [`lan_subnet`]; at least a /24.
    pub subnet: Cidr,
    /// The range of all pods of the cluster: nodes reach them with their own address.
    pub cluster_cidr: Cidr,
}

impl LanSettings {
    /// The usual settings for a cluster's folder.
    pub fn of(data_dir: &Path, cluster_cidr: Cidr) -> Self {
        let prefix = super::prefix_of(data_dir);
        Self { data_dir: data_dir.to_owned(), subnet: lan_subnet(&prefix), prefix, cluster_cidr }
    }
}

/// A node of a [`Lan`] other than the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LanNode {
    /// The file its network namespace is mounted on; its agent calls [`super::enter`] with it.
    pub netns: PathBuf,
    /// Its address.
    pub address: IpAddr,
}

/// Which way a node is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It reaches nobody, and nobody reaches it.
    Both,
    /// It reaches nobody; what others send arrives.
    Out,
    /// Nobody reaches it; what it sends arrives.
    In,
}

/// The network of a cluster's nodes on one machine. Dropping it leaves everything in place.
pub struct Lan {
    host: Host,
    inner: Arc<Inner>,
}

struct Inner {
    settings: LanSettings,
    /// The links of the server's namespace; held for one exchange with the kernel.
    links: Mutex<Links>,
}

impl Lan {
    /// Gives the server its address, in the calling process's namespace.
    pub async fn open(host: Host, settings: LanSettings) -> Result<Self, NetworkError> {
        let opened = host.blocking(move || Inner::open(settings)).await?;
        Ok(Self { host, inner: Arc::new(opened) })
    }

    /// The address of the server's node.
    pub fn server_address(&self) -> IpAddr {
        self.inner.server_address().into()
    }

    /// Makes a node, or finds it: the number, from 1, decides its address.
    pub async fn join(&self, number: u32) -> Result<LanNode, NetworkError> {
        let inner = self.inner.clone();
        self.host.blocking(move || inner.join(number)).await
    }

    /// Removes a node with its namespace; its pods lose their network.
    pub async fn leave(&self, number: u32) -> Result<(), NetworkError> {
        let inner = self.inner.clone();
        self.host.blocking(move || inner.leave(number)).await
    }

    /// Cuts a node off: it reaches nobody, or nobody reaches it, or both. Packets vanish without a word, links and routes
    /// stay, as when a cable is cut somewhere between.
    pub async fn isolate(&self, number: u32, way: Way) -> Result<(), NetworkError> {
        self.on_ends(number, way, cut::cut).await
    }

    /// Joins a node again that was cut off.
    pub async fn rejoin(&self, number: u32) -> Result<(), NetworkError> {
        self.on_ends(number, Way::Both, |table, _| cut::mend(table)).await
    }

    async fn on_ends(
        &self,
        number: u32,
        way: Way,
        act: fn(&str, u32) -> Result<(), NetworkError>,
    ) -> Result<(), NetworkError> {
        let inner = self.inner.clone();
        self.host.blocking(move || inner.on_ends(number, way, act)).await
    }
}

impl Inner {
    fn open(settings: LanSettings) -> Result<Self, NetworkError> {
        let links = Links::open().map_err(failed("open a netlink socket"))?;
        let inner = Self { settings, links: Mutex::new(links) };
        inner.make_home()?;
        let dir = inner.namespaces_dir();
        std::fs::create_dir_all(&dir).map_err(failed(format!("make {}", dir.display())))?;
        outside::open(&Outside {
            table: format!("kintsugi-{}-lan", inner.settings.prefix),
            from: inner.settings.subnet,
            inside: inner.settings.cluster_cidr,
        })?;
        Ok(inner)
    }

    /// Makes the pair of links whose only purpose is to have the server's address, nodes or none.
    fn make_home(&self) -> Result<(), NetworkError> {
        let (links, name) = (self.links(), self.home_name());
        if links.find(&name)?.is_none() {
            let here =
                std::fs::File::open("/proc/thread-self/ns/net").map_err(failed("open the own namespace"))?;
            let mut steps = Steps::default();
            steps.veth(&Veth {
                name: &name,
                mac: SERVER_MAC,
                peer_name: &link_name(&self.settings.prefix, "lanx"),
                peer_mac: HOME_END_MAC,
                peer_netns: here.as_fd(),
                mtu: LAN_MTU,
            });
            links.carry_out(steps)?;
        }
        let home = links.expect(&name)?;
        let mut steps = Steps::default();
        for end in [home.index, home.peer] {
            steps.without_ipv6(end);
            steps.up(end);
        }
        steps.address(home.index, self.server_address(), 32);
        links.carry_out(steps)
    }

    fn join(&self, number: u32) -> Result<LanNode, NetworkError> {
        let node = self.node(number)?;
        let name = self.node_link_name(number);
        if !namespace::is_mounted(&node.netns) {
            make(&node.netns).map_err(failed(format!("make the network namespace of node {number}")))?;
        }
        let links = self.links();
        let IpAddr::V4(address) = node.address else { unreachable!("nodes have IPv4 addresses") };
        if links.find(&name)?.is_none() {
            self.make_link(&links, &name, &node.netns, address)?;
        }
        self.furnish_here(&links, &name, address)?;
        let there = inside(&node.netns, Links::open).map_err(failed("enter the node's network namespace"))?;
        self.furnish_there(&there, address)?;
        Ok(node)
    }

    fn make_link(
        &self,
        links: &Links,
        name: &str,
        netns: &Path,
        address: Ipv4Addr,
    ) -> Result<(), NetworkError> {
        let netns = std::fs::File::open(netns).map_err(failed("open the node's network namespace"))?;
        let mut steps = Steps::default();
        steps.veth(&Veth {
            name,
            mac: SERVER_MAC,
            peer_name: NODE_LINK,
            peer_mac: mac_of(address),
            peer_netns: netns.as_fd(),
            mtu: LAN_MTU,
        });
        links.carry_out(steps)
    }

    /// The server's end: leads to the node, and answers for whoever else the node looks for.
    fn furnish_here(&self, links: &Links, name: &str, address: Ipv4Addr) -> Result<(), NetworkError> {
        let link = links.expect(name)?;
        let mut steps = Steps::default();
        steps.without_ipv6(link.index);
        steps.behind_loopback(link.index);
        steps.answers_for_others(link.index);
        steps.up(link.index);
        steps.neighbour(link.index, address, mac_of(address));
        steps.route(&Route {
            to: Cidr::host(address),
            via: None,
            link: link.index,
            source: Some(self.server_address()),
            metric: route_metric(&self.settings.prefix),
            mtu: 0,
        });
        links.carry_out(steps)?;
        // Answers for others are held back for up to 0.8 s otherwise, so that the right one could come first.
        let delay = format!("/proc/sys/net/ipv4/neigh/{name}/proxy_delay");
        std::fs::write(&delay, "0").map_err(failed(format!("write {delay}")))
    }

    /// The node's end: its address, the network around it, and a default route through the server.
    fn furnish_there(&self, links: &Links, address: Ipv4Addr) -> Result<(), NetworkError> {
        let link = links.expect(NODE_LINK)?;
        let mut steps = Steps::default();
        steps.without_ipv6(link.index);
        steps.behind_loopback(link.index);
        steps.address(link.index, address, self.settings.subnet.prefix());
        steps.up(link.index);
        steps.neighbour(link.index, self.server_address(), SERVER_MAC);
        steps.route(&Route {
            to: Cidr::EVERYWHERE,
            via: Some(self.server_address()),
            link: link.index,
            source: None,
            metric: route_metric(&self.settings.prefix),
            mtu: 0,
        });
        links.carry_out(steps)
    }

    fn leave(&self, number: u32) -> Result<(), NetworkError> {
        let node = self.node(number)?;
        let mut steps = Steps::default();
        steps.remove_link(&self.node_link_name(number));
        self.links().carry_out(steps)?;
        cut::mend(&self.cut_table(number))?;
        remove(&node.netns).map_err(failed(format!("remove the network namespace of node {number}")))
    }

    /// Does something with the server's end of a node's link, where what the node sends comes in, and with the node's.
    fn on_ends(
        &self,
        number: u32,
        way: Way,
        act: fn(&str, u32) -> Result<(), NetworkError>,
    ) -> Result<(), NetworkError> {
        let (node, table) = (self.node(number)?, self.cut_table(number));
        if way != Way::In {
            let link = self.links().expect(&self.node_link_name(number))?;
            act(&table, link.index)?;
        }
        if way == Way::Out {
            return Ok(());
        }
        let there = inside(&node.netns, || {
            let links = Links::open()?;
            Ok(links.expect(NODE_LINK).and_then(|link| act(&table, link.index)))
        });
        there.map_err(failed("enter the node's network namespace"))?
    }

    fn cut_table(&self, number: u32) -> String {
        format!("kintsugi-{}-cut-{number}", self.settings.prefix)
    }

    fn node(&self, number: u32) -> Result<LanNode, NetworkError> {
        let address = (1..=NODES_MAX)
            .contains(&number)
            .then(|| self.settings.subnet.nth(SERVER_OFFSET + number))
            .flatten()
            .ok_or_else(|| NetworkError::NoAddress { range: self.settings.subnet.to_string() })?;
        Ok(LanNode { netns: self.namespaces_dir().join(format!("node-{number}")), address: address.into() })
    }

    fn server_address(&self) -> Ipv4Addr {
        self.settings.subnet.nth(SERVER_OFFSET).unwrap_or(self.settings.subnet.first())
    }

    fn home_name(&self) -> String {
        link_name(&self.settings.prefix, "lan")
    }

    fn node_link_name(&self, number: u32) -> String {
        link_name(&self.settings.prefix, &format!("n{number}"))
    }

    fn namespaces_dir(&self) -> PathBuf {
        namespaces_dir(&self.settings.data_dir)
    }

    /// Guards the socket for one exchange.
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the namespaces of a cluster's further nodes are mounted.
pub(super) fn namespaces_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("run").join("netns")
}

/// A hardware address that says which address it belongs to, so that it never changes.
fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x4b, a, b, c, d]
}
