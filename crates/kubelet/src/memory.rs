//! What the owner of a pod remembers of it: what runs, what is being done, what went wrong. Plain data.
//!
//! Decisions read it; only the pod's worker changes it, by the few methods here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use host::Time;
use k8s_openapi::api::core::v1::{ContainerStatus as TheirStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use runtime::{ContainerRef, ContainerState, ContainerStatus, Exit, Image, Sandbox};

use crate::backoff::{self, Restarts};
use crate::pod::{Allotment, Member, PodView};
use crate::probe::{Pace, ProbeKind, Tally};

/// The annotation of a container that keeps its member's hash for whoever adopts it.
pub const HASH: &str = "kintsugi.dev/hash";

/// The annotation of a container that keeps its image's id as users see it.
pub const IMAGE_ID: &str = "kintsugi.dev/image-id";

/// The annotation of an ephemeral container that names the container whose process ids it wants to see.
pub const TARGET: &str = "kintsugi.dev/target";

/// How many runs of a container are kept: the present one and the one before.
pub const RUNS_KEPT: usize = 2;

/// All that is remembered of a pod.
#[derive(Debug, Clone, Default)]
pub struct PodMemory {
    /// When this node took the pod up.
    pub started_at: Option<Time>,
    /// When its specification changed last, as far as this agent saw it.
    pub changed_at: Option<Time>,
    /// The sandbox.
    pub sandbox: Step<SandboxHere>,
    /// Which sandbox this is, from 1; runs of an earlier one say nothing of this one.
    pub epoch: u32,
    /// Why this sandbox was made anew, if it was because its containers kept failing.
    pub fresh: Option<Fresh>,
    /// The pod's addresses.
    pub addresses: Vec<IpAddr>,
    /// The volumes.
    pub volumes: Step<()>,
    /// What is to be said of its storage, while that is silent.
    pub silence: Option<String>,
    /// Whether volumes that are there are being brought up to date.
    pub is_renewing: bool,
    /// The images that volumes show, by the volume's name.
    pub shown_images: BTreeMap<String, ShownImage>,
    /// Whether the pod may start its first container in this sandbox.
    pub turn: StartTurn,
    /// The containers, by name.
    pub containers: BTreeMap<String, ContainerMemory>,
    /// What the node has allotted the containers; `None` before the first one starts.
    pub allotted: Option<Allotment>,
    /// The limits of the pod as a whole that the kernel has.
    pub whole: Option<runtime::Resources>,
    /// Whether those are being changed.
    pub is_resizing: bool,
    /// Why they could not be changed, and when to try again.
    pub resize_trouble: Option<Trouble>,
    /// Why and how the pod is being ended, once it is.
    pub ending: Option<Ending>,
    /// How far the clearing away is.
    pub clearing: Clearing,
    /// When to try to clear away again, after it failed.
    pub clear_retry_at: Option<Time>,
    /// How often in a row clearing away failed.
    pub clear_failures: u32,
    /// Whether the API has the last status (asked for before the object is deleted).
    pub is_status_written: bool,
    /// Whether the pod was over before this agent came up, and nothing of it is here.
    pub is_settled: bool,
}

/// Whether a pod may start its first container in a sandbox: when many are to start at once, they take turns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StartTurn {
    /// It has not asked.
    #[default]
    NotAsked,
    /// It waits for its turn.
    Waiting,
    /// It has its turn, or had it.
    Given,
}

/// Something that is made once and may fail.
#[derive(Debug, Clone, Default)]
pub enum Step<T> {
    /// Not there.
    #[default]
    Absent,
    /// Being made.
    Working,
    /// There.
    Done(T),
    /// Failed; to be tried again.
    Failed {
        /// A reason as events carry it.
        reason: String,
        /// What went wrong.
        message: String,
        /// How often in a row.
        failures: u32,
        /// When to try again.
        retry_at: Time,
    },
}

impl<T> Step<T> {
    /// Whether it is there.
    pub fn is_done(&self) -> bool {
        matches!(self, Step::Done(_))
    }

    /// How often it failed in a row so far.
    pub fn failures(&self) -> u32 {
        match self {
            Step::Failed { failures, .. } => *failures,
            _ => 0,
        }
    }
}

/// A sandbox that is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SandboxHere {
    /// Whether its monitor ended, and everything in it.
    pub is_lost: bool,
    /// Whether file systems of the pod's volumes were shut down: nothing starts in it any more.
    pub is_shut: bool,
}

