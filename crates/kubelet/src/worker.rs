//! One pod, one owner: looks, decides, has things done, and looks again when something is reported.
//!
//! Promises: the memory has one writer, this task; nothing that takes time is waited for here, so that a container
//! that ended is replaced at once, whatever else is under way. Everything it started ends with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use host::watch;
use host::{Task, Tasks, Time};
use k8s_openapi::api::core::v1::PodStatus;
use model::{Key, Object};
use runtime::{ContainerRef, ContainerStatus, Exit, Image, Resources, RuntimeEvent};
use tokio::sync::mpsc;

use crate::agent::{Agent, Shown};
use crate::ask::Answer;
use crate::desk::{self, Wanted, Whose};
use crate::jobs::{Ground, PullFault, SandboxFault, StartFault};
use crate::memory::{Clearing, Ending, Hook, KillStage, PodMemory, SandboxHere, Step};
use crate::plan::{self, Act, Seen};
use crate::pod::PodView;
use crate::probe::ProbeKind;
use crate::resources::Taken;
use crate::starts::Turn;
use crate::volumes::VolumeTrouble;
use crate::{status, volumes};

mod perform;
mod take;

/// How many messages may wait for a worker. More hold up the sender, whose own source is bounded.
pub const INBOX_LEN: usize = 128;

/// How often a worker decides again at once before it lets others run: a stopper for a plan that never comes to rest.
const ROUNDS_MAX: usize = 64;

/// How long a pod gets whose object is gone: it was removed by force, so somebody may be waiting for its name.
const VANISHED_GRACE: Duration = Duration::from_secs(1);

/// What a worker is told.
#[derive(Debug)]
pub enum Message {
    /// The pod as the API has it now.
    Pod(Box<PodView>),
    /// The pod's object is gone.
    Vanished,
    /// Something happened to a container.
    Runtime(RuntimeEvent),
    /// A ConfigMap or Secret is now this; `None`: gone.
    Source(Key, Option<Object>),
    /// A volume or an attachment changed.
    Volumes,
    /// The node leaves: the pod is to end.
    Farewell,
    /// What is to be said of its storage, when that is silent.
    Silence(Option<String>),
    /// A job has ended.
    Done(Box<Report>),
    /// A status is in the API, or will never be.
    Written {
        /// Which.
        sequence: u64,
        /// Whether the object is gone.
        is_gone: bool,
    },
}

/// How a job ended.
#[derive(Debug)]
pub enum Report {
    /// The sandbox is there, with these addresses.
    Sandbox(Result<Vec<std::net::IpAddr>, SandboxFault>),
    /// A sandbox whose monitor ended is removed.
    Dropped(Result<(), String>),
    /// Volumes that were shut down are taken down, and the sandbox.
    TakenDown(Result<(), String>),
    /// The ground is laid, or was renewed.
    Ground(Result<Arc<Ground>, VolumeTrouble>),
    /// An image is here; perhaps with what to tell of it.
    Image {
        /// For which container.
        name: String,
        /// For which reference.
        reference: String,
        /// The image.
        result: Result<(Image, Option<String>), PullFault>,
    },
    /// The image that a volume shows is here; perhaps with what to tell of it.
    ShownImage {
        /// Of which volume.
        volume: String,
        /// For which reference.
        reference: String,
        /// The image.
        result: Result<(Image, Option<String>), PullFault>,
    },
    /// It is the pod's turn to start.
    Turn(Turn),
    /// A container was started.
    Started {
        /// Which.
        name: String,
        /// How.
        result: Result<(ContainerStatus, Resources), StartFault>,
    },
    /// A postStart hook has ended.
    PostStart {
        /// Of which run.
        container: ContainerRef,
        /// Of which container.
        name: String,
        /// How.
        answer: Answer,
    },
    /// A preStop hook has ended.
    PreStop {
        /// Of which run.
        container: ContainerRef,
        /// Of which container.
        name: String,
        /// How.
        answer: Answer,
    },
    /// A signal found nothing to send it to.
    NothingThere {
        /// Which run.
        container: ContainerRef,
        /// Which container.
        name: String,
    },
    /// A probe has answered.
    Answer {
        /// Of which run.
        container: ContainerRef,
        /// Of which container.
        name: String,
        /// Which probe.
        kind: ProbeKind,
        /// What.
        answer: Answer,
    },
    /// The end of a run has this message.
    EndMessage {
        /// Of which run.
        container: ContainerRef,
        /// Of which container.
        name: String,
        /// What.
        message: String,
    },
    /// Limits were changed.
    Resized {
        /// Of which container.
        name: String,
        /// To what, if they were.
        result: Result<Resources, String>,
    },
    /// Limits of the pod as a whole were changed.
    ResizedWhole {
        /// To what, if they were.
        result: Result<Resources, String>,
    },
    /// The network was taken away.
    Released(Result<(), String>),
    /// Everything is removed.
    Removed(Result<(), String>),
    /// The object is deleted.
    Deleted(Result<(), String>),
}

