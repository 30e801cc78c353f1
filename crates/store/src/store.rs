//! The handle on a store: reads go straight to the memory, writes queue for the writer.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use host::{Host, Task};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::face::{Committed, Form, Page, Range, Record, Revision, StoreError, Txn};
use crate::limits::Limits;
use crate::memory::Memory;
use crate::watch::Watch;
use crate::writer::{Job, Request, Writer, txn_bytes};

/// What the handles, the watches and the writer share.
pub(crate) struct Shared {
    /// Guards records and history for the length of a read, or of the taking in of a batch.
    memory: RwLock<Memory>,
}

impl Shared {
    pub fn new(memory: Memory) -> Arc<Self> {
        Arc::new(Self { memory: RwLock::new(memory) })
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Memory> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Memory> {
        self.memory.write().unwrap_or_else(PoisonError::into_inner)
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
    jobs: mpsc::Sender<Job>,
    /// The bytes of transactions that may still come to wait.
    room: Arc<Semaphore>,
    txn_bytes_max: usize,
    _writer: Task<()>,
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
        let (jobs, queue) = mpsc::channel(limits.queue_len);
        let txn_bytes_max = limits.txn_bytes;
        let room =
            Arc::new(Semaphore::new(limits.queue_bytes.max(txn_bytes_max).min(Semaphore::MAX_PERMITS)));
        let (shared, writer) = Writer::open(host, dir, form.into(), limits, queue).await?;
        Ok(Self(Arc::new(Inner { shared, jobs, room, txn_bytes_max, _writer: host.spawn(writer.run()) })))
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

    /// Does a transaction, whole or not at all; returns when it is on disk and visible.
    ///
    /// Dropped while it waits, the transaction may be done or not.
    ///
    /// # Errors
    /// `Conflict`, `TooLarge`, `Full`: nothing was written. `Disk`: it may have been, and nothing more will be.
    pub async fn commit(&self, txn: Txn) -> Result<Committed, StoreError> {
        let (bytes, limit) = (txn_bytes(&txn), self.0.txn_bytes_max);
        let too_large = StoreError::TooLarge { bytes, limit };
        let permits = u32::try_from(bytes).ok().filter(|_| bytes <= limit).ok_or(too_large)?;
        let _room = self.0.room.clone().acquire_many_owned(permits).await.map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let request = Request { txn, bytes, answer, _room };
        self.0.jobs.send(Job::Commit(request)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Follows all events under `prefix` after a revision. Cheapest when the prefix is a collection, such as `/pods/`.
    ///
    /// # Errors
    /// `Compacted` or `Future` when the revision is out of reach.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        Watch::new(self.0.shared.clone(), prefix, after)
    }

    /// Writes all records anew and lets go of the log before them; returns the revision from which on history is on disk.
    /// Reads, writes and watches go on meanwhile; whoever watches from an older revision after a restart lists anew.
    ///
    /// # Errors
    /// `Full` or `Disk` when the disk does not do, `Closed` when the store is.
    pub async fn compact(&self) -> Result<Revision, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.0.jobs.send(Job::Compact(answer)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }

    /// Finishes what is queued, ends every watch and lets go of the folder. Reads go on, writes are refused.
    pub async fn close(&self) {
        if self.0.jobs.send(Job::Close).await.is_ok() {
            self.0.jobs.closed().await;
        }
    }
}
