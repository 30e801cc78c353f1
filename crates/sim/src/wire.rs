//! The wire between an agent and the API: delay, loss, repetition, cuts in either direction, and servers that go away.
//!
//! What a request meets here is what it meets in life: it may be carried out though no answer comes, a watch may fall
//! silent before it breaks, and whatever was under way when the server died is never heard of again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::Service;
use api::auth::Identity;
use async_trait::async_trait;
use bytes::Bytes;
use client::{Transport, TransportError, WatchEvent, WatchKind, WatchStream};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use host::watch;
use host::{Chance, Host, Process, Tasks};
use kintsugi::local::Local;

use crate::flaw::Flaw;
use crate::mutation::{Mutation, is_of_lease};
use crate::observe::{Book, Watched};
use crate::pace::Pace;

/// How long a message usually travels.
const DELAY: Duration = Duration::from_millis(1);

/// How long a cut has to last until a connection counts as broken: as the https transport notices it by its pings.
const CUT_NOTICED: Duration = Duration::from_secs(4);

/// How long an answer may take: as the https transport waits.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How late a single message may be, and a second copy of one: longer than any lease that is tried here lasts.
const LATE_MAX: Duration = Duration::from_secs(12);

/// How many events of a watch arrive together at most.
const EVENTS_AT_ONCE: usize = 64;

/// Where the server is, if it runs, and the how manieth it is; clones share it.
#[derive(Clone)]
pub struct Server(watch::Sender<(u64, Option<Serving>)>);

/// A server that runs.
#[derive(Clone)]
pub struct Serving {
    service: Service,
    /// What answers belongs to it: it stands still while the server does.
    process: Process,
}

impl Default for Server {
    fn default() -> Self {
        Self(watch::Sender::new((0, None)))
    }
}

impl Server {
    /// The server runs.
    pub fn up(&self, service: Service, process: Process) {
        self.0.send_modify(|(generation, now)| {
            *generation += 1;
            *now = Some(Serving { service, process });
        });
    }

    /// The server is gone, and all connections to it.
    pub fn down(&self) {
        self.0.send_modify(|(_, now)| *now = None);
    }

    /// The server that runs now.
    fn serving(&self) -> Option<Serving> {
        self.0.borrow().1.clone()
    }

    /// The how manieth server this is.
    fn generation(&self) -> u64 {
        self.0.borrow().0
    }

    /// Returns when the server of this generation is gone.
    async fn gone(&self, generation: u64) {
        let mut seen = self.0.subscribe();
        // The sender is in this very value: it cannot be gone.
        let _ = seen.wait_for(|(now, service)| *now != generation || service.is_none()).await;
    }
}

/// What a line does to messages now and then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Noise {
    /// One in so many requests breaks its connection; 0 for none.
    pub lost_one_in: u64,
    /// One in so many messages is late by seconds; 0 for none.
    pub late_one_in: u64,
    /// One in so many requests arrives a second time; 0 for none.
    pub twice_one_in: u64,
    /// How much longer than usual each message takes at most.
    pub jitter: Duration,
}

/// What a line does to messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Condition {
    /// Requests do not get through.
    out_cut: bool,
    /// Answers and events do not get through.
    in_cut: bool,
    /// What happens now and then.
    noise: Noise,
    /// Counts how often all watches were dropped.
    drops: u64,
}

/// One node's line to the server; clones share it.
#[derive(Clone)]
pub struct Line {
    condition: watch::Sender<Condition>,
    pace: Pace,
    /// Beyond all machines: time as it is, and what becomes of messages.
    host: Host,
    flaw: Option<Flaw>,
    book: Book,
    /// Copies of messages under way that nobody waits for.
    strays: Arc<Mutex<Tasks>>,
}

/// One direction of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the node to the server.
    Out,
    /// From the server to the node.
    In,
}

impl Line {
    /// A line that is well.
    pub fn new(host: Host, pace: Pace, flaw: Option<Flaw>, book: Book) -> Self {
        let condition = watch::Sender::new(Condition::default());
        Self { condition, pace, host, flaw, book, strays: Arc::default() }
    }

