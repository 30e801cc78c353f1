//! What the API asks of the store. Behind it: the embedded log, or another journal such as etcd.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::tags::Tags;

/// The number of a change. Every write has its own, and they only grow.
pub type Revision = u64;

/// Where a value lies: segments joined by `/`, such as `/pods/default/web-1`. The first segment names a collection.
pub type Path = Arc<str>;

/// A stored value and what goes with it. All who hold it share one, so it is cheap to hold and to clone: there are as many as
/// objects, and history and lists hold them again.
#[derive(Debug, Clone)]
pub struct Record(Arc<Stored>);

impl Deref for Record {
    type Target = Stored;

    fn deref(&self) -> &Stored {
        &self.0
    }
}

impl From<Stored> for Record {
    fn from(stored: Stored) -> Self {
        Self(Arc::new(stored))
    }
}

impl Record {
    /// The same with another value.
    #[must_use]
    pub fn with(&self, value: Bytes) -> Self {
        Stored { value, ..Stored::clone(self) }.into()
    }
}

/// What a [`Record`] says.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Where it lies.
    pub path: Path,
    /// The value, as readers get it.
    pub value: Bytes,
    /// The revision that wrote it.
    pub revision: Revision,
    /// The revision that created it.
    pub created: Revision,
    /// What was read out of the value, for selectors.
    pub tags: Tags,
}

/// Reads the tags out of a stored value when the log is loaded: by path, so that the store need not know kinds.
pub type Tagger = Arc<dyn Fn(&str, &[u8]) -> Tags + Send + Sync>;

/// Makes some values unreadable on the disk, and readable again. In memory, and so for readers and watchers, they are plain.
///
/// By path, so that the store need not know kinds; values of all other paths cost nothing more.
pub trait Sealer: Send + Sync {
    /// Whether what lies at a path is to be sealed.
    fn seals(&self, path: &str) -> bool;

    /// The sealed form of a value. It is good at its own path alone.
    fn seal(&self, path: &str, value: &[u8]) -> Vec<u8>;

    /// The value again; an error says which key it lacks, and where that should be.
    ///
    /// # Errors
    /// Why it cannot be opened.
    fn open(&self, path: &str, sealed: &[u8]) -> Result<Vec<u8>, String>;
}

/// How a store reads and writes values.
#[derive(Clone)]
pub struct Form {
    /// Reads tags out of values.
    pub tagger: Tagger,
    /// Seals some of them on the disk.
    pub sealer: Option<Arc<dyn Sealer>>,
}

/// All values lie on the disk as they are.
impl From<Tagger> for Form {
    fn from(tagger: Tagger) -> Self {
        Self { tagger, sealer: None }
    }
}

impl Form {
    /// The sealed form of what is to be sealed.
    pub fn sealed(&self, path: &str, value: &[u8]) -> Option<Vec<u8>> {
        let sealer = self.sealer.as_ref().filter(|sealer| sealer.seals(path))?;
        Some(sealer.seal(path, value))
    }

    /// A value that was sealed.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn opened(&self, path: &str, sealed: &[u8]) -> Result<Bytes, String> {
        match &self.sealer {
            Some(sealer) => sealer.open(path, sealed).map(Bytes::from),
            None => Err("it is sealed, and there are no keys".into()),
        }
    }
}

/// A value to be written: the revision, in decimal, goes between the two halves.
///
/// So an object can carry its own revision and still be encoded once, before the revision is known.
#[derive(Debug, Clone)]
pub struct Body {
    /// What precedes the revision.
    pub before: Bytes,
    /// What follows it. `None`: `before` is the whole value.
    pub after: Option<Bytes>,
}

/// What must hold for a transaction to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing lies there.
    Absent,
    /// What lies there was written at this revision.
    At(Revision),
}

/// One write of a transaction.
#[derive(Debug, Clone)]
pub enum Change {
    /// Put a value.
    Put {
        /// Where.
        path: Path,
        /// What.
        body: Body,
        /// Its tags.
        tags: Tags,
    },
    /// Remove a value. Watchers are shown `last` (with the revision of the removal), or the last value when `None`.
    Remove {
        /// Where.
        path: Path,
        /// The value as watchers shall see it go.
        last: Option<Body>,
    },
}

