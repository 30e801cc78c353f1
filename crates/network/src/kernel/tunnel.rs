//! The way to nodes that share no link with this one: their pods' packets travel in UDP (VXLAN, RFC 7348).
//!
//! Which way a node is reached is decided anew at every look at the routes, by the way its address is reached. Nothing is
//! learned from packets: who has which address follows from the nodes' addresses.

use std::net::Ipv4Addr;

use crate::links::{Links, Mac, Route, Steps, Vxlan, hash64, link_name};
use crate::{Cidr, NetworkError};

/// The port that tunnels listen on: what Linux took before one was registered, as most overlay networks have it.
const PORT: u16 = 8472;
/// What a tunnel takes of each packet: the headers around it.
const HEADERS_LEN: u32 = 50;

/// The tunnel of a node.
pub(super) struct Tunnel {
    /// Its link's name.
    name: String,
    /// The number that packets of this cluster carry.
    id: u32,
    /// This node's address.
    local: Ipv4Addr,
    /// The largest packet in it.
    mtu: u32,
}

impl Tunnel {
    /// The tunnel of the cluster `prefix` on a node; its number follows from the cluster's ranges, which all nodes know.
    pub fn new(prefix: &str, ranges: (Cidr, Cidr), local: Ipv4Addr, mtu: u32) -> Self {
        let id = hash64(format!("{} {}", ranges.0, ranges.1).as_bytes()) as u32 & 0x00ff_ffff;
        Self { name: link_name(prefix, "vx"), id: id.max(1), local, mtu: mtu.saturating_sub(HEADERS_LEN) }
    }

    /// The number of its link, made where it is missing; `None` where no node needs it.
    pub fn open(&self, links: &Links, is_needed: bool) -> Result<Option<u32>, NetworkError> {
        let found = links.find(&self.name)?;
        if !is_needed {
            if found.is_some() {
                let mut steps = Steps::default();
                steps.remove_link(&self.name);
                links.carry_out(steps)?;
            }
            return Ok(None);
        }
        if found.is_none() {
            let mut steps = Steps::default();
            steps.vxlan(&Vxlan {
                name: &self.name,
                mac: mac_of(self.local),
                id: self.id,
                local: self.local,
                port: PORT,
                mtu: self.mtu,
            });
            links.carry_out(steps)?;
        }
        let link = links.expect(&self.name)?;
        let mut steps = Steps::default();
        steps.without_ipv6(link.index);
        steps.up(link.index);
        links.carry_out(steps)?;
        Ok(Some(link.index))
    }

    /// Leads the packets of one node into the tunnel.
    pub fn lead(&self, steps: &mut Steps, link: u32, node: Ipv4Addr) {
        steps.neighbour(link, node, mac_of(node));
        steps.forward(link, mac_of(node), node);
    }

    /// The route to the pods of a node through the tunnel.
    pub fn route(&self, route: &Route, link: u32, source: Option<Ipv4Addr>) -> Route {
        Route { link, source, ..route.clone() }
    }
}

/// The hardware address of a node's end, which all others know as well.
fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x4d, a, b, c, d]
}
