//! Containers that are not there: a [`Runtime`] whose containers do what their arguments say.
//!
//! It belongs to the machine, not to the agent: containers run on when the agent is killed, and end with the machine.
//! Every start and every end is told to the [`Book`], which holds them against the laws.

mod behaviour;
mod commands;
mod images;
mod state;
mod streams;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use host::{Host, Process, Task};
use model::fence::Deadline;
use runtime::{
    AttachSpec, ContainerRef, ContainerSpec, ContainerStatus, Duplex, ExecOutput, ExecSpec, Exit, Image,
    LogRequest, RegistryAuth, Resources, Runtime, RuntimeError, RuntimeEvent, Sandbox, SandboxSpec, Streams,
    Usage,
};
use tokio::sync::mpsc;

use crate::flaw::Flaw;
use crate::mutation::Mutation;
use crate::node::Surroundings;
use crate::observe::Book;
use crate::pace::Pace;
pub use images::{Offer, Registry};
use state::{SimContainer, SimSandbox, State};

/// How long the kernel usually takes to make a sandbox.
const SANDBOX: Duration = Duration::from_millis(12);
/// How long it usually takes to start a container.
const START: Duration = Duration::from_millis(15);
/// How long a question to a monitor usually takes.
const ASK: Duration = Duration::from_millis(1);
/// How long a killed process usually takes to be gone.
const KILLED_IN: Duration = Duration::from_millis(3);
/// How long it takes at most when it holds a device or its node is busy: just within what a fence allows for.
const KILLED_WITHIN: Duration = Duration::from_millis(490);
/// How long a command in a container usually takes.
const COMMAND: Duration = Duration::from_millis(8);
/// How long a registry usually takes to say that it has no such image.
const REFUSAL: Duration = Duration::from_millis(150);
/// How many events may wait for an agent: more than the containers of a machine.
const EVENTS_WAITING_MAX: usize = 4096;

const SIGKILL: i32 = 9;

/// Under this name the sandboxes of a pod are counted, beside the runs of its containers.
const SANDBOXES: &str = "";

/// The containers of one machine; clones share them.
#[derive(Clone)]
pub struct SimRuntime(Arc<Inner>);

struct Inner {
    node: String,
    host: Host,
    pace: Pace,
    registry: Registry,
    book: Book,
    /// What outlives the agent: monitors, and what runs under them.
    machine: Process,
    flaw: Option<Flaw>,
    /// Guards what is on the machine, for the length of one act.
    state: Mutex<State>,
}

impl SimRuntime {
    /// The containers of an empty machine.
    pub fn new(node: &str, host: Host, pace: Pace, machine: Process, around: &Surroundings) -> Self {
        let (registry, book, flaw) = (around.registry.clone(), around.book.clone(), around.flaw);
        let (node, state) = (node.to_owned(), Mutex::default());
        Self(Arc::new(Inner { node, host, pace, registry, book, machine, flaw, state }))
    }

    /// Has one in so many acts of the kernel fail; 0 for none.
    pub fn fail_one_in(&self, count: u64) {
        self.state().fails_one_in = count;
    }

    /// Ends everything at once, as a power cut does. Images stay.
    pub fn power_off(&self) {
        let ended = std::mem::take(&mut self.state().sandboxes);
        for (uid, sandbox) in ended {
            sandbox.containers.iter().for_each(|one| self.0.book.ended(&uid, &one.status.name, one.id()));
        }
        let mut state = self.state();
        state.events = None;
        state.hang_up();
    }

    /// Ends one container as if its process had ended by itself; false when it does not run.
    pub fn end(&self, uid: &str, name: &str, code: i32, signal: Option<i32>) -> bool {
        let running = self.state().running(uid, name).map(|one| one.id().to_owned());
        running.is_some_and(|id| self.finish(uid, &id, code, signal))
    }