/// Writes that are done together or not at all.
#[derive(Debug, Clone, Default)]
pub struct Txn {
    /// What must hold before the first change. A removal also fails with a conflict when nothing lies there.
    pub expect: Vec<(Path, Expect)>,
    /// What to write, in order; each gets a revision of its own.
    pub changes: Vec<Change>,
}

/// One event of the history.
#[derive(Debug, Clone)]
pub struct Event {
    /// The record as written; for a removal its value is the one watchers shall see go, its revision that of the removal.
    pub record: Record,
    /// What lay there before.
    pub before: Option<Record>,
    /// Whether it was removed.
    pub removed: bool,
}

/// What a transaction did.
#[derive(Debug, Clone)]
pub struct Committed {
    /// What each change wrote, in order; for a removal the record that watchers see go.
    pub records: Vec<Record>,
    /// The revision of the last change; the store's newest when there was none.
    pub revision: Revision,
}

/// A range of records at one revision.
#[derive(Debug, Clone)]
pub struct Page {
    /// The records, ordered by path.
    pub records: Vec<Record>,
    /// The revision at which all of them were read.
    pub revision: Revision,
    /// Whether more follow.
    pub more: bool,
    /// How many follow, exactly.
    pub remaining: usize,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Range {
    /// The prefix of the paths.
    pub prefix: String,
    /// Only paths after this one.
    pub after: Option<String>,
    /// At most so many; 0 for all.
    pub limit: usize,
    /// As it was at this revision; `None` for now.
    pub at: Option<Revision>,
}

/// Why the store did not do as asked. One variant for each thing a caller can do about it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Someone wrote first: read again, decide again.
    #[error("{path} is at revision {actual:?}, not as expected")]
    Conflict {
        /// Where.
        path: Path,
        /// What lies there; `None` for nothing.
        actual: Option<Revision>,
    },
    /// That history is gone: list again, then watch from there.
    #[error("revision {asked} is compacted, the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for.
        asked: Revision,
        /// The oldest that can be.
        oldest: Revision,
    },
    /// That revision is not written yet.
    #[error("revision {asked} is in the future, the newest is {newest}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The newest.
        newest: Revision,
    },
    /// The transaction is larger than the log takes: make it smaller.
    #[error("a transaction of {bytes} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The transaction changes more objects than the journal takes at once: do it in parts.
    #[error("a transaction of {changes} changes exceeds the limit of {limit}")]
    TooMany {
        /// How many there are.
        changes: usize,
        /// The limit.
        limit: usize,
    },
    /// The transaction changes an object twice, and the journal does not take that: do it in two.
    #[error("a transaction changes {path} twice")]
    Twice {
        /// Where.
        path: Path,
    },
    /// The journal lies elsewhere and does not answer: a write may have been done or not. Try again.
    #[error("{journal} does not answer: {why}")]
    Unreachable {
        /// What does not answer.
        journal: &'static str,
        /// Why, as far as is known.
        why: String,
    },
    /// The journal lies elsewhere and has no room: nothing was written; try again when there is.
    #[error("{journal} has no space left: {why}")]
    NoSpace {
        /// What has no room.
        journal: &'static str,
        /// What it said.
        why: String,
    },
    /// The disk has no room: nothing was written; try again when there is.
    #[error("no space left on the disk of {}", dir.display())]
    Full {
        /// The store's folder.
        dir: PathBuf,
    },
    /// The log cannot be trusted: stop the process.
    #[error("cannot use {}", path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process uses the folder: stop that one first.
    #[error("{} is in use by another process", dir.display())]
    InUse {
        /// The store's folder.
        dir: PathBuf,
    },
    /// Something lies where a store is to be made.
    #[error("{} holds a store already", dir.display())]
    Taken {
        /// The folder.
        dir: PathBuf,
    },
    /// The data on disk is damaged, and not by a torn last write: nothing is served.
    #[error("{} is damaged at byte {at}: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        what: String,
    },
    /// A value is sealed with a key that is not there: put the key back.
    #[error("the value of {path} cannot be opened: {why}")]
    Sealed {
        /// Where it lies.
        path: Path,
        /// Which key is missing, and where it should be.
        why: String,
    },
    /// A watcher read too slowly and was cut off.
    #[error("the watcher fell behind")]
    TooSlow,
    /// The store has been closed.
    #[error("the store is closed")]
    Closed,
}
