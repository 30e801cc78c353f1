//! The ranges of addresses of a cluster, read from its settings and checked against each other.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result, bail};
use network::Cidr;

use crate::place::Place;
use crate::settings::Cluster;

/// Each node's share of the pods' range.
const NODE_BITS: u8 = 24;
/// The place of the cluster's name server in the Services' range, as kubeadm has it.
const DNS_PLACE: u32 = 10;

/// The ranges of addresses of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Ranges {
    /// Of Services.
    pub services: api::Cidr,
    /// Of pods.
    pub pods: Cidr,
    /// Of this machine's nodes.
    pub nodes: Cidr,
}

impl Ranges {
    /// Reads them from the settings.
    pub fn read(place: &Place, cluster: &Cluster) -> Result<Self> {
        let services: api::Cidr = cluster.service_cidr.parse().context("--service-cidr")?;
        let pods: Cidr = cluster.pod_cidr.parse().context("--pod-cidr")?;
        let nodes = match &cluster.node_cidr {
            Some(text) => text.parse().context("--node-cidr")?,
            None => network::links::lan_subnet(&network::links::prefix_of(place.dir())),
        };
        let ranges = Self { services, pods, nodes };
        ranges.check(cluster)?;
        Ok(ranges)
    }

    fn check(&self, cluster: &Cluster) -> Result<()> {
        let services: Cidr = self.services.to_string().parse().context("--service-cidr")?;
        let named = [("--service-cidr", services), ("--pod-cidr", self.pods), ("--node-cidr", self.nodes)];
        for (at, (one, range)) in named.iter().enumerate() {
            for (other, second) in &named[at + 1..] {
                if range.contains(second.first()) || second.contains(range.first()) {
                    bail!("{one} {range} and {other} {second} overlap");
                }
            }
        }
        self.node_pods(cluster.nodes).map(|_| ())
    }

    /// The range of a node's pods, by its number from 1.
    pub fn node_pods(&self, number: u8) -> Result<Cidr> {
        let first = u32::from(self.pods.first()) + (u32::from(number) - 1) * (1 << (32 - NODE_BITS));
        let range = Cidr::new(Ipv4Addr::from(first), NODE_BITS);
        let range = range.filter(|range| self.pods.contains(range.first()));
        range.with_context(|| format!("--pod-cidr {} has no /{NODE_BITS} for node {number}", self.pods))
    }

    /// The address of the cluster's name server.
    pub fn dns(&self) -> IpAddr {
        self.services.at(DNS_PLACE).into()
    }
}
