//! The heartbeat: news wakes keys, keys get passes, plans are carried out, and what was written must be seen before
//! the next look.
//!
//! Promises: nothing is polled, and a quiet cluster is left in peace; one task owns the queue; a pass that goes wrong
//! harms its own key only; when this server does not lead, nothing is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Caches, Changed, Changes, Client, Events, Follow, Peers, Picture};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use host::watch;
use host::{Host, Task};
use model::controller::EVERY;
use model::fence::Terms;
use model::{Controller, Gvr, Key, Object, Plan, World};

use crate::apply::Hand;
use crate::ballot::{Ballot, LEASE};
use crate::barrier::Decided;
use crate::governor::Governor;
use crate::ledger;
use crate::metrics::Metrics;
use crate::pulse::{BEAT, Pulse};
use crate::queue::{Ended, Item, Queue, Report};
use crate::seen::{DEFINITIONS, Known, Seen, is_of_every};

/// How many passes run at once.
///
/// A pass mostly waits for its writes; the store commits what arrives together in one sync. Half would leave syncs
/// half empty when a namespace goes; double would only queue up in the store.
pub const PASSES_AT_ONCE: usize = 32;

/// How much news is taken in before passes get their turn: enough to see a burst as a whole, some milliseconds' worth.
pub const NEWS_AT_ONCE: usize = 256;

/// After how much news the memory that it left behind is given back, once nothing more comes: less is not worth the look.
pub const NEWS_LEFT_MIN: usize = 1_000;

/// Makes a client for the component of a name, acting as its user.
pub type Clients = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// A controller as the engine is to run it.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// What it watches and decides.
    pub controller: &'static Controller,
    /// Whether it acts on the suspicion of nodes, so that the governor is asked.
    pub governed: bool,
}

/// What the engine needs to run.
pub struct Setup {
    /// Clients by component.
    pub clients: Clients,
    /// Where the passes read; the engine makes them follow what its members read.
    pub caches: Caches,
    /// Time, chance and tasks.
    pub host: Host,
    /// How voters are asked.
    pub peers: Arc<dyn Peers>,
    /// Who decides.
    pub members: Vec<Member>,
    /// Whether this server leads.
    pub lead: watch::Receiver<bool>,
    /// The lengths that leases are counted with.
    pub terms: Terms,
    /// What is counted of mends.
    pub metrics: Arc<Metrics>,
}

/// Runs the members until `shutdown` ends. Whatever is under way then is cut off: the next pass starts from what is.
pub async fn run(setup: Setup, shutdown: impl Future<Output = ()> + Send) {
    let mut shutdown = std::pin::pin!(shutdown.fuse());
    let mut lead = setup.lead.clone();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => return,
            leads = lead.wait_for(|leads| *leads) => if leads.is_err() { return },
        }
        let mut engine = Engine::new(&setup);
        tokio::select! {
            biased;
            () = &mut shutdown => return,
            () = lost(&mut lead) => {}
            () = engine.beat() => {}
        }
        tracing::info!("no longer leading");
    }
}

/// Ends when the lead is lost. It never is when nobody is left who could take it.
async fn lost(lead: &mut watch::Receiver<bool>) {
    if lead.wait_for(|leads| !*leads).await.is_err() {
        std::future::pending().await
    }
}

type Wakes = fn(&Object, &dyn World) -> Vec<Key>;

/// Who is woken by the changes of a resource.
#[derive(Clone, Copy)]
struct Waker {
    member: usize,
    /// `None`: the changed object's own key.
    wakes: Option<Wakes>,
}

struct Engine {
    members: Vec<Member>,
    hands: Vec<Hand>,
    wakers: BTreeMap<Gvr, Vec<Waker>>,
    every: Vec<Waker>,
    queue: Queue,
    passes: FuturesUnordered<BoxFuture<'static, (Item, Option<Report>)>>,
    known: Arc<Known>,
    caches: Caches,
    changes: Changes,
    progress: watch::Receiver<u64>,
    ledger: ledger::Keeper,
    host: Host,
    ballot: Arc<Ballot>,
    pulse: Arc<Pulse>,
    terms: Terms,
    left: Left,
}

/// What was taken in and has left its traces in memory.
#[derive(Debug, Default)]
struct Left {
    /// Whether the first look at everything is over and cleared away.
    is_settled: bool,
    /// News since memory was given back.
    news: usize,
    /// The same, at the last beat.
    news_at_beat: usize,
}