    /// Kills the monitor of a pod, and what runs under it; false when there is none.
    pub fn lose_monitor(&self, uid: &str) -> bool {
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get_mut(uid) else { return false };
        sandbox.alive = false;
        let running = sandbox.kill_all(self.0.host.now());
        state.tell(RuntimeEvent::MonitorLost { pod_uid: uid.to_owned() });
        drop(state);
        running.iter().for_each(|(name, id)| self.0.book.ended(uid, name, id));
        true
    }

    /// Changes how the running containers of a pod (or the one of this name) fare; false when none runs.
    pub fn afflict(&self, uid: &str, name: Option<&str>, ailment: Ailment) -> bool {
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get_mut(uid) else { return false };
        let mut any = false;
        let of_name =
            |one: &&mut SimContainer| one.is_running() && name.is_none_or(|name| one.status.name == name);
        for one in sandbox.containers.iter_mut().filter(of_name) {
            one.ailment = ailment;
            any = true;
        }
        any
    }

    /// Whether a pod would answer a request now.
    pub fn serves(&self, uid: &str) -> bool {
        let now = self.0.host.moment();
        let is_there = self
            .state()
            .sandboxes
            .get(uid)
            .is_some_and(|sandbox| sandbox.running().any(|one| one.is_ready(now)));
        is_there && !self.0.machine.is_stopped()
    }

    /// The sandboxes here and the containers that run in each, by pod.
    pub fn inventory(&self) -> Vec<(String, Vec<String>)> {
        let state = self.state();
        let each = state.sandboxes.iter().map(|(uid, sandbox)| {
            (uid.clone(), sandbox.running().map(|one| one.status.name.clone()).collect())
        });
        each.collect()
    }

    async fn take(&self, usual: Duration) {
        self.0.host.sleep(self.0.pace.of(usual)).await;
    }

    /// Fails now and then, where that was asked for.
    fn may_fail(&self, doing: &str) -> Result<(), RuntimeError> {
        let one_in = self.state().fails_one_in;
        match one_in > 0 && self.0.host.chance().below(one_in) == 0 {
            true => {
                self.0.book.happened("kernel out of sorts");
                Err(failed(doing, "the kernel is out of sorts"))
            }
            false => Ok(()),
        }
    }

    /// Ends a container; false when it has ended already.
    fn finish(&self, uid: &str, id: &str, code: i32, signal: Option<i32>) -> bool {
        let now = self.0.host.now();
        let mut state = self.state();
        let Some(one) = state.find(uid, id).filter(|one| one.is_running()) else { return false };
        let exit = one.finish(now, code, signal);
        let (name, container) = (one.status.name.clone(), one.status.container.clone());
        if self.0.flaw != Some(Flaw::EndsUntold) {
            state.tell(RuntimeEvent::Exited { container, name: name.clone(), exit });
        }
        drop(state);
        if self.0.flaw != Some(Flaw::ProcessesStay) {
            self.0.book.ended(uid, &name, id);
        }
        true
    }

    /// What a pod's monitor does about its deadline. It belongs to the machine: nothing pauses it.
    fn watch_deadline(&self, uid: &str) {
        if Flaw::mutation(self.0.flaw) == Some(Mutation::AgentLooksAtDeadline) {
            return;
        }
        let deadline = |sandbox: &SimSandbox| sandbox.spec.fence.filter(|_| sandbox.alive)?.until;
        let mut state = self.state();
        let Some(sandbox) = state.sandboxes.get_mut(uid) else { return };
        let Some(until) = deadline(sandbox) else {
            sandbox.watch = None;
            return;
        };
        let (inner, whose, host) = (Arc::downgrade(&self.0), uid.to_owned(), self.0.host.clone());
        let wait = until.saturating_sub(host.moment().0);
        let watch = async move {
            host.sleep(wait).await;
            let Some(runtime) = inner.upgrade().map(SimRuntime) else { return };
            let kill = runtime.0.pace.of(KILLED_IN).max(runtime.0.pace.up_to(KILLED_WITHIN));
            let running: Vec<ContainerRef> = {
                let state = runtime.state();
                let running = state.sandboxes.get(&whose).into_iter().flat_map(SimSandbox::running);
                running.map(|one| one.status.container.clone()).collect()
            };
            if !running.is_empty() {
                runtime.0.book.expired();
            }
            host.sleep(kill).await;
            for container in running {
                runtime.finish(&container.pod_uid, &container.id, 128 + SIGKILL, Some(SIGKILL));
            }
        };
        sandbox.watch = Some(self.0.machine.own(|| self.0.host.spawn(watch)));
    }

