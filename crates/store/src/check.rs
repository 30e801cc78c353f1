//! Looking a store over: reads every file of its folder, changes nothing, and says what is wrong, where, and how bad it is.

use std::path::PathBuf;

use host::Host;

use crate::entry::has_shape;
use crate::face::{Form, Range, Revision, StoreError};
use crate::folder::{Folder, log_name, snapshot_name};
use crate::frame::{self, FRAME_HEAD, HEADER_LEN, Header, Kind};
use crate::keep::settled;
use crate::limits::Limits;
use crate::load;

/// What a store's folder is found to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Files that were read.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The newest revision, and how many records there are; `None`: the store would not open.
    pub opens: Option<(Revision, usize)>,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Something that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which file.
    pub path: PathBuf,
    /// From which byte on.
    pub at: u64,
    /// What.
    pub what: String,
    /// How bad.
    pub harm: Harm,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// Nothing that was acknowledged is lost: the next start puts it right.
    Mends,
    /// The store does not open: what was acknowledged may be lost.
    Loss,
}

/// Looks the store in `dir` over, whether it runs or not.
///
/// # Errors
/// `Disk` when a file cannot be read at all.
pub fn check(host: &Host, dir: PathBuf, form: &Form) -> Result<Report, StoreError> {
    let folder = Folder::peek(host.disk().clone(), dir);
    settled(|| look(host, &folder, form))
}

fn look(host: &Host, folder: &Folder, form: &Form) -> Result<Report, StoreError> {
    let names = folder.names()?;
    let mut report = Report { files: 0, bytes: 0, opens: None, findings: Vec::new() };
    // What opening says comes first: it is the one that counts, and it knows which files are needed.
    let (firsts, snapshot) = match load::read(host, folder, form, &Limits::default()) {
        Ok(found) => {
            let records = found.memory.list(&Range::default())?.records.len();
            report.opens = Some((found.memory.revision, records));
            if let Some(last) = found.last.filter(|last| last.torn_bytes > 0) {
                let what = format!(
                    "{} bytes are no whole write: it is under way, or was cut short",
                    last.torn_bytes
                );
                report.find(last.path, last.sound.len(), &what, Harm::Mends);
            }
            (found.firsts, found.snapshot)
        }
        Err(StoreError::Damaged { path, at, what }) => {
            report.findings.push(Finding { path, at, what, harm: Harm::Loss });
            (names.logs.clone(), names.snapshots.last().copied())
        }
        // What is sealed is not damaged; without its key nobody can say more.
        Err(StoreError::Sealed { path, why }) => {
            let what = format!("the value of {path} cannot be opened: {why}");
            report.find(folder.dir.clone(), 0, &what, Harm::Loss);
            (names.logs.clone(), names.snapshots.last().copied())
        }
        Err(other) => return Err(other),
    };
    for first in &names.logs {
        report.file(folder, &log_name(*first), Kind::Log, firsts.contains(first))?;
    }
    for revision in &names.snapshots {
        report.file(folder, &snapshot_name(*revision), Kind::Snapshot, snapshot == Some(*revision))?;
    }
    for name in &names.unfinished {
        report.find(folder.path(name), 0, "it was never finished: the next start removes it", Harm::Mends);
    }
    report.findings.sort_by(|a, b| (&a.path, a.at).cmp(&(&b.path, b.at)));
    report.findings.dedup_by(|a, b| a.path == b.path && a.at == b.at);
    Ok(report)
}

impl Report {
    /// Whether the store would open.
    pub fn is_sound(&self) -> bool {
        self.opens.is_some()
    }

    fn find(&mut self, path: PathBuf, at: usize, what: &str, harm: Harm) {
        self.findings.push(Finding { path, at: at as u64, what: what.to_owned(), harm });
    }

    /// Goes through the frames of a file, beyond damage too, for as long as sound ones are found.
    fn file(&mut self, folder: &Folder, name: &str, kind: Kind, is_needed: bool) -> Result<(), StoreError> {
        let path = folder.path(name);
        let bytes = folder.disk.read(&path).map_err(|source| folder.unreadable(&path, source))?;
        self.files += 1;
        self.bytes += bytes.len() as u64;
        let harm = if is_needed { Harm::Loss } else { Harm::Mends };
        let header = match Header::decode(&bytes, kind) {
            Ok(header) => header,
            Err(what) => {
                self.find(path, 0, what, harm);
                return Ok(());
            }
        };
        let mut at = HEADER_LEN;
        while at < bytes.len() {
            match frame::open(&bytes[at..], header.marker) {
                Some(payload) if has_shape(payload, kind == Kind::Log) => at += FRAME_HEAD + payload.len(),
                Some(payload) => {
                    self.find(path.clone(), at, "what is written here makes no sense", harm);
                    at += FRAME_HEAD + payload.len();
                }
                None if kind == Kind::Log && frame::is_unwritten(&bytes[at..]) => return Ok(()),
                None => match frame::find(&bytes[at + 1..], header.marker) {
                    Some(ahead) => {
                        let what = format!("{} bytes are damaged, sound writes follow", ahead + 1);
                        self.find(path.clone(), at, &what, harm);
                        at += 1 + ahead;
                    }
                    None => {
                        // At the end of the log opening has said already whether this is a torn write.
                        let is_torn_end = kind == Kind::Log
                            && self.findings.iter().any(|found| found.path == path && found.at == at as u64);
                        if !is_torn_end {
                            let what = format!("{} bytes are damaged, up to the end", bytes.len() - at);
                            self.find(path.clone(), at, &what, harm);
                        }
                        return Ok(());
                    }
                },
            }
        }
        Ok(())
    }
}
