//! One simulated machine that pods run on: what outlives its agent, and the agent itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::auth::Identity;
use client::{Caches, Client};
use host::{Host, SimDisk, Task};
use kubelet::{Allocatable, Curve, Machine, Means, RuntimeDial, Settings, SimFiles, Voice};
use model::fence::Terms;
use tokio::sync::watch;

use crate::flaw::Flaw;
use crate::gate::Gate;
use crate::network::SimNetwork;
use crate::observe::Book;
use crate::pace::Pace;
use crate::peers::{Door, Doors, SimPeers};
use crate::runtime::{Registry, SimRuntime};
use crate::wire::{Line, Server, Wire};

/// The kubelet's group.
const NODES: &str = "system:nodes";

/// The size of a log file: nobody fills one here.
const LOG_LEN_MAX: u64 = 1 << 20;

/// Where the storage is that all machines reach.
const SHARED_DIR: &str = "/shared";

/// How a node is to be.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Thousandths of a core that pods may use.
    pub cpu_millis: u64,
    /// How many pods it takes.
    pub pods: u64,
    /// Further labels.
    pub labels: BTreeMap<String, String>,
    /// How restarts are spaced.
    pub curve: Curve,
    /// How often its lease is renewed.
    pub lease_every: Duration,
    /// How long its lease lasts, in seconds.
    pub lease_seconds: i32,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            cpu_millis: 4000,
            pods: 110,
            labels: BTreeMap::new(),
            curve: Curve::HEALING,
            lease_every: kubelet::LEASE_EVERY,
            lease_seconds: 4,
        }
    }
}

/// What all machines share.
#[derive(Clone)]
pub struct Surroundings {
    /// Time.
    pub host: Host,
    /// How long things take.
    pub jitters: bool,
    /// What is wrong with the world, if anything is.
    pub flaw: Option<Flaw>,
    /// Where images come from.
    pub registry: Registry,
    /// Where what happens is written down.
    pub book: Book,
    /// The storage that all of them reach.
    pub shared: SimFiles,
    /// Where the API is.
    pub server: Server,
    /// Where the agents are.
    pub doors: Doors,
}

/// A machine that pods run on.
pub struct SimNode {
    /// Its name.
    pub name: String,
    /// Its containers.
    pub runtime: SimRuntime,
    /// Its network.
    pub network: SimNetwork,
    /// Its line to the server.
    pub line: Line,
    gate: Gate,
    host: Host,
    files: SimFiles,
    around: Surroundings,
    settings: NodeSettings,
    number: u8,
    boots: u32,
    agent: Option<Agent>,
    /// The agent that leaves.
    leaving: Option<Task<()>>,
}

struct Agent {
    caches: Caches,
    leaves: watch::Sender<bool>,
    task: Task<()>,
}

impl SimNode {
    /// A machine that is on, without an agent.
    pub fn new(name: &str, number: u8, settings: NodeSettings, around: &Surroundings) -> Self {
        let host = around.host.another(SimDisk::new());
        let pace = || if around.jitters { Pace::Drawn(host.chance().fork()) } else { Pace::Steady };
        let gate = Gate::default();
        let runtime = SimRuntime::new(name, host.clone(), pace(), gate.clone(), around);
        Self {
            name: name.to_owned(),
            runtime,
            network: SimNetwork::new(number, host.clone(), pace(), gate.clone(), around.flaw),
            line: Line::new(host.clone(), pace(), around.flaw),
            gate,
            files: SimFiles::new().sharing(SHARED_DIR, &around.shared),
            around: around.clone(),
            settings,
            number,
            boots: 1,
            agent: None,
            leaving: None,
            host,
        }
    }

    /// Whether an agent runs.
    pub fn has_agent(&self) -> bool {
        self.agent.is_some()
    }

    /// What the agent sees of the API.
    pub fn caches(&self) -> Option<&Caches> {
        self.agent.as_ref().map(|agent| &agent.caches)
    }

