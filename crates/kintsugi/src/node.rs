//! One node, wired: containers, network, names and the agent over them. In the server's process or in one of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::{Caches, Client, HttpsPeers, Transport};
use futures_util::FutureExt;
use host::{Host, Task};
use kubelet::{Machine, Means, Stop};
use network::{Cidr, KernelNetwork};
use runtime::{KernelRuntime, Runtime};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::keys::Keys;
use crate::names::{NameService, NamedNetwork};
use crate::settings::Healing;
use crate::supervise::next_pause;
use crate::tls;
use api::auth::pki::PemPair;

/// The port of a node's own https face; upstream's.
const KUBELET_PORT: u16 = 10250;
/// Bytes after which a container's log is rotated, and how many files are kept: upstream's defaults.
const LOG_LEN_MAX: u64 = 10 * 1024 * 1024;
const LOG_FILES_MAX: u32 = 5;

/// What a node is told; written to a file for agents in processes of their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeSettings {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its folder.
    pub dir: PathBuf,
    /// Where storage is mounted that all nodes reach.
    #[serde(default)]
    pub shared_dir: Option<PathBuf>,
    /// Where the authorities of private registries are: `HOST[:PORT]/ca.crt`.
    #[serde(default)]
    pub registry_certs: Option<PathBuf>,
    /// The short name of the cluster in links and rules.
    pub prefix: String,
    /// The range of its pods.
    pub pods: String,
    /// The range of all pods.
    pub cluster_pods: String,
    /// The range of Services.
    pub services: String,
    /// Where pods look up names.
    pub dns: IpAddr,
    /// The cluster's domain.
    pub domain: String,
    /// The authority's certificate, as PEM.
    pub authority: String,
    /// The certificate of its https face.
    pub serving: Pair,
    /// The certificate with which it speaks to the API.
    pub client: Pair,
    /// Where the API is, for agents in processes of their own.
    pub api: SocketAddr,
    /// The network namespace that an agent of its own enters first.
    pub netns: Option<PathBuf>,
    /// How failures are noticed and mended.
    #[serde(default)]
    pub healing: Healing,
    /// Whether a server runs on this host.
    #[serde(default)]
    pub hosts_server: bool,
    /// The certificate of its https face where that is renewed while it runs.
    #[serde(skip)]
    pub shown: Option<Arc<tls::Shown>>,
    /// As whom it asks other agents, where its certificate is renewed while it runs.
    #[serde(skip)]
    pub peers: Option<Arc<HttpsPeers>>,
}

/// A certificate and its key, as PEM texts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// The key.
    pub key: String,
}

impl Pair {
    /// The certificate as who asks.
    pub fn identity(&self) -> client::Identity {
        client::Identity::Certificate {
            chain_pem: self.cert.clone().into_bytes(),
            key_pem: self.key.clone().into_bytes(),
        }
    }
}

impl From<PemPair> for Pair {
    fn from(pair: PemPair) -> Self {
        Self { cert: pair.cert, key: pair.key }
    }
}

impl From<Pair> for PemPair {
    fn from(pair: Pair) -> Self {
        Self { cert: pair.cert, key: pair.key }
    }
}

impl NodeSettings {
    /// The way to other agents, with the certificate of now.
    pub fn new_peers(&self) -> HttpsPeers {
        HttpsPeers::new(self.authority.clone().into_bytes(), self.client.identity())
    }

    /// Issues a node's certificates.
    pub fn certificates(keys: &Keys, name: &str, address: IpAddr, host: &Host) -> Result<(Pair, Pair)> {
        let user = format!("system:node:{name}");
        let names = vec![name.to_owned(), address.to_string(), "127.0.0.1".to_owned()];
        let serving = keys.server(&user, "system:nodes", names, host.now())?;
        let client = keys.client(&user, "system:nodes", host.now())?;
        Ok((serving.into(), client.into()))
    }
}

/// A running node; dropping it ends the agent and leaves the containers.
pub struct Node {
    /// Its containers.
    pub runtime: Arc<KernelRuntime>,
    leaves: watch::Sender<bool>,
    agent: Task<()>,
}