/// Why a sandbox was made anew for a pod that kept failing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fresh {
    /// The container that kept failing.
    pub name: String,
    /// How often it had failed in the sandbox before.
    pub failures: u32,
}

/// How far the clearing away of a finished pod is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clearing {
    /// Nothing was cleared.
    #[default]
    NotYet,
    /// The network is being taken away; logs and exit codes stay.
    Releasing,
    /// The network is gone.
    Released,
    /// Everything is being removed.
    Removing,
    /// Everything is removed.
    Removed,
    /// The object is being deleted.
    Deleting,
    /// Nothing is left to do.
    Gone,
}

/// Why and how a pod is being ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// When this node ends it on its own account: the pod fails, for this reason.
    pub failure: Option<Failure>,
    /// Whether its object is gone, or was never ours.
    pub is_vanished: bool,
    /// When the ending began.
    pub began_at: Time,
    /// How long its containers get.
    pub grace: Duration,
}

/// Why a pod fails as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// `DeadlineExceeded`, `Evicted` …
    pub reason: String,
    /// What to tell the user.
    pub message: String,
}

/// All that is remembered of a container.
#[derive(Debug, Clone, Default)]
pub struct ContainerMemory {
    /// Its runs, oldest first; at most [`RUNS_KEPT`].
    pub runs: Vec<Run>,
    /// How often it was started again in all.
    pub restart_count: u32,
    /// Its restarts since it was last quiet.
    pub restarts: Restarts,
    /// How often it failed in this sandbox since it was last quiet.
    pub failures_here: u32,
    /// Its image.
    pub image: Step<ImageHere>,
    /// How often in a row its image could not be had.
    pub pull_failures: u32,
    /// How often in a row it could not be started.
    pub start_failures: u32,
    /// Whether it is being started.
    pub is_starting: bool,
    /// Why it cannot be started, and when to try again.
    pub trouble: Option<Trouble>,
    /// How it is being killed, if it is.
    pub killing: Option<Killing>,
    /// Whether its limits are being changed.
    pub is_resizing: bool,
    /// Why its limits could not be changed, and when to try again.
    pub resize_trouble: Option<Trouble>,
}

/// The image that a volume shows.
#[derive(Debug, Clone, Default)]
pub struct ShownImage {
    /// The image.
    pub image: Step<ImageHere>,
    /// How often in a row it could not be had.
    pub failures: u32,
}

/// An image that a container can start from.
#[derive(Debug, Clone)]
pub struct ImageHere {
    /// The reference that it was had for.
    pub reference: String,
    /// The image.
    pub image: Image,
}

/// Why a container cannot be started.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    /// The waiting reason: `CreateContainerConfigError`, `RunContainerError` …
    pub reason: String,
    /// What to tell the user.
    pub message: String,
    /// How often in a row.
    pub failures: u32,
    /// When to try again.
    pub retry_at: Time,
}

/// How a container is being killed.
#[derive(Debug, Clone, PartialEq)]
pub struct Killing {
    /// Why, for the event.
    pub why: String,
    /// How far it is.
    pub stage: KillStage,
    /// When it gets no more time.
    pub deadline: Time,
}

/// How far the killing of a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillStage {
    /// Decided.
    Asked,
    /// Its preStop hook runs.
    Hook,
    /// Its preStop hook has ended.
    HookDone,
    /// It was asked to stop.
    Stopping,
    /// It was killed, at this time.
    Killed(Time),
}

/// One run of a container.
#[derive(Debug, Clone)]
pub struct Run {
    /// Which.
    pub container: ContainerRef,
    /// Its number.
    pub attempt: u32,
    /// The sandbox that it ran in.
    pub epoch: u32,
    /// The id of its image, as users see it.
    pub image_id: String,
    /// The member's hash when it was made.
    pub hash: String,
    /// How it is.
    pub state: ContainerState,
    /// Why it ended, when we know better than `Completed` or `Error`.
    pub end_reason: Option<&'static str>,
    /// Its postStart hook.
    pub post_start: Hook,
    /// Its probes.
    pub probes: BTreeMap<ProbeKind, Tally>,
    /// The limits that it has; `None` when they are not known.
    pub resources: Option<runtime::Resources>,
}

/// How far a postStart hook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hook {
    /// There is none, or it has ended well.
    Done,
    /// It has not been run.
    Due,
    /// It runs.
    Running,
    /// It failed, with this message.
    Failed(String),
}