    /// Starts the agent; does nothing when it runs.
    pub fn start_agent(&mut self) {
        if self.agent.is_some() {
            return;
        }
        self.leaving = None;
        let identity = Identity::user(format!("system:node:{}", self.name), &[NODES]);
        let around = &self.around;
        let wire = Wire::new(
            around.server.clone(),
            identity,
            self.line.clone(),
            self.gate.clone(),
            around.book.clone(),
            self.host.clone(),
        );
        let client = Client::new(wire, "kubelet");
        let caches = Caches::new(client.clone(), self.host.clone());
        let runtime = Arc::new(self.runtime.clone());
        let voice = Voice::new(None);
        let door = Door { line: self.line.clone(), gate: self.gate.clone(), voice: voice.clone() };
        around.doors.put(&self.name, door);
        let means = Means {
            host: self.host.clone(),
            client,
            caches: caches.clone(),
            dial: Arc::new(RuntimeDial(runtime.clone())),
            peers: Arc::new(SimPeers {
                host: self.host.clone(),
                doors: around.doors.clone(),
                own: Some((self.line.clone(), self.gate.clone())),
            }),
            voice: voice.clone(),
            runtime,
            network: Arc::new(self.network.clone()),
            files: Arc::new(self.files.clone()),
        };
        let (settings, host, book, name) =
            (self.told(), self.host.clone(), around.book.clone(), self.name.clone());
        let (leaves, left) = watch::channel(false);
        let task = self.host.spawn(async move {
            let told = |why: &str| book.line(&format!("agent of {name} ended: {why}"));
            kintsugi::node::keep(&host, settings, means, left, told).await;
        });
        self.agent = Some(Agent { caches, leaves, task });
    }

    /// Has the node leave, as `kintsugi leave` does; its agent ends when it has.
    pub fn leave(&mut self) {
        if let Some(agent) = self.agent.take() {
            agent.leaves.send_replace(true);
            self.leaving = Some(agent.task);
        }
    }

    /// Kills the agent; containers, rules and files stay.
    pub fn kill_agent(&mut self) {
        self.agent = None;
        self.leaving = None;
        self.resume();
    }

    /// Stops the agent where it is, as a signal would: nothing it does or hears goes on.
    pub fn pause(&self) {
        self.gate.shut();
        self.runtime.hold_events();
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.gate.open();
        self.runtime.resume();
    }

    /// Whether the agent is paused.
    pub fn is_paused(&self) -> bool {
        self.gate.is_shut()
    }

    /// Cuts the power: the agent, all containers, addresses and rules are gone; files and images stay.
    pub fn power_off(&mut self) {
        self.kill_agent();
        self.around.doors.take(&self.name);
        self.runtime.power_off();
        self.network.power_off();
    }

    /// Boots the machine after its power was off.
    pub fn power_on(&mut self) {
        if self.agent.is_none() {
            self.boots += 1;
            self.start_agent();
        }
    }

    /// Steps the wall clock of the machine.
    pub fn step_clock(&self, by: jiff::SignedDuration) {
        self.host.step_wall_clock(by);
    }

    fn told(&self) -> Settings {
        let has = Allocatable {
            cpu_millis: self.settings.cpu_millis,
            memory: 16 << 30,
            ephemeral_storage: 100 << 30,
            pods: self.settings.pods,
        };
        let machine = Machine {
            capacity: has,
            allocatable: has,
            architecture: "amd64".to_owned(),
            kernel: "6.18.0".to_owned(),
            os_image: "Simulated".to_owned(),
            machine_id: format!("{:032x}", self.number),
            boot_id: format!("boot-{}", self.boots),
            resolv_conf: String::new(),
            hosts: "127.0.0.1 localhost\n".to_owned(),
        };
        Settings {
            node_name: self.name.clone(),
            node_addresses: vec![IpAddr::V4(Ipv4Addr::new(192, 168, 0, self.number))],
            data_dir: PathBuf::from("/var/lib/kintsugi"),
            shared_dir: Some(PathBuf::from(SHARED_DIR)),
            cluster_dns: vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10))],
            cluster_domain: "cluster.local".to_owned(),
            pod_cidr: self.network.pod_cidr(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            labels: self.settings.labels.clone(),
            machine,
            curve: self.settings.curve,
            lease_every: self.settings.lease_every,
            lease_seconds: self.settings.lease_seconds,
            terms: Terms::LAN
                .of_lease(Duration::from_secs(u64::try_from(self.settings.lease_seconds).unwrap_or(4))),
            hosts_server: false,
            has_policies: false,
            image_marks: None,
            log_len_max: LOG_LEN_MAX,
            log_files_max: 2,
        }
    }
}
