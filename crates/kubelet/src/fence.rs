//! The node's side of the fence: what its lease lets it run, what it asks its voters, what it votes itself.
//!
//! The rules are [`model::fence`]; here they meet the disk, the monitors and the other agents. Promises: a vote is on the
//! disk before it is told; what a later agent must know is written before a request leaves; no fenced pod starts but
//! under the present epoch, from a view as new as this agent's first acknowledged lease.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{ClientError, Peer, Wish};
use futures_util::future::join_all;
use host::{Disk, Host, watch};
use model::fence::{
    Ask, Deadline, Grant, Holder, Kept, Member, No, Question, Renewal, Right, Terms, Voter, VoterSet, Votes,
};
use model::kinds as gvr;
use model::{Key, World};
use runtime::{ContainerState, RuntimeError, Sandbox};
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::pod::PodView;

/// How long a monitor may take to learn a deadline: it does one small thing at a time.
const TELL_MAX: Duration = Duration::from_millis(400);

/// What is kept over an agent's restart, for this boot only.
#[derive(Serialize, Deserialize)]
struct OfBoot {
    boot: String,
    kept: Kept,
}

/// The node's side of the fence.
pub struct Fence {
    host: Host,
    dir: PathBuf,
    boot: String,
    terms: Terms,
    /// Guards the node's state for a few lines.
    state: Mutex<State>,
    /// Guards the voter from a question to its answer, the disk's sync included: one at a time. Taken off the async
    /// threads only.
    voter: Arc<Mutex<Voter>>,
    /// Counts changes of the epoch.
    epochs: watch::Sender<u64>,
    /// One at a time tells monitors, so that they hear what is right in the order in which it came to be; an old "without
    /// end" must not follow a new deadline.
    telling: tokio::sync::Mutex<()>,
}

struct State {
    holder: Holder,
    /// The fenced pods here, by uid, with the epoch each was bound under.
    pods: BTreeMap<String, u64>,
    /// Pods that this agent has seen bound since its first acknowledged lease.
    verified: BTreeSet<String>,
}