/// The owner of one pod.
pub struct Worker {
    agent: Arc<Agent>,
    pod: PodView,
    memory: PodMemory,
    ground: Arc<Ground>,
    inbox: mpsc::Receiver<Message>,
    outbox: mpsc::Sender<Message>,
    jobs: Tasks,
    pulls: BTreeMap<String, Task<()>>,
    /// The pod's turn to start, until it is up.
    turn: Option<Turn>,
    desk: watch::Sender<Wanted>,
    told: Arc<PodStatus>,
    acked: u64,
    is_object_gone: bool,
    early_ends: BTreeMap<String, Exit>,
    sandbox_failures: u32,
    volume_failures: u32,
    /// What was followed for this pod.
    followed: std::collections::BTreeSet<Key>,
    /// What of that changed while the ground was laid.
    changed: std::collections::BTreeSet<Key>,
}

/// How to reach a worker.
pub struct Handle {
    /// Its inbox.
    pub sender: mpsc::Sender<Message>,
    /// It itself; ends with the handle.
    pub task: Task<()>,
    /// Whether it was told that its object is gone.
    pub is_forgotten: bool,
}

/// Starts the owner of a pod, with what is known to run of it.
pub fn start(agent: Arc<Agent>, pod: PodView, memory: PodMemory) -> Handle {
    let (sender, inbox) = mpsc::channel(INBOX_LEN);
    let (desk, wanted) = watch::channel(Wanted::default());
    let whose = Whose { key: desk::pod_key(&pod.namespace, &pod.name), uid: pod.uid.clone() };
    let mut jobs = Tasks::new();
    jobs.spawn(desk::run(agent.clone(), whose, wanted, sender.clone()));
    let mut pod = pod;
    pod.allot(&memory.allotted.clone().unwrap_or_default());
    let told = Arc::new(pod.pod.status.clone().unwrap_or_default());
    let outbox = sender.clone();
    let host = agent.means.host.clone();
    let worker = Worker {
        agent,
        pod,
        memory,
        ground: Arc::default(),
        inbox,
        outbox,
        jobs,
        pulls: BTreeMap::new(),
        turn: None,
        desk,
        told,
        acked: 0,
        is_object_gone: false,
        early_ends: BTreeMap::new(),
        sandbox_failures: 0,
        volume_failures: 0,
        followed: Default::default(),
        changed: Default::default(),
    };
    Handle { sender, task: host.spawn(worker.run()), is_forgotten: false }
}

impl Worker {
    async fn run(mut self) {
        let now = self.agent.means.host.now();
        self.memory.started_at.get_or_insert(now);
        self.follow();
        while self.memory.clearing != Clearing::Gone {
            let wake_at = self.move_on();
            if self.memory.clearing == Clearing::Gone {
                break;
            }
            let host = self.agent.means.host.clone();
            let message = tokio::select! {
                biased;
                message = self.inbox.recv() => message,
                () = sleep_until(&host, wake_at) => None,
            };
            if let Some(message) = message {
                self.take(message);
            }
            // What came meanwhile is taken too, before anything is decided.
            for _ in 0..INBOX_LEN {
                let Ok(message) = self.inbox.try_recv() else { break };
                self.take(message);
            }
        }
        self.unfollow();
        self.agent.registry.hide(&self.pod.uid);
    }

    /// Decides and has things done until there is nothing to do now; gives the time to look again.
    fn move_on(&mut self) -> Option<Time> {
        let mut wake_at = None;
        for _ in 0..ROUNDS_MAX {
            let now = self.agent.means.host.now();
            let decision = plan::decide(&self.seen(now));
            wake_at = decision.wake_at;
            if decision.acts.is_empty() {
                break;
            }
            for act in decision.acts {
                self.perform(act, now);
            }
        }
        if !self.memory.is_settled {
            self.tell();
        } else {
            self.memory.is_status_written = true;
            self.show();
        }
        self.drop_old_runs();
        if self.turn.is_some() && plan::is_up(&self.seen(self.agent.means.host.now())) {
            self.turn = None;
        }
        match self.renew() {
            Some(at) => Some(wake_at.map_or(at, |known: Time| known.min(at))),
            None => wake_at,
        }
    }