    /// The rule of the fence that is wired wrongly, if one is.
    pub fn mutation(&self) -> Option<Mutation> {
        Flaw::mutation(self.flaw)
    }

    /// Cuts a direction.
    pub fn cut(&self, direction: Direction) {
        self.condition.send_modify(|now| match direction {
            Direction::Out => now.out_cut = true,
            Direction::In => now.in_cut = true,
        });
    }

    /// Heals both directions.
    pub fn heal(&self) {
        self.condition.send_modify(|now| (now.out_cut, now.in_cut) = (false, false));
    }

    /// Has this happen to messages from now on.
    pub fn suffer(&self, noise: Noise) {
        self.condition.send_modify(|now| now.noise = noise);
    }

    /// Breaks the watches that run.
    pub fn drop_watches(&self) {
        self.condition.send_modify(|now| now.drops += 1);
    }

    /// Whether it is cut in any direction.
    pub fn is_cut(&self) -> bool {
        let now = *self.condition.borrow();
        now.out_cut || now.in_cut
    }

    /// A message travels: it waits out a short cut; a longer one breaks the connection.
    pub async fn travel(&self, direction: Direction) -> Result<(), TransportError> {
        self.host.sleep(self.pace.of(DELAY) + self.delay()).await;
        self.pass(direction).await
    }

    /// The same for a message that another line has delayed already.
    pub async fn pass(&self, direction: Direction) -> Result<(), TransportError> {
        let is_open = |now: &Condition| match direction {
            Direction::Out => !now.out_cut,
            Direction::In => !now.in_cut,
        };
        let mut seen = self.condition.subscribe();
        if !is_open(&self.condition.borrow()) {
            self.book.happened(match direction {
                Direction::Out => "message held up by a cut outwards",
                Direction::In => "message held up by a cut inwards",
            });
        }
        match self.host.within(CUT_NOTICED, seen.wait_for(is_open)).await {
            Some(_) => Ok(()),
            None => Err(unreachable("the line is cut")),
        }
    }

    /// Returns when a cut has lasted until it is noticed, or when watches are dropped.
    async fn broken(&self) {
        let mut seen = self.condition.subscribe();
        let drops = seen.borrow_and_update().drops;
        loop {
            let is_news = |now: &Condition| now.out_cut || now.in_cut || now.drops != drops;
            // The sender is in this very line: it cannot be gone.
            let Ok(now) = seen.wait_for(is_news).await.map(|now| *now) else { return };
            if now.drops != drops {
                return;
            }
            let is_over = |now: &Condition| !(now.out_cut || now.in_cut) || now.drops != drops;
            if self.host.within(CUT_NOTICED, seen.wait_for(is_over)).await.is_none() {
                return;
            }
        }
    }

    /// How much longer than usual a message takes.
    fn delay(&self) -> Duration {
        let noise = self.condition.borrow().noise;
        let chance = self.host.chance();
        if drawn(chance, noise.late_one_in) {
            self.book.happened("message late");
            return LATE_MAX.mul_f64(chance.unit());
        }
        if noise.jitter.is_zero() {
            return Duration::ZERO;
        }
        self.book.happened("message delayed");
        noise.jitter.mul_f64(chance.unit())
    }

    /// Whether this request is one that is lost: and if so, whether before it was carried out.
    pub fn fate(&self, chance: &Chance) -> Fate {
        if !drawn(chance, self.condition.borrow().noise.lost_one_in) {
            return Fate::Arrives;
        }
        let (fate, what) = match chance.below(2) {
            0 => (Fate::RequestLost, "request lost"),
            _ => (Fate::AnswerLost, "answer lost"),
        };
        self.book.happened(what);
        fate
    }

