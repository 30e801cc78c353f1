//! The journal: opening it, writing to it, waiting for what comes back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use client::grpc::{Code, Status};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use host::{Host, Task};
use store::{
    Change, Committed, Form, Intake, Journal, Limits, Record, Revision, Store, StoreError, Stored, Tags, Txn,
    join,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::compact::{self, Compactor};
use crate::endpoints::{Endpoints, Failed, is_silence};
use crate::follow::Follower;
use crate::keys::{Keys, OPS_MAX};
use crate::load::{self, NotLoaded, unreachable};
use crate::messages::{
    CompareResult, PutRequest, RANGE, RangeRequest, RangeResponse, Request, RequestOp, STATUS, StatusRequest,
    StatusResponse, TXN, TxnRequest, TxnResponse,
};
use crate::reader::{Reader, WAITING_MAX, Waiter};
use crate::settings::{Settings, SettingsError};
use crate::terms::{self, Found, Heed, Terms};
use crate::transaction;

/// How long a start waits for the first answer.
pub const OPEN_MAX: Duration = Duration::from_secs(30);

/// How long etcd may take to answer a transaction. It gives up itself after seven seconds.
pub const TXN_MAX: Duration = Duration::from_secs(7);

/// How long what was written may take to come back by the watch.
const RETURN_MAX: Duration = Duration::from_secs(10);

/// How long those wait who name a revision that is not there: upstream's three seconds.
pub const REACH_MAX: Duration = Duration::from_secs(3);

/// Transactions under way at once; more wait at the door. Etcd groups what arrives together, and refuses when more than
/// 5,000 wait.
pub const UNDER_WAY_MAX: usize = 1024;

/// How often a transaction is said anew when what holds for all servers changed meanwhile: that changes a few times in a
/// rotation of keys, and the watch brings it at once.
const FENCED_MAX: u32 = 8;

/// How much history a start asks etcd for, in revisions: what it can take in within a second or so.
const HISTORY_REVISIONS_MAX: i64 = 50_000;

/// A store's journal in etcd.
#[derive(Clone)]
pub struct Etcd(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) host: Host,
    pub(crate) endpoints: Endpoints,
    pub(crate) keys: Keys,
    pub(crate) form: Form,
    pub(crate) terms: Terms,
    intake: Intake,
    waiting: mpsc::Sender<Waiter>,
    room: Semaphore,
    /// What feeds the memory and looks after etcd, until the store is closed. Guards them while they are let go.
    tasks: Mutex<Vec<Task<()>>>,
}

/// Opens a store over etcd; what is there may be written by other servers at the same time. `heed` hears what they agreed on
/// about sealing.
///
/// # Errors
/// `Unreachable` when no member answers or etcd is too old, `Damaged` when under the prefix lies what is none of ours.
pub async fn open(
    host: &Host,
    settings: &Settings,
    form: impl Into<Form>,
    heed: Heed,
    limits: Limits,
) -> Result<(Store, Etcd), OpenError> {
    let form = form.into();
    let endpoints = Endpoints::open(host, settings)?;
    let keys = Keys::new(&settings.prefix);
    let asked = compact::horizon(&endpoints, &keys, OPEN_MAX).await;
    let (forgotten, newest) = asked.map_err(|status| unreachable(&status))?;
    check_version(&endpoints).await?;
    // After the newest is known, so that the watch brings every change of it.
    let Found { keys, terms, restoring, .. } = terms::find(&endpoints, &keys, heed).await?;
    if restoring != 0 {
        return Err(OpenError::Restoring);
    }
    let intake = Intake::new(host.clone(), limits);
    // From as far back as there is history, so that watchers find their revision after a restart, too.
    let from = forgotten.max(newest - HISTORY_REVISIONS_MAX).max(1);
    let done = match load::reload(&endpoints, &keys, (&form, &terms), &intake, from).await {
        Err(NotLoaded::Compacted) => load::reload(&endpoints, &keys, (&form, &terms), &intake, 0).await,
        loaded => loaded,
    };
    let done = done.map_err(|why| match why {
        NotLoaded::Compacted => unreachable(&Status::unavailable("it compacts faster than it can be read")),
        NotLoaded::Failed(error) => error,
    })?;
    let (waiting, waiters) = mpsc::channel(WAITING_MAX);
    let follower = Follower {
        host: host.clone(),
        endpoints: endpoints.clone(),
        keys: keys.clone(),
        form: form.clone(),
        terms: terms.clone(),
        intake: intake.clone(),
        done,
    };
    let reader = Reader {
        host: host.clone(),
        endpoints: endpoints.clone(),
        keys: keys.clone(),
        intake: intake.clone(),
        waiting: waiters,
    };
    let compactor = Compactor::new(host.clone(), endpoints.clone(), keys.clone());
    let tasks = vec![host.spawn(follower.run()), host.spawn(reader.run()), host.spawn(compactor.run())];
    let room = Semaphore::new(UNDER_WAY_MAX);
    let (host, tasks) = (host.clone(), Mutex::new(tasks));
    let inner = Inner { host, endpoints, keys, form, terms, intake, waiting, room, tasks };
    let etcd = Etcd(Arc::new(inner));
    etcd.0.catch_up().await?;
    Ok((etcd.0.intake.store(Box::new(etcd.clone())), etcd))
}

