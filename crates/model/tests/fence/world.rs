//! One lease, its node, its voters, a server that watches, and one pod that may be bound to the node or elsewhere.

// Long because it is one world: store, node, voters and watcher share every step of it.

use std::collections::BTreeSet;
use std::time::Duration;

use model::fence::{
    Deadline, Grant, Holder, Kept, Member, Question, Renewal, Right, Terms, Voter, VoterSet, Votes,
};

use crate::mutation::Mutation;

/// The node under test: host 0.
const NODE: &str = "h0";
/// Messages that are delivered at one instant when a server takes over without delay: a round of votes.
const RUSH: usize = 8;
/// Of a kill's longest time, what it takes here.
const KILL: f64 = 0.98;

/// Chance, from a seed.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

/// A host's boot-time clock, against true time.
#[derive(Clone, Copy)]
struct Clock {
    rate: f64,
    offset: f64,
}

impl Clock {
    fn at(self, now: f64) -> Duration {
        Duration::from_secs_f64(self.offset + now * self.rate)
    }
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Held,
    Ending,
    Lost,
}

#[derive(Clone, Debug)]
struct Stored {
    revision: u64,
    epoch: u64,
    set: VoterSet,
    state: State,
}

#[derive(Clone, Debug)]
enum Message {
    Renew { renewal: Renewal, sent: Duration, agent: u64 },
    Renewed { renewal: Renewal, revision: u64, sent: Duration, agent: u64 },
    Begin { replaces: u64, set: VoterSet, sent: Duration, agent: u64 },
    Begun { grant: Grant, sent: Duration, agent: u64 },
    Release { replaces: u64, epoch: u64 },
    Ask { asked: Question, sent: Duration, agent: u64 },
    Promised { voter: Member, sent: Duration, agent: u64 },
    VoteAsked { asked: Question },
    Voted { voter: Member, revision: u64 },
    Start { uid: u64, epoch: u64, sandbox: u64 },
    Ended { uid: u64 },
}

struct VoterHost {
    voter: Voter,
    /// Answers promises where a vote bars none.
    careless: Voter,
    disk: Votes,
    incarnation: u64,
}

/// The pod, as the store has it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bound {
    uid: u64,
    /// `None`: elsewhere, where it runs at once.
    epoch: Option<u64>,
    is_deleted: bool,
}

/// The pod, as it runs on the node.
struct Running {
    uid: u64,
    /// Not killed by a deadline: nobody looks at it any more.
    is_forgotten: bool,
}

/// The world.
pub struct World {
    chance: Chance,
    mutation: Option<Mutation>,
    now: f64,
    clocks: Vec<Clock>,
    terms: Terms,
    revision: u64,
    lease: Stored,
    newest: VoterSet,
    holder: Holder,
    disk: Kept,
    agent: u64,
    /// What the pod's monitor holds; one a pod.
    monitor: Option<Deadline>,
    runs: Option<Running>,
    killed_at: Option<f64>,
    is_verified: Option<u64>,
    /// Counts sandboxes.
    sandbox: u64,
    voters: Vec<VoterHost>,
    saw: Option<(Stored, Duration)>,
    votes: BTreeSet<Member>,
    flight: Vec<Message>,
    pod: Bound,
    history: Vec<Bound>,
    view: usize,
    lost: BTreeSet<u64>,
    /// Epochs whose pods are let go.
    condemned: BTreeSet<u64>,
    uids: u64,
    story: Vec<String>,
    tells: bool,
    /// How often a lease was taken.
    pub takeovers: u64,
}

fn member(host: u64, incarnation: u64) -> Member {
    Member { host: format!("h{host}"), incarnation: incarnation.to_string() }
}

