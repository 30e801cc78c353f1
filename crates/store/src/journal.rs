//! Where a store keeps what is committed, and how the memory gets it from there.
//!
//! The memory is the same over every journal. The embedded one writes a log beside it; another one may lie outside of this
//! process, be written by several, and feed the memory with all that happens through an [`Intake`].

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use host::Host;

use crate::face::{Body, Change, Committed, Event, Path, Record, Revision, StoreError, Txn};
use crate::limits::Limits;
use crate::memory::{Bell, Memory};
use crate::stage;
use crate::store::{Shared, Store};
use crate::tags::Tags;

/// Where a store keeps what is committed. What is acknowledged is durable there, and visible in the memory.
pub trait Journal: Send + Sync {
    /// Does a transaction, whole or not at all.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, StoreError>>;
    /// Whether others may write as well, so that the memory may be behind.
    fn is_shared(&self) -> bool;
    /// Waits until the memory shows all that was acknowledged to anyone before.
    fn catch_up(&self) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Waits a while for the memory to show a revision that it does not show yet.
    fn reach(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Lets go of what was superseded; says from which revision on history is kept.
    fn compact(&self) -> BoxFuture<'_, Result<Revision, StoreError>>;
    /// Ends well, and lets the memory's watchers know.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The bytes that a transaction brings along.
pub fn txn_bytes(txn: &Txn) -> usize {
    let expected = txn.expect.iter().map(|(path, _)| path.len());
    expected.chain(txn.changes.iter().map(change_bytes)).sum()
}

/// What a change costs beside its bytes, in the log and while it waits.
const CHANGE_OVERHEAD: usize = 64;

fn change_bytes(change: &Change) -> usize {
    let body_bytes =
        |body: &Body| body.before.len() + body.after.as_ref().map_or(0, |after| after.len() + 20);
    CHANGE_OVERHEAD
        + match change {
            Change::Put { path, body, .. } => path.len() + body_bytes(body),
            Change::Remove { path, last } => path.len() + last.as_ref().map_or(0, body_bytes),
        }
}

/// One change as a journal tells it.
#[derive(Debug, Clone)]
pub enum Told {
    /// A value was put.
    Put {
        /// Where.
        path: Path,
        /// The value, whole.
        value: Bytes,
        /// Its tags.
        tags: Tags,
        /// The revision that wrote it.
        revision: Revision,
    },
    /// A value was removed.
    Removed {
        /// Where.
        path: Path,
        /// The value as watchers shall see it go; the last one when `None`.
        last: Option<Bytes>,
        /// The revision of the removal.
        revision: Revision,
    },
}

/// The way into a store's memory, for a journal outside of this process. Only one task at a time may use it.
#[derive(Clone)]
pub struct Intake {
    shared: Arc<Shared>,
    host: Host,
    limits: Limits,
}

impl Intake {
    /// The way into a new memory that holds nothing yet.
    pub fn new(host: Host, limits: Limits) -> Self {
        Self { shared: Shared::new(Memory::new(0)), host, limits }
    }

    /// The store over this memory.
    pub fn store(&self, journal: Box<dyn Journal>) -> Store {
        Store::new(self.shared.clone(), journal)
    }

    /// Holds these records from now on, as of a revision, and nothing else. Whoever watches is cut off: what happened
    /// between is not known.
    pub fn replace(&self, records: Vec<Record>, revision: Revision) {
        let bells = self.shared.write().replace(records, revision);
        ring(&bells, revision);
        self.shared.tell(revision);
    }

    /// Takes in all that happened up to a revision, in the order of its revisions. A removal of what is not there tells
    /// nobody anything.
    pub fn take_in(&self, told: Vec<Told>, upto: Revision) {
        let at = self.host.moment();
        let bells = {
            let mut memory = self.shared.write();
            let events = events(&memory, told);
            let bells = if events.is_empty() { Vec::new() } else { memory.apply(events, at, &self.limits) };
            memory.advance(upto);
            bells
        };
        ring(&bells, upto);
        self.shared.tell(upto);
    }

    /// How far the memory is.
    pub fn revision(&self) -> Revision {
        self.shared.read().revision
    }

    /// Waits until the memory is as far as this.
    pub async fn reached(&self, revision: Revision) {
        self.shared.reached(revision).await;
    }

    /// What lies at a path.
    pub fn get(&self, path: &str) -> Option<Record> {
        self.shared.read().get(path).cloned()
    }

    /// What happened after a revision, the oldest first; `None` when that is not known any more.
    pub fn since(&self, revision: Revision) -> Option<Vec<Arc<Event>>> {
        self.shared.read().since(revision)
    }

    /// Whether they were told so.
    pub fn is_closed(&self) -> bool {
        self.shared.read().closed
    }

    /// Tells every watcher that nothing more will come.
    pub fn close(&self) {
        self.shared.close();
    }
}

fn ring(bells: &[Bell], newest: Revision) {
    for bell in bells {
        bell.send_replace(newest);
    }
}

fn events(memory: &Memory, told: Vec<Told>) -> Vec<Arc<Event>> {
    let mut pending = stage::Pending::new();
    let mut events = Vec::with_capacity(told.len());
    for change in told {
        let lying = |path: &str| match pending.get(path) {
            Some(pending) => pending.clone(),
            None => memory.get(path).cloned(),
        };
        let event = match change {
            Told::Put { path, value, tags, revision } => {
                let before = lying(&path);
                stage::put(path, value, tags, revision, before)
            }
            Told::Removed { path, last, revision } => match lying(&path) {
                Some(before) => stage::remove(before, last, revision),
                None => continue,
            },
        };
        let now = (!event.removed).then(|| event.record.clone());
        pending.insert(event.record.path.clone(), now);
        events.push(Arc::new(event));
    }
    events
}
