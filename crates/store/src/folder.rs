//! The store's folder: the names in it, and how a file comes to be there whole.
//!
//! A file gets its final name only when its beginning is on disk, so a final name with a bad header is damage.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use host::{Disk, DiskFile};

use crate::face::{Revision, StoreError};

const LOCK: &str = "lock";
const NEW: &str = ".new";

/// The folder, locked against other processes for as long as anyone holds a clone.
#[derive(Clone)]
pub(crate) struct Folder {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    _lock: Arc<dyn Send + Sync>,
}

/// The files of a folder that are ours, ordered by revision.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Segments of the log, by their first revision.
    pub logs: Vec<Revision>,
    /// Snapshots, by the revision whose state they hold.
    pub snapshots: Vec<Revision>,
    /// Files that were never finished.
    pub unfinished: Vec<String>,
}

/// Why something was not written.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// There is no room, and all is as it was before.
    Full,
    /// What is on disk can no longer be known.
    Disk { path: PathBuf, source: Arc<io::Error> },
}

impl Failure {
    pub fn disk(path: &Path, source: io::Error) -> Self {
        Failure::Disk { path: path.to_path_buf(), source: Arc::new(source) }
    }

    /// Of an error that left nothing behind.
    pub fn of(path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Failure::Full,
            _ => Self::disk(path, source),
        }
    }

    pub fn to_error(&self, dir: &Path) -> StoreError {
        match self {
            Failure::Full => StoreError::Full { dir: dir.to_path_buf() },
            Failure::Disk { path, source } => {
                StoreError::Disk { path: path.clone(), source: io::Error::new(source.kind(), source.clone()) }
            }
        }
    }
}

pub(crate) fn log_name(first: Revision) -> String {
    format!("log-{first:020}")
}

pub(crate) fn snapshot_name(revision: Revision) -> String {
    format!("snapshot-{revision:020}")
}

fn sort_names(names: Vec<String>) -> Names {
    let mut sorted = Names::default();
    for name in names {
        if name.ends_with(NEW) {
            sorted.unfinished.push(name);
        } else if let Some(first) = name.strip_prefix("log-").and_then(|text| text.parse().ok()) {
            sorted.logs.push(first);
        } else if let Some(revision) = name.strip_prefix("snapshot-").and_then(|text| text.parse().ok()) {
            sorted.snapshots.push(revision);
        }
    }
    sorted.logs.sort_unstable();
    sorted.snapshots.sort_unstable();
    sorted
}

impl Folder {
    /// Makes the folder when it is missing, and locks it.
    pub fn open(disk: Arc<dyn Disk>, dir: PathBuf) -> Result<Self, StoreError> {
        disk.create_dir(&dir).map_err(|error| Failure::of(&dir, error).to_error(&dir))?;
        let path = dir.join(LOCK);
        match disk.lock(&path) {
            Ok(lock) => Ok(Self { disk, dir, _lock: lock.into() }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(StoreError::InUse { dir }),
            Err(error) => Err(Failure::of(&path, error).to_error(&dir)),
        }
    }

    /// The folder as it lies there, to be read alone: it may be somebody else's, who goes on writing.
    pub fn peek(disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { disk, dir, _lock: Arc::new(()) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn names(&self) -> Result<Names, StoreError> {
        self.disk.list(&self.dir).map(sort_names).map_err(|source| self.unreadable(&self.dir, source))
    }

    pub fn unreadable(&self, path: &Path, source: io::Error) -> StoreError {
        StoreError::Disk { path: path.to_path_buf(), source }
    }

    /// Makes a file whose content `fill` writes; under its name only when that is on disk. Leaves nothing when it fails.
    pub fn create(
        &self,
        name: &str,
        fill: impl FnOnce(&mut dyn DiskFile) -> io::Result<()>,
    ) -> Result<Box<dyn DiskFile>, Failure> {
        let (path, new) = (self.path(name), self.path(&format!("{name}{NEW}")));
        // Left by an earlier failure; appending to it would be wrong.
        self.remove_if_there(&new)?;
        let mut file = self.disk.append(&new).map_err(|error| Failure::of(&new, error))?;
        if let Err(error) = fill(&mut *file) {
            self.remove_if_there(&new)?;
            return Err(Failure::of(&new, error));
        }
        file.sync().map_err(|error| Failure::disk(&new, error))?;
        self.disk.rename(&new, &path).map_err(|error| Failure::disk(&path, error))?;
        self.sync()?;
        Ok(file)
    }

    /// Removes files; durable only after [`Folder::sync`].
    pub fn remove_if_there(&self, path: &Path) -> Result<(), Failure> {
        match self.disk.remove(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Failure::of(path, error)),
            _ => Ok(()),
        }
    }

    /// Makes names durable.
    pub fn sync(&self) -> Result<(), Failure> {
        self.disk.sync_dir(&self.dir).map_err(|error| Failure::disk(&self.dir, error))
    }
}