impl Engine {
    fn new(setup: &Setup) -> Self {
        let governor = Arc::new(Mutex::new(Governor::new()));
        let ballot = Arc::new(Ballot::new(setup.host.clone(), setup.peers.clone(), setup.terms));
        let pulse = Arc::new(Pulse::new(setup.host.clone()));
        let hands =
            setup.members.iter().map(|member| hand(member, setup, (&governor, &ballot, &pulse))).collect();
        let mut engine = Self {
            queue: Queue::new(),
            members: setup.members.clone(),
            hands,
            wakers: BTreeMap::new(),
            every: Vec::new(),
            passes: FuturesUnordered::new(),
            known: Arc::new(Known::new(&[])),
            changes: setup.caches.changes(),
            progress: setup.caches.progress(),
            ledger: ledger::Keeper::new(
                (setup.clients)(ledger::COMPONENT),
                setup.metrics.clone(),
                setup.caches.clone(),
                setup.host.clone(),
            ),
            caches: setup.caches.clone(),
            host: setup.host.clone(),
            ballot,
            pulse,
            terms: setup.terms,
            left: Left::default(),
        };
        engine.wire();
        engine
    }

    /// Notes who is woken by what.
    fn wire(&mut self) {
        for (member, one) in self.members.iter().enumerate() {
            let Controller { primary, also, .. } = one.controller;
            let says_itself = also.iter().any(|watch| watch.gvr == *primary);
            let own = (!says_itself).then_some((primary, None));
            let also = also.iter().map(|watch| (&watch.gvr, Some(watch.wakes)));
            for (gvr, wakes) in own.into_iter().chain(also) {
                let waker = Waker { member, wakes };
                match *gvr == EVERY {
                    true => self.every.push(waker),
                    false => self.wakers.entry(gvr.clone()).or_default().push(waker),
                }
            }
        }
    }

    /// Runs for as long as it is let.
    async fn beat(&mut self) {
        self.begin().await;
        let mut felt = self.host.moment();
        self.pulse.beat();
        loop {
            self.start_passes();
            tokio::select! {
                biased;
                Some((item, report)) = self.passes.next() => self.ended(&item, report),
                changed = self.changes.next() => self.take_news(changed),
                _ = self.progress.changed() => {}
                () = self.host.sleep(BEAT.saturating_sub(self.host.moment().since(felt))) => {
                    felt = self.host.moment();
                    if self.pulse.beat() {
                        tracing::warn!("this process stood still: the silence of nodes is counted anew");
                        self.ballot.forget();
                        self.ballot.look(&self.caches.list(&LEASE, ""));
                    }
                    self.clear_away().await;
                }
                () = until(&self.host, &self.queue) => self.queue.due(self.host.moment()),
            }
            if self.progress.has_changed().unwrap_or(false) {
                self.progress.mark_unchanged();
                let caches = &self.caches;
                self.queue.moved(|mark| mark.is_shown(caches));
            }
        }
    }

    /// Follows what the members read, waits for the first picture, and wakes everyone.
    async fn begin(&mut self) {
        let mut named: BTreeSet<Gvr> = self.wakers.keys().cloned().collect();
        named.extend(ledger::READS.iter().cloned());
        if !self.every.is_empty() {
            named.insert(DEFINITIONS);
        }
        named.iter().for_each(|gvr| self.caches.follow(Follow::all(gvr)));
        self.caches.synced_in(&named).await;
        self.learn();
        named
            .iter()
            .filter(|gvr| **gvr == LEASE)
            .for_each(|gvr| self.ballot.look(&self.caches.list(gvr, "")));
        self.changes = self.caches.changes();
        let followed: BTreeSet<Gvr> = self.caches.followed().into_iter().map(|what| what.gvr).collect();
        let there = self.caches.read(|world| {
            let all =
                followed.iter().flat_map(|gvr| world.list(gvr, "").into_iter().map(move |one| (gvr, one)));
            all.map(|(gvr, one)| Changed {
                key: Key::new(gvr, one.namespace(), one.name()),
                old: None,
                new: Some(one),
            })
            .collect::<Vec<_>>()
        });
        self.wake(&there);
    }

    /// Learns which resources there are, and follows them for those who want every one.
    fn learn(&mut self) {
        let known = Known::new(&self.caches.list(&DEFINITIONS, ""));
        if !self.every.is_empty() {
            known.every().for_each(|gvr| self.caches.follow(Follow::all(gvr)));
            let is_gone = |what: &&Follow| {
                self.known.every().any(|gvr| *gvr == what.gvr)
                    && !known.every().any(|gvr| *gvr == what.gvr)
                    && !self.wakers.contains_key(&what.gvr)
            };
            self.caches.followed().iter().filter(is_gone).for_each(|what| self.caches.unfollow(what));
        }
        self.known = Arc::new(known);
    }

    /// Gives back the memory that the first look at everything took, and later what much news has left, when nothing is to
    /// be done. What was read at the first look is let go of: most objects are not looked at again for long.
    async fn clear_away(&mut self) {
        let is_still = self.left.news == self.left.news_at_beat;
        self.left.news_at_beat = self.left.news;
        let is_due = !self.left.is_settled || (is_still && self.left.news >= NEWS_LEFT_MIN);
        if !is_due || !self.queue.is_quiet() {
            return;
        }
        if !self.left.is_settled {
            self.caches.forget_seen();
        }
        self.left = Left { is_settled: true, ..Left::default() };
        self.host.give_back_memory().await;
    }