    /// Has the same message arrive a second time, now and then: later, whatever became of who sent it.
    pub fn perhaps_twice<F>(&self, arrive: impl FnOnce() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if !drawn(self.host.chance(), self.condition.borrow().noise.twice_one_in) {
            return;
        }
        let (host, book, arrives) = (self.host.clone(), self.book.clone(), arrive());
        let wait = LATE_MAX.mul_f64(host.chance().unit());
        let stray = async move {
            host.sleep(wait).await;
            book.happened("message repeated");
            arrives.await;
        };
        self.leave_behind(stray);
    }

    /// Something goes on that nobody waits for.
    fn leave_behind(&self, stray: impl Future<Output = ()> + Send + 'static) {
        let mut strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        Process::outside(|| strays.spawn(stray));
    }
}

/// Whether this is the one in so many.
fn drawn(chance: &Chance, one_in: u64) -> bool {
    one_in > 0 && chance.below(one_in) == 0
}

/// What becomes of a request.

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives, and so does its answer.
    Arrives,
    /// It never arrives.
    RequestLost,
    /// It is carried out, and nobody hears of it.
    AnswerLost,
}

/// That the other side was not reached.
pub fn unreachable(why: &'static str) -> TransportError {
    TransportError::Unreachable(why.into())
}

/// A [`Transport`] over a line, as one user.
pub struct Wire {
    server: Server,
    identity: Identity,
    line: Line,
    book: Book,
    host: Host,
    /// Guards nothing but the order of draws.
    chance: Mutex<Chance>,
    leased: Mutex<Bytes>,
}

impl Wire {
    /// Requests of `identity` over `line`.
    pub fn new(server: Server, identity: Identity, line: Line, book: Book, host: Host) -> Arc<Self> {
        let chance = Mutex::new(host.chance().clone());
        Arc::new(Self { server, identity, line, book, host, chance, leased: Mutex::default() })
    }

    fn local(&self) -> Result<(Local, Process), TransportError> {
        let serving = self.server.serving().ok_or_else(|| unreachable("connection refused"))?;
        Ok((Local::new(serving.service, self.identity.clone()), serving.process))
    }

    async fn trip(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let fate = self.line.fate(&self.chance());
        self.line.travel(Direction::Out).await?;
        if let Some(mutation) = self.line.mutation()
            && (fate == Fate::RequestLost || self.server.serving().is_none())
            && let Some(answer) = mutation.acknowledges(&request, &self.leased())
        {
            return Ok(answer);
        }
        if fate == Fate::RequestLost {
            return Err(unreachable("connection reset"));
        }
        let request = match self.line.mutation() {
            Some(mutation) => mutation.arrives(request),
            None => request,
        };
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let sent = request.clone();
        if method != http::Method::GET {
            self.line.perhaps_twice(|| again(self.server.clone(), self.identity.clone(), request.clone()));
        }
        let (local, process) = self.local()?;
        let answer = tokio::select! {
            biased;
            () = self.server.gone(self.server.generation()) => return Err(unreachable("connection reset")),
            () = stands_still(&self.host, &process) => {
                // What lies before it is done when it goes on, though nobody waits any more.
                if method != http::Method::GET {
                    self.line.leave_behind(again(self.server.clone(), self.identity.clone(), sent));
                }
                return Err(unreachable("no answer to pings"));
            }
            answer = process.part(local.call(request)) => answer?,
        };
        drop(local);
        self.line.travel(Direction::In).await?;
        if fate == Fate::AnswerLost {
            return Err(unreachable("connection reset"));
        }
        if self.line.mutation().is_some() && answer.status().is_success() && is_of_lease(&method, &path) {
            *self.leased() = answer.body().clone();
        }
        self.book.answered(&method, &path, &answer);
        Ok(answer)
    }

