//! Backups: all records of a store in one file, and a store made from such a file.
//!
//! Promises: a backup is of one revision, and whole under its name or not there; a store made from one begins beyond every
//! revision that was ever seen of it, so whoever watched lists anew.

use std::path::{Path, PathBuf};

use host::Host;

use crate::face::{Form, Range, Record, Revision, StoreError};
use crate::folder::{Failure, Folder};
use crate::frame::{Header, Kind};
use crate::limits::Limits;
use crate::load;
use crate::log::{OpenSegment, draw_marker};
use crate::snapshot;

/// By how much a store that is made from a backup is ahead of it.
///
/// More than any store writes between a backup and its loss: ten thousand writes a second for a day, of 128 numbers each, as a
/// store in etcd counts them. Half would do as well; numbers are plentiful.
pub const RESTORE_AHEAD: Revision = 128_000_000_000;

/// How often a folder is read again when its files change meanwhile. A running store makes a snapshot after megabytes of
/// writes, so a second time is rare already.
const READS_MAX: usize = 5;

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The revision whose state it is.
    pub revision: Revision,
    /// How many records.
    pub records: usize,
}

/// Reads a folder that may belong to a running store; again, when files went away meanwhile.
pub(crate) fn settled<T>(mut read: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
    for _ in 1..READS_MAX {
        match read() {
            Err(StoreError::Disk { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            done => return done,
        }
    }
    read()
}

/// A file's folder and its name in it.
fn placed(host: &Host, file: &Path) -> Result<(Folder, String), StoreError> {
    let unfit = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "this is no name of a file");
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| StoreError::Disk { path: file.to_path_buf(), source: unfit() })?;
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((Folder::peek(host.disk().clone(), dir.to_path_buf()), name.to_owned()))
}

/// Writes the newest state of the store in `dir` into `file`, whether it runs or not, and reads the file back.
///
/// # Errors
/// `Damaged` when the store is, `Full` or `Disk` when a disk does not do.
pub fn backup(host: &Host, dir: PathBuf, file: &Path, form: &Form) -> Result<Kept, StoreError> {
    let from = Folder::peek(host.disk().clone(), dir);
    let found = settled(|| load::read(host, &from, form, &Limits::default()))?;
    let records = found.memory.list(&Range::default())?.records;
    write_backup(host, (&records, found.memory.revision), file, form)
}

/// Writes records, and the revision whose state they are, into `file`, and reads the file back.
///
/// # Errors
/// `Full` or `Disk` when the disk does not do, `Damaged` when it does not give back what it was given.
pub fn write_backup(
    host: &Host,
    (records, revision): (&[Record], Revision),
    file: &Path,
    form: &Form,
) -> Result<Kept, StoreError> {
    let (folder, name) = placed(host, file)?;
    let header = Header { kind: Kind::Backup, marker: draw_marker(host.chance()), revision };
    let written = snapshot::write_as(&folder, &name, header, records, form);
    written.map_err(|failure| failure.to_error(&folder.dir))?;
    let kept = examine(host, file, form)?;
    let again = Kept { revision, records: records.len() };
    match kept == again {
        true => Ok(kept),
        false => Err(StoreError::Damaged {
            path: file.to_path_buf(),
            at: 0,
            what: "it reads otherwise than it was written".into(),
        }),
    }
}

/// Reads a backup through, and says what it holds.
///
/// # Errors
/// `Damaged` when it is, or is not whole.
pub fn examine(host: &Host, file: &Path, form: &Form) -> Result<Kept, StoreError> {
    let backup = Backup::read(host, file, form)?;
    Ok(Kept { revision: backup.revision, records: backup.records.len() })
}

/// A backup that was read, and is whole.
pub struct Backup {
    revision: Revision,
    records: Vec<Record>,
}

impl Backup {
    /// Reads a backup.
    ///
    /// # Errors
    /// `Damaged` when it is, or is not whole; `Sealed` when its keys are not there.
    pub fn read(host: &Host, file: &Path, form: &Form) -> Result<Self, StoreError> {
        let (folder, name) = placed(host, file)?;
        let (revision, records) = snapshot::read_as(&folder, &name, Kind::Backup, form)?;
        Ok(Self { revision, records })
    }

    /// Makes a store in `dir`, which must be empty. It begins [`RESTORE_AHEAD`] after the backup and after `seen`, so that
    /// nobody goes on watching as if nothing had happened.
    ///
    /// # Errors
    /// `Taken` when something lies in `dir`, `Full` or `Disk` when the disk does not do.
    pub fn restore(
        &self,
        host: &Host,
        dir: PathBuf,
        seen: Revision,
        form: &Form,
    ) -> Result<Kept, StoreError> {
        let folder = Folder::open(host.disk().clone(), dir)?;
        let names = folder.names()?;
        if !names.logs.is_empty() || !names.snapshots.is_empty() {
            return Err(StoreError::Taken { dir: folder.dir.clone() });
        }
        let begins = self.revision.max(seen).saturating_add(RESTORE_AHEAD);
        let chance = host.chance();
        let failed = |failure: Failure| failure.to_error(&folder.dir);
        // The log first: alone it is refused as damage, so that no store opens with less than all.
        OpenSegment::create(&folder, chance, begins + 1, 0).map_err(failed)?;
        snapshot::write(&folder, chance, begins, &self.records, form).map_err(failed)?;
        Ok(Kept { revision: begins, records: self.records.len() })
    }
}

/// The newest revision that the names in a store's folder tell of, however damaged its files are; 0 for none.
pub fn seen_of(host: &Host, dir: PathBuf, form: &Form) -> Revision {
    let folder = Folder::peek(host.disk().clone(), dir);
    let Ok(names) = folder.names() else { return 0 };
    let newest = settled(|| load::read(host, &folder, form, &Limits::default()));
    let told = names.logs.last().max(names.snapshots.last()).copied().unwrap_or(0);
    newest.map_or(told, |found| found.memory.revision.max(told))
}
