//! The wire between an agent and the API: delay, loss, cuts in either direction, and servers that go away.
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
use host::{Chance, Host};
use kintsugi::local::Local;

use crate::flaw::Flaw;
use crate::gate::Gate;
use crate::observe::{Book, Watched};
use crate::pace::Pace;

/// How long a message usually travels.
const DELAY: Duration = Duration::from_millis(1);

/// How long a cut has to last until a connection counts as broken: as the https transport notices it by its pings.
const CUT_NOTICED: Duration = Duration::from_secs(4);

/// How long an answer may take: as the https transport waits.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// How many events of a watch arrive together at most.
const EVENTS_AT_ONCE: usize = 64;

/// Where the server is, if it runs, and the how manieth it is; clones share it.
#[derive(Clone)]
pub struct Server(watch::Sender<(u64, Option<Service>)>);

impl Default for Server {
    fn default() -> Self {
        Self(watch::Sender::new((0, None)))
    }
}

impl Server {
    /// The server runs.
    pub fn up(&self, service: Service) {
        self.0.send_modify(|(generation, now)| {
            *generation += 1;
            *now = Some(service);
        });
    }

    /// The server is gone, and all connections to it.
    pub fn down(&self) {
        self.0.send_modify(|(_, now)| *now = None);
    }

    /// The server that runs now.
    pub fn service(&self) -> Option<Service> {
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

/// What a line does to messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Condition {
    /// Requests do not get through.
    out_cut: bool,
    /// Answers and events do not get through.
    in_cut: bool,
    /// One in so many requests breaks its connection; 0 for none.
    lost_one_in: u64,
    /// Counts how often all watches were dropped.
    drops: u64,
}

/// One node's line to the server; clones share it.
#[derive(Clone)]
pub struct Line {
    condition: watch::Sender<Condition>,
    pace: Pace,
    host: Host,
    flaw: Option<Flaw>,
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
    pub fn new(host: Host, pace: Pace, flaw: Option<Flaw>) -> Self {
        Self { condition: watch::Sender::new(Condition::default()), pace, host, flaw }
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

    /// Loses one in so many requests, or its answer; 0 for none.
    pub fn lose_one_in(&self, count: u64) {
        self.condition.send_modify(|now| now.lost_one_in = count);
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
        self.host.sleep(self.pace.of(DELAY)).await;
        let is_open = |now: &Condition| match direction {
            Direction::Out => !now.out_cut,
            Direction::In => !now.in_cut,
        };
        let mut seen = self.condition.subscribe();
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

    /// Whether this request is one that is lost: and if so, whether before it was carried out.
    fn fate(&self, chance: &Chance) -> Fate {
        let one_in = self.condition.borrow().lost_one_in;
        if one_in == 0 || chance.below(one_in) > 0 {
            return Fate::Arrives;
        }
        if chance.below(2) == 0 { Fate::RequestLost } else { Fate::AnswerLost }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    RequestLost,
    AnswerLost,
}

fn unreachable(why: &'static str) -> TransportError {
    TransportError::Unreachable(why.into())
}

/// A [`Transport`] over a line, as one user.
pub struct Wire {
    server: Server,
    identity: Identity,
    line: Line,
    gate: Gate,
    book: Book,
    host: Host,
    /// Guards nothing but the order of draws.
    chance: Mutex<Chance>,
}

impl Wire {
    /// Requests of `identity` over `line`; they wait while the gate is shut.
    pub fn new(
        server: Server,
        identity: Identity,
        line: Line,
        gate: Gate,
        book: Book,
        host: Host,
    ) -> Arc<Self> {
        let chance = Mutex::new(host.chance().clone());
        Arc::new(Self { server, identity, line, gate, book, host, chance })
    }

    fn local(&self) -> Result<Local, TransportError> {
        let service = self.server.service().ok_or_else(|| unreachable("connection refused"))?;
        Ok(Local::new(service, self.identity.clone()))
    }

    async fn trip(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        let fate = self.line.fate(&self.chance());
        self.line.travel(Direction::Out).await?;
        if fate == Fate::RequestLost {
            return Err(unreachable("connection reset"));
        }
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let local = self.local()?;
        let answer = tokio::select! {
            biased;
            () = self.server.gone(self.server.generation()) => return Err(unreachable("connection reset")),
            answer = local.call(request) => answer?,
        };
        drop(local);
        self.line.travel(Direction::In).await?;
        if fate == Fate::AnswerLost {
            return Err(unreachable("connection reset"));
        }
        self.book.answered(&method, &path, &answer);
        Ok(answer)
    }

    fn chance(&self) -> MutexGuard<'_, Chance> {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Transport for Wire {
    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        self.gate.pass().await;
        let answer = self.host.within(ANSWER_MAX, self.trip(request)).await;
        self.gate.pass().await;
        answer.unwrap_or_else(|| Err(unreachable("no answer in time")))
    }

    async fn watch(&self, request: http::Request<()>) -> Result<WatchStream, TransportError> {
        self.gate.pass().await;
        self.line.travel(Direction::Out).await?;
        let watched = Watched::of(request.uri());
        let (local, generation) = (self.local()?, self.server.generation());
        let events = tokio::select! {
            biased;
            () = self.server.gone(generation) => return Err(unreachable("connection reset")),
            events = local.watch(request) => events?,
        };
        drop(local);
        self.line.travel(Direction::In).await?;
        let ends = Ends {
            server: self.server.clone(),
            generation,
            line: self.line.clone(),
            gate: self.gate.clone(),
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
    gate: Gate,
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
            Box::pin(async move {
                tokio::select! {
                    biased;
                    () = server.gone(generation) => unreachable("connection reset"),
                    () = line.broken() => unreachable("the watch broke"),
                }
            })
        };
        let chunks: Events = events.ready_chunks(EVENTS_AT_ONCE).boxed();
        let arriving = stream::unfold(Some((self, chunks, broken)), |state| async move {
            let (mut ends, mut chunks, mut broken) = state?;
            let arrived = async {
                let chunk = chunks.next().await?;
                let travelled = ends.line.travel(Direction::In).await;
                ends.gate.pass().await;
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