    /// A task that ends a container after a while.
    fn later(&self, wait: Duration, container: &ContainerRef, code: i32, signal: Option<i32>) -> Task<()> {
        let (inner, container) = (Arc::downgrade(&self.0), container.clone());
        let host = self.0.host.clone();
        let end = async move {
            host.sleep(wait).await;
            if let Some(inner) = inner.upgrade() {
                SimRuntime(inner).finish(&container.pod_uid, &container.id, code, signal);
            }
        };
        self.0.machine.own(|| self.0.host.spawn(end))
    }

    /// Guards what is on the machine, for the length of one act.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a running container fares, beyond what its arguments say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ailment {
    /// Well.
    #[default]
    None,
    /// It answers, and says that it is not ready.
    Unready,
    /// It answers, and says that it is ill.
    Unhealthy,
    /// It does not answer at all.
    Deaf,
}

impl std::fmt::Display for Ailment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Ailment::None => "well",
            Ailment::Unready => "unready",
            Ailment::Unhealthy => "unhealthy",
            Ailment::Deaf => "deaf",
        })
    }
}

fn failed(doing: &str, why: &str) -> RuntimeError {
    RuntimeError::Failed { doing: doing.to_owned(), source: why.into() }
}

fn missing(what: &str) -> RuntimeError {
    RuntimeError::NotFound(what.to_owned())
}

#[async_trait]
impl Runtime for SimRuntime {
    async fn image(&self, reference: &str) -> Result<Option<Image>, RuntimeError> {
        self.take(ASK).await;
        Ok(self.state().images.get(reference).cloned())
    }

    async fn pull(&self, reference: &str, _auth: &[RegistryAuth]) -> Result<Image, RuntimeError> {
        if reference.is_empty() || reference.contains(char::is_whitespace) {
            let why = "a name has no spaces".to_owned();
            return Err(RuntimeError::ImageName { reference: reference.to_owned(), why });
        }
        loop {
            match self.0.registry.offer(reference) {
                Offer::Sends(usual) => {
                    self.take(usual).await;
                    let image = images::image(reference);
                    self.state().images.insert(reference.to_owned(), image.clone());
                    return Ok(image);
                }
                Offer::Missing => {
                    self.take(REFUSAL).await;
                    let why = "the registry has no such image".to_owned();
                    return Err(RuntimeError::Pull { reference: reference.to_owned(), why });
                }
                Offer::Hangs => self.0.registry.changed().await,
            }
        }
    }