impl Run {
    /// A run of which only the API still knows: it has ended, at the latest with the machine's last boot.
    pub fn recalled(member: &Member, told: &TheirStatus, now: Time) -> Option<Run> {
        let id = told.container_id.as_deref()?.rsplit('/').next()?.to_owned();
        let ended = told.state.as_ref().and_then(|state| state.terminated.as_ref());
        let time = |at: Option<&ApiTime>| at.map_or(now, |at| at.0);
        let started = told.state.as_ref().and_then(|state| state.running.as_ref()?.started_at.as_ref());
        let exit = match ended {
            Some(end) => Exit {
                code: end.exit_code,
                signal: end.signal,
                oom_killed: end.reason.as_deref() == Some("OOMKilled"),
                started_at: time(end.started_at.as_ref()),
                finished_at: time(end.finished_at.as_ref()),
                message: end.message.clone().unwrap_or_default(),
            },
            None => Exit {
                code: 137,
                signal: None,
                oom_killed: false,
                started_at: time(started),
                finished_at: now,
                message: "The container could not be located when the node came up".into(),
            },
        };
        Some(Run {
            container: ContainerRef { pod_uid: String::new(), id },
            attempt: u32::try_from(told.restart_count).unwrap_or(0),
            epoch: 0,
            image_id: told.image_id.clone(),
            hash: member.hash.clone(),
            state: ContainerState::Exited(exit),
            end_reason: if ended.is_none() { Some("ContainerStatusUnknown") } else { None },
            post_start: Hook::Done,
            probes: BTreeMap::new(),
            resources: None,
        })
    }

    /// When its process started.
    pub fn started_at(&self) -> Time {
        match &self.state {
            ContainerState::Running { started_at, .. } => *started_at,
            ContainerState::Exited(exit) => exit.started_at,
        }
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.state {
            ContainerState::Running { .. } => None,
            ContainerState::Exited(exit) => Some(exit),
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.exit().is_none()
    }

    /// What a probe says: `None` when it says nothing yet, good when there is no such probe.
    pub fn verdict(&self, kind: ProbeKind) -> Option<bool> {
        match self.probes.get(&kind) {
            Some(tally) => tally.verdict,
            None => Some(true),
        }
    }

    /// Whether it has come up: its hook has ended and its startup probe is good.
    pub fn has_started(&self) -> bool {
        self.is_running() && self.post_start == Hook::Done && self.verdict(ProbeKind::Startup) == Some(true)
    }

    /// Whether it may be sent requests.
    pub fn is_ready(&self) -> bool {
        self.has_started() && self.verdict(ProbeKind::Readiness) == Some(true)
    }
}

impl ContainerMemory {
    /// The last run.
    pub fn last(&self) -> Option<&Run> {
        self.runs.last()
    }

    /// The last run, when it is of the sandbox `epoch`.
    pub fn last_in(&self, epoch: u32) -> Option<&Run> {
        self.runs.last().filter(|run| run.epoch == epoch)
    }

    /// The run that runs.
    pub fn running(&self) -> Option<&Run> {
        self.runs.last().filter(|run| run.is_running())
    }

    /// The run that runs, to change.
    pub fn running_mut(&mut self) -> Option<&mut Run> {
        self.runs.last_mut().filter(|run| run.is_running())
    }

    /// The number of the next run.
    pub fn next_attempt(&self) -> u32 {
        self.runs.last().map_or(0, |run| run.attempt + 1)
    }
}

impl PodMemory {
    /// What is remembered of a container, made when missing.
    pub fn container(&mut self, name: &str) -> &mut ContainerMemory {
        self.containers.entry(name.to_owned()).or_default()
    }

    /// Whether any container runs or is being started.
    pub fn is_anything_running(&self) -> bool {
        self.containers.values().any(|c| c.running().is_some() || c.is_starting)
    }

    /// Takes over what a sandbox holds: nothing restarts, no readiness flips.
    pub fn adopt(&mut self, pod: &PodView, sandbox: &Sandbox, addresses: Vec<IpAddr>, now: Time) {
        self.epoch = 1;
        self.sandbox = Step::Done(SandboxHere { is_lost: !sandbox.alive, is_shut: false });
        self.addresses = addresses;
        self.started_at = pod.pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|time| time.0);
        self.whole = Some(sandbox.spec.resources.clone());
        self.allotted = told_allotment(pod);
        for status in &sandbox.containers {
            let member = pod.member(&status.name);
            let was_ready = told(pod, &status.name);
            let container = self.container(&status.name);
            let run = adopted(status, member, was_ready, now);
            container.restart_count = container.restart_count.max(status.attempt);
            container.restarts = restarts_of(&run);
            container.runs.push(run);
        }
        for container in self.containers.values_mut() {
            container.runs.sort_by_key(|run| run.attempt);
        }
        // What ran in a sandbox before this one is not in it.
        self.recall(pod, now);
        if !sandbox.alive {
            self.lose(now);
        }
        // A pod that has failed as a whole does not run again, whatever its containers would do by themselves.
        self.is_settled = matches!(pod.phase(), "Succeeded" | "Failed") && !self.is_anything_running();
    }

