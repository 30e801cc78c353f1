//! A whole cluster in one thread: the real control plane and the real agents, over simulated machines and wires.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::auth::{Identity, MASTERS};
use client::Client;
use host::{Chance, Host, SimDisk, Task, Time};
use kintsugi::control::{self, Control};
use kubelet::SimFiles;
use model::fence::Terms;
use model::{Key, kinds};

use crate::flaw::{Flaw, intrude};
use crate::gate::Gate;
use crate::guard::SimGuard;
use crate::network::SimNetwork;
use crate::node::{NodeSettings, SimNode, Surroundings};
use crate::observe::{Book, text};
use crate::pace::Pace;
use crate::peers::{Doors, SimPeers};
use crate::runtime::{Ailment, Registry};
use crate::wire::{Line, Server, Wire};

/// When every simulation begins.
const BEGINNING: &str = "2026-01-01T00:00:00Z";

/// How often everybody else gets a turn until all that the server was doing has been dropped.
const TURNS: usize = 100;

/// A cluster.
pub struct Cluster {
    /// Time, chance and the server's disk.
    pub host: Host,
    /// What is observed.
    pub book: Book,
    /// Where images come from.
    pub registry: Registry,
    /// The machines, by name.
    pub nodes: BTreeMap<String, SimNode>,
    /// Requests as the administrator.
    pub user: Client,
    disk: SimDisk,
    server: Server,
    doors: Doors,
    control: Option<Running>,
    flaw: Option<Flaw>,
    chance: Chance,
}

struct Running {
    control: Control,
    /// Loops of a second leader, while there is one.
    second: Option<Task<()>>,
    _observer: Task<()>,
    _intruder: Option<Task<()>>,
}

impl Cluster {
    /// A cluster whose server and agents run. To be called inside a current-thread runtime whose clock is paused.
    pub async fn start(seed: u64, jitters: bool, nodes: &BTreeMap<String, NodeSettings>) -> Result<Self> {
        Self::start_flawed(seed, jitters, nodes, None).await
    }

    /// The same in a world that may have a flaw.
    pub async fn start_flawed(
        seed: u64,
        jitters: bool,
        nodes: &BTreeMap<String, NodeSettings>,
        flaw: Option<Flaw>,
    ) -> Result<Self> {
        let disk = SimDisk::new();
        if flaw == Some(Flaw::DiskLies) {
            disk.lie_about_syncs();
        }
        let start: Time = BEGINNING.parse().context("the beginning is a time")?;
        let host = Host::simulated(seed, start, disk.clone());
        let chance = host.chance().fork();
        let book = Book::new(host.clone());
        let (server, registry) = (Server::default(), Registry::default());
        let doors = Doors::default();
        let around = Surroundings {
            host: host.clone(),
            jitters,
            flaw,
            registry: registry.clone(),
            book: book.clone(),
            shared: SimFiles::new(),
            server: server.clone(),
            doors: doors.clone(),
        };
        let admin = Identity::user("admin", &[MASTERS]);
        let line = Line::new(host.clone(), Pace::Steady, None);
        let wire = Wire::new(
            server.clone(),
            admin,
            line,
            Gate::default(),
            book.clone(),
            host.another(SimDisk::new()),
        );
        let numbered = nodes.iter().zip(1..);
        let nodes = numbered.map(|((name, settings), number)| {
            (name.clone(), SimNode::new(name, number, settings.clone(), &around))
        });
        let nodes = nodes.collect();
        let user = Client::new(wire, "kubectl");
        let mut cluster =
            Self { host, book, registry, nodes, user, disk, server, doors, control: None, flaw, chance };
        cluster.start_server().await?;
        cluster.nodes.values_mut().for_each(SimNode::start_agent);
        Ok(cluster)
    }

    /// Whether the server runs.
    pub fn has_server(&self) -> bool {
        self.control.is_some()
    }

    /// What the control plane's loops see.
    pub fn caches(&self) -> Option<&client::Caches> {
        self.control.as_ref().map(|running| &running.control.caches)
    }

    /// Starts the server on what its disk holds; does nothing when it runs.
    pub async fn start_server(&mut self) -> Result<()> {
        if self.control.is_some() {
            return Ok(());
        }
        let store = control::open_store(&self.host, PathBuf::from("/var/lib/kintsugi/store")).await?;
        match self.book.look(|sight| sight.revision) {
            0 => self.book.begin(&store),
            _ => self.book.check_recovered(&store),
        }
        let observer = self.host.spawn(self.book.clone().follow(store.clone()));
        let settings =
            api::Settings { guard: Arc::new(SimGuard), has_shared_storage: true, ..api::Settings::default() };
        let peers = SimPeers { host: self.host.clone(), doors: self.doors.clone(), own: None };
        let control = control::start(&self.host, store, settings, Arc::new(peers), Terms::LAN).await?;
        self.server.up(control.service.clone());
        let intruder = self.flaw.map(|flaw| {
            let store = control.service.store().clone();
            self.host.spawn(intrude(flaw, store, self.book.clone(), self.host.clone()))
        });
        self.control = Some(Running { control, second: None, _observer: observer, _intruder: intruder });
        Ok(())
    }