impl Node {
    /// Starts a node's agent over `transport`.
    pub async fn start(host: &Host, settings: &NodeSettings, transport: Arc<dyn Transport>) -> Result<Self> {
        let exe = std::env::current_exe().context("cannot find the program's own file")?;
        let runtime = runtime::Settings {
            data_dir: settings.dir.clone(),
            registry_certs: settings.registry_certs.clone(),
            exe,
        };
        let runtime =
            Arc::new(KernelRuntime::open(host.clone(), runtime).context("cannot open the runtime")?);
        let network = KernelNetwork::open(host.clone(), network_settings(settings)?).await;
        let network = network.context("cannot open the node's network")?;
        let client = Client::new(transport, &format!("kintsugi-agent/{}", settings.name));
        let caches = Caches::new(client.clone(), host.clone());
        let names =
            NameService::start(host, settings.address, settings.dns, &settings.domain, &caches).await?;
        let network = Arc::new(NamedNetwork { network, names });
        let means = Means {
            host: host.clone(),
            client,
            caches,
            runtime: runtime.clone(),
            network,
            files: Arc::new(kubelet::RealFiles),
            dial: Arc::new(kubelet::TcpDial),
            peers: settings.peers.clone().unwrap_or_else(|| Arc::new(settings.new_peers())),
            voice: kubelet::Voice::new(None),
        };
        let (leaves, left) = watch::channel(false);
        let told = {
            let name = settings.name.clone();
            move |why: &str| tracing::warn!(node = name, why, "the agent ended; it is started again")
        };
        let (host, settings) = (host.clone(), agent_settings(settings)?);
        let agent = host.clone().spawn(async move { keep(&host, settings, means, left, told).await });
        Ok(Self { runtime, leaves, agent })
    }

    /// Leaves: the pods here end, and the node's lease is let go.
    pub async fn leave(self) {
        self.leaves.send_replace(true);
        self.agent.join().await;
    }

    /// The containers, as the kubelet sees them.
    pub fn containers(&self) -> Arc<dyn Runtime> {
        self.runtime.clone()
    }
}

/// Runs an agent until it has left: when it ends by itself, by an error or a panic, `told` hears why, and it is started
/// again.
pub async fn keep(
    host: &Host,
    settings: kubelet::Settings,
    means: Means,
    leaves: watch::Receiver<bool>,
    told: impl Fn(&str),
) {
    let mut pause = Duration::ZERO;
    loop {
        let began = host.moment();
        let mut leaves = leaves.clone();
        let leave = async move {
            let is_told = leaves.wait_for(|leaves| *leaves).await.is_ok();
            // Otherwise nobody is left who could say so.
            if is_told { Stop::Leave } else { std::future::pending().await }
        };
        let run = kubelet::run(settings.clone(), means.clone(), leave);
        // Whatever a panic left half done went with the run: the next one begins with what the machine shows.
        match AssertUnwindSafe(run).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => told(&error.to_string()),
            Err(_) => told("it panicked"),
        }
        pause = next_pause(host.moment().since(began), pause);
        host.sleep(pause).await;
    }
}

fn network_settings(settings: &NodeSettings) -> Result<network::Settings> {
    let IpAddr::V4(node_ip) = settings.address else { anyhow::bail!("{} is not IPv4", settings.address) };
    let range = |text: &str| text.parse::<Cidr>().with_context(|| format!("the range {text}"));
    Ok(network::Settings {
        data_dir: settings.dir.clone(),
        name_prefix: settings.prefix.clone(),
        pod_cidr: range(&settings.pods)?,
        cluster_cidr: range(&settings.cluster_pods)?,
        service_cidr: range(&settings.services)?,
        node_ip,
        mtu: None,
    })
}

fn agent_settings(settings: &NodeSettings) -> Result<kubelet::Settings> {
    let shown = match &settings.shown {
        Some(shown) => shown.clone(),
        None => Arc::new(tls::Shown::new(&settings.serving.clone().into())?),
    };
    let terms = settings.healing.terms().context("how the cluster counts leases")?;
    Ok(kubelet::Settings {
        node_name: settings.name.clone(),
        node_addresses: vec![settings.address],
        data_dir: settings.dir.clone(),
        shared_dir: settings.shared_dir.clone(),
        cluster_dns: vec![settings.dns],
        cluster_domain: settings.domain.clone(),
        pod_cidr: settings.pods.clone(),
        listen: SocketAddr::new(settings.address, KUBELET_PORT),
        tls: Some(tls::showing(shown, &settings.authority, true, &[b"http/1.1"])?),
        labels: BTreeMap::new(),
        machine: Machine::look(&settings.dir),
        curve: settings.healing.curve(),
        lease_every: terms.renewal(),
        lease_seconds: i32::try_from(terms.lease.as_secs()).context("the length of a lease")?,
        terms,
        hosts_server: settings.hosts_server,
        // A node may read its own pods alone; policies need those of all, so they wait for a reader of their own.
        has_policies: false,
        image_marks: Some(kubelet::ImageMarks::USUAL),
        log_len_max: LOG_LEN_MAX,
        log_files_max: LOG_FILES_MAX,
    })
}
