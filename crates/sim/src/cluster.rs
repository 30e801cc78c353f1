//! A whole cluster in one thread: the real control plane and the real agents, over simulated machines and wires.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::auth::{Identity, MASTERS};
use client::{Client, Several, Transport};
use host::{Chance, Host, Process, SimDisk, Task, Time};
use kintsugi::control::{self, Control};
use kubelet::SimFiles;
use model::fence::Terms;
use model::{Key, kinds};
use store::Store;

use crate::flaw::{Flaw, intrude};
use crate::guard::SimGuard;
use crate::network::SimNetwork;
use crate::node::{NodeSettings, SimNode, Surroundings};
use crate::observe::{Book, Sight, text};
use crate::pace::Pace;
use crate::peers::{Doors, SimPeers};
use crate::runtime::{Ailment, Registry};
use crate::wire::{Line, Server, Wire};

/// When every simulation begins.
const BEGINNING: &str = "2026-01-01T00:00:00Z";

/// How often everybody else gets a turn until all that the server was doing has been dropped.
const TURNS: usize = 100;

/// What a cluster is begun with, beside its nodes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beginning {
    /// The seed of all chance.
    pub seed: u64,
    /// Whether the time things take is drawn; otherwise it is always the usual one.
    pub jitters: bool,
    /// By how many millionths the server's clocks run fast; slow, where it is negative.
    pub drift: i32,
    /// What is wrong with the world, if anything is.
    pub flaw: Option<Flaw>,
    /// How many servers share one store; 0 for one that has its own.
    pub sharing: usize,
}

/// A cluster.
pub struct Cluster {
    /// The server's time, chance and disk.
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
    around: Surroundings,
    /// Those that run, by place.
    controls: Vec<Option<Running>>,
    /// The store that several servers share, and that outlives them.
    shared: Option<(Store, Task<()>)>,
    chance: Chance,
    /// The number of the next machine.
    next: u8,
}

struct Running {
    control: Control,
    process: Process,
    /// Loops of a second leader, while there is one.
    second: Option<Task<()>>,
    _observer: Option<Task<()>>,
    _intruder: Option<Task<()>>,
}

impl Cluster {
    /// A cluster whose server and agents run. To be called inside a current-thread runtime whose clock is paused.
    pub async fn start(beginning: Beginning, nodes: &BTreeMap<String, NodeSettings>) -> Result<Self> {
        let Beginning { seed, jitters, drift, flaw, sharing } = beginning;
        let disk = SimDisk::new();
        if flaw == Some(Flaw::DiskLies) {
            disk.lie_about_syncs();
        }
        let start: Time = BEGINNING.parse().context("the beginning is a time")?;
        let truth = Host::simulated(seed, start, disk.clone());
        let wrong = Flaw::mutation(flaw).map_or(0, |mutation| mutation.server_drift());
        let host = truth.clone().drifting(drift + wrong);
        let chance = truth.chance().fork();
        let book = Book::new(truth.clone());
        let registry = Registry::default();
        let servers: Vec<Server> = (0..sharing.max(1)).map(|_| Server::default()).collect();
        let around = Surroundings {
            host: truth.clone(),
            jitters,
            flaw,
            registry: registry.clone(),
            book: book.clone(),
            shared: SimFiles::new(),
            servers: servers.clone(),
            doors: Doors::default(),
        };
        let admin = Identity::user("admin", &[MASTERS]);
        let line = Line::new(truth.clone(), Pace::Steady, None, book.clone());
        let wire = wire_to(&servers, &admin, &line, &book, &truth.another(SimDisk::new()));
        let user = Client::new(wire, "kubectl");
        let mut cluster = Self {
            host,
            book,
            registry,
            nodes: BTreeMap::new(),
            user,
            disk,
            around,
            controls: servers.iter().map(|_| None).collect(),
            shared: None,
            chance,
            next: 1,
        };
        if sharing > 0 {
            cluster.share_store().await?;
        }
        for at in 0..servers.len() {
            cluster.start_server(at).await?;
        }
        for (name, settings) in nodes {
            cluster.join(name, settings.clone());
        }
        Ok(cluster)
    }

    /// A new machine, whose agent starts; does nothing where there is one of this name.
    pub fn join(&mut self, name: &str, settings: NodeSettings) {
        if self.nodes.contains_key(name) {
            return;
        }
        let mut node = SimNode::new(name, self.next, settings, &self.around);
        self.next += 1;
        node.start_agent();
        self.nodes.insert(name.to_owned(), node);
    }

    /// A machine's power goes off, and it is never seen again; its Node is left to whoever removes it.
    pub fn leave(&mut self, name: &str) -> Result<()> {
        self.node(name)?.power_off();
        self.nodes.remove(name);
        Ok(())
    }

    /// Whether the server runs, and does not stand still.
    pub fn has_server(&self) -> bool {
        self.running().any(|running| !running.process.is_stopped())
    }

    /// The servers that run, standing still or not.
    fn running(&self) -> impl Iterator<Item = &Running> {
        self.controls.iter().flatten()
    }

    /// The place of the server that runs the loops, as its Lease says.
    pub fn leader(&self, sight: &Sight) -> Option<usize> {
        let lease = sight.get(&kinds::LEASE, "kube-system", "kintsugi-controllers")?;
        let holder = text(lease, "spec.holderIdentity");
        (0..self.controls.len()).find(|at| holder.starts_with(&candidate(*at)))
    }