    fn seen(&self, now: Time) -> Seen<'_> {
        let settings = &self.agent.settings;
        // Others count only when there is something to weigh against them.
        let is_misfit = self.pod.members.iter().any(|member| self.pod.is_misfit(member));
        let taken = if is_misfit { self.agent.taken_by_others(&self.pod.uid) } else { Taken::default() };
        let node = (settings.machine.allocatable, taken);
        Seen { pod: &self.pod, memory: &self.memory, curve: &settings.curve, now, node }
    }

    /// Hands the status over to be written, where it changed.
    fn tell(&mut self) {
        let now = self.agent.means.host.now();
        let status = status::status(&self.seen(now), &self.agent.settings.node_addresses, &self.told);
        let sequence = self.desk.borrow().sequence;
        if sequence == 0 || status != *self.told || self.desk.borrow().seen.0 != self.pod.revision {
            self.told = Arc::new(status);
            let seen = serde_json::to_value(&self.pod.pod.status).unwrap_or_default();
            self.desk.send_replace(Wanted {
                status: Some(self.told.clone()),
                sequence: sequence + 1,
                seen: (self.pod.revision, Arc::new(seen)),
            });
            self.memory.is_status_written = self.is_object_gone;
            self.show();
        }
    }

    fn show(&self) {
        let all = self.memory.containers.iter();
        let runs = all.flat_map(|(name, container)| {
            container.runs.iter().map(|run| (name.clone(), run.attempt, run.container.clone()))
        });
        self.agent.registry.show(Shown {
            pod: self.pod.clone(),
            status: self.told.clone(),
            ground: self.ground.clone(),
            runs: runs.collect(),
        });
    }

    fn drop_old_runs(&mut self) {
        for old in self.memory.take_old_runs() {
            let runtime = self.agent.means.runtime.clone();
            self.jobs.spawn(async move {
                if let Err(error) = runtime.remove(&old).await {
                    tracing::debug!(%error, id = old.id, "an old run could not be removed");
                }
            });
        }
    }

    /// Renews what is due among the tokens; gives the time of the next.
    fn renew(&mut self) -> Option<Time> {
        let at = self.ground.renew_at?;
        if self.memory.is_renewing || !self.memory.volumes.is_done() || self.memory.ending.is_some() {
            return None;
        }
        if at > self.agent.means.host.now() {
            return Some(at);
        }
        self.refresh_volumes();
        None
    }

    fn refresh_volumes(&mut self) {
        // What is being removed must not be made again.
        if self.memory.clearing != Clearing::NotYet {
            return;
        }
        self.memory.is_renewing = true;
        let (agent, pod, sources) = (self.agent.clone(), self.pod.clone(), self.ground.sources.clone());
        self.job(async move {
            Report::Ground(crate::jobs::bring_up_to_date(&agent, &pod, sources).await.map(Arc::new))
        });
    }

    /// Runs a job whose report comes back as a message.
    fn job(&mut self, work: impl Future<Output = Report> + Send + 'static) {
        let outbox = self.outbox.clone();
        self.jobs.spawn(async move {
            let report = work.await;
            // The worker that asked is gone: nobody needs the answer.
            let _ = outbox.send(Message::Done(Box::new(report))).await;
        });
    }

    fn follow(&mut self) {
        let wanted = volumes::uses(&self.pod);
        for key in wanted.difference(&self.followed) {
            self.agent.wanted.add(&self.agent.means.caches, key);
        }
        for key in self.followed.difference(&wanted) {
            self.agent.wanted.drop(&self.agent.means.caches, key);
        }
        self.followed = wanted;
    }

    fn unfollow(&mut self) {
        for key in &self.followed {
            self.agent.wanted.drop(&self.agent.means.caches, key);
        }
        self.followed.clear();
    }
}

async fn sleep_until(host: &host::Host, at: Option<Time>) {
    match at {
        Some(at) => host.sleep_until(at).await,
        None => std::future::pending().await,
    }
}
