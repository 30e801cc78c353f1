//! A network of nodes on one machine: a bridge here, and a network namespace for each further node.
//!
//! The namespaces are held by files, so a node and its pods outlive the process that made them. A node can be cut
//! off and joined again. Everything is idempotent: a restarted process opens what is there.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use host::Host;

use super::kernel::Veth;
use super::{Links, Route, Steps, inside, lan_subnet, link_name, make, namespace, remove, route_metric};
use crate::services::outside::{self, Outside};
use crate::{Cidr, NetworkError, failed};

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
    /// Makes the bridge, with the server's address on it, in the calling process's namespace.
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

    /// Cuts a node off: it reaches nobody, and nobody reaches it.
    pub async fn isolate(&self, number: u32) -> Result<(), NetworkError> {
        self.switch(number, Steps::down).await
    }

    /// Joins a node again that was cut off.
    pub async fn rejoin(&self, number: u32) -> Result<(), NetworkError> {
        self.switch(number, Steps::up).await
    }

    async fn switch(&self, number: u32, turn: fn(&mut Steps, u32)) -> Result<(), NetworkError> {
        let inner = self.inner.clone();
        self.host.blocking(move || inner.switch(number, turn)).await
    }
}

impl Inner {
    fn open(settings: LanSettings) -> Result<Self, NetworkError> {
        let links = Links::open().map_err(failed("open a netlink socket"))?;
        let inner = Self { settings, links: Mutex::new(links) };
        inner.make_bridge()?;
        let dir = inner.namespaces_dir();
        std::fs::create_dir_all(&dir).map_err(failed(format!("make {}", dir.display())))?;
        outside::open(&Outside {
            table: format!("kintsugi-{}-lan", inner.settings.prefix),
            from: inner.settings.subnet,
            inside: inner.settings.cluster_cidr,
        })?;
        Ok(inner)
    }

    fn make_bridge(&self) -> Result<(), NetworkError> {
        let (links, name) = (self.links(), self.bridge_name());
        let address = self.server_address();
        let mut steps = Steps::default();
        steps.bridge(&name, mac_of(address));
        links.carry_out(steps)?;
        let bridge = links.expect(&name)?;
        let mut steps = Steps::default();
        steps.without_ipv6(bridge.index);
        steps.behind_loopback(bridge.index);
        steps.address(bridge.index, address, self.settings.subnet.prefix());
        steps.up(bridge.index);
        links.carry_out(steps)
    }

    fn join(&self, number: u32) -> Result<LanNode, NetworkError> {
        let node = self.node(number)?;
        let name = self.node_link_name(number);
        if !namespace::is_mounted(&node.netns) {
            make(&node.netns).map_err(failed(format!("make the network namespace of node {number}")))?;
        }
        let links = self.links();
        if links.find(&name)?.is_none() {
            self.join_link(&links, &name, &node)?;
        }
        Ok(node)
    }

    fn join_link(&self, links: &Links, name: &str, node: &LanNode) -> Result<(), NetworkError> {
        let IpAddr::V4(address) = node.address else { unreachable!("nodes have IPv4 addresses") };
        let bridge = links.expect(&self.bridge_name())?;
        let netns = std::fs::File::open(&node.netns).map_err(failed("open the node's network namespace"))?;
        let mut steps = Steps::default();
        steps.veth(&Veth {
            name,
            mac: [0x0a, 0x4c, 0, 0, 0, address.octets()[3]],
            peer_name: NODE_LINK,
            peer_mac: mac_of(address),
            peer_netns: std::os::fd::AsFd::as_fd(&netns),
            mtu: bridge.mtu,
        });
        links.carry_out(steps)?;
        let link = links.expect(name)?;
        let mut steps = Steps::default();
        steps.without_ipv6(link.index);
        steps.master(link.index, bridge.index);
        steps.up(link.index);
        links.carry_out(steps)?;
        let inner_links =
            inside(&node.netns, Links::open).map_err(failed("enter the node's network namespace"))?;
        self.furnish(&inner_links, address)
    }

    /// Gives the node's end its address and a default route through the server.
    fn furnish(&self, links: &Links, address: Ipv4Addr) -> Result<(), NetworkError> {
        let link = links.expect(NODE_LINK)?;
        let mut steps = Steps::default();
        steps.without_ipv6(link.index);
        steps.behind_loopback(link.index);
        steps.address(link.index, address, self.settings.subnet.prefix());
        steps.up(link.index);
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
        remove(&node.netns).map_err(failed(format!("remove the network namespace of node {number}")))
    }

    fn switch(&self, number: u32, turn: fn(&mut Steps, u32)) -> Result<(), NetworkError> {
        let links = self.links();
        let link = links.expect(&self.node_link_name(number))?;
        let mut steps = Steps::default();
        turn(&mut steps, link.index);
        links.carry_out(steps)
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

    fn bridge_name(&self) -> String {
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
