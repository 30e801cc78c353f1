//! What is on a simulated machine: its images, sandboxes and containers, and the events that wait for its agent.

use std::collections::BTreeMap;
use std::path::PathBuf;

use host::{Moment, Task, Tasks, Time};
use runtime::{
    ContainerRef, ContainerSpec, ContainerState, ContainerStatus, Exit, Image, RuntimeEvent, Sandbox,
    SandboxSpec,
};
use tokio::sync::mpsc;

use super::behaviour::Behaviour;
use super::{Ailment, killed};

/// What is on a machine.
#[derive(Default)]
pub struct State {
    /// The images, by reference.
    pub images: BTreeMap<String, Image>,
    /// The sandboxes, by the uid of their pod.
    pub sandboxes: BTreeMap<String, SimSandbox>,
    /// Whom events go to.
    pub events: Option<mpsc::Sender<RuntimeEvent>>,
    /// One in so many acts fails; 0 for none.
    pub fails_one_in: u64,
    runs: BTreeMap<(String, String), u32>,
    pids: u32,
    connections: Tasks,
}

/// A sandbox.
pub struct SimSandbox {
    /// What it was made of.
    pub spec: SandboxSpec,
    /// The how manieth of its pod it is here, from 0.
    pub number: u32,
    created_at: Time,
    /// Whether its monitor runs.
    pub alive: bool,
    /// The runs of its containers, oldest first.
    pub containers: Vec<SimContainer>,
    /// Kills them when the deadline passes.
    pub watch: Option<Task<()>>,
}

/// One run of a container.
pub struct SimContainer {
    /// As the agent sees it.
    pub status: ContainerStatus,
    /// What it does.
    pub behaviour: Behaviour,
    /// How it fares beyond that.
    pub ailment: Ailment,
    started: Moment,
    /// Ends it when its own time has come.
    pub life: Option<Task<()>>,
    /// Ends it because it was asked to.
    pub dying: Option<Task<()>>,
}

impl State {
    /// Tells an event.
    pub fn tell(&mut self, event: RuntimeEvent) {
        if let Some(events) = &self.events {
            // An agent that is gone looks at what there is when it comes back.
            let _ = events.try_send(event);
        }
    }

    /// Keeps what answers a connection until it is done, or the machine is.
    pub fn serve(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.connections.spawn(work);
    }

    /// Ends every connection.
    pub fn hang_up(&mut self) {
        self.connections = Tasks::new();
    }

    /// One run of a container, running or not.
    pub fn find(&mut self, uid: &str, id: &str) -> Option<&mut SimContainer> {
        self.sandboxes.get_mut(uid)?.containers.iter_mut().find(|one| one.id() == id)
    }

    /// The running container of a name.
    pub fn running(&self, uid: &str, name: &str) -> Option<&SimContainer> {
        self.sandboxes.get(uid)?.running().find(|one| one.status.name == name)
    }

    /// Counts one more start of a container; says how many there were before.
    pub fn count_run(&mut self, uid: &str, name: &str) -> u32 {
        let count = self.runs.entry((uid.to_owned(), name.to_owned())).or_default();
        *count += 1;
        *count - 1
    }

    /// The next process id.
    pub fn next_pid(&mut self) -> u32 {
        self.pids += 1;
        1000 + self.pids
    }
}

impl SimSandbox {
    /// An empty sandbox.
    pub fn new(spec: SandboxSpec, number: u32, created_at: Time) -> Self {
        Self { spec, number, created_at, alive: true, containers: Vec::new(), watch: None }
    }

    /// As the agent sees it.
    pub fn shown(&self) -> Sandbox {
        let netns = PathBuf::from("/run/netns").join(&self.spec.pod_uid);
        Sandbox {
            spec: self.spec.clone(),
            created_at: self.created_at,
            netns: (!self.spec.host_network).then_some(netns),
            alive: self.alive,
            containers: self.containers.iter().map(|one| one.status.clone()).collect(),
        }
    }

    /// The containers that run.
    pub fn running(&self) -> impl Iterator<Item = &SimContainer> {
        self.containers.iter().filter(|one| one.is_running())
    }

    /// Kills what runs; says names and ids.
    pub fn kill_all(&mut self, now: Time) -> Vec<(String, String)> {
        let running = self.containers.iter_mut().filter(|one| one.is_running());
        let each = running.map(|one| {
            one.finish(now, 137, Some(9));
            (one.status.name.clone(), one.id().to_owned())
        });
        each.collect()
    }
}

impl SimContainer {
    /// A container that starts now.
    pub fn new(spec: ContainerSpec, id: String, pid: u32, now: Time, started: Moment) -> Self {
        Self {
            behaviour: Behaviour::read(&spec.args),
            ailment: Ailment::None,
            started,
            life: None,
            dying: None,
            status: ContainerStatus {
                container: ContainerRef { pod_uid: spec.pod_uid, id },
                name: spec.name,
                attempt: spec.attempt,
                image: spec.image,
                image_id: spec.image_id,
                created_at: now,
                state: ContainerState::Running { started_at: now, pid },
                resources: spec.resources,
                annotations: spec.annotations,
            },
        }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.status.container.id
    }

    /// Whether its process runs.
    pub fn is_running(&self) -> bool {
        matches!(self.status.state, ContainerState::Running { .. })
    }

    /// Whether it answers at all.
    pub fn answers(&self, now: Moment) -> bool {
        self.ailment != Ailment::Deaf && self.behaviour.answers(now.since(self.started))
    }

    /// Whether it has begun to listen.
    pub fn listens(&self, now: Moment) -> bool {
        self.behaviour.serves(now.since(self.started))
    }

    /// Whether it says that it is well.
    pub fn is_healthy(&self, now: Moment) -> bool {
        self.answers(now) && self.ailment != Ailment::Unhealthy
    }

    /// Whether it says that it is ready.
    pub fn is_ready(&self, now: Moment) -> bool {
        self.is_healthy(now) && self.listens(now) && self.ailment != Ailment::Unready
    }

    /// Ends it; the exit is as the monitor tells it.
    pub fn finish(&mut self, now: Time, code: i32, signal: Option<i32>) -> Exit {
        let started_at = match &self.status.state {
            ContainerState::Running { started_at, .. } => *started_at,
            ContainerState::Exited(exit) => return exit.clone(),
        };
        let exit = Exit { code, signal, ..killed(started_at, now) };
        self.status.state = ContainerState::Exited(exit.clone());
        (self.life, self.dying) = (None, None);
        exit
    }
}
