//! Snapshots: all records as of one revision, in a file of their own, so that older segments of the log can go.
//!
//! Written aside and named when complete; the log is whole without it until then.

use host::{Chance, DiskFile};

use crate::entry::{SnapshotFrame, begin_records, put_end, put_record, read_snapshot_frame};
use crate::face::{Record, Revision, StoreError, Tagger};
use crate::folder::{Failure, Folder, snapshot_name};
use crate::frame::{self, FRAME_HEAD, HEADER_LEN, Header, Kind};
use crate::log::draw_marker;
use crate::memory::Memory;

/// Bytes after which a frame of a snapshot is closed: what is held in memory at once beside the records.
const FRAME_BYTES: usize = 1024 * 1024;

/// Writes a snapshot and makes it durable; leaves nothing behind when there is no room.
pub(crate) fn write(
    folder: &Folder,
    chance: &Chance,
    revision: Revision,
    records: &[Record],
) -> Result<(), Failure> {
    let header = Header { kind: Kind::Snapshot, marker: draw_marker(chance), revision };
    let filled = folder.create(&snapshot_name(revision), |file| {
        file.write(&header.encode())?;
        write_frames(file, header.marker, records)
    });
    filled.map(drop)
}

fn write_frames(file: &mut dyn DiskFile, marker: u32, records: &[Record]) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let mut records_left = records.iter().peekable();
    while records_left.peek().is_some() {
        frame::begin(&mut buffer);
        begin_records(&mut buffer);
        while buffer.len() < FRAME_BYTES {
            let Some(record) = records_left.next() else { break };
            put_record(&mut buffer, record);
        }
        frame::seal(&mut buffer, marker);
        file.write(&buffer)?;
    }
    frame::begin(&mut buffer);
    put_end(&mut buffer, records.len() as u64);
    frame::seal(&mut buffer, marker);
    file.write(&buffer)
}

/// Reads a snapshot into a memory without history. Any flaw is damage: its name says that it was complete.
pub(crate) fn read(folder: &Folder, revision: Revision, tagger: &Tagger) -> Result<Memory, StoreError> {
    let mut reader = Reader::open(folder, revision)?;
    let mut memory = Memory::new(revision);
    let mut count = 0;
    loop {
        match reader.next(tagger)? {
            SnapshotFrame::Records(records) => {
                count += records.len() as u64;
                records.into_iter().for_each(|record| memory.load(record));
            }
            SnapshotFrame::End(expected) if expected == count => return Ok(memory),
            SnapshotFrame::End(_) => return Err(reader.damaged("records are missing")),
        }
    }
}

struct Reader<'a> {
    folder: &'a Folder,
    path: std::path::PathBuf,
    marker: u32,
    at: u64,
}

impl<'a> Reader<'a> {
    fn open(folder: &'a Folder, revision: Revision) -> Result<Self, StoreError> {
        let mut reader = Self { folder, path: folder.path(&snapshot_name(revision)), marker: 0, at: 0 };
        let bytes = reader.bytes(HEADER_LEN)?;
        let header = Header::decode(&bytes, Kind::Snapshot).map_err(|what| reader.damaged(what))?;
        if header.revision != revision {
            return Err(reader.damaged("the name tells another revision than the header"));
        }
        reader.marker = header.marker;
        reader.at = HEADER_LEN as u64;
        Ok(reader)
    }

    fn next(&mut self, tagger: &Tagger) -> Result<SnapshotFrame, StoreError> {
        let head = self.bytes(FRAME_HEAD)?;
        let len =
            frame::payload_len(&head, self.marker).ok_or_else(|| self.damaged("no frame begins here"))?;
        let frame = self.bytes(FRAME_HEAD + len)?;
        let payload =
            frame::open(&frame, self.marker).ok_or_else(|| self.damaged("the frame's checksum is wrong"))?;
        let read =
            read_snapshot_frame(payload, tagger).ok_or_else(|| self.damaged("the records make no sense"))?;
        self.at += frame.len() as u64;
        Ok(read)
    }

    fn bytes(&self, len: usize) -> Result<Vec<u8>, StoreError> {
        let read = self.folder.disk.read_at(&self.path, self.at, len as u64);
        read.map_err(|source| self.folder.unreadable(&self.path, source))
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), at: self.at, what: what.into() }
    }
}
