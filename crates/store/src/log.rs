//! The log: segments of frames, appended and synced a batch at a time.
//!
//! Promises: after [`Log::append`] returned well, the batch is on disk; after it returned `Full`, all is as before. When a
//! segment begins, the one before is on disk whole; so only the last one can have a torn end. A segment's room is set
//! aside when it begins, as zeros after its last frame: a sync then has to write the frame alone.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use host::{Chance, DiskFile};

use crate::face::Revision;
use crate::folder::{Failure, Folder, log_name, snapshot_name};
use crate::frame::{HEADER_LEN, Header, Kind, seal};

/// The log, open for appending.
pub(crate) struct Log {
    folder: Folder,
    chance: Chance,
    segment_bytes: u64,
    /// The revision of the next event.
    next: Revision,
    /// Segments that are full, the oldest first.
    full: VecDeque<Segment>,
    open: OpenSegment,
}

/// A segment that is no longer written.
pub(crate) struct Segment {
    pub path: PathBuf,
    pub last: Revision,
    pub len: u64,
}

/// The segment that is written.
pub(crate) struct OpenSegment {
    pub path: PathBuf,
    pub marker: u32,
    /// Bytes that are known to be on disk.
    pub len: u64,
    pub file: Box<dyn DiskFile>,
}

impl OpenSegment {
    /// Begins a segment, with room for `room` bytes where the disk has that much.
    pub fn create(folder: &Folder, chance: &Chance, first: Revision, room: u64) -> Result<Self, Failure> {
        let name = log_name(first);
        let header = Header { kind: Kind::Log, marker: draw_marker(chance), revision: first };
        let file = folder.create(&name, |file| {
            file.write(&header.encode())?;
            reserve(file, room)
        })?;
        Ok(Self { path: folder.path(&name), marker: header.marker, len: HEADER_LEN as u64, file })
    }

    /// Writes a frame and waits until it is on disk.
    fn append(&mut self, folder: &Folder, frame: &mut [u8]) -> Result<(), Failure> {
        seal(frame, self.marker);
        if let Err(error) = self.file.write(frame) {
            return Err(self.take_back(folder, error));
        }
        self.file.sync().map_err(|error| Failure::disk(&self.path, error))?;
        self.len += frame.len() as u64;
        Ok(())
    }

    /// Cuts off the part of a frame that found room.
    fn take_back(&self, folder: &Folder, error: io::Error) -> Failure {
        match Failure::of(&self.path, error) {
            Failure::Full => match folder.disk.truncate(&self.path, self.len) {
                Ok(()) => Failure::Full,
                Err(error) => Failure::disk(&self.path, error),
            },
            failure => failure,
        }
    }
}

/// Sets room aside. On a disk that is nearly full the file grows as it is written, as long as it can.
pub(crate) fn reserve(file: &mut dyn DiskFile, room: u64) -> io::Result<()> {
    match file.reserve(room) {
        Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            Ok(())
        }
        reserved => reserved,
    }
}

/// Draws what begins the frames of a file. Never 0, which a disk may have left there.
pub(crate) fn draw_marker(chance: &Chance) -> u32 {
    1 + chance.below(u64::from(u32::MAX)) as u32
}

impl Log {
    pub fn new(
        folder: Folder,
        chance: Chance,
        segment_bytes: u64,
        next: Revision,
        full: VecDeque<Segment>,
        open: OpenSegment,
    ) -> Self {
        Self { folder, chance, segment_bytes, next, full, open }
    }

    /// Appends a frame whose last event has revision `last`; returns when it is on disk.
    pub fn append(&mut self, frame: &mut [u8], last: Revision) -> Result<(), Failure> {
        if self.open.len >= self.segment_bytes {
            self.begin_segment()?;
        }
        self.open.append(&self.folder, frame)?;
        self.next = last + 1;
        Ok(())
    }

    /// Begins a segment now, so that all that was written lies in full ones.
    pub fn cut(&mut self) -> Result<(), Failure> {
        // One that holds no event yet bears the very name that a new one would.
        match self.open.path == self.folder.path(&log_name(self.next)) {
            true => Ok(()),
            false => self.begin_segment(),
        }
    }

    fn begin_segment(&mut self) -> Result<(), Failure> {
        let fresh = OpenSegment::create(&self.folder, &self.chance, self.next, self.segment_bytes)?;
        let done = std::mem::replace(&mut self.open, fresh);
        self.full.push_back(Segment { path: done.path, last: self.next - 1, len: done.len });
        Ok(())
    }

    /// Bytes of segments that hold nothing after `revision`: what a snapshot of it would free.
    pub fn bytes_up_to(&self, revision: Revision) -> u64 {
        self.full.iter().take_while(|segment| segment.last <= revision).map(|segment| segment.len).sum()
    }

    /// Removes segments that hold nothing after the snapshot at `revision`, and the snapshot before it.
    pub fn remove_up_to(
        &mut self,
        revision: Revision,
        old_snapshot: Option<Revision>,
    ) -> Result<(), Failure> {
        if let Some(old) = old_snapshot {
            self.folder.remove_if_there(&self.folder.path(&snapshot_name(old)))?;
        }
        while let Some(segment) = self.full.front().filter(|segment| segment.last <= revision) {
            self.folder.remove_if_there(&segment.path)?;
            self.full.pop_front();
        }
        self.folder.sync()
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }
}
