//! What an agent is told when it starts, and what it is given to work with.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Caches, Client, Peers};
use host::{Host, watch};
use model::fence::Terms;
use network::Network;
use runtime::Runtime;

use crate::agent::Agent;
use crate::ask::Dial;
use crate::backoff::Curve;
use crate::files::Files;
use crate::image_space::ImageMarks;
use crate::places::Root;
use crate::resources::Allocatable;

/// How often the lease is renewed by default: a quarter of its four seconds, so that three may be lost before the node
/// counts as silent.
pub const LEASE_EVERY: Duration = Duration::from_secs(1);

/// What an agent is told.
#[derive(Clone)]
pub struct Settings {
    /// The node's name.
    pub node_name: String,
    /// The node's own addresses, the first one being the one others reach it at.
    pub node_addresses: Vec<IpAddr>,
    /// The folder of this agent's files (`kubelet/` and `seccomp/` below it).
    pub data_dir: PathBuf,
    /// Where storage is mounted that all nodes reach; `None` when there is none.
    pub shared_dir: Option<PathBuf>,
    /// Where pods look up names.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's domain, such as `cluster.local`.
    pub cluster_domain: String,
    /// The range of the node's pods, written to the Node when it has none; empty to leave that to others.
    pub pod_cidr: String,
    /// Where the node's own https face listens; port 0 picks one.
    pub listen: SocketAddr,
    /// How it speaks TLS and whom it lets in; `None` for no face (the simulator).
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Further labels of the Node.
    pub labels: BTreeMap<String, String>,
    /// What the machine is and has.
    pub machine: Machine,
    /// How restarts are spaced.
    pub curve: Curve,
    /// How often the lease is renewed.
    pub lease_every: Duration,
    /// How long a lease lasts, in seconds, as it says itself.
    pub lease_seconds: i32,
    /// What the fence counts with.
    pub terms: Terms,
    /// Whether a server runs on this host: such hosts vote first.
    pub hosts_server: bool,
    /// Whether NetworkPolicies hold pods back here.
    pub has_policies: bool,
    /// When images are removed that no pod uses; `None`: never.
    pub image_marks: Option<ImageMarks>,
    /// Bytes after which a container's log is rotated.
    pub log_len_max: u64,
    /// Log files kept of a container, the current one included.
    pub log_files_max: u32,
}

impl Settings {
    /// The folder that pods know as the kubelet's.
    pub fn root(&self) -> Root {
        Root::new(&self.data_dir)
    }
}

/// What a machine is and has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// What it has.
    pub capacity: Allocatable,
    /// What pods may use of it.
    pub allocatable: Allocatable,
    /// `amd64`, `arm64` …
    pub architecture: String,
    /// The kernel's version.
    pub kernel: String,
    /// The distribution, in words.
    pub os_image: String,
    /// The machine's id.
    pub machine_id: String,
    /// The id of this boot.
    pub boot_id: String,
    /// The machine's own `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// The machine's own `/etc/hosts`.
    pub hosts: String,
}

/// What an agent works with.
#[derive(Clone)]
pub struct Means {
    /// Time, chance, tasks.
    pub host: Host,
    /// The API.
    pub client: Client,
    /// Its caches; the agent follows what it needs in them.
    pub caches: Caches,
    /// Containers.
    pub runtime: Arc<dyn Runtime>,
    /// Addresses and rules.
    pub network: Arc<dyn Network>,
    /// Files.
    pub files: Arc<dyn Files>,
    /// How probes and hooks reach pods.
    pub dial: Arc<dyn Dial>,
    /// How other agents are asked.
    pub peers: Arc<dyn Peers>,
    /// Who answers as this node's voter: the agent puts itself here while it runs, for those who reach it without TLS
    /// (the simulator).
    pub voice: Voice,
}

/// Where an agent's voter is found by others of the same process.
pub type Voice = watch::Sender<Option<std::sync::Weak<Agent>>>;

/// Why an agent ended on its own.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// Its https face could not listen: choose another address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// What the fence must remember cannot be read or written: without it nothing may run.
    #[error("cannot keep the fence's files")]
    Fence(#[source] std::io::Error),
    /// The runtime does not say what runs here: nothing can be adopted safely.
    #[error("cannot tell what runs here")]
    Runtime(#[source] runtime::RuntimeError),
}