    async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        self.take(ASK).await;
        Ok(self.state().images.values().cloned().collect())
    }

    async fn remove_image(&self, reference: &str) -> Result<(), RuntimeError> {
        self.take(ASK).await;
        self.state().images.remove(reference).map(drop).ok_or_else(|| missing(reference))
    }

    async fn show_image(&self, image_id: &str, _target: &Path) -> Result<(), RuntimeError> {
        self.take(ASK).await;
        let is_here = self.state().images.values().any(|image| image.id == image_id);
        if is_here { Ok(()) } else { Err(missing(image_id)) }
    }

    async fn create_sandbox(&self, spec: SandboxSpec) -> Result<Sandbox, RuntimeError> {
        self.take(SANDBOX).await;
        self.may_fail("make a sandbox")?;
        let now = self.0.host.now();
        let mut state = self.state();
        let uid = spec.pod_uid.clone();
        if !state.sandboxes.contains_key(&uid) {
            let number = state.count_run(&uid, SANDBOXES);
            state.sandboxes.insert(uid.clone(), SimSandbox::new(spec.clone(), number, now));
        }
        let made = state.sandboxes.get(&uid).ok_or_else(|| missing(&uid))?;
        let shown = made.shown();
        drop(state);
        self.watch_deadline(&uid);
        Ok(shown)
    }

    async fn remove_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        self.take(SANDBOX).await;
        self.may_fail("remove a sandbox")?;
        // What runs ends first, and that is told, whoever asked for it.
        let running: Vec<String> = {
            let state = self.state();
            let sandbox = state.sandboxes.get(pod_uid).into_iter();
            sandbox.flat_map(SimSandbox::running).map(|one| one.id().to_owned()).collect()
        };
        for id in running {
            self.finish(pod_uid, &id, 128 + SIGKILL, Some(SIGKILL));
        }
        let gone = self.state().sandboxes.remove(pod_uid);
        for one in gone.iter().flat_map(|sandbox| &sandbox.containers) {
            self.0.book.ended(pod_uid, &one.status.name, one.id());
        }
        Ok(())
    }

    async fn sandboxes(&self) -> Result<Vec<Sandbox>, RuntimeError> {
        self.take(ASK).await;
        Ok(self.state().sandboxes.values().map(SimSandbox::shown).collect())
    }

    async fn start(&self, spec: ContainerSpec) -> Result<ContainerStatus, RuntimeError> {
        self.take(START).await;
        self.may_fail("start a container")?;
        let (host, uid) = (&self.0.host, spec.pod_uid.clone());
        let mut state = self.state();
        if !state.images.values().any(|image| image.id == spec.image_id) {
            return Err(missing(&spec.image));
        }
        let run = state.count_run(&uid, &spec.name);
        let id = format!("{:064x}", host.chance().u64());
        let pid = state.next_pid();
        let sandbox = state.sandboxes.get_mut(&uid).filter(|sandbox| sandbox.alive);
        let sandbox = sandbox.ok_or_else(|| missing(&uid))?;
        let looks = Flaw::mutation(self.0.flaw) != Some(Mutation::AgentLooksAtDeadline);
        if looks && sandbox.spec.fence.is_some_and(|fence| fence.has_passed(host.moment().0)) {
            return Err(failed("start a container", "fenced: the node's lease has run out"));
        }
        let mut made = SimContainer::new(spec, id, pid, host.now(), host.moment());
        if !made.behaviour.starts {
            return Err(RuntimeError::Start("exec: no such file or directory".to_owned()));
        }
        let status = made.status.clone();
        if let Some((after, code)) = made.behaviour.exit_of(run, sandbox.number, &self.0.node) {
            made.life = Some(self.later(after, &status.container, code, None));
        }
        let whose = sandbox.spec.clone();
        sandbox.containers.push(made);
        drop(state);
        self.0.book.started(&self.0.node, &whose, &status.name, &status.container.id);
        Ok(status)
    }

    async fn fence(&self, pod_uid: &str, deadline: Deadline) -> Result<(), RuntimeError> {
        self.take(ASK).await;
        if let Some(sandbox) = self.state().sandboxes.get_mut(pod_uid).filter(|sandbox| sandbox.alive)
            && let Some(fence) = &mut sandbox.spec.fence
        {
            let wrong = |mutation: Mutation| mutation.told(*fence, deadline, self.0.host.moment());
            let told = Flaw::mutation(self.0.flaw).map_or(deadline, wrong);
            fence.take(told);
        }
        self.watch_deadline(pod_uid);
        Ok(())
    }

    async fn signal(&self, container: &ContainerRef, signal: i32) -> Result<(), RuntimeError> {
        self.take(ASK).await;
        let mut state = self.state();
        let one = state.find(&container.pod_uid, &container.id).filter(|one| one.is_running());
        let one = one.ok_or_else(|| missing(&container.id))?;
        let end = match (signal, one.behaviour.stops_in) {
            (SIGKILL, _) => Some((KILLED_IN, 128 + SIGKILL, Some(SIGKILL))),
            (_, Some(wait)) => Some((wait, 0, None)),
            (_, None) => None,
        };
        if let Some((usual, code, by)) = end {
            one.dying = Some(self.later(self.0.pace.of(usual), container, code, by));
        }
        Ok(())
    }

    async fn remove(&self, container: &ContainerRef) -> Result<(), RuntimeError> {
        self.take(ASK).await;
        if let Some(sandbox) = self.state().sandboxes.get_mut(&container.pod_uid) {
            sandbox.containers.retain(|one| one.is_running() || one.id() != container.id);
        }
        Ok(())
    }

    async fn resize_sandbox(&self, pod_uid: &str, resources: Resources) -> Result<(), RuntimeError> {
        self.take(ASK).await;
        let mut state = self.state();
        let sandbox = state.sandboxes.get_mut(pod_uid).ok_or_else(|| missing(pod_uid))?;
        sandbox.spec.resources = resources;
        Ok(())
    }

    async fn resize(&self, container: &ContainerRef, resources: Resources) -> Result<(), RuntimeError> {
        self.take(ASK).await;
        let mut state = self.state();
        let running = state.find(&container.pod_uid, &container.id).filter(|one| one.is_running());
        running.ok_or_else(|| missing(&container.id))?.status.resources = resources;
        Ok(())
    }

    async fn exec(
        &self,
        container: &ContainerRef,
        command: Vec<String>,
        output_len_max: usize,
    ) -> Result<ExecOutput, RuntimeError> {
        let mut done = self.command(container, &command).await?;
        done.output.truncate(output_len_max);
        Ok(done)
    }

    async fn exec_stream(&self, container: &ContainerRef, spec: ExecSpec) -> Result<Streams, RuntimeError> {
        let done = self.command(container, &spec.command).await?;
        Ok(streams::of_command(done, spec.stdin))
    }

    async fn attach(&self, container: &ContainerRef, spec: AttachSpec) -> Result<Streams, RuntimeError> {
        self.take(ASK).await;
        let mut state = self.state();
        let running = state.find(&container.pod_uid, &container.id).filter(|one| one.is_running());
        running.map(|_| streams::silent(spec.stdin)).ok_or_else(|| missing(&container.id))
    }

    async fn connect(&self, pod_uid: &str, _port: u16) -> Result<Box<dyn Duplex>, RuntimeError> {
        self.take(ASK).await;
        self.dial(pod_uid)
    }

    async fn log(&self, log: LogRequest) -> Result<mpsc::Receiver<Bytes>, RuntimeError> {
        self.take(ASK).await;
        let state = self.state();
        let sandbox = state.sandboxes.get(&log.pod_uid).ok_or_else(|| missing(&log.pod_uid))?;
        let is_asked = |one: &&SimContainer| {
            one.status.name == log.name && log.attempt.is_none_or(|attempt| one.status.attempt == attempt)
        };
        let one = sandbox.containers.iter().rev().find(is_asked).ok_or_else(|| missing(&log.name))?;
        Ok(streams::log(&format!("run {} of {}\n", one.status.attempt, one.status.name)))
    }

    fn events(&self) -> mpsc::Receiver<RuntimeEvent> {
        let (sender, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
        self.state().events = Some(sender);
        receiver
    }

    async fn usage(&self, pod_uid: &str) -> Result<Vec<Usage>, RuntimeError> {
        self.take(ASK).await;
        let state = self.state();
        let sandbox = state.sandboxes.get(pod_uid).ok_or_else(|| missing(pod_uid))?;
        let each =
            sandbox.running().map(|one| Usage { name: one.status.name.clone(), cpu_nanos: 0, memory: 0 });
        Ok(each.collect())
    }
}

/// How an exit looks where nobody was there to see it.
fn killed(started_at: host::Time, now: host::Time) -> Exit {
    Exit {
        code: 128 + SIGKILL,
        signal: Some(SIGKILL),
        oom_killed: false,
        started_at,
        finished_at: now,
        message: String::new(),
    }
}
