//! Opening: the snapshot, then the log after it. Decides what is a torn last write and what is damage.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use host::{Host, Moment};

use crate::entry::{BatchHead, BatchRead, Unread};
use crate::face::{Form, Revision, StoreError};
use crate::folder::{Failure, Folder, Names, log_name, snapshot_name};
use crate::frame::{self, FRAME_HEAD, HEADER_LEN, Header, Kind};
use crate::limits::Limits;
use crate::log::{Log, OpenSegment, Segment, reserve};
use crate::memory::{FIRST_REVISION, Memory};
use crate::snapshot;

/// What was found in the folder, ready to go on.
pub(crate) struct Loaded {
    pub memory: Memory,
    pub log: Log,
    /// The revision of the snapshot under the log, if there is one.
    pub snapshot: Option<Revision>,
}

/// Reads the store in `dir`, or begins one. Blocks.
pub(crate) fn load(host: &Host, dir: PathBuf, form: &Form, limits: &Limits) -> Result<Loaded, StoreError> {
    let folder = Folder::open(host.disk().clone(), dir)?;
    let Found { names, firsts, snapshot, memory, full, last } = read(host, &folder, form, limits)?;
    let failed = |failure: Failure| failure.to_error(&folder.dir);
    tidy(&folder, &names, &firsts, snapshot).map_err(failed)?;
    let (chance, next) = (host.chance().fork(), memory.revision + 1);
    let open = match last {
        Some(read) => reopen(&folder, read, limits.segment_bytes).map_err(failed)?,
        None => begin(&folder, &chance, next, limits.segment_bytes).map_err(failed)?,
    };
    let log = Log::new(folder, chance, limits.segment_bytes, next, full, open);
    Ok(Loaded { memory, log, snapshot })
}

/// What lies in a folder, read and not touched.
pub(crate) struct Found {
    pub names: Names,
    /// The segments that are needed, by their first revisions.
    pub firsts: Vec<Revision>,
    pub snapshot: Option<Revision>,
    pub memory: Memory,
    full: VecDeque<Segment>,
    pub last: Option<SegmentRead>,
}

/// Reads what lies in a folder, and touches nothing. Blocks.
pub(crate) fn read(host: &Host, folder: &Folder, form: &Form, limits: &Limits) -> Result<Found, StoreError> {
    let names = folder.names()?;
    let snapshot = names.snapshots.last().copied();
    let memory = match snapshot {
        Some(revision) => snapshot::read(folder, revision, form)?,
        None => Memory::new(FIRST_REVISION),
    };
    let firsts = firsts_needed(folder, &names, snapshot)?;
    let base = memory.revision;
    let mut replay = Replay { host, folder, form, limits, base, next: 0, has_ended_well: true, memory };
    let (full, last) = replay.segments(&firsts)?;
    Ok(Found { names, firsts, snapshot, memory: replay.memory, full, last })
}

/// The segments that hold something after the snapshot, and the last one always; refuses when there is a gap before them.
fn firsts_needed(
    folder: &Folder,
    names: &Names,
    snapshot: Option<Revision>,
) -> Result<Vec<Revision>, StoreError> {
    let next = snapshot.unwrap_or(FIRST_REVISION) + 1;
    let covered = names.logs.iter().skip(1).take_while(|first| **first <= next).count();
    let needed = names.logs[covered.min(names.logs.len())..].to_vec();
    let missing = match (needed.first(), snapshot) {
        (Some(first), _) if *first > next => Some(log_name(next)),
        (None, Some(_)) => Some(log_name(next)),
        _ => None,
    };
    match missing {
        Some(name) => {
            let what = "a part of the log that should begin here is missing".into();
            Err(StoreError::Damaged { path: folder.path(&name), at: 0, what })
        }
        None => Ok(needed),
    }
}

/// Begins the log of a new store, and makes the folder's own name durable.
fn begin(folder: &Folder, chance: &host::Chance, first: Revision, room: u64) -> Result<OpenSegment, Failure> {
    if let Some(parent) = folder.dir.parent() {
        folder.disk.sync_dir(parent).map_err(|error| Failure::disk(parent, error))?;
    }
    OpenSegment::create(folder, chance, first, room)
}

/// Opens the last segment for appending, without its torn end.
///
/// Unless it ended well, what was read may lie in the kernel's memory alone: a process killed before its sync leaves it there,
/// and so does a disk that failed one. So it is written anew before anyone sees it.
fn reopen(folder: &Folder, read: SegmentRead, room: u64) -> Result<OpenSegment, Failure> {
    if read.torn_bytes > 0 {
        tracing::warn!(path = %read.path.display(), at = read.sound.len(), bytes = read.torn_bytes, "cut a torn last write");
    }
    let len = read.sound.len() as u64;
    let open_old = || folder.disk.overwrite(&read.path, len).map_err(|error| Failure::of(&read.path, error));
    let file = match (read.has_ended_well, read.torn_bytes) {
        (true, 0) => open_old()?,
        _ => match folder.create(&read.name, |file| {
            file.write(&read.sound)?;
            reserve(file, room.saturating_sub(len))
        }) {
            // Without room for a copy the old file has to do.
            Err(Failure::Full) => {
                folder.disk.truncate(&read.path, len).map_err(|error| Failure::disk(&read.path, error))?;
                open_old()?
            }
            created => created?,
        },
    };
    Ok(OpenSegment { path: read.path, marker: read.marker, len, file })
}