    fn take_news(&mut self, first: Changed) {
        let mut news = vec![first];
        while news.len() < NEWS_AT_ONCE
            && let Some(more) = self.changes.try_next()
        {
            news.push(more);
        }
        if news.iter().any(|changed| *changed.gvr() == DEFINITIONS) {
            self.learn();
        }
        let leases = news.iter().filter(|changed| *changed.gvr() == LEASE);
        leases.for_each(|changed| self.ballot.note(&changed.key, changed.new.as_ref()));
        self.left.news += news.len();
        self.ledger.take_news(&news, &self.caches);
        self.wake(&news);
    }

    /// Wakes whoever the news concerns.
    fn wake(&mut self, news: &[Changed]) {
        let mut woken = Vec::new();
        self.caches.read(|caches| {
            for changed in news {
                let every = self.every.iter().filter(|_| is_of_every(changed.gvr()));
                for waker in self.wakers.get(changed.gvr()).into_iter().flatten().chain(every) {
                    let (reads, steady) = (&self.hands[waker.member].reads, self.pulse.steady_since());
                    let world = Seen { caches, reads, known: &self.known, steady, terms: self.terms };
                    let keys = match waker.wakes {
                        None => vec![changed.key.clone()],
                        Some(wakes) => guarded(|| wakes_of(wakes, changed, &world)).unwrap_or_default(),
                    };
                    woken.extend(keys.into_iter().map(|key| Item { member: waker.member, key }));
                }
            }
        });
        woken.into_iter().for_each(|item| self.queue.wake(item));
    }

    fn start_passes(&mut self) {
        while self.queue.running() < PASSES_AT_ONCE
            && let Some(item) = self.queue.begin()
        {
            let controller = self.members[item.member].controller;
            let hand = self.hands[item.member].clone();
            let work = pass(controller, hand, item.key.clone(), self.known.clone());
            let task: Task<Report> = self.host.spawn(work);
            self.passes.push(async move { (item, task.join().await) }.boxed());
        }
    }

    fn ended(&mut self, item: &Item, report: Option<Report>) {
        let stopped = || Report { ended: Ended::Failed, marks: Vec::new(), wake_in: None };
        let report = report.unwrap_or_else(stopped);
        let caches = &self.caches;
        let (now, chance) = (self.host.moment(), self.host.chance());
        self.queue.ended(item, report, |mark| mark.is_shown(caches), now, chance);
    }
}

/// Waits until a key's time comes; for ever when there is none.
async fn until(host: &Host, queue: &Queue) {
    match queue.next_due() {
        Some(at) => host.sleep(at.since(host.moment())).await,
        None => std::future::pending().await,
    }
}

fn hand(
    member: &Member,
    setup: &Setup,
    (governor, ballot, pulse): (&Arc<Mutex<Governor>>, &Arc<Ballot>, &Arc<Pulse>),
) -> Hand {
    let name = member.controller.name;
    let client = (setup.clients)(name);
    let also = member.controller.also.iter().map(|watch| &watch.gvr);
    let reads = std::iter::once(&member.controller.primary).chain(also);
    Hand {
        name,
        events: Events::new(client.clone(), name, "", setup.host.clone()),
        client,
        caches: setup.caches.clone(),
        reads: reads.filter(|gvr| **gvr != EVERY).cloned().collect(),
        governor: member.governed.then(|| governor.clone()),
        ballot: ballot.clone(),
        pulse: pulse.clone(),
        terms: setup.terms,
        metrics: setup.metrics.clone(),
        host: setup.host.clone(),
    }
}

fn wakes_of(wakes: Wakes, changed: &Changed, world: &dyn World) -> Vec<Key> {
    let sides = [&changed.old, &changed.new].into_iter().flatten();
    let mut keys: Vec<Key> = sides.flat_map(|object| wakes(object, world)).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// One pass: look, decide, do.
async fn pass(controller: &'static Controller, hand: Hand, key: Key, known: Arc<Known>) -> Report {
    let now = hand.host.now();
    let look = |caches: &Picture<'_>| {
        let steady = hand.pulse.steady_since();
        let world = Seen { caches, reads: &hand.reads, known: &known, steady, terms: hand.terms };
        let plan = guarded(|| (controller.reconcile)(&key, &world, now))?;
        let decided = Decided::by(&plan.acts, caches);
        Some((plan, decided))
    };
    let Some((plan, decided)) = hand.caches.read(look) else {
        tracing::error!(by = controller.name, %key, "the pass panicked; its key rests");
        return Report { ended: Ended::Failed, marks: Vec::new(), wake_in: None };
    };
    let Plan { acts, wake_at, news } = plan;
    news.into_iter().for_each(|note| hand.events.remind(note));
    let (ended, marks) = hand.carry_out(&acts, &decided).await;
    let now = hand.host.now();
    let wake_in = wake_at.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    Report { ended, marks, wake_in }
}

/// The value of a decision; `None` when it panicked, which only a bug can make it.
fn guarded<T>(decide: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(decide)).ok()
}
