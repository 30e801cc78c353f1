//! The one task that writes: it gathers what waits into a batch, makes it durable, then visible, then answers.
//!
//! Nobody is shown what is not on disk. While a batch is synced the next one gathers in the queue. Snapshots are written
//! beside it and hold up nothing.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use host::Host;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::entry::{BatchHead, put_batch};
use crate::face::{Committed, Event, Form, Range, Record, Revision, StoreError, Txn};
use crate::folder::{Failure, Folder};
use crate::frame;
use crate::limits::Limits;
use crate::load::{Loaded, load};
use crate::log::Log;
use crate::snapshot;
use crate::stage::Stage;
use crate::store::Shared;

/// What the writer is asked for.
pub(crate) enum Job {
    /// Do this transaction.
    Commit(Request),
    /// Write all records anew, and let go of the log before them.
    Compact(Compaction),
    /// Stop after what was queued before.
    Close,
}

/// A transaction that waits to be done.
pub(crate) struct Request {
    pub txn: Txn,
    pub bytes: usize,
    pub answer: Answer,
    /// Its share of the bytes that may wait.
    pub _room: OwnedSemaphorePermit,
}

type Answer = oneshot::Sender<Result<Committed, StoreError>>;

/// Who waits for the log to be shrunk.
pub(crate) type Compaction = oneshot::Sender<Result<Revision, StoreError>>;
type Answers = Vec<(Answer, Result<Committed, StoreError>)>;

/// A snapshot being written: ends with the revision whose state it holds.
type SnapshotRun = Pin<Box<dyn Future<Output = (Revision, Result<(), Failure>)> + Send>>;

/// Keeps a buffer for the next frame only up to this size, so that one large batch does not stay in memory.
const KEPT_BUFFER_BYTES: usize = 1024 * 1024;

/// The part of [`Limits::log_bytes`] by which the log grows before a snapshot that found no room is tried again.
const SNAPSHOT_RETRY_PART: u64 = 4;

pub(crate) struct Writer {
    host: Host,
    shared: Arc<Shared>,
    dir: PathBuf,
    form: Form,
    limits: Limits,
    /// Taken by the writer's own blocking work alone, one piece at a time.
    log: Arc<Mutex<Log>>,
    buffer: Vec<u8>,
    /// Why nothing more can be written.
    broken: Option<Failure>,
    has_written: bool,
    closing: bool,
    snapshot: Option<SnapshotRun>,
    /// Who waits for the snapshot that is being written.
    compacting: Vec<Compaction>,
    /// Who waits for one that begins later.
    to_compact: Vec<Compaction>,
    /// The revision of the last snapshot.
    snapshot_at: Option<Revision>,
    /// Bytes of old log below which no snapshot is tried, because the last one found no room.
    snapshot_not_below: u64,
    // Last, so that it is dropped last: `Store::close` waits for it.
    queue: mpsc::Receiver<Job>,
}

/// What the writer does next.
enum Step {
    Batch(Vec<Request>),
    Compact(Compaction),
    SnapshotEnded(Revision, Result<(), Failure>),
    Stop,
}

impl Writer {
    /// Loads the store; returns what the handles share and the writer to be run.
    pub async fn open(
        host: &Host,
        dir: PathBuf,
        form: Form,
        limits: Limits,
        queue: mpsc::Receiver<Job>,
    ) -> Result<(Arc<Shared>, Self), StoreError> {
        let (on, place, within, how) = (host.clone(), dir.clone(), limits.clone(), form.clone());
        let loaded = host.blocking(move || load(&on, place, &how, &within)).await;
        let Loaded { memory, log, snapshot } = loaded?;
        let shared = Shared::new(memory);
        let writer = Self {
            host: host.clone(),
            shared: shared.clone(),
            dir,
            form,
            limits,
            log: Arc::new(Mutex::new(log)),
            buffer: Vec::new(),
            broken: None,
            has_written: false,
            closing: false,
            snapshot: None,
            compacting: Vec::new(),
            to_compact: Vec::new(),
            snapshot_at: snapshot,
            snapshot_not_below: 0,
            queue,
        };
        Ok((shared, writer))
    }

