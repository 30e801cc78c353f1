//! What a node asks of its network. Two real implementations: the kernel's, and the simulator's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use async_trait::async_trait;

use crate::Cidr;

/// Gives pods their addresses and Services their rules on one node.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Gives a pod an interface and an address in its network namespace, and its host ports. Doing it again gives
    /// the same address.
    async fn attach(&self, pod: PodNetwork) -> Result<Vec<IpAddr>, NetworkError>;
    /// Takes them away. Gone already counts as done.
    async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError>;
    /// The pods that have addresses here, for whoever adopts them: uid and addresses.
    async fn attached(&self) -> Result<Vec<(String, Vec<IpAddr>)>, NetworkError>;
    /// Makes the packet rules be these, by the difference to what they are.
    async fn serve(&self, rules: ServiceRules) -> Result<(), NetworkError>;
    /// Makes what the pods here may send and receive be this.
    async fn guard(&self, rules: PolicyRules) -> Result<(), NetworkError>;
    /// Makes the routes to the pods of other nodes be these.
    async fn route(&self, routes: Vec<NodeRoute>) -> Result<(), NetworkError>;
}

/// A pod's wishes of the network.
#[derive(Debug, Clone)]
pub struct PodNetwork {
    /// The pod's uid.
    pub pod_uid: String,
    /// The path of its network namespace.
    pub netns: PathBuf,
    /// Ports of the node that lead to it.
    pub host_ports: Vec<HostPort>,
}

/// A port of the node that leads to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// The node's address; `None` for all.
    pub host_ip: Option<IpAddr>,
    /// The node's port.
    pub host_port: u16,
    /// The pod's port.
    pub pod_port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// Another node's pods: this range is behind that address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeRoute {
    /// The node's name.
    pub node: String,
    /// The node's own address.
    pub via: IpAddr,
    /// Its pods' range, such as `10.244.1.0/24`.
    pub pod_cidr: String,
}

/// All Services of a node, as rules: the whole wanted state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceRules {
    /// One entry a Service port, ordered.
    pub ports: Vec<ServicePort>,
}

/// One port of a Service and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// `namespace/name:port`, for counters and messages.
    pub name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// Virtual addresses it is reached at: cluster, external and load balancer ones. Those in the range of virtual
    /// addresses are for traffic from inside; at all others, as at node ports, traffic counts as from outside,
    /// unless a pod or the node itself sends it and `keep_source` is set.
    pub addresses: Vec<IpAddr>,
    /// The port at those addresses.
    pub port: u16,
    /// The port at every node's address; 0 for none.
    pub node_port: u16,
    /// How long a client stays with its endpoint, in seconds (`sessionAffinity: ClientIP`).
    pub affinity_seconds: Option<u32>,
    /// Where it leads, for traffic from inside.
    pub endpoints: Vec<SocketAddr>,
    /// Where it leads for traffic from outside (`externalTrafficPolicy: Local`: those on this node).
    pub external_endpoints: Vec<SocketAddr>,
    /// Whether traffic from outside keeps its source address.
    pub keep_source: bool,
}

/// What the pods of a node may send and receive: the whole wanted state. Addresses that are not named are not held back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyRules {
    /// The addresses of each group that a rule names.
    pub groups: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// What each of these addresses may receive.
    pub incoming: BTreeMap<Ipv4Addr, Vec<Allowed>>,
    /// What each of these addresses may send.
    pub outgoing: BTreeMap<Ipv4Addr, Vec<Allowed>>,
}

/// Connections that are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// Who is at the other end.
    pub peer: Peer,
    /// To which ports; `None` for all of every protocol.
    pub ports: Option<Vec<PortSpan>>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Whoever.
    Anyone,
    /// The group of this name.
    Group(String),
    /// An address of the range, but none of the others.
    Range {
        /// The range.
        range: Cidr,
        /// What is left out of it.
        except: Vec<Cidr>,
    },
}

/// Ports of one protocol, from one to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortSpan {
    /// The protocol.
    pub protocol: Protocol,
    /// The first.
    pub first: u16,
    /// The last; the first for one alone.
    pub last: u16,
}

/// Why the network did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The node's range of addresses is used up.
    #[error("no address left in {range}")]
    NoAddress {
        /// The node's range.
        range: String,
    },
    /// The port is taken by another pod.
    #[error("host port {0} is taken")]
    PortTaken(u16),
    /// The kernel refused: try again, or see the cause.
    #[error("{doing}")]
    Kernel {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Protocol {
    /// Its number in a packet's header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// The protocol of that number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|protocol| protocol.number() == number)
    }
}

/// An error of the kernel, or of the way to it, with what was being done.
pub(crate) fn failed<E>(doing: impl Into<String>) -> impl FnOnce(E) -> NetworkError
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    move |error| NetworkError::Kernel { doing: doing.into(), source: error.into() }
}