impl World {
    /// A node that has just begun an epoch, with a pod bound to it; what happens is kept when it `tells`.
    pub fn new(seed: u64, mutation: Option<Mutation>, tells: bool) -> Self {
        let mut chance = Chance(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let hosts = 1 + chance.below(5);
        // Half the walks go as far as clocks may run apart: the node's as slow, all others as fast as can be.
        let apart = chance.one_in(2);
        let clocks: Vec<Clock> = (0..=hosts)
            .map(|host| {
                let drawn = chance.below(99);
                let steps = match (apart, host) {
                    (true, 0) => 0,
                    (true, _) => 98,
                    (false, _) => drawn,
                };
                Clock { rate: 0.9951 + steps as f64 * 0.0001, offset: 100.0 + chance.below(1000) as f64 }
            })
            .collect();
        let terms = Terms::LAN;
        let started = |host: u64| clocks[host as usize].at(0.0);
        let voters = (0..hosts)
            .map(|host| {
                let voter = Voter::new(member(host, 1), grantors(mutation), Votes::new(), started(host));
                VoterHost { careless: voter.clone(), voter, disk: Votes::new(), incarnation: 1 }
            })
            .collect();
        let first = some_set(&mut chance, hosts, 1, |_| 1, true);
        let lease = Stored { revision: 11, epoch: 10, set: first.clone(), state: State::Held };
        let mut holder = Holder::new(member(0, 1), terms, Kept::default(), started(0));
        holder.begun(Grant { revision: 11, epoch: 10, set: first.clone() }, started(0), started(0));
        let pod = Bound { uid: 1, epoch: Some(10), is_deleted: false };
        let mut world = Self {
            disk: holder.kept().clone(),
            chance,
            mutation,
            now: 0.0,
            clocks,
            terms,
            revision: 11,
            lease,
            newest: first,
            holder,
            agent: 1,
            monitor: None,
            runs: None,
            killed_at: None,
            is_verified: None,
            sandbox: 0,
            voters,
            saw: None,
            votes: BTreeSet::new(),
            flight: Vec::new(),
            pod,
            history: vec![pod],
            view: 0,
            lost: BTreeSet::new(),
            condemned: BTreeSet::new(),
            uids: 1,
            story: Vec::new(),
            tells,
            takeovers: 0,
        };
        world.plan_start();
        world
    }

    /// One thing happens.
    pub fn step(&mut self) {
        match self.chance.below(100) {
            0..=9 => self.pass(0.02, 0.6),
            10..=11 => self.pass_count(),
            12..=16 => self.pass(0.5, 4.2),
            17..=46 => self.deliver(),
            47..=49 => self.lose_message(),
            50..=58 => self.renew(),
            59..=64 => self.ask(),
            65..=73 => self.look(),
            74..=79 => self.ask_votes(),
            80..=83 => self.take_over(),
            84 => self.release(),
            85..=87 => self.change_set(),
            88 => self.restart_agent(),
            89..=90 => self.restart_voter(),
            91 => self.wipe_voter(),
            92..=93 => self.see_store(),
            94..=95 => self.see_pod(),
            96..=97 => self.plan_start(),
            98 => self.user(),
            _ => self.leave(),
        }
        self.settle();
    }

    /// The laws.
    pub fn check(&self) -> Result<(), String> {
        let local = self.clocks[0].at(self.now);
        if let Some(deadline) = self.monitor
            && self.lost.contains(&deadline.epoch)
            && !deadline.has_passed(local)
        {
            return Err(format!("epoch {} is lost while its deadline runs", deadline.epoch));
        }
        let right = self.holder.right();
        if let Some(epoch) = self.holder.epoch()
            && self.lost.contains(&epoch)
            && right.runs(local)
        {
            return Err(format!("epoch {epoch} is lost, and the node believes in {right:?}"));
        }
        if self.pod.epoch.is_none() && self.runs_here() {
            return Err(format!("pod {} runs elsewhere and here", self.pod.uid));
        }
        Ok(())
    }

    /// What happened, for whoever looks into a fault.
    pub fn story(&self) -> String {
        let from = self.story.len().saturating_sub(60);
        self.story[from..].join("\n")
    }

    fn tell(&mut self, what: impl FnOnce() -> String) {
        if self.tells {
            self.story.push(format!("{:8.3} {}", self.now, what()));
        }
    }

    fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    fn local(&self) -> Duration {
        self.clocks[0].at(self.now)
    }

    fn observer(&self) -> Duration {
        self.clocks[self.clocks.len() - 1].at(self.now)
    }

    fn pass(&mut self, from: f64, to: f64) {
        self.now += from + (to - from) * (self.chance.below(1000) as f64 / 1000.0);
    }

    /// Goes on to the very moment at which the server has counted enough; often it then takes over without delay.
    fn pass_count(&mut self) {
        let Some((saw, since)) = self.saw.clone() else { return };
        let clock = self.clocks[self.clocks.len() - 1];
        let due = (since + self.silence(&saw)).as_secs_f64();
        self.now = self.now.max((due - clock.offset) / clock.rate + 0.001);
        self.tell(|| "the server has counted".into());
        if self.chance.one_in(2) {
            self.ask_votes();
            (0..RUSH).for_each(|_| self.deliver());
            self.take_over();
        }
    }

    fn send(&mut self, message: Message) {
        self.flight.push(message);
    }

    fn lose_message(&mut self) {
        if !self.flight.is_empty() {
            let at = self.chance.below(self.flight.len() as u64) as usize;
            self.flight.swap_remove(at);
        }
    }

    /// The newest message or any other; once or again.
    fn deliver(&mut self) {
        if self.flight.is_empty() {
            return;
        }
        let len = self.flight.len() as u64;
        let at = if self.chance.one_in(3) { self.chance.below(len) } else { len - 1 } as usize;
        let message =
            if self.chance.one_in(12) { self.flight[at].clone() } else { self.flight.swap_remove(at) };
        self.tell(|| format!("{message:?}"));
        match message {
            Message::Renew { renewal, sent, agent } => self.take_renewal(renewal, sent, agent),
            Message::Renewed { renewal, revision, sent, agent } if agent == self.agent => {
                let sent = if self.is(Mutation::LeaseFromReceipt) { self.local() } else { sent };
                let now = self.local();
                self.holder.acknowledged(&renewal, revision, sent, now);
                self.disk = self.holder.kept().clone();
                self.push();
            }
            Message::Begin { replaces, set, sent, agent } => self.take_begin(replaces, set, sent, agent),
            Message::Begun { grant, sent, agent } if agent == self.agent => {
                let is_new = self.holder.lease().is_none_or(|lease| lease.revision < grant.revision);
                if is_new {
                    let now = self.local();
                    self.holder.begun(grant, sent, now);
                    self.disk = self.holder.kept().clone();
                    self.is_verified = None;
                    self.push();
                }
            }
            Message::Release { replaces, epoch } => {
                let names = self.is(Mutation::ReleaseNamesNothing) || self.lease.revision == replaces;
                if names && self.lease.epoch == epoch && self.lease.state != State::Lost {
                    self.lose_lease();
                }
            }
            Message::Ask { asked, sent, agent } => self.take_ask(&asked, sent, agent),
            Message::Promised { voter, sent, agent } if agent == self.agent => {
                let sent = if self.is(Mutation::PromiseFromReceipt) { self.local() } else { sent };
                self.holder.promised(&voter, sent);
                self.push();
            }
            Message::VoteAsked { asked } => self.take_question(&asked),
            Message::Voted { voter, revision } => {
                if self.saw.as_ref().is_some_and(|(saw, _)| saw.revision == revision) {
                    self.votes.insert(voter);
                }
            }
            Message::Start { uid, epoch, sandbox } if sandbox == self.sandbox => {
                self.take_start(uid, epoch);
            }
            Message::Ended { uid } => {
                if self.pod.is_deleted && (self.pod.uid == uid || self.is(Mutation::EndedNamesNoUid)) {
                    self.bind_anew();
                }
            }
            Message::Renewed { .. }
            | Message::Begun { .. }
            | Message::Promised { .. }
            | Message::Start { .. } => {}
        }
    }

    // The node.

    fn renew(&mut self) {
        let before = self.holder.clone();
        let was = self.holder.right();
        let newest = self.newest.clone();
        let now = self.local();
        let Some(renewal) = self.holder.renewal(Some(&newest), now) else { return self.begin() };
        if self.is(Mutation::OneSetDuringChange) {
            self.holder = before;
        }
        self.disk = self.holder.kept().clone();
        let has_bounds = was == Right::Endless && self.holder.right() != Right::Endless;
        if has_bounds && self.is(Mutation::LoneKeepsNone) {
            self.tell(|| "keeps no deadline".into());
        } else {
            self.push();
        }
        let agent = self.agent;
        self.send(Message::Renew { renewal, sent: now, agent });
    }

    fn begin(&mut self) {
        if self.lease.state == State::Lost && self.runs.is_none() {
            let (replaces, set, sent, agent) =
                (self.lease.revision, self.newest.clone(), self.local(), self.agent);
            self.send(Message::Begin { replaces, set, sent, agent });
        }
    }

    fn ask(&mut self) {
        let now = self.local();
        let agent = self.agent;
        for mut asked in self.holder.asks(now) {
            if self.is(Mutation::AskNamesUnacknowledged) {
                asked.revision += 1;
            }
            self.send(Message::Ask { asked, sent: now, agent });
        }
        self.push();
    }

    /// The node reads its lease at the store, as after a conflict.
    fn see_store(&mut self) {
        let lease = self.lease.clone();
        match lease.state {
            State::Lost if self.holder.lease().is_some_and(|known| known.epoch == lease.epoch) => {
                self.remove();
                self.holder.lost(lease.epoch);
                self.disk = self.holder.kept().clone();
            }
            State::Held if self.holder.holds(lease.epoch) => {
                self.holder.shown(Grant { revision: lease.revision, epoch: lease.epoch, set: lease.set });
                self.push();
            }
            State::Ending if self.holder.lease().is_some() => self.leave(),
            _ => {}
        }
    }

    /// The node's own word: it kills, then says so.
    fn leave(&mut self) {
        let Some(lease) = self.holder.lease().cloned() else { return };
        if !self.chance.one_in(3) {
            return;
        }
        let replaces = lease.revision.max(if self.chance.one_in(2) { self.lease.revision } else { 0 });
        self.holder.leave(replaces);
        self.remove();
        self.disk = self.holder.kept().clone();
        self.send(Message::Release { replaces, epoch: lease.epoch });
        if self.is(Mutation::ReleaseNamesNothing) && self.chance.one_in(2) {
            // Somebody counts on the number: the node takes its lease up again while the word is on its way.
            self.holder = Holder::new(member(0, 1), self.terms, self.disk.clone(), self.local());
            self.disk.given_up = 0;
            self.holder = Holder::new(member(0, 1), self.terms, self.disk.clone(), self.local());
        }
    }

    fn restart_agent(&mut self) {
        self.agent += 1;
        let now = self.local();
        self.holder = Holder::new(member(0, 1), self.terms, self.disk.clone(), now);
        self.is_verified = None;
        // It lists from a server that may lag.
        let back = self.chance.below(4) as usize;
        self.view = (self.history.len() - 1).saturating_sub(back);
        self.tell(|| "the agent restarts".into());
    }

    fn push(&mut self) {
        self.settle();
        let Some(epoch) = self.holder.epoch() else { return };
        let until = match self.holder.right() {
            Right::None => return,
            Right::Until(until) => Some(until),
            Right::Endless => None,
        };
        let told = Deadline { epoch, until };
        if let Some(monitor) = &mut self.monitor {
            monitor.take(told);
        }
    }

    // The pod.

    fn see_pod(&mut self) {
        if self.view + 1 < self.history.len() {
            self.view += 1;
        }
        let seen = self.history[self.view];
        if let Some(running) = &self.runs
            && (seen.uid != running.uid && seen.uid > running.uid
                || seen.is_deleted && seen.uid == running.uid)
        {
            let uid = running.uid;
            self.remove();
            self.send(Message::Ended { uid });
        } else if seen.is_deleted && seen.epoch.is_some() && self.runs.is_none() {
            self.remove();
            self.send(Message::Ended { uid: seen.uid });
        }
    }

    fn plan_start(&mut self) {
        let seen = self.history[self.view];
        let Some(mut bound) = seen.epoch else { return };
        if seen.is_deleted || self.runs.is_some() {
            return;
        }
        if self.is_verified != Some(seen.uid) && !self.is(Mutation::OldView) {
            if self.pod.uid != seen.uid || self.pod.epoch != Some(bound) || self.pod.is_deleted {
                return;
            }
            self.is_verified = Some(seen.uid);
        }
        let Some(epoch) = self.holder.epoch() else { return };
        if self.is(Mutation::BindingNamesNoEpoch) {
            bound = epoch;
        }
        if bound != epoch || !self.holder.right().runs(self.local()) {
            return;
        }
        if self.monitor.is_none_or(|monitor| monitor.epoch != epoch) {
            // A sandbox is made without a right: what was right when it was asked for may be over.
            self.monitor = Some(Deadline { epoch, until: Some(Duration::ZERO) });
        }
        self.push();
        let sandbox = self.sandbox;
        self.send(Message::Start { uid: seen.uid, epoch, sandbox });
    }

    /// The monitor starts it: it looks at its deadline first.
    fn take_start(&mut self, uid: u64, epoch: u64) {
        if self.runs.is_some() {
            return;
        }
        let Some(deadline) = self.monitor.filter(|monitor| monitor.epoch == epoch) else { return };
        let has_passed = deadline.has_passed(self.local());
        if !has_passed || self.is(Mutation::AgentLooksAtDeadline) {
            self.runs = Some(Running { uid, is_forgotten: has_passed });
        }
    }

    /// Removes the sandbox with what runs in it: a start that is still on its way finds it gone.
    fn remove(&mut self) {
        self.kill();
        self.monitor = None;
        self.sandbox += 1;
    }

    fn kill(&mut self) {
        self.runs = None;
        self.killed_at = None;
    }

    /// Ends what a deadline has killed.
    fn settle(&mut self) {
        let (Some(deadline), Some(running)) = (self.monitor, &self.runs) else { return };
        if running.is_forgotten {
            return;
        }
        if self.killed_at.is_none() && deadline.has_passed(self.local()) {
            let late = self.local().saturating_sub(deadline.until.unwrap_or_default()).as_secs_f64();
            self.killed_at = Some(self.now - late / self.clocks[0].rate);
        }
        if self.killed_at.is_some_and(|at| self.now >= at + self.terms.kill.as_secs_f64() * KILL) {
            self.kill();
        }
    }

    fn runs_here(&self) -> bool {
        self.runs.is_some()
    }

    fn set_pod(&mut self, pod: Bound) {
        self.pod = pod;
        self.history.push(pod);
    }

    /// A new pod of the name, bound to the node again or elsewhere.
    fn bind_anew(&mut self) {
        self.uids += 1;
        let here = self.lease.state == State::Held && self.chance.one_in(2);
        let epoch = here.then_some(self.lease.epoch);
        self.set_pod(Bound { uid: self.uids, epoch, is_deleted: false });
        self.tell(|| format!("bound anew: {epoch:?}"));
    }

    /// Somebody deletes the pod, or the Node.
    fn user(&mut self) {
        match self.chance.below(4) {
            0 if self.lease.state == State::Held => {
                self.revision += 1;
                self.lease.revision = self.revision;
                self.lease.state = State::Ending;
                self.tell(|| "the Node is deleted".into());
                if self.is(Mutation::DeletionIsProof) {
                    self.lose_lease();
                }
            }
            _ if self.pod.epoch.is_none() => self.bind_anew(),
            _ => {
                let pod = Bound { is_deleted: true, ..self.pod };
                self.set_pod(pod);
            }
        }
    }

    // The store.

    fn take_renewal(&mut self, renewal: Renewal, sent: Duration, agent: u64) {
        if self.is(Mutation::AnswerBeforeCommit) && self.chance.one_in(2) {
            let revision = renewal.replaces + 1;
            return self.send(Message::Renewed { renewal, revision, sent, agent });
        }
        let names = renewal.replaces == self.lease.revision
            || self.is(Mutation::RenewalsNameNothing) && self.lease.state == State::Held;
        if self.lease.state != State::Held || self.lease.epoch != renewal.epoch || !names {
            return;
        }
        self.revision += 1;
        self.lease.revision = self.revision;
        self.lease.set = renewal.set.clone();
        let revision = self.revision;
        self.send(Message::Renewed { renewal, revision, sent, agent });
    }

    fn take_begin(&mut self, replaces: u64, set: VoterSet, sent: Duration, agent: u64) {
        if self.lease.state != State::Lost || self.lease.revision != replaces {
            return;
        }
        self.revision += 1;
        let epoch = if self.is(Mutation::EpochReused) { 10 } else { replaces };
        self.lost.remove(&if self.is(Mutation::EpochReused) { 10 } else { 0 });
        self.lease = Stored { revision: self.revision, epoch, set: set.clone(), state: State::Held };
        let grant = Grant { revision: self.revision, epoch, set };
        self.send(Message::Begun { grant, sent, agent });
    }

    fn lose_lease(&mut self) {
        self.revision += 1;
        self.lease.revision = self.revision;
        self.lease.state = State::Lost;
        self.lost.insert(self.lease.epoch);
        self.tell(|| "LOST".into());
        self.condemned.insert(self.lease.epoch);
    }

    /// The leader lets go what is bound to an epoch that is over: the pod starts elsewhere.
    fn release(&mut self) {
        if self.pod.epoch.is_some_and(|epoch| self.condemned.contains(&epoch)) {
            self.uids += 1;
            let uid = self.uids;
            self.set_pod(Bound { uid, epoch: None, is_deleted: false });
            self.tell(|| "released".into());
        }
    }

    // The server that watches: any number of leaders, since each acts on what it saw.

    fn look(&mut self) {
        let is_news = self.saw.as_ref().is_none_or(|(saw, _)| saw.revision != self.lease.revision);
        if is_news && self.lease.state != State::Lost {
            self.saw = Some((self.lease.clone(), self.observer()));
            self.votes.clear();
        }
    }

    fn set_of(&self, saw: &Stored) -> VoterSet {
        let mut set = if self.is(Mutation::TodaysMembers) { self.newest.clone() } else { saw.set.clone() };
        if self.is(Mutation::OwnTieBreaker) {
            set.tie_breaker = set.voters.last().map(|voter| voter.host.clone());
        }
        set
    }

    fn silence(&self, saw: &Stored) -> Duration {
        let terms = Terms { lease: saw.set.lease(), ..grantors(self.mutation) };
        if is_short(self.mutation) { grantors(self.mutation).silence() } else { terms.silence() }
    }

    fn has_counted(&self, saw: &Stored, since: Duration) -> bool {
        self.is(Mutation::NoCounting) || self.observer() >= since + self.silence(saw)
    }

    fn ask_votes(&mut self) {
        let Some((saw, since)) = self.saw.clone() else { return };
        if !self.has_counted(&saw, since) {
            return;
        }
        for voter in self.set_of(&saw).voters {
            let lease_millis = if is_short(self.mutation) { 1 } else { saw.set.lease_millis };
            let asked = Question { node: NODE.into(), revision: saw.revision, voter, lease_millis };
            self.send(Message::VoteAsked { asked });
        }
    }

    fn take_over(&mut self) {
        let Some((saw, since)) = self.saw.clone() else { return };
        let has_votes = self.set_of(&saw).majority(|voter| self.votes.contains(voter));
        if !self.has_counted(&saw, since) || !(has_votes || self.is(Mutation::NoVotes)) {
            return;
        }
        let names = saw.revision == self.lease.revision
            || self.is(Mutation::TakeoverNamesNothing) && self.lease.epoch == saw.epoch;
        if names && self.lease.state != State::Lost {
            self.takeovers += 1;
            self.lose_lease();
        }
    }

    fn change_set(&mut self) {
        let number = self.newest.number + 1;
        let incarnations: Vec<u64> = self.voters.iter().map(|voter| voter.incarnation).collect();
        let hosts = incarnations.len() as u64;
        self.newest = some_set(&mut self.chance, hosts, number, |host| incarnations[host as usize], false);
        self.tell(|| "a new set".into());
    }

    // The voters.

    fn host_of(&self, voter: &Member) -> usize {
        voter.host[1..].parse().unwrap_or(0)
    }

    fn take_ask(&mut self, asked: &Question, sent: Duration, agent: u64) {
        let host = self.host_of(&asked.voter);
        let now = self.clocks[host].at(self.now);
        let mut asked = asked.clone();
        if is_short(self.mutation) {
            asked.lease_millis = 1;
        }
        let is_promised = if self.is(Mutation::Reachability) {
            true
        } else {
            let real = self.voters[host].voter.promise(&asked, now).is_ok();
            let careless = self.voters[host].careless.promise(&asked, now).is_ok();
            if self.is(Mutation::VoteBarsNothing) { careless } else { real }
        };
        if is_promised {
            self.send(Message::Promised { voter: asked.voter, sent, agent });
        }
    }

    fn take_question(&mut self, asked: &Question) {
        let host = self.host_of(&asked.voter);
        let now = self.clocks[host].at(self.now);
        if host == 0 && !self.is(Mutation::LoneVotesRunning) {
            let (local, runs) = (self.local(), self.runs.is_some());
            let before = self.holder.clone();
            if !self.holder.vote(asked.revision, local, runs) {
                return;
            }
            // A monitor may have a right that an earlier agent gave it: it goes first.
            self.remove();
            if self.is(Mutation::OwnVoteForgotten) {
                self.holder = before;
            } else {
                self.disk = self.holder.kept().clone();
            }
        }
        let one = &mut self.voters[host];
        if one.voter.vote(asked, now).is_ok() {
            one.disk = one.voter.votes().clone();
            self.send(Message::Voted { voter: asked.voter.clone(), revision: asked.revision });
        }
    }

    fn restart_voter(&mut self) {
        let host = self.chance.below(self.voters.len() as u64) as usize;
        let started = if self.is(Mutation::PromisesForgotten) {
            Duration::ZERO
        } else {
            self.clocks[host].at(self.now)
        };
        let disk =
            if self.is(Mutation::VotesForgotten) { Votes::new() } else { self.voters[host].disk.clone() };
        let me = self.voters[host].voter.me().clone();
        let terms = grantors(self.mutation);
        self.voters[host].voter = Voter::new(me.clone(), terms, disk, started);
        self.voters[host].careless = Voter::new(me, terms, Votes::new(), started);
        self.tell(|| format!("voter {host} restarts"));
    }

    /// A disk is lost: the host is another voter from now on.
    fn wipe_voter(&mut self) {
        if self.voters.len() < 2 {
            return;
        }
        let host = 1 + self.chance.below(self.voters.len() as u64 - 1) as usize;
        if !self.is(Mutation::VotersByName) {
            self.voters[host].incarnation += 1;
        }
        let me = member(host as u64, self.voters[host].incarnation);
        let started = self.clocks[host].at(self.now);
        let terms = grantors(self.mutation);
        self.voters[host].disk = Votes::new();
        self.voters[host].voter = Voter::new(me.clone(), terms, Votes::new(), started);
        self.voters[host].careless = Voter::new(me, terms, Votes::new(), started);
        self.tell(|| format!("voter {host} is wiped"));
    }
}

fn is_short(mutation: Option<Mutation>) -> bool {
    matches!(mutation, Some(Mutation::NoMargin | Mutation::ShortMargin))
}

/// What servers and voters count with.
fn grantors(mutation: Option<Mutation>) -> Terms {
    let lan = Terms::LAN;
    match mutation {
        Some(Mutation::NoMargin) => Terms { lease: Duration::from_millis(3300), ..lan },
        Some(Mutation::ShortMargin) => Terms { lease: Duration::from_millis(3900), ..lan },
        _ => lan,
    }
}

/// Any set; the first one holds the node.
fn some_set(
    chance: &mut Chance,
    hosts: u64,
    number: u64,
    incarnation: impl Fn(u64) -> u64,
    has_node: bool,
) -> VoterSet {
    let mut voters: Vec<Member> = (0..hosts)
        .filter(|host| (has_node && *host == 0) || !chance.one_in(3))
        .map(|host| member(host, incarnation(host)))
        .collect();
    if voters.is_empty() {
        voters.push(member(0, incarnation(0)));
    }
    let first = chance.below(voters.len() as u64) as usize;
    let tie_breaker = voters.len().is_multiple_of(2).then(|| voters[first].host.clone());
    VoterSet { number, voters, tie_breaker, lease_millis: 4000 }
}
