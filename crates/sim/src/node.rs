//! One simulated machine that pods run on: what outlives its agent, and the agent itself.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::auth::Identity;
use client::{Caches, Client};
use host::{Host, Process, SimDisk, Task};
use kubelet::{Allocatable, Curve, Machine, Means, RuntimeDial, Settings, SimFiles, Voice};
use model::fence::Terms;
use tokio::sync::watch;

use crate::cluster::wire_to;
use crate::flaw::Flaw;
use crate::network::SimNetwork;
use crate::observe::Book;
use crate::pace::Pace;
use crate::peers::{Door, Doors, SimPeers};
use crate::runtime::{Registry, SimRuntime};
use crate::wire::{Line, Server};

/// The kubelet's group.
const NODES: &str = "system:nodes";

/// The size of a log file: nobody fills one here.
const LOG_LEN_MAX: u64 = 1 << 20;

/// Where an agent keeps what it must know later.
const DATA_DIR: &str = "/var/lib/kintsugi";

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
    /// By how many millionths its clocks run fast; slow, where it is negative.
    pub drift: i32,
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
            drift: 0,
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
    pub servers: Vec<Server>,
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
    /// Monitors and what runs under them.
    machine: Process,
    is_paused: bool,
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
    process: Process,
    task: Task<()>,
}

impl SimNode {
    /// A machine that is on, without an agent.
    pub fn new(name: &str, number: u8, settings: NodeSettings, around: &Surroundings) -> Self {
        let host = around.host.another(SimDisk::new()).drifting(settings.drift);
        let pace = || if around.jitters { Pace::Drawn(host.chance().fork()) } else { Pace::Steady };
        let machine = Process::new();
        let runtime = SimRuntime::new(name, host.clone(), pace(), machine.clone(), around);
        Self {
            name: name.to_owned(),
            runtime,
            network: SimNetwork::new(number, host.clone(), pace(), around.flaw),
            line: Line::new(around.host.clone(), pace(), around.flaw, around.book.clone()),
            machine,
            is_paused: false,
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
        let wire = wire_to(&around.servers, &identity, &self.line, &around.book, &self.host);
        let process = Process::new();
        if let Some(mutation) = Flaw::mutation(around.flaw) {
            mutation.forgets(&**self.host.disk(), Path::new(DATA_DIR));
        }
        let client = Client::new(wire, "kubelet");
        let caches = Caches::new(client.clone(), self.host.clone());
        let runtime = Arc::new(self.runtime.clone());
        let voice = Voice::new(None);
        let door = Door { line: self.line.clone(), process: process.clone(), voice: voice.clone() };
        around.doors.put(&self.name, door);
        let means = Means {
            host: self.host.clone(),
            client,
            caches: caches.clone(),
            dial: Arc::new(RuntimeDial(runtime.clone())),
            peers: Arc::new(SimPeers {
                host: self.host.clone(),
                doors: around.doors.clone(),
                own: Some(self.line.clone()),
            }),
            voice: voice.clone(),
            runtime,
            network: Arc::new(self.network.clone()),
            files: Arc::new(self.files.clone()),
        };
        let (settings, host, book, name) =
            (self.told(), self.host.clone(), around.book.clone(), self.name.clone());
        let (leaves, left) = watch::channel(false);
        let agent = process.part(async move {
            let told = |why: &str| book.line(&format!("agent of {name} ended: {why}"));
            kintsugi::node::keep(&host, settings, means, left, told).await;
        });
        let task = self.host.spawn(agent);
        self.agent = Some(Agent { caches, leaves, process, task });
        self.hold();
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
        if let Some(agent) = self.agent.take() {
            agent.process.kill();
        }
        self.leaving = None;
        self.is_paused = false;
    }

    /// Stops the agent where it is, as a signal would: nothing it does or hears goes on.
    pub fn pause(&mut self) {
        self.is_paused = true;
        self.hold();
    }

    /// Lets it go on.
    pub fn resume(&mut self) {
        self.is_paused = false;
        self.hold();
    }

    /// Stops the whole machine where it is, monitors and containers too; its clocks run on.
    pub fn freeze(&mut self) {
        if self.agent.is_some() && !self.machine.is_stopped() {
            self.machine.stop();
            self.around.book.frozen(&self.name);
            self.hold();
        }
    }

    /// Lets the machine go on.
    pub fn thaw(&mut self) {
        if self.machine.is_stopped() {
            self.around.book.thawed(&self.name);
            self.machine.resume();
            self.hold();
        }
    }

    /// Whether the agent stands still, by itself or with its machine.
    pub fn is_paused(&self) -> bool {
        self.is_paused || self.machine.is_stopped()
    }

    /// Has the agent stand still while it is to.
    fn hold(&self) {
        let Some(agent) = &self.agent else { return };
        match self.is_paused() {
            true => agent.process.stop(),
            false => agent.process.resume(),
        }
    }

    /// Cuts the power: the agent, all containers, addresses and rules are gone; files and images stay.
    pub fn power_off(&mut self) {
        self.kill_agent();
        self.thaw();
        self.around.doors.take(&self.name);
        self.runtime.power_off();
        self.network.power_off();
    }

    /// Has its kernel say that its work waits for processors so much of the time, in percent.
    pub fn press(&self, percent: u8) -> std::io::Result<()> {
        let (disk, path) = (self.host.disk(), Path::new("/proc/pressure/cpu"));
        if disk.read(path).is_ok() {
            disk.truncate(path, 0)?;
        }
        let text = format!("some avg10={percent}.00 avg60=0.00 avg300=0.00 total=0\n");
        let mut file = disk.append(path)?;
        file.write(text.as_bytes())?;
        file.sync()?;
        disk.sync_dir(Path::new("/proc/pressure"))
    }

    /// Gives a machine whose power is off another disk: nothing is left of what it held.
    pub fn wipe(&mut self) {
        self.power_off();
        let boots = self.boots;
        let line = self.line.clone();
        *self =
            Self { boots, line, ..Self::new(&self.name, self.number, self.settings.clone(), &self.around) };
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
        let lease = Duration::from_secs(u64::try_from(self.settings.lease_seconds).unwrap_or(4));
        let terms = Terms::LAN.of_lease(lease);
        Settings {
            node_name: self.name.clone(),
            node_addresses: vec![IpAddr::V4(Ipv4Addr::new(192, 168, 0, self.number))],
            data_dir: PathBuf::from(DATA_DIR),
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
            terms: Flaw::mutation(self.around.flaw).map_or(terms, |mutation| mutation.terms(terms)),
            hosts_server: false,
            has_policies: false,
            image_marks: None,
            log_len_max: LOG_LEN_MAX,
            log_files_max: 2,
        }
    }
}
