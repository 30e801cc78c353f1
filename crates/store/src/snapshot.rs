//! Snapshots: all records as of one revision, in a file of their own, so that older segments of the log can go.
//!
//! Written aside and named when complete; the log is whole without it until then.

use host::{Chance, DiskFile};

use crate::entry::{SnapshotFrame, begin_records, put_end, put_record, read_snapshot_frame};
use crate::face::{Form, Record, Revision, StoreError};
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
    form: &Form,
) -> Result<(), Failure> {
    let header = Header { kind: Kind::Snapshot, marker: draw_marker(chance), revision };
    write_as(folder, &snapshot_name(revision), header, records, form)
}

/// Writes records under a name, and makes them durable.
pub(crate) fn write_as(
    folder: &Folder,
    name: &str,
    header: Header,
    records: &[Record],
    form: &Form,
) -> Result<(), Failure> {
    let filled = folder.create(name, |file| {
        file.write(&header.encode())?;
        write_frames(file, header.marker, records, form)
    });
    filled.map(drop)
}

fn write_frames(
    file: &mut dyn DiskFile,
    marker: u32,
    records: &[Record],
    form: &Form,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let is_sealed = |record: &Record| form.sealer.as_ref().is_some_and(|sealer| sealer.seals(&record.path));
    let mut records_left = records.iter().peekable();
    while let Some(first) = records_left.peek() {
        let sealed = is_sealed(first);
        frame::begin(&mut buffer);
        begin_records(&mut buffer, sealed);
        while buffer.len() < FRAME_BYTES {
            let Some(record) = records_left.next_if(|record| is_sealed(record) == sealed) else { break };
            put_record(&mut buffer, record, form.sealed(&record.path, &record.value).as_deref());
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
pub(crate) fn read(folder: &Folder, revision: Revision, form: &Form) -> Result<Memory, StoreError> {
    let mut reader = Reader::open(folder, &snapshot_name(revision), Kind::Snapshot)?;
    if reader.revision != revision {
        reader.at = 0;
        return Err(reader.damaged("the name tells another revision than the header"));
    }
    let mut memory = Memory::new(revision);
    reader.records(form, |record| memory.load(record))?;
    Ok(memory)
}

/// Reads records as [`write_as`] wrote them; gives the revision whose state they are.
pub(crate) fn read_as(
    folder: &Folder,
    name: &str,
    kind: Kind,
    form: &Form,
) -> Result<(Revision, Vec<Record>), StoreError> {
    let mut reader = Reader::open(folder, name, kind)?;
    let mut records = Vec::new();
    reader.records(form, |record| records.push(record))?;
    Ok((reader.revision, records))
}

struct Reader<'a> {
    folder: &'a Folder,
    path: std::path::PathBuf,
    marker: u32,
    revision: Revision,
    at: u64,
}

impl<'a> Reader<'a> {
    fn open(folder: &'a Folder, name: &str, kind: Kind) -> Result<Self, StoreError> {
        let mut reader = Self { folder, path: folder.path(name), marker: 0, revision: 0, at: 0 };
        let bytes = reader.bytes(HEADER_LEN)?;
        let header = Header::decode(&bytes, kind).map_err(|what| reader.damaged(what))?;
        (reader.marker, reader.revision) = (header.marker, header.revision);
        reader.at = HEADER_LEN as u64;
        Ok(reader)
    }

    /// Hands on every record; the end must say how many they were.
    fn records(&mut self, form: &Form, mut take: impl FnMut(Record)) -> Result<(), StoreError> {
        let mut count = 0;
        loop {
            match self.next(form)? {
                SnapshotFrame::Records(records) => {
                    count += records.len() as u64;
                    records.into_iter().for_each(&mut take);
                }
                SnapshotFrame::End(expected) if expected == count => return Ok(()),
                SnapshotFrame::End(_) => return Err(self.damaged("records are missing")),
            }
        }
    }

    fn next(&mut self, form: &Form) -> Result<SnapshotFrame, StoreError> {
        let head = self.bytes(FRAME_HEAD)?;
        let len =
            frame::payload_len(&head, self.marker).ok_or_else(|| self.damaged("no frame begins here"))?;
        let frame = self.bytes(FRAME_HEAD + len)?;
        let payload =
            frame::open(&frame, self.marker).ok_or_else(|| self.damaged("the frame's checksum is wrong"))?;
        let read = read_snapshot_frame(payload, form).map_err(|unread| unread.at(&self.path, self.at))?;
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