/// Why a store over etcd was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Etcd does not do.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Etcd is too old.
    #[error("etcd is of version {0}; 3.4 is the oldest that does")]
    Version(String),
    /// It holds a part of a backup alone.
    #[error("a restore into this store was begun and not ended: do it again (kintsugi store restore)")]
    Restoring,
}

pub async fn check_version(endpoints: &Endpoints) -> Result<(), OpenError> {
    let asked = endpoints.ask_again::<_, StatusResponse>(STATUS, &StatusRequest {}, OPEN_MAX).await;
    let version = asked.map_err(|status| unreachable(&status))?.version;
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) if (major, minor) < (3, 4) => Err(OpenError::Version(version)),
        _ => Ok(()),
    }
}

impl Inner {
    async fn catch_up(&self) -> Result<(), StoreError> {
        if self.room.is_closed() || self.intake.is_closed() {
            return Err(StoreError::Closed);
        }
        let (answer, answered) = oneshot::channel();
        self.waiting.send(answer).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        let _room = self.room.acquire().await.map_err(|_| StoreError::Closed)?;
        for _ in 0..FENCED_MAX {
            if let Some(committed) = self.try_once(&txn).await? {
                return Ok(committed);
            }
            // The watch brings what holds now; after a restore that is the end.
            self.catch_up().await?;
        }
        Err(unreachable(&Status::unavailable("what holds for all servers changes all the time")))
    }

    /// Does a transaction by what holds as far as is known; `None` when something else holds.
    async fn try_once(&self, txn: &Txn) -> Result<Option<Committed>, StoreError> {
        if self.intake.is_closed() {
            return Err(StoreError::Closed);
        }
        let fence = self.terms.fence();
        let asked = transaction::ask(&self.keys, &self.form, fence, txn, |path| self.intake.get(path))?;
        let before = self.intake.revision();
        match self.endpoints.ask::<_, TxnResponse>(TXN, &asked.request, TXN_MAX).await {
            Ok(answer) if answer.succeeded => {
                let at = answer.header.unwrap_or_default().revision;
                self.come_back(self.keys.revision(at, 0)).await?;
                Ok(Some(self.committed(txn, at)))
            }
            Ok(answer) => match transaction::beaten(&asked.needs, &answer) {
                Some((path, found)) => Err(self.beaten(path, found).await),
                None => Ok(None),
            },
            Err(Failed::Unsent(status)) => Err(unreachable(&status)),
            Err(Failed::Told(status)) if is_silence(status.code) => {
                self.find_out(txn, before, &status).await.map(Some)
            }
            Err(Failed::Told(status)) => Err(refused(&status, txn)),
        }
    }

    /// Asks what may be done twice.
    pub(crate) async fn ask_twice(&self, ask: &TxnRequest) -> Result<TxnResponse, StoreError> {
        let answer = self.endpoints.ask_again(TXN, ask, OPEN_MAX).await;
        answer.map_err(|status| unreachable(&status))
    }

    /// Waits until the memory shows an etcd revision of ours.
    async fn come_back(&self, revision: Revision) -> Result<(), StoreError> {
        let reached = self.host.within(RETURN_MAX, self.intake.reached(revision)).await;
        reached.ok_or_else(|| {
            unreachable(&Status::unavailable("what was written does not come back by the watch"))
        })
    }

    /// Whoever is told that somebody was faster sees what that one wrote.
    async fn beaten(&self, path: store::Path, found: Option<i64>) -> StoreError {
        let seen = match found {
            Some(revision) => self.come_back(self.keys.revision(revision, 0)).await,
            None => self.catch_up().await,
        };
        if let Err(error) = seen {
            return error;
        }
        StoreError::Conflict { path, actual: found.map(|revision| self.keys.revision(revision, 0)) }
    }

    /// Nobody said what became of a transaction: looks whether it shows.
    async fn find_out(&self, txn: &Txn, before: Revision, status: &Status) -> Result<Committed, StoreError> {
        self.catch_up().await?;
        let events = self.intake.since(before).unwrap_or_default();
        let shows = |change: &Change| {
            let found = events.iter().find(|event| match change {
                Change::Put { path, body, .. } => {
                    !event.removed
                        && event.record.path == *path
                        && event.record.value == join(body, event.record.revision)
                }
                Change::Remove { path, .. } => event.removed && event.record.path == *path,
            });
            found.map(|event| self.keys.etcd(event.record.revision))
        };
        match txn.changes.first().and_then(shows) {
            Some(at) => Ok(self.committed(txn, at)),
            None => Err(unreachable(status)),
        }
    }

