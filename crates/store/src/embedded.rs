//! The journal on this machine's disk: one writer, one log.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use host::{Host, Task};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::face::{Committed, Form, Revision, StoreError, Txn};
use crate::journal::{Journal, txn_bytes};
use crate::limits::Limits;
use crate::store::Shared;
use crate::writer::{Job, Request, Writer};

/// The way to the writer.
pub(crate) struct Embedded {
    shared: Arc<Shared>,
    jobs: mpsc::Sender<Job>,
    /// The bytes of transactions that may still come to wait.
    room: Arc<Semaphore>,
    txn_bytes_max: usize,
    _writer: Task<()>,
}

impl Embedded {
    /// Loads the store and starts its writer; returns what the handles share, too.
    pub async fn open(
        host: &Host,
        dir: PathBuf,
        form: Form,
        limits: Limits,
    ) -> Result<(Arc<Shared>, Self), StoreError> {
        let (jobs, queue) = mpsc::channel(limits.queue_len);
        let txn_bytes_max = limits.txn_bytes;
        let room =
            Arc::new(Semaphore::new(limits.queue_bytes.max(txn_bytes_max).min(Semaphore::MAX_PERMITS)));
        let (shared, writer) = Writer::open(host, dir, form, limits, queue).await?;
        let _writer = host.spawn(writer.run());
        Ok((shared.clone(), Self { shared, jobs, room, txn_bytes_max, _writer }))
    }

    async fn queue(&self, txn: Txn) -> Result<Committed, StoreError> {
        let (bytes, limit) = (txn_bytes(&txn), self.txn_bytes_max);
        let too_large = StoreError::TooLarge { bytes, limit };
        let permits = u32::try_from(bytes).ok().filter(|_| bytes <= limit).ok_or(too_large)?;
        let _room = self.room.clone().acquire_many_owned(permits).await.map_err(|_| StoreError::Closed)?;
        let (answer, answered) = oneshot::channel();
        let request = Request { txn, bytes, answer, _room };
        self.jobs.send(Job::Commit(request)).await.map_err(|_| StoreError::Closed)?;
        answered.await.map_err(|_| StoreError::Closed)?
    }
}

impl Journal for Embedded {
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, StoreError>> {
        self.queue(txn).boxed()
    }

    fn is_shared(&self) -> bool {
        false
    }

    /// Nobody else writes, and what is acknowledged is visible.
    fn catch_up(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        std::future::ready(Ok(())).boxed()
    }

    /// What is not written by now is nobody's revision yet.
    fn reach(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>> {
        let newest = self.shared.read().revision;
        std::future::ready(Err(StoreError::Future { asked: revision, newest })).boxed()
    }

    /// Writes all records anew and lets go of the log before them.
    fn compact(&self) -> BoxFuture<'_, Result<Revision, StoreError>> {
        async {
            let (answer, answered) = oneshot::channel();
            self.jobs.send(Job::Compact(answer)).await.map_err(|_| StoreError::Closed)?;
            answered.await.map_err(|_| StoreError::Closed)?
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            if self.jobs.send(Job::Close).await.is_ok() {
                self.jobs.closed().await;
            }
        }
        .boxed()
    }
}
