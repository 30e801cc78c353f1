//! The one task that writes: it gathers what waits into a batch, makes it durable, then visible, then answers.

use std::path::PathBuf;
use std::sync::Arc;

use host::Host;
use tokio::sync::{mpsc, oneshot};

use crate::face::{Committed, StoreError, Tagger, Txn};
use crate::limits::Limits;
use crate::memory::{FIRST_REVISION, Memory};
use crate::stage::Stage;
use crate::store::Shared;

/// What the writer is asked for.
pub(crate) enum Job {
    /// Do this transaction.
    Commit { txn: Txn, answer: Answer },
    /// Stop after what was queued before.
    Close,
}

type Answer = oneshot::Sender<Result<Committed, StoreError>>;

pub(crate) struct Writer {
    host: Host,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Job>,
    limits: Limits,
}

impl Writer {
    pub async fn open(
        host: &Host,
        _dir: PathBuf,
        _tagger: Tagger,
        limits: Limits,
        queue: mpsc::Receiver<Job>,
    ) -> Result<(Arc<Shared>, Self), StoreError> {
        let shared = Shared::new(Memory::new(FIRST_REVISION));
        Ok((shared.clone(), Self { host: host.clone(), shared, queue, limits }))
    }

    pub async fn run(mut self) {
        while let Some(Job::Commit { txn, answer }) = self.queue.recv().await {
            let (events, result) = {
                let memory = self.shared.read();
                let mut stage = Stage::new(&memory);
                let result = stage.add(txn);
                (stage.events, result)
            };
            if !events.is_empty() {
                let bells = self.shared.write().apply(events, self.host.moment(), &self.limits);
                let newest = self.shared.read().revision;
                bells.iter().for_each(|bell| drop(bell.send_replace(newest)));
            }
            let _ = answer.send(result);
        }
        self.shared.close();
    }
}
