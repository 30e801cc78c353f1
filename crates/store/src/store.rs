//! The handle on a store: reads go straight to the memory, writes to the journal.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use host::{Host, watch};

use crate::embedded::Embedded;
use crate::face::{Committed, Form, Page, Range, Record, Revision, StoreError, Txn};
use crate::journal::Journal;
use crate::limits::Limits;
use crate::memory::Memory;
use crate::watch::Watch;

/// What the handles, the watches and the journal share.
pub(crate) struct Shared {
    /// Guards records and history for the length of a read, or of the taking in of a batch.
    memory: RwLock<Memory>,
    /// Shows how far the memory is, for those who wait until it has caught up.
    progress: watch::Sender<Revision>,
}

impl Shared {
    pub fn new(memory: Memory) -> Arc<Self> {
        let progress = watch::Sender::new(memory.revision);
        Arc::new(Self { memory: RwLock::new(memory), progress })
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait that the memory is this far.
    pub fn tell(&self, newest: Revision) {
        self.progress.send_replace(newest);
    }

    /// Waits until the memory is as far as this.
    pub async fn reached(&self, revision: Revision) {
        // Ends only with the sender, which lies beside it.
        let _ = self.progress.subscribe().wait_for(|newest| *newest >= revision).await;
    }

    /// Tells every watcher that nothing more will come.
    pub fn close(&self) {
        let bells = self.write().close();
        bells.iter().for_each(|bell| bell.send_modify(|_| {}));
    }
}

/// A handle on the store; clones share it. When the last one is dropped, writing stops.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    journal: Box<dyn Journal>,
}

impl Store {
    /// Opens the store in `dir`, making it when it is missing.
    ///
    /// # Errors
    /// `InUse` when another process has it open, `Damaged` when its data is, `Sealed` when a key is missing, `Full` or
    /// `Disk` when the disk does not do.
    pub async fn open(
        host: &Host,
        dir: PathBuf,
        form: impl Into<Form>,
        limits: Limits,
    ) -> Result<Self, StoreError> {
        let (shared, journal) = Embedded::open(host, dir, form.into(), limits).await?;
        Ok(Self::new(shared, Box::new(journal)))
    }

    pub(crate) fn new(shared: Arc<Shared>, journal: Box<dyn Journal>) -> Self {
        Self(Arc::new(Inner { shared, journal }))
    }

    /// The newest revision.
    pub fn revision(&self) -> Revision {
        self.0.shared.read().revision
    }

    /// The oldest revision that can be listed at or watched from.
    pub fn oldest(&self) -> Revision {
        self.0.shared.read().oldest
    }

    /// What lies at `path`.
    pub fn get(&self, path: &str) -> Option<Record> {
        self.0.shared.read().get(path).cloned()
    }

    /// The records of a range, all as they were at one revision.
    ///
    /// # Errors
    /// `Compacted` or `Future` when the revision asked for is out of reach.
    pub fn list(&self, range: &Range) -> Result<Page, StoreError> {
        self.0.shared.read().list(range)
    }

    /// How many records lie in the collection of a path or prefix.
    pub fn count(&self, prefix: &str) -> usize {
        self.0.shared.read().count(prefix)
    }

    /// Whether other servers write to the same store, so that reads may be behind.
    pub fn is_shared(&self) -> bool {
        self.0.journal.is_shared()
    }

    /// Waits until reads show all that anyone was told is done; that is so at once where nobody else writes.
    ///
    /// # Errors
    /// `Unreachable` when nobody can say what is newest, `Closed` when the store is.
    pub async fn catch_up(&self) -> Result<(), StoreError> {
        self.0.journal.catch_up().await
    }

    /// Waits until reads show this revision; gives up soon when it is not written.
    ///
    /// # Errors
    /// `Future` when it did not come.
    pub async fn reach(&self, revision: Revision) -> Result<(), StoreError> {
        if revision <= self.revision() {
            return Ok(());
        }
        self.0.journal.reach(revision).await
    }

    /// Does a transaction, whole or not at all; returns when it is durable and visible.
    ///
    /// Dropped while it waits, the transaction may be done or not.
    ///
    /// # Errors
    /// `Conflict`, `TooLarge`, `TooMany`, `Full`: nothing was written. `Disk`: it may have been, and nothing more will be.
    /// `Unreachable`: it may have been.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        self.0.journal.commit(txn).await
    }

    /// Follows all events under `prefix` after a revision. Cheapest when the prefix is a collection, such as `/pods/`.
    ///
    /// # Errors
    /// `Compacted` or `Future` when the revision is out of reach.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        Watch::new(self.0.shared.clone(), prefix, after)
    }

    /// Has the journal let go of what was superseded; returns the revision from which on it keeps history. Reads, writes and
    /// watches go on meanwhile; whoever watches from an older revision after a restart lists anew.
    ///
    /// # Errors
    /// `Full` or `Disk` when the disk does not do, `Unreachable` when the journal does not answer, `Closed` when the store is.
    pub async fn compact(&self) -> Result<Revision, StoreError> {
        self.0.journal.compact().await
    }

    /// Finishes what is queued, ends every watch and lets go of the journal. Reads go on, writes are refused.
    pub async fn close(&self) {
        self.0.journal.close().await;
    }
}