    /// Has a second leader beside the first; does nothing while there is no server, or one already.
    pub fn begin_second_leader(&mut self) {
        let host = self.host.clone();
        if let Some(running) = self.control.as_mut().filter(|running| running.second.is_none()) {
            let peers = SimPeers { host: host.clone(), doors: self.doors.clone(), own: None };
            let (_, leads) =
                control::lead(&host, &running.control.service, Arc::new(peers), Terms::LAN, None);
            running.second = Some(leads);
        }
    }

    /// Ends the second leader; does nothing when there is none.
    pub fn end_second_leader(&mut self) {
        if let Some(running) = &mut self.control {
            running.second = None;
        }
    }

    /// Lets so many more syncs of the server's disk succeed: then the power is cut.
    pub fn cut_power_after_syncs(&self, count: u64) {
        self.disk.fail_after_syncs(count);
    }

    /// Whether the power was cut.
    pub fn is_power_cut(&self) -> bool {
        self.disk.is_off()
    }

    /// How many syncs the server's disk has done.
    pub fn syncs(&self) -> u64 {
        self.disk.syncs()
    }

    /// Cuts the server's power: everything in memory is gone, and on the disk what was not synced is as chance has it.
    pub async fn crash_server(&mut self) {
        // From here on nothing more reaches the disk; what was acknowledged has.
        self.disk.fail_after_syncs(0);
        self.stop_server().await;
        self.disk.crash(&self.chance);
    }

    /// Kills the server's process; its disk stays as it is.
    pub async fn stop_server(&mut self) {
        self.server.down();
        self.control = None;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }

    /// Lets the server's disk take so many bytes more.
    pub fn set_room(&self, bytes: u64) {
        self.disk.set_room(bytes);
    }

    /// Holds what the history told against what the store lists now.
    pub fn check_history(&self) {
        if let Some(running) = &self.control {
            let store = running.control.service.store();
            let seen = self.book.look(|sight| sight.revision);
            self.book.check_against(store, Some(seen));
        }
    }

    /// The node of a name.
    pub fn node(&mut self, name: &str) -> Result<&mut SimNode> {
        self.nodes.get_mut(name).with_context(|| format!("there is no node {name:?}"))
    }

    /// The uid of the pod of an alias, its key and its node (empty while it is bound to none).
    pub fn pod(&self, alias: &str) -> Result<(String, Key, String)> {
        let found = self.book.look(|sight| {
            let (uid, tree) = sight.pod(alias)?;
            let tree = tree?;
            let key = Key::new(&kinds::POD, text(tree, "metadata.namespace"), text(tree, "metadata.name"));
            Some((uid.to_owned(), key, text(tree, "spec.nodeName").to_owned()))
        });
        found.with_context(|| format!("there is no pod {alias:?}"))
    }

    /// Ends a container of a pod (all of them when no name is given) as if its process had ended; says how many.
    pub fn end_container(
        &self,
        alias: &str,
        name: Option<&str>,
        code: i32,
        signal: Option<i32>,
    ) -> Result<usize> {
        let (uid, _, node) = self.pod(alias)?;
        let runtime = &self.nodes.get(&node).with_context(|| format!("{alias} runs nowhere"))?.runtime;
        let inventory = runtime.inventory();
        let names = inventory.iter().filter(|(pod, _)| *pod == uid).flat_map(|(_, names)| names);
        let names = names.filter(|known| name.is_none_or(|name| name == known.as_str()));
        Ok(names.filter(|known| runtime.end(&uid, known, code, signal)).count())
    }

    /// Changes how the containers of a pod fare.
    pub fn afflict(&self, alias: &str, ailment: Ailment) -> Result<bool> {
        let (uid, _, node) = self.pod(alias)?;
        let runtime = &self.nodes.get(&node).with_context(|| format!("{alias} runs nowhere"))?.runtime;
        Ok(runtime.afflict(&uid, None, ailment))
    }

    /// Sends one request from a node to a Service as that node's rules have it: the uid of the pod that answered.
    pub fn request(&self, from: &str, service: &str) -> Result<String, &'static str> {
        let source = self.nodes.get(from).ok_or("there is no such node")?;
        let rule = source.network.rule(service).ok_or("no rule for the service")?;
        let count = rule.endpoints.len() as u64;
        let at = usize::try_from(self.chance.below(count)).unwrap_or(0);
        let endpoint = rule.endpoints.get(at).ok_or("the service leads to nobody")?;
        let target = self.nodes.values().find_map(|node| Some((node, node.network.pod_at(endpoint.ip())?)));
        let (node, uid) = target.ok_or("nobody has this address")?;
        if node.name != from && (node.line.is_cut() || source.line.is_cut()) {
            return Err("the way is cut");
        }
        if !has_route(&source.network, &node.network) {
            return Err("there is no route");
        }
        if node.runtime.serves(&uid) { Ok(uid) } else { Err("the pod does not answer") }
    }

    /// Waits for so long.
    pub async fn pass_time(&self, time: Duration) {
        self.host.sleep(time).await;
    }
}

fn has_route(from: &SimNetwork, to: &SimNetwork) -> bool {
    from.has_route(&to.pod_cidr())
}