    pub async fn run(mut self) {
        loop {
            match self.step().await {
                Step::Batch(requests) => self.commit(requests).await,
                Step::Compact(asked) => self.to_compact.push(asked),
                Step::SnapshotEnded(revision, result) => self.end_snapshot(revision, result).await,
                Step::Stop => break,
            }
            self.compact_if_asked().await;
            self.begin_snapshot_if_due();
        }
        self.end().await;
    }

    async fn step(&mut self) -> Step {
        if self.closing {
            return Step::Stop;
        }
        tokio::select! {
            biased;
            (revision, result) = ended(&mut self.snapshot) => Step::SnapshotEnded(revision, result),
            job = self.queue.recv() => match job {
                Some(Job::Commit(first)) => Step::Batch(self.gather(first)),
                Some(Job::Compact(asked)) => Step::Compact(asked),
                Some(Job::Close) | None => Step::Stop,
            },
        }
    }

    /// Takes what waits already, up to the limit of a batch.
    fn gather(&mut self, first: Request) -> Vec<Request> {
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        while bytes < self.limits.batch_bytes {
            match self.queue.try_recv() {
                Ok(Job::Commit(request)) => {
                    bytes += request.bytes;
                    batch.push(request);
                }
                Ok(Job::Compact(asked)) => self.to_compact.push(asked),
                Ok(Job::Close) => {
                    self.closing = true;
                    break;
                }
                Err(_) => break,
            }
        }
        batch
    }

    async fn commit(&mut self, batch: Vec<Request>) {
        let (events, answers) = self.stage(batch);
        // Whoever asks for no change asks whether one could be.
        if events.is_empty() && self.broken.is_none() {
            return reply(answers);
        }
        match self.make_durable(&events).await {
            Ok(()) => {
                self.make_visible(events);
                reply(answers);
            }
            // Those in conflict may have lost against what was not written: they too are told to try again.
            Err(failure) => {
                let dir = &self.dir;
                reply(answers.into_iter().map(|(answer, _)| (answer, Err(failure.to_error(dir)))).collect());
            }
        }
    }

    fn stage(&self, batch: Vec<Request>) -> (Vec<Arc<Event>>, Answers) {
        let memory = self.shared.read();
        let mut stage = Stage::new(&memory);
        let answers = batch.into_iter().map(|request| (request.answer, stage.add(request.txn))).collect();
        (stage.events, answers)
    }

    /// Writes one frame and syncs it.
    async fn make_durable(&mut self, events: &[Arc<Event>]) -> Result<(), Failure> {
        if let Some(failure) = &self.broken {
            return Err(failure.clone());
        }
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let (first, last) = (first.record.revision, last.record.revision);
        let mut frame = std::mem::take(&mut self.buffer);
        frame::begin(&mut frame);
        put_batch(&mut frame, self.head(first), events, &self.form);
        let written = self.append(frame, last).await;
        self.note(written)
    }

    fn head(&self, first: Revision) -> BatchHead {
        BatchHead { first, millis: u64::try_from(self.host.now().as_millisecond()).unwrap_or(0) }
    }

    async fn append(&mut self, mut frame: Vec<u8>, last: Revision) -> Result<(), Failure> {
        let log = self.log.clone();
        let work = move || {
            let written = lock(&log).append(&mut frame, last);
            (frame, written)
        };
        let (mut frame, written) = self.host.blocking(work).await;
        frame.clear();
        frame.shrink_to(KEPT_BUFFER_BYTES);
        self.buffer = frame;
        self.has_written = true;
        written
    }

    /// Remembers a failure after which the disk can't be trusted: a failed sync may have dropped what it was given.
    fn note(&mut self, result: Result<(), Failure>) -> Result<(), Failure> {
        if let Err(failure @ Failure::Disk { path, source }) = &result {
            tracing::error!(path = %path.display(), error = %source, "the disk failed; the store takes no more writes");
            self.broken = Some(failure.clone());
        }
        result
    }

    fn make_visible(&self, events: Vec<Arc<Event>>) {
        let at = self.host.moment();
        let (bells, newest) = {
            let mut memory = self.shared.write();
            (memory.apply(events, at, &self.limits), memory.revision)
        };
        for bell in bells {
            bell.send_replace(newest);
        }
        self.shared.tell(newest);
    }