    /// Stops the server's process where it is, as a signal would.
    pub fn pause_server(&self, at: usize) {
        self.controls.get(at).into_iter().flatten().for_each(|running| running.process.stop());
    }

    /// Lets it go on.
    pub fn resume_server(&self, at: usize) {
        self.controls.get(at).into_iter().flatten().for_each(|running| running.process.resume());
    }

    /// What the control plane's loops see.
    pub fn caches(&self, sight: &Sight) -> Option<&client::Caches> {
        let leads = self.leader(sight).unwrap_or(0);
        self.controls.get(leads)?.as_ref().map(|running| &running.control.caches)
    }

    /// Opens the store that several servers share. It is no part of any of them.
    async fn share_store(&mut self) -> Result<()> {
        let store = control::open_store(&self.around.host, PathBuf::from("/shared/store")).await?;
        self.book.begin(&store);
        let observer = self.host.spawn(self.book.clone().follow(store.clone()));
        self.shared = Some((store, observer));
        Ok(())
    }

    /// The store that a server has to itself, as its disk holds it.
    async fn open_store(&self, process: &Process) -> Result<(Store, Task<()>)> {
        let opened = control::open_store(&self.host, PathBuf::from("/var/lib/kintsugi/store"));
        let store = process.part(opened).await?;
        match self.book.look(|sight| sight.revision) {
            0 => self.book.begin(&store),
            _ => self.book.check_recovered(&store),
        }
        let observer = self.host.spawn(self.book.clone().follow(store.clone()));
        Ok((store, observer))
    }

    /// Starts a server, on what its disk holds where it has a store of its own; does nothing when it runs.
    pub async fn start_server(&mut self, at: usize) -> Result<()> {
        if self.controls.get(at).is_none_or(Option::is_some) {
            return Ok(());
        }
        let process = Process::new();
        let (store, observer) = match &self.shared {
            Some((store, _)) => (store.clone(), None),
            None => {
                let (store, observer) = self.open_store(&process).await?;
                (store, Some(observer))
            }
        };
        let name = self.shared.is_some().then(|| candidate(at));
        let settings =
            api::Settings { guard: Arc::new(SimGuard), has_shared_storage: true, ..api::Settings::default() };
        let peers = SimPeers { host: self.host.clone(), doors: self.around.doors.clone(), own: None };
        let start = control::start_as(&self.host, store, settings, Arc::new(peers), Terms::LAN, name);
        let control = process.part(start).await?;
        self.around.servers[at].up(control.service.clone(), process.clone());
        let intruder = self.around.flaw.map(|flaw| {
            let store = control.service.store().clone();
            self.host.spawn(intrude(flaw, store, self.book.clone(), self.host.clone()))
        });
        self.controls[at] =
            Some(Running { control, process, second: None, _observer: observer, _intruder: intruder });
        Ok(())
    }

    /// Has a second leader beside the first; does nothing while there is no server, or one already.
    pub fn begin_second_leader(&mut self) {
        let host = self.host.clone();
        let first = self.controls.iter_mut().flatten().next();
        if let Some(running) = first.filter(|running| running.second.is_none()) {
            let peers = SimPeers { host: host.clone(), doors: self.around.doors.clone(), own: None };
            let lead = || control::lead(&host, &running.control.service, Arc::new(peers), Terms::LAN, None);
            let (_, leads) = running.process.own(lead);
            running.second = Some(leads);
        }
    }

    /// Ends the second leader; does nothing when there is none.
    pub fn end_second_leader(&mut self) {
        self.controls.iter_mut().flatten().for_each(|running| running.second = None);
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

    /// Cuts a server's power: everything in memory is gone, and on the disk what was not synced is as chance has it.
    pub async fn crash_server(&mut self, at: usize) {
        if self.shared.is_some() {
            return self.stop_server(at).await;
        }
        // From here on nothing more reaches the disk; what was acknowledged has.
        self.disk.fail_after_syncs(0);
        self.stop_server(at).await;
        self.disk.crash(&self.chance);
    }

    /// Kills a server's process; its disk stays as it is.
    pub async fn stop_server(&mut self, at: usize) {
        self.around.servers[at].down();
        if let Some(running) = self.controls[at].take() {
            running.process.kill();
        }
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
        if let Some(running) = self.running().next() {
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
        self.around.host.sleep(time).await;
    }
}

/// As whom the server of a place stands for election.
fn candidate(at: usize) -> String {
    format!("server-{}", at + 1)
}

/// A way to all servers, over one line: to the one in use until it cannot be reached, then to the next.
pub fn wire_to(
    servers: &[Server],
    identity: &Identity,
    line: &Line,
    book: &Book,
    host: &Host,
) -> Arc<dyn Transport> {
    let wire = |server: &Server| -> Arc<dyn Transport> {
        Wire::new(server.clone(), identity.clone(), line.clone(), book.clone(), host.clone())
    };
    match servers {
        [one] => wire(one),
        several => Arc::new(Several::new(several.iter().map(wire).collect())),
    }
}

fn has_route(from: &SimNetwork, to: &SimNetwork) -> bool {
    from.has_route(&to.pod_cidr())
}