    /// Takes from the API what ran of the containers of which nothing is here: restarts are not forgotten.
    pub fn recall(&mut self, pod: &PodView, now: Time) {
        let Some(status) = &pod.pod.status else { return };
        let all =
            status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
        for told in all.filter(|told| !self.containers.contains_key(&told.name)).collect::<Vec<_>>() {
            let Some(member) = pod.member(&told.name) else { continue };
            let Some(run) = Run::recalled(member, told, now) else { continue };
            let container = ContainerMemory {
                restart_count: u32::try_from(told.restart_count).unwrap_or(0),
                runs: vec![run],
                ..ContainerMemory::default()
            };
            self.containers.insert(told.name.clone(), container);
        }
    }

    /// Notes that a container's process runs.
    pub fn started(&mut self, member: &Member, status: &ContainerStatus, resources: runtime::Resources) {
        let epoch = self.epoch;
        let container = self.container(member.name());
        if let Some(exit) = container.last().and_then(Run::exit) {
            container.restarts = container.restarts.counted(exit.started_at, exit.finished_at);
            container.restart_count += 1;
        }
        container.is_starting = false;
        container.trouble = None;
        container.start_failures = 0;
        let mut run = fresh(status, member);
        run.epoch = epoch;
        run.resources = Some(resources);
        container.runs.push(run);
    }

    /// Notes that a container's program could not be started: a run that ended as it began.
    pub fn failed_to_start(&mut self, member: &Member, message: String, now: Time) {
        let exit =
            Exit { code: 128, signal: None, oom_killed: false, started_at: now, finished_at: now, message };
        let attempt = self.container(member.name()).next_attempt();
        let status = ContainerStatus {
            container: ContainerRef { pod_uid: String::new(), id: String::new() },
            name: member.name().to_owned(),
            attempt,
            image: member.image().to_owned(),
            image_id: String::new(),
            created_at: now,
            state: ContainerState::Exited(exit),
            resources: runtime::Resources::default(),
            annotations: BTreeMap::new(),
        };
        self.started(member, &status, runtime::Resources::default());
        let container = self.container(member.name());
        container.failures_here = container.failures_here.saturating_add(1);
        if let Some(run) = container.runs.last_mut() {
            run.end_reason = Some("StartError");
            run.post_start = Hook::Done;
        }
    }

    /// Notes that the sandbox is made anew because a container kept failing in it; how often it had.
    ///
    /// Failures in the old one say nothing of the new one, from now on.
    pub fn renew(&mut self, name: &str) -> u32 {
        let failures = self.container(name).failures_here;
        for container in self.containers.values_mut() {
            container.failures_here = 0;
        }
        self.fresh = Some(Fresh { name: name.to_owned(), failures });
        failures
    }

    /// Notes that a sandbox is there in which nothing has run yet.
    pub fn entered(&mut self, addresses: Vec<IpAddr>) {
        self.epoch += 1;
        self.addresses = addresses;
        if self.turn == StartTurn::Given {
            self.turn = StartTurn::NotAsked;
        }
        for container in self.containers.values_mut() {
            container.failures_here = 0;
        }
    }

    /// Notes how a container ended; `false` when that run is unknown or had ended.
    pub fn exited(&mut self, name: &str, id: &str, mut exit: Exit) -> bool {
        let is_ending = self.ending.is_some();
        let Some(container) = self.containers.get_mut(name) else { return false };
        let Some(run) = container.runs.iter_mut().find(|run| run.container.id == id) else { return false };
        if !run.is_running() {
            return false;
        }
        let is_failure = exit.code != 0 || container.killing.is_some();
        // Where the program says nothing of its end, the node says why it ended it.
        if let Some(killing) = container.killing.as_ref().filter(|_| exit.message.is_empty() && !is_ending) {
            exit.message.clone_from(&killing.why);
        }
        let was_quiet = backoff::is_quiet(exit.started_at, exit.finished_at);
        run.state = ContainerState::Exited(exit);
        container.killing = None;
        container.is_resizing = false;
        container.resize_trouble = None;
        if was_quiet {
            container.failures_here = 0;
            self.fresh.take_if(|fresh| fresh.name == name);
        }
        container.failures_here = container.failures_here.saturating_add(u32::from(is_failure));
        true
    }

