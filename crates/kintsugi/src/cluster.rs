//! A whole cluster on this machine: the server, its first node, and agents in processes of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::{Client, Select, Transport, WatchKind};
use futures_util::StreamExt;
use futures_util::future::join_all;
use host::Host;
use model::{Object, kinds};

use crate::agent;
use crate::control;
use crate::keys::write_private;
use crate::local::Local;
use crate::node::{Node, NodeSettings};
use crate::place::{Place, node_name};
use crate::ranges::Ranges;
use crate::server::{Reach, Server, node_identity};
use crate::settings::Cluster;
use crate::supervise::Supervised;

/// How long the nodes may take to be Ready: far beyond the promise, for slow machines.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster.
pub struct Running {
    /// The server.
    pub server: Server,
    /// The first node.
    pub node: Node,
    agents: Vec<Supervised>,
    _held: std::fs::File,
}

impl Running {
    /// Starts a cluster and waits until the API answers and the nodes are Ready.
    pub async fn start(host: &Host, place: &Place, cluster: &Cluster) -> Result<Self> {
        let held = place.hold()?;
        lacks()?;
        let ranges = Ranges::read(place, cluster)?;
        let server = Server::start(host, place, cluster, &ranges, Reach::Here).await?;
        let wiring = Wiring { host, place, cluster, ranges: &ranges, server: &server };
        let settings = wiring.node_settings(1, server.inner_address.ip(), None)?;
        let transport: Arc<dyn Transport> =
            Arc::new(Local::new(server.service().clone(), node_identity(&settings.name)));
        let node = Node::start(host, &settings, transport).await?;
        let mut agents = Vec::new();
        for number in 2..=cluster.nodes {
            agents.push(wiring.agent(number).await?);
        }
        let mut running = Self { server, node, agents, _held: held };
        running.wait_until_ready(host, cluster.nodes).await?;
        Ok(running)
    }

    /// A client in this process, as an administrator.
    pub fn admin(&self) -> Client {
        let identity = api::auth::Identity::user("kubernetes-admin", &[api::auth::MASTERS]);
        control::client(self.server.service(), identity, "kintsugi")
    }

    async fn wait_until_ready(&mut self, host: &Host, nodes: u8) -> Result<()> {
        let client = self.admin();
        let ready = ready_nodes(&client, nodes);
        match host.within(READY_PATIENCE, ready).await {
            Some(ready) => ready,
            None => bail!("not all of {nodes} nodes were Ready within {} s", READY_PATIENCE.as_secs()),
        }
    }

    /// Stops server and agents; the containers run on.
    pub async fn stop(self) {
        let Self { mut server, node, agents, _held } = self;
        server.control.rest().await;
        join_all(agents.into_iter().map(Supervised::stop)).await;
        drop(node);
        server.stop().await;
    }
}

/// Something that this machine lacks, in words, and whether nothing runs without it.
pub struct Lack {
    /// What, and what to do about it.
    pub said: String,
    /// Whether nothing runs without it.
    pub fatal: bool,
}

/// Refuses to start where the machine lacks what nothing runs without; says what else it lacks.
fn lacks() -> Result<()> {
    let (fatal, minor): (Vec<Lack>, Vec<Lack>) = missing().into_iter().partition(|lack| lack.fatal);
    for lack in minor {
        tracing::warn!("{}", lack.said);
    }
    if fatal.is_empty() {
        return Ok(());
    }
    let said: Vec<String> = fatal.into_iter().map(|lack| format!("- {}", lack.said)).collect();
    bail!("this machine lacks what a node needs:\n{}", said.join("\n"))
}

/// What this machine lacks.
pub fn missing() -> Vec<Lack> {
    let runtime = runtime::preflight().into_iter();
    let runtime =
        runtime.map(|lack| Lack { said: format!("{}: {}", lack.what, lack.help), fatal: lack.fatal });
    let network = network::preflight().into_iter();
    let network = network.map(|lack| Lack { said: format!("{}: {}", lack.what, lack.why), fatal: true });
    runtime.chain(network).collect()
}

/// Waits until so many nodes are Ready.
async fn ready_nodes(client: &Client, wanted: u8) -> Result<()> {
    let mut ready = std::collections::BTreeSet::new();
    let mut events = client.watch(&kinds::NODE, "", &Select::all(), &[]).await?;
    while ready.len() < usize::from(wanted) {
        let event = events.next().await.context("the watch of nodes ended")??;
        let node = Object::read(event.object)?;
        match event.kind {
            WatchKind::Added | WatchKind::Modified if is_ready(&node)? => {
                ready.insert(node.name().to_owned())
            }
            _ => ready.remove(node.name()),
        };
    }
    Ok(())
}

fn is_ready(node: &Object) -> Result<bool> {
    let node: k8s_openapi::api::core::v1::Node = node.view()?;
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    Ok(conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"))
}

struct Wiring<'a> {
    host: &'a Host,
    place: &'a Place,
    cluster: &'a Cluster,
    ranges: &'a Ranges,
    server: &'a Server,
}

impl Wiring<'_> {
    fn node_settings(
        &self,
        number: u8,
        address: std::net::IpAddr,
        netns: Option<PathBuf>,
    ) -> Result<NodeSettings> {
        let name = node_name(number);
        let (serving, client) = NodeSettings::certificates(&self.server.keys, &name, address, self.host)?;
        Ok(NodeSettings {
            address,
            dir: self.place.node(number),
            shared_dir: self.cluster.shared_dir.clone(),
            registry_certs: Some(self.place.registry_certs()),
            prefix: network::links::prefix_of(&self.place.node(number)),
            pods: self.ranges.node_pods(number)?.to_string(),
            cluster_pods: self.ranges.pods.to_string(),
            services: self.ranges.services.to_string(),
            dns: self.ranges.dns(),
            domain: self.cluster.cluster_domain.clone(),
            authority: self.server.keys.authority.cert.clone(),
            serving,
            client,
            api: self.server.inner_address,
            healing: self.cluster.healing,
            hosts_server: netns.is_none(),
            netns,
            shown: None,
            peers: None,
            name,
        })
    }

    /// Starts the agent of a further node in a process of its own, or goes on with the one that outlived an earlier server,
    /// and has it started again whenever it ends.
    async fn agent(&self, number: u8) -> Result<Supervised> {
        let lan = self.server.lan.as_ref().context("this server has no network of its own nodes")?;
        let joined = lan.join(u32::from(number)).await?;
        let settings = self.node_settings(number, joined.address, Some(joined.netns))?;
        std::fs::create_dir_all(&settings.dir)?;
        let file = settings.dir.join("agent.json");
        if let Some(pid) = agent::adoptable(&settings, &file, self.host.now()) {
            // It knows as little of the server's absence as its pods do.
            if let Ok(adopted) = Supervised::adopt(self.host, settings.name.clone(), file.clone(), pid) {
                return Ok(adopted);
            }
        }
        write_private(&file, &serde_json::to_string_pretty(&settings)?)?;
        Supervised::start(self.host, settings.name, file)
    }
}