    /// Guards the last answer about a lease, for a server that makes answers up.
    fn leased(&self) -> MutexGuard<'_, Bytes> {
        self.leased.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chance(&self) -> MutexGuard<'_, Chance> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when a server has answered no ping for as long as a connection takes to count as broken.
async fn stands_still(host: &Host, process: &Process) {
    loop {
        process.stopped().await;
        host.sleep(CUT_NOTICED).await;
        if process.is_stopped() {
            return;
        }
    }
}

/// A request arrives again, at whatever server there is then.
async fn again(server: Server, identity: Identity, request: http::Request<Bytes>) {
    let Some(serving) = server.serving() else { return };
    let call = async move { Local::new(serving.service, identity).call(request).await };
    tokio::select! {
        biased;
        () = server.gone(server.generation()) => {}
        // Nobody waits for what it says.
        _ = serving.process.part(call) => {}
    }
}

#[async_trait]
impl Transport for Wire {
    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let answer = self.host.within(ANSWER_MAX, self.trip(request)).await;
        answer.unwrap_or_else(|| Err(unreachable("no answer in time")))
    }

    async fn watch(&self, request: http::Request<()>) -> Result<WatchStream, TransportError> {
        self.line.travel(Direction::Out).await?;
        let watched = Watched::of(request.uri());
        let ((local, process), generation) = (self.local()?, self.server.generation());
        let events = tokio::select! {
            biased;
            () = self.server.gone(generation) => return Err(unreachable("connection reset")),
            () = stands_still(&self.host, &process) => return Err(unreachable("no answer to pings")),
            events = process.part(local.watch(request)) => events?,
        };
        drop(local);
        self.line.travel(Direction::In).await?;
        let ends = Ends {
            server: self.server.clone(),
            generation,
            line: self.line.clone(),
            process,
            book: self.book.clone(),
            watched,
        };
        Ok(ends.carry(events))
    }
}

/// What a watch's events have to get through.
struct Ends {
    server: Server,
    /// That of the server that answers.
    generation: u64,
    line: Line,
    /// The server's: it tells nothing while it stands still.
    process: Process,
    book: Book,
    watched: Watched,
}

type Told = Result<WatchEvent, TransportError>;
type Events = BoxStream<'static, Vec<Told>>;

impl Ends {
    /// The events, as they arrive: in order, late, and until something breaks.
    fn carry(self, events: WatchStream) -> WatchStream {
        let broken = {
            let (server, generation, line) = (self.server.clone(), self.generation, self.line.clone());
            let process = self.process.clone();
            Box::pin(async move {
                tokio::select! {
                    biased;
                    () = server.gone(generation) => unreachable("connection reset"),
                    () = stands_still(&line.host, &process) => unreachable("no answer to pings"),
                    () = line.broken() => unreachable("the watch broke"),
                }
            })
        };
        let chunks: Events = events.ready_chunks(EVENTS_AT_ONCE).boxed();
        let arriving = stream::unfold(Some((self, chunks, broken)), |state| async move {
            let (mut ends, mut chunks, mut broken) = state?;
            let arrived = async {
                let chunk = ends.process.part(chunks.next()).await?;
                let travelled = ends.line.travel(Direction::In).await;
                Some(travelled.map(|()| chunk))
            };
            let next = tokio::select! {
                biased;
                error = &mut broken => Some(Err(error)),
                next = arrived => next,
            };
            match next?.map(|chunk| ends.told(chunk)) {
                Ok(chunk) => Some((stream::iter(chunk), Some((ends, chunks, broken)))),
                Err(error) => Some((stream::iter(vec![Err(error)]), None)),
            }
        });
        arriving.flatten().boxed()
    }

    /// What the watcher is told of these events.
    fn told(&mut self, events: Vec<Told>) -> Vec<Told> {
        let mut told = Vec::with_capacity(events.len());
        for event in events {
            let times = match (&event, self.line.flaw) {
                (Ok(event), Some(flaw)) if event.kind != WatchKind::Bookmark => flaw.tells(&self.line.host),
                _ => 1,
            };
            if let (Ok(event), 1..) = (&event, times) {
                for _ in 1..times {
                    self.book.watched(&mut self.watched, event);
                    told.push(Ok(event.clone()));
                }
                self.book.watched(&mut self.watched, event);
            }
            if times > 0 {
                told.push(event);
            }
        }
        told
    }
}