    /// Begins a snapshot when it would free more log than the limit, and at least as much as it writes.
    fn begin_snapshot_if_due(&mut self) {
        if self.snapshot.is_some() || self.broken.is_some() || self.closing {
            return;
        }
        let memory = self.shared.read();
        let (revision, live_bytes) = (memory.oldest, memory.live_bytes);
        let threshold = self.limits.log_bytes.max(live_bytes).max(self.snapshot_not_below);
        let log = lock(&self.log);
        if log.bytes_up_to(revision) < threshold || self.snapshot_at.is_some_and(|at| at >= revision) {
            return;
        }
        let (records, folder) = (memory.base(), log.folder().clone());
        drop((memory, log));
        self.begin_snapshot(revision, records, folder);
    }

    fn begin_snapshot(&mut self, revision: Revision, records: Vec<Record>, folder: Folder) {
        let (host, form) = (self.host.clone(), self.form.clone());
        let work = move || snapshot::write(&folder, host.chance(), revision, &records, &form);
        let host = self.host.clone();
        self.snapshot = Some(Box::pin(async move { (revision, host.blocking(work).await) }));
    }

    /// Begins a snapshot of the present, when somebody asks for one: what came before is let go of on the disk, and kept in
    /// memory as long as ever.
    async fn compact_if_asked(&mut self) {
        if self.to_compact.is_empty() || self.snapshot.is_some() || self.closing {
            return;
        }
        let asked = std::mem::take(&mut self.to_compact);
        let log = self.log.clone();
        let cut = match self.broken.clone() {
            Some(failure) => Err(failure),
            None => self.host.blocking(move || lock(&log).cut()).await,
        };
        if let Err(failure) = self.note(cut) {
            for asked in asked {
                // Whoever asked may have gone.
                let _ = asked.send(Err(failure.to_error(&self.dir)));
            }
            return;
        }
        let (revision, page) = {
            let memory = self.shared.read();
            (memory.revision, memory.list(&Range::default()))
        };
        // The present can always be listed.
        let records = page.map(|page| page.records).unwrap_or_default();
        self.compacting = asked;
        let folder = lock(&self.log).folder().clone();
        self.begin_snapshot(revision, records, folder);
    }

    async fn end_snapshot(&mut self, revision: Revision, written: Result<(), Failure>) {
        self.snapshot = None;
        let written = match written {
            Ok(()) => self.remove_up_to(revision).await,
            Err(failure) => Err(failure),
        };
        let noted = self.note(written);
        for asked in std::mem::take(&mut self.compacting) {
            let told = noted.as_ref().map(|()| revision).map_err(|failure| failure.to_error(&self.dir));
            // Whoever asked may have gone.
            let _ = asked.send(told);
        }
        match noted {
            Ok(()) => self.snapshot_not_below = 0,
            Err(_) => {
                let bytes = lock(&self.log).bytes_up_to(revision);
                self.snapshot_not_below = bytes + self.limits.log_bytes / SNAPSHOT_RETRY_PART;
                tracing::warn!(revision, "no room for a snapshot; the log grows until there is");
            }
        }
    }

    async fn remove_up_to(&mut self, revision: Revision) -> Result<(), Failure> {
        // One that was written anew has taken the place of the old one already.
        let old = self.snapshot_at.replace(revision).filter(|old| *old != revision);
        let log = self.log.clone();
        self.host.blocking(move || lock(&log).remove_up_to(revision, old)).await
    }

    /// Ends well: waits for a snapshot, and marks the end of the log, so that damage to the last batch is told from a torn
    /// write.
    async fn end(&mut self) {
        if let Some(run) = self.snapshot.take() {
            let (revision, written) = run.await;
            self.end_snapshot(revision, written).await;
        }
        if self.has_written && self.broken.is_none() {
            let newest = self.shared.read().revision;
            let mut frame = Vec::new();
            frame::begin(&mut frame);
            put_batch(&mut frame, self.head(newest + 1), &[], &self.form);
            let written = self.append(frame, newest).await;
            // Full or broken: the log is as good without the mark.
            let _ = self.note(written);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.close();
    }
}

async fn ended(run: &mut Option<SnapshotRun>) -> (Revision, Result<(), Failure>) {
    match run {
        Some(run) => run.await,
        None => std::future::pending().await,
    }
}

fn reply(answers: Answers) {
    for (answer, result) in answers {
        // Whoever asked may have gone.
        let _ = answer.send(result);
    }
}

fn lock(log: &Mutex<Log>) -> std::sync::MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