impl Fence {
    /// Takes up what the disk has of earlier agents. A disk without a name gets one: it is a new life of the host.
    pub fn open(host: &Host, data_dir: &Path, node: &str, boot: &str, terms: Terms) -> io::Result<Self> {
        let dir = data_dir.join("fence");
        let disk = host.disk();
        disk.create_dir(&dir)?;
        let incarnation = match read(disk, &dir.join("incarnation"))? {
            Some(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            None => {
                let fresh = host.chance().uuid();
                write(disk, &dir, "incarnation", fresh.as_bytes(), true)?;
                fresh
            }
        };
        let me = Member { host: node.to_owned(), incarnation };
        let votes: Votes = parsed(read(disk, &dir.join("votes.json"))?)?.unwrap_or_default();
        let of_boot: Option<OfBoot> = parsed(read(disk, &dir.join("lease.json"))?)?;
        let mut kept = of_boot.filter(|of| of.boot == boot).map(|of| of.kept).unwrap_or_default();
        kept.given_up = kept.given_up.max(votes.get(node).copied().unwrap_or(0));
        let now = host.moment().0;
        let holder = Holder::new(me.clone(), terms, kept, now);
        Ok(Self {
            host: host.clone(),
            dir,
            boot: boot.to_owned(),
            terms,
            state: Mutex::new(State { holder, pods: BTreeMap::new(), verified: BTreeSet::new() }),
            voter: Arc::new(Mutex::new(Voter::new(me, terms, votes, now))),
            epochs: watch::Sender::new(0),
            telling: tokio::sync::Mutex::default(),
        })
    }

    /// Which life of which host this is.
    pub fn me(&self) -> Member {
        self.state().holder.me().clone()
    }

    /// The epoch under which fenced pods may run here, if any may.
    pub fn epoch(&self) -> Option<u64> {
        self.state().holder.epoch()
    }

    /// Whether the lease of this epoch is still taken for ours.
    pub fn holds(&self, epoch: u64) -> bool {
        self.state().holder.holds(epoch)
    }

    /// Tells of every change of the epoch.
    pub fn epochs(&self) -> watch::Receiver<u64> {
        self.epochs.subscribe()
    }

    /// Takes note of what an earlier agent left running.
    pub fn adopt(&self, sandboxes: &[Sandbox]) {
        let fenced =
            sandboxes.iter().filter_map(|one| Some((one.spec.pod_uid.clone(), one.spec.fence?.epoch)));
        self.state().pods.extend(fenced);
    }

    /// Whether the sandbox of a pod may be made, and with which deadline, if it is fenced. It is made without any right:
    /// what is right now may be over when it is there.
    pub async fn permit(&self, agent: &Agent, pod: &PodView) -> Result<Option<Deadline>, RuntimeError> {
        let Some(epoch) = epoch_of(pod) else { return Ok(None) };
        if !self.state().verified.contains(&pod.uid) {
            self.verify(agent, pod, epoch).await?;
        }
        let mut state = self.state();
        if state.holder.epoch() != Some(epoch) {
            return Err(refused("it is bound to an epoch of the node's lease that is over"));
        }
        if !state.holder.right().runs(self.host.moment().0) {
            return Err(refused("the node's lease has run out"));
        }
        state.pods.insert(pod.uid.clone(), epoch);
        Ok(Some(Deadline { epoch, until: Some(Duration::ZERO) }))
    }

    /// Lets a pod's monitor know what is right, before each start; nothing to do for a pod that is not fenced.
    pub async fn arm(&self, agent: &Agent, pod: &PodView) -> Result<(), RuntimeError> {
        let Some(deadline) = self.permit(agent, pod).await? else { return Ok(()) };
        let _turn = self.telling.lock().await;
        match self.deadline() {
            Some(now) if now.epoch == deadline.epoch => agent.means.runtime.fence(&pod.uid, now).await,
            _ => Err(refused("the node's lease has run out")),
        }
    }

    /// What is right now.
    fn deadline(&self) -> Option<Deadline> {
        let state = self.state();
        let epoch = state.holder.epoch()?;
        match state.holder.right() {
            Right::None => None,
            Right::Until(until) => Some(Deadline { epoch, until: Some(until) }),
            Right::Endless => Some(Deadline { epoch, until: None }),
        }
    }

    /// An earlier agent may have ended this very pod, and a cache may lag: the server is asked itself, once. One that is
    /// being deleted may have been told ended already.
    async fn verify(&self, agent: &Agent, pod: &PodView, epoch: u64) -> Result<(), RuntimeError> {
        let key = Key::new(&gvr::POD, pod.namespace.clone(), pod.name.clone());
        match agent.means.client.get(&key).await {
            Ok(there)
                if there.uid() == pod.uid
                    && !there.is_ending()
                    && model::fence::pod_epoch(&there) == Some(epoch) =>
            {
                self.state().verified.insert(pod.uid.clone());
                Ok(())
            }
            Ok(_) | Err(ClientError::NotFound { .. }) => Err(refused("it is not bound here any more")),
            Err(error) => Err(RuntimeError::Failed {
                doing: "see whether the pod is still bound here".into(),
                source: error.into(),
            }),
        }
    }

    /// The pod is gone from here.
    pub fn forget(&self, uid: &str) {
        let mut state = self.state();
        state.pods.remove(uid);
        state.verified.remove(uid);
    }

    /// The next renewal, with all that must be done before it leaves: what is kept is written, and the monitors know
    /// a deadline where they had none.
    pub async fn renewal(&self, agent: &Agent, newest: Option<&VoterSet>) -> io::Result<Option<Renewal>> {
        let now = self.host.moment().0;
        let (renewal, has_bounds) = {
            let mut state = self.state();
            let was = state.holder.right();
            let renewal = state.holder.renewal(newest, now);
            (renewal, was == Right::Endless && state.holder.right() != Right::Endless)
        };
        self.keep().await?;
        if has_bounds && !self.push(agent).await {
            return Err(io::Error::other("a monitor does not take its deadline"));
        }
        Ok(renewal)
    }

    /// A renewal was acknowledged.
    pub async fn acknowledged(&self, agent: &Agent, renewal: &Renewal, revision: u64, sent: Duration) {
        let now = self.host.moment().0;
        let was = self.epoch();
        self.state().holder.acknowledged(renewal, revision, sent, now);
        // A later agent must know what monitors were told: without it, it might vote against itself.
        match self.keep().await {
            Ok(()) => _ = self.push(agent).await,
            Err(error) => {
                tracing::error!(%error, "cannot write down the lease: the monitors are not told of it")
            }
        }
        self.tell_if_regained(was);
    }

    /// The store shows our lease at a later revision.
    pub fn shown(&self, grant: Grant) {
        let was = self.epoch();
        self.state().holder.shown(grant);
        self.tell_if_regained(was);
    }

    /// A node that voted against itself and keeps its lease after all may run what was refused meanwhile.
    fn tell_if_regained(&self, was: Option<u64>) {
        if was.is_none() && self.epoch().is_some() {
            self.epochs.send_modify(|count| *count += 1);
        }
    }

    /// A new epoch began.
    pub async fn begun(&self, grant: Grant, sent: Duration) -> io::Result<()> {
        let now = self.host.moment().0;
        {
            let mut state = self.state();
            state.holder.begun(grant, sent, now);
            state.pods.clear();
            state.verified.clear();
        }
        self.keep().await?;
        self.epochs.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The node lets go of its lease, or learns that it is lost: nothing fenced runs any more when this returns well.
    pub async fn let_go(&self, agent: &Agent, revision: u64) -> Result<(), String> {
        self.state().holder.leave(revision);
        self.keep().await.map_err(|error| format!("cannot write down the node's own word: {error}"))?;
        self.epochs.send_modify(|count| *count += 1);
        let here = agent.means.runtime.sandboxes().await.map_err(|error| crate::jobs::spelled(&error))?;
        for sandbox in here.iter().filter(|sandbox| sandbox.spec.fence.is_some()) {
            crate::jobs::remove(agent, &sandbox.spec.pod_uid).await?;
        }
        Ok(())
    }

    /// Tells every monitor of a fenced pod what it may do; whether all heard.
    async fn push(&self, agent: &Agent) -> bool {
        let _turn = self.telling.lock().await;
        let Some(deadline) = self.deadline() else { return true };
        let pods: Vec<String> = {
            let state = self.state();
            let bound = state.pods.iter().filter(|(_, bound)| **bound == deadline.epoch);
            bound.map(|(uid, _)| uid.clone()).collect()
        };
        let runtime = &agent.means.runtime;
        let told = pods.iter().map(|uid| self.host.within(TELL_MAX, runtime.fence(uid, deadline)));
        let told = join_all(told).await;
        for (uid, told) in pods.iter().zip(&told) {
            if let Some(Err(error)) = told {
                tracing::warn!(pod = uid, %error, "a monitor does not take its deadline");
            }
        }
        told.iter().all(|told| matches!(told, Some(Ok(()))))
    }

    /// Answers what the server or another agent asks.
    pub async fn answer(&self, agent: &Agent, wish: Wish, asked: Question) -> Option<No> {
        if wish == Wish::Vote
            && asked.node == agent.settings.node_name
            && !self.votes_itself(agent, &asked).await
        {
            return Some(No::Runs);
        }
        let (voter, host, dir) = (self.voter.clone(), self.host.clone(), self.dir.clone());
        let decide = move || {
            let mut voter = voter.lock().unwrap_or_else(PoisonError::into_inner);
            let now = host.moment().0;
            match wish {
                Wish::Promise => voter.promise(&asked, now).err(),
                Wish::Vote => match voter.vote(&asked, now) {
                    Err(no) => Some(no),
                    Ok(()) => {
                        let votes = serde_json::to_vec(voter.votes()).unwrap_or_default();
                        write(host.disk(), &dir, "votes.json", &votes, true).err().map(|error| {
                            tracing::error!(%error, "a vote could not be written down");
                            No::Disk
                        })
                    }
                },
            }
        };
        self.host.blocking(decide).await
    }

    /// The node's vote against itself: only when its deadline has passed and nothing fenced runs. A monitor may have a right
    /// that an earlier agent gave it, so the monitors go first.
    async fn votes_itself(&self, agent: &Agent, asked: &Question) -> bool {
        if self.state().holder.right().runs(self.host.moment().0) {
            return false;
        }
        let Ok(sandboxes) = agent.means.runtime.sandboxes().await else { return false };
        let runs = |one: &Sandbox| {
            let mut all = one.containers.iter();
            one.spec.fence.is_some() && all.any(|c| matches!(c.state, ContainerState::Running { .. }))
        };
        let runs_fenced = sandboxes.iter().any(runs);
        if !runs_fenced {
            for sandbox in sandboxes.iter().filter(|sandbox| sandbox.spec.fence.is_some()) {
                // A renewal may be acknowledged meanwhile: then what is there may run, and starts at once.
                let runs = self.state().holder.right().runs(self.host.moment().0);
                if runs || crate::jobs::remove(agent, &sandbox.spec.pod_uid).await.is_err() {
                    return false;
                }
            }
        }
        let now = self.host.moment().0;
        self.state().holder.vote(asked.revision, now, runs_fenced) && self.keep().await.is_ok()
    }

    /// Writes what a later agent of this boot must know.
    async fn keep(&self) -> io::Result<()> {
        let of_boot = OfBoot { boot: self.boot.clone(), kept: self.state().holder.kept().clone() };
        let bytes = serde_json::to_vec(&of_boot)?;
        let (host, dir) = (self.host.clone(), self.dir.clone());
        // Not synced: it must outlive the process, not the boot.
        self.host.blocking(move || write(host.disk(), &dir, "lease.json", &bytes, false)).await
    }

    /// Whom to ask for promises now, and how long to wait until the next look.
    fn asks(&self) -> (Vec<Ask>, Duration) {
        let now = self.host.moment().0;
        let mut state = self.state();
        let asks = state.holder.asks(now);
        // What is heard meanwhile sets a time that is further off than this: a suspicion is longer than a renewal.
        let rest = self.terms.renewal();
        (asks, state.holder.asks_at(now).map_or(rest, |due| due.saturating_sub(now).min(rest)))
    }

    /// The lengths that count here.
    pub fn terms(&self) -> Terms {
        self.terms
    }

    /// Guards the node's state for a few lines.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks the voters whenever the store has not answered for a while, until the agent ends.
pub async fn keep(agent: Arc<Agent>) {
    let mut rounds = host::Tasks::new();
    loop {
        let (asks, rest) = agent.fence.asks();
        if !asks.is_empty() {
            rounds.spawn(ask_all(agent.clone(), asks));
        }
        agent.means.host.sleep(rest).await;
    }
}

async fn ask_all(agent: Arc<Agent>, asks: Vec<Ask>) {
    let sent = agent.means.host.moment().0;
    let each = asks.iter().map(|asked| {
        let agent = &agent;
        async move {
            let Some(peer) = peer(agent, &asked.voter.host) else { return };
            match agent.means.peers.ask(&peer, Wish::Promise, asked).await {
                Ok(None) => {
                    agent.fence.state().holder.promised(&asked.voter, sent);
                    agent.fence.push(agent).await;
                }
                Ok(Some(no)) => tracing::info!(voter = peer.name, %no, "no promise"),
                Err(error) => {
                    let cause = std::error::Error::source(&error);
                    tracing::debug!(voter = peer.name, %error, cause, "no promise");
                }
            }
        }
    });
    join_all(each).await;
}

/// Where the agent of a node is asked.
pub fn peer(agent: &Agent, node: &str) -> Option<Peer> {
    let object = agent.means.caches.get(&Key::new(&gvr::NODE, "", node))?;
    Peer::of(&object)
}

/// The epoch under which a pod was bound; `None`: it is not fenced.
pub fn epoch_of(pod: &PodView) -> Option<u64> {
    pod.pod.metadata.annotations.as_ref()?.get(model::fence::FENCE)?.parse().ok()
}

fn refused(why: &str) -> RuntimeError {
    RuntimeError::Failed { doing: format!("fenced: {why}"), source: "see the node's Lease".into() }
}

fn read(disk: &Arc<dyn Disk>, path: &Path) -> io::Result<Option<Vec<u8>>> {
    match disk.read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn parsed<T: serde::de::DeserializeOwned>(bytes: Option<Vec<u8>>) -> io::Result<Option<T>> {
    Ok(bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
}

/// Writes a file whole or not at all.
fn write(disk: &Arc<dyn Disk>, dir: &Path, name: &str, bytes: &[u8], is_synced: bool) -> io::Result<()> {
    let draft = dir.join(format!("{name}.tmp"));
    match disk.remove(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = disk.append(&draft)?;
    file.write(bytes)?;
    if is_synced {
        file.sync()?;
    }
    disk.rename(&draft, &dir.join(name))?;
    if is_synced { disk.sync_dir(dir) } else { Ok(()) }
}