    /// Notes that the monitor ended, and with it everything that ran.
    pub fn lose(&mut self, now: Time) {
        if let Step::Done(here) = &mut self.sandbox {
            here.is_lost = true;
        }
        for container in self.containers.values_mut() {
            container.killing = None;
            if let Some(run) = container.running_mut() {
                let started_at = run.started_at();
                run.state = ContainerState::Exited(Exit {
                    code: 137,
                    signal: Some(9),
                    oom_killed: false,
                    started_at,
                    finished_at: now,
                    message: "the pod's monitor ended, and its containers with it".into(),
                });
            }
        }
    }

    /// Notes that file systems of the pod's volumes were shut down when its deadline passed.
    pub fn shut(&mut self) {
        if let Step::Done(here) = &mut self.sandbox {
            here.is_shut = true;
        }
    }

    /// The runs that are no longer kept, taken out.
    pub fn take_old_runs(&mut self) -> Vec<ContainerRef> {
        let mut old = Vec::new();
        for container in self.containers.values_mut() {
            let surplus = container.runs.len().saturating_sub(RUNS_KEPT);
            old.extend(
                container
                    .runs
                    .drain(..surplus)
                    .map(|run| run.container)
                    .filter(|run| !run.pod_uid.is_empty()),
            );
        }
        old
    }
}

fn fresh(status: &ContainerStatus, member: &Member) -> Run {
    let started_at = match &status.state {
        ContainerState::Running { started_at, .. } => *started_at,
        ContainerState::Exited(exit) => exit.started_at,
    };
    let probes = ProbeKind::ALL.into_iter().filter_map(|kind| {
        let pace = Pace::of(kind.of(&member.container)?);
        Some((kind, Tally::new(&pace, started_at)))
    });
    let hooked = member.container.lifecycle.as_ref().is_some_and(|all| all.post_start.is_some());
    Run {
        container: status.container.clone(),
        attempt: status.attempt,
        epoch: 1,
        image_id: status.annotations.get(IMAGE_ID).unwrap_or(&status.image_id).clone(),
        hash: status.annotations.get(HASH).cloned().unwrap_or_else(|| member.hash.clone()),
        state: status.state.clone(),
        end_reason: None,
        post_start: if hooked { Hook::Due } else { Hook::Done },
        probes: probes.collect(),
        resources: None,
    }
}

/// What an agent before this one allotted, as it told the API.
fn told_allotment(pod: &PodView) -> Option<Allotment> {
    let status = pod.pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let told = all.filter_map(|told| {
        let has = told.resources.clone()?;
        let requests = told.allocated_resources.clone().or(has.requests);
        Some((told.name.clone(), ResourceRequirements { requests, limits: has.limits, claims: None }))
    });
    let told: Allotment = told.collect();
    (!told.is_empty()).then_some(told)
}

/// What the API's status says of a container: whether it had started, and whether it was ready.
fn told(pod: &PodView, name: &str) -> (bool, bool) {
    let status = pod.pod.status.as_ref();
    let main = status.and_then(|status| status.container_statuses.as_ref());
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let found = main.into_iter().chain(init).flatten().find(|status| status.name == name);
    found.map_or((false, false), |status| (status.started.unwrap_or(false), status.ready))
}

fn adopted(status: &ContainerStatus, member: Option<&Member>, told: (bool, bool), now: Time) -> Run {
    let nobody = Member {
        role: crate::pod::Role::Main,
        container: Default::default(),
        target: None,
        hash: String::new(),
    };
    let mut run = fresh(status, member.unwrap_or(&nobody));
    run.post_start = Hook::Done;
    run.resources = Some(runtime::Resources { oom_score_adj: None, ..status.resources.clone() });
    for (kind, tally) in &mut run.probes {
        let verdict = match kind {
            ProbeKind::Startup => told.0.then_some(true),
            ProbeKind::Readiness => told.1.then_some(true),
            ProbeKind::Liveness => None,
        };
        *tally = Tally::adopted(verdict, now);
    }
    run
}

/// A container that ended soon after many starts is still failing, also for an agent that has just come up.
fn restarts_of(run: &Run) -> Restarts {
    let counted = Restarts { count: run.attempt };
    match run.exit() {
        Some(exit) => counted.after(exit.started_at, exit.finished_at),
        None => Restarts { count: run.attempt.min(2) },
    }
}