    /// What a transaction did that etcd did at this revision.
    fn committed(&self, txn: &Txn, at: i64) -> Committed {
        let revision = |number| self.keys.revision(at, number);
        let last = txn.changes.len().saturating_sub(1);
        let since = self.intake.since(revision(0) - 1).unwrap_or_default();
        let mut events = since.iter().take_while(|event| event.record.revision <= revision(last));
        let records = txn.changes.iter().enumerate().map(|(number, change)| {
            let event = events.next().filter(|event| event.record.revision == revision(number));
            event.map_or_else(|| self.record(change, revision(number)), |event| event.record.clone())
        });
        Committed { records: records.collect(), revision: revision(last) }
    }

    /// What a change wrote, where the memory was read anew meanwhile and knows no history.
    fn record(&self, change: &Change, revision: Revision) -> Record {
        let stored = match change {
            Change::Put { path, body, tags } => Stored {
                path: path.clone(),
                value: join(body, revision),
                revision,
                created: self.intake.get(path).map_or(revision, |record| record.created),
                tags: tags.clone(),
            },
            Change::Remove { path, last } => Stored {
                path: path.clone(),
                value: last.as_ref().map(|last| join(last, revision)).unwrap_or_default(),
                revision,
                created: revision,
                tags: Tags::default(),
            },
        };
        stored.into()
    }
}

/// What etcd said about a transaction that it did not do.
fn refused(status: &Status, txn: &Txn) -> StoreError {
    let said = |text: &str| status.message.contains(text);
    match status.code {
        Code::ResourceExhausted if said("space exceeded") => {
            StoreError::NoSpace { journal: "etcd", why: status.message.clone() }
        }
        Code::InvalidArgument if said("too large") => {
            StoreError::TooLarge { bytes: store::txn_bytes(txn), limit: transaction::TXN_BYTES_MAX }
        }
        Code::InvalidArgument if said("too many operations") => {
            StoreError::TooMany { changes: txn.changes.len(), limit: OPS_MAX }
        }
        _ => unreachable(status),
    }
}

impl Etcd {
    /// What all servers of this etcd agree on under a name: what the first of them said.
    ///
    /// # Errors
    /// `Unreachable` when etcd does not answer.
    pub async fn agree(&self, name: &str, mine: &str) -> Result<String, StoreError> {
        let key = self.0.keys.own(&format!("agreed/{name}"));
        let look = RangeRequest { key: key.clone(), ..RangeRequest::default() };
        let put = PutRequest { key: key.clone(), value: mine.to_owned().into() };
        let request = TxnRequest {
            compare: vec![transaction::by_revision(key, CompareResult::Equal, 0)],
            success: vec![RequestOp { request: Some(Request::Put(put)) }],
            failure: vec![RequestOp { request: Some(Request::Range(look)) }],
        };
        let answer: TxnResponse = self
            .0
            .endpoints
            .ask_again(TXN, &request, OPEN_MAX)
            .await
            .map_err(|status| unreachable(&status))?;
        if answer.succeeded {
            return Ok(mine.to_owned());
        }
        let found = answer.responses.iter().filter_map(|one| one.range.as_ref()).flat_map(|range| &range.kvs);
        Ok(found.map(|kv| String::from_utf8_lossy(&kv.value).into_owned()).next().unwrap_or_default())
    }

    /// What the servers of this etcd agreed on under a name, if anything.
    ///
    /// # Errors
    /// `Unreachable` when etcd does not answer.
    pub async fn agreed(&self, name: &str) -> Result<Option<String>, StoreError> {
        let key = self.0.keys.own(&format!("agreed/{name}"));
        let look = RangeRequest { key, ..RangeRequest::default() };
        let found: RangeResponse = self
            .0
            .endpoints
            .ask_again(RANGE, &look, OPEN_MAX)
            .await
            .map_err(|status| unreachable(&status))?;
        Ok(found.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned()))
    }

    /// Has etcd forget now what was superseded; says from which revision on there is history.
    ///
    /// # Errors
    /// `Unreachable` when etcd does not answer.
    pub async fn let_go(&self) -> Result<Revision, StoreError> {
        let inner = &self.0;
        let upto = inner.keys.etcd(inner.intake.revision());
        let done = compact::let_go(&inner.host, &inner.endpoints, &inner.keys, upto).await;
        Ok(inner.keys.whole(done.map_err(|status| unreachable(&status))?))
    }

    /// The members, for messages.
    pub fn names(&self) -> &str {
        self.0.endpoints.names()
    }
}

impl Journal for Etcd {
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, StoreError>> {
        self.0.commit(txn).boxed()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn catch_up(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.0.catch_up().boxed()
    }

    fn reach(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let reached = self.0.host.within(REACH_MAX, self.0.intake.reached(revision)).await;
            reached.ok_or_else(|| StoreError::Future { asked: revision, newest: self.0.intake.revision() })
        }
        .boxed()
    }

    fn compact(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        self.let_go().boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.0.room.close();
        self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.0.intake.close();
        std::future::ready(()).boxed()
    }
}