/// Removes what an interruption left: unfinished files, segments under the snapshot, older snapshots.
fn tidy(
    folder: &Folder,
    names: &Names,
    needed: &[Revision],
    snapshot: Option<Revision>,
) -> Result<(), Failure> {
    let logs = names.logs.iter().filter(|first| !needed.contains(first)).map(|first| log_name(*first));
    let snapshots = names.snapshots.iter().filter(|revision| Some(**revision) != snapshot);
    let snapshots = snapshots.map(|revision| snapshot_name(*revision));
    for name in names.unfinished.iter().cloned().chain(logs).chain(snapshots) {
        folder.remove_if_there(&folder.path(&name))?;
    }
    // Names that were found may not be durable yet either.
    folder.sync()
}

/// What was read of a segment.
pub(crate) struct SegmentRead {
    name: String,
    pub path: PathBuf,
    marker: u32,
    /// The bytes of the header and of all sound frames.
    pub sound: Vec<u8>,
    /// Bytes after them.
    pub torn_bytes: usize,
    /// Whether it holds no batch or ends with the mark of a clean end.
    has_ended_well: bool,
}

struct Replay<'a> {
    host: &'a Host,
    folder: &'a Folder,
    form: &'a Form,
    limits: &'a Limits,
    /// The revision of the snapshot: what is not after it is in the memory already.
    base: Revision,
    /// The revision that must come next in the log; 0 before the first segment.
    next: Revision,
    /// Whether nothing was written since the last segment began, or the store was closed.
    has_ended_well: bool,
    memory: Memory,
}

/// Where in a file something is wrong, and what.
struct Flaw(usize, Unread);

impl Flaw {
    fn new(at: usize, what: &'static str) -> Self {
        Self(at, Unread::Nonsense(what))
    }
}

impl Replay<'_> {
    /// Takes in the segments in order; returns the full ones and the last.
    fn segments(
        &mut self,
        firsts: &[Revision],
    ) -> Result<(VecDeque<Segment>, Option<SegmentRead>), StoreError> {
        let Some((last, before)) = firsts.split_last() else { return Ok((VecDeque::new(), None)) };
        let mut full = VecDeque::new();
        for first in before {
            let read = self.segment(*first, false)?;
            full.push_back(Segment { path: read.path, last: self.next - 1, len: read.sound.len() as u64 });
        }
        let read = self.segment(*last, true)?;
        if self.next <= self.memory.revision {
            let what = "the log ends before the snapshot".into();
            return Err(StoreError::Damaged { path: read.path, at: read.sound.len() as u64, what });
        }
        Ok((full, Some(read)))
    }

    fn segment(&mut self, first: Revision, is_last: bool) -> Result<SegmentRead, StoreError> {
        let name = log_name(first);
        let path = self.folder.path(&name);
        let read = self.folder.disk.read(&path);
        let mut sound = read.map_err(|source| self.folder.unreadable(&path, source))?;
        self.has_ended_well = true;
        let damaged = |Flaw(at, unread): Flaw| unread.at(&path, at as u64);
        let (marker, len) = self.frames(&sound, first, is_last).map_err(damaged)?;
        let torn_bytes = match frame::is_unwritten(&sound[len..]) {
            true => 0,
            false => sound.len() - len,
        };
        sound.truncate(len);
        Ok(SegmentRead { name, path, marker, sound, torn_bytes, has_ended_well: self.has_ended_well })
    }

    /// Takes in the frames of a segment; returns its marker and where the sound frames end.
    fn frames(&mut self, bytes: &[u8], first: Revision, is_last: bool) -> Result<(u32, usize), Flaw> {
        let header = Header::decode(bytes, Kind::Log).map_err(|what| Flaw::new(0, what))?;
        if header.revision != first {
            return Err(Flaw::new(0, "the name tells another revision than the header"));
        }
        if self.next != 0 && self.next != first {
            return Err(Flaw::new(0, "the segment before this one is missing or ends elsewhere"));
        }
        self.next = first;
        let mut at = HEADER_LEN;
        while at < bytes.len() {
            let Some(payload) = frame::open(&bytes[at..], header.marker) else {
                if frame::is_unwritten(&bytes[at..]) {
                    break;
                }
                check_torn(bytes, at, header.marker, is_last)?;
                break;
            };
            self.batch(payload).map_err(|unread| Flaw(at, unread))?;
            at += FRAME_HEAD + payload.len();
        }
        Ok((header.marker, at))
    }

    fn batch(&mut self, payload: &[u8]) -> Result<(), Unread> {
        let batch = BatchRead::decode(payload).ok_or(Unread::Nonsense("the batch is cut short"))?;
        let head = batch.head;
        if head.first != self.next {
            return Err(Unread::Nonsense("a batch is missing before this one"));
        }
        let (events, last) = batch.events(&self.memory, self.base, self.form)?;
        self.has_ended_well = last < head.first;
        self.next = last + 1;
        if !events.is_empty() {
            let at = moment_of(self.host, head);
            // No bell has a listener yet.
            drop(self.memory.apply(events, at, self.limits));
        }
        Ok(())
    }
}

/// Whether what is wrong at `at` can be a write that the power cut short: nothing sound may follow it.
fn check_torn(bytes: &[u8], at: usize, marker: u32, is_last: bool) -> Result<(), Flaw> {
    if !is_last {
        return Err(Flaw::new(at, "the checksum is wrong, and a later segment follows"));
    }
    match frame::find(&bytes[at + 1..], marker) {
        Some(_) => Err(Flaw::new(at, "the checksum is wrong, and sound writes follow")),
        None => Ok(()),
    }
}

/// When a batch was written, on the clock that counts its age.
fn moment_of(host: &Host, head: BatchHead) -> Moment {
    let now = u64::try_from(host.now().as_millisecond()).unwrap_or(0);
    let age = Duration::from_millis(now.saturating_sub(head.millis));
    Moment(host.moment().0.saturating_sub(age))
}
