//! What the payload of a frame says: a batch of the log, or records of a snapshot. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::face::{Event, Path, Record, Revision, Tagger};
use crate::frame::{Cursor, put_bytes};
use crate::memory::Memory;
use crate::stage;

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const REMOVE_SHOWING: u8 = 3;

const RECORDS: u8 = 1;
const END: u8 = 2;

/// What opens a batch in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHead {
    /// The revision of its first event, or of the next one when it has none.
    pub first: Revision,
    /// Milliseconds since 1970 when it was written.
    pub millis: u64,
}

/// Appends a batch: its head and its events, whose revisions follow each other. One without events marks a clean end.
pub(crate) fn put_batch(buffer: &mut Vec<u8>, head: BatchHead, events: &[Arc<Event>]) {
    buffer.extend_from_slice(&head.first.to_le_bytes());
    buffer.extend_from_slice(&head.millis.to_le_bytes());
    for event in events {
        put_event(buffer, event);
    }
}

fn put_event(buffer: &mut Vec<u8>, event: &Event) {
    let shows_the_same = event.before.as_ref().is_some_and(|before| before.value == event.record.value);
    let kind = match (event.removed, shows_the_same) {
        (false, _) => PUT,
        (true, true) => REMOVE,
        (true, false) => REMOVE_SHOWING,
    };
    buffer.push(kind);
    put_bytes(buffer, event.record.path.as_bytes());
    if kind != REMOVE {
        put_bytes(buffer, &event.record.value);
    }
}

/// A batch as read from the log, its events not yet set into their history.
pub(crate) struct BatchRead<'a> {
    pub head: BatchHead,
    entries: Cursor<'a>,
}

impl<'a> BatchRead<'a> {
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let mut entries = Cursor(payload);
        let head = BatchHead { first: entries.number()?, millis: entries.number()? };
        Some(Self { head, entries })
    }

    /// The events after `after`, and the revision of the last one; an error says what makes no sense.
    pub fn events(
        mut self,
        memory: &Memory,
        after: Revision,
        tagger: &Tagger,
    ) -> Result<(Vec<Arc<Event>>, Revision), &'static str> {
        let mut replay = Replay { memory, pending: BTreeMap::new(), events: Vec::new() };
        let mut next = self.head.first;
        while !self.entries.is_empty() {
            let entry = Entry::decode(&mut self.entries).ok_or("an entry of the log makes no sense")?;
            if next > after {
                replay.add(entry, next, tagger)?;
            }
            next += 1;
        }
        Ok((replay.events, next - 1))
    }
}

struct Entry<'a> {
    kind: u8,
    path: &'a str,
    value: &'a [u8],
}

impl<'a> Entry<'a> {
    fn decode(from: &mut Cursor<'a>) -> Option<Self> {
        let kind = from.byte()?;
        let path = from.text()?;
        let value = match kind {
            PUT | REMOVE_SHOWING => from.bytes()?,
            REMOVE => &[],
            _ => return None,
        };
        Some(Self { kind, path, value })
    }
}

struct Replay<'a> {
    memory: &'a Memory,
    /// What the batch's own earlier events left at their paths.
    pending: BTreeMap<Path, Option<Record>>,
    events: Vec<Arc<Event>>,
}

impl Replay<'_> {
    fn add(&mut self, entry: Entry<'_>, revision: Revision, tagger: &Tagger) -> Result<(), &'static str> {
        let before = match self.pending.get(entry.path) {
            Some(pending) => pending.clone(),
            None => self.memory.get(entry.path).cloned(),
        };
        let event = if entry.kind == PUT {
            let path = before.as_ref().map_or_else(|| entry.path.into(), |before| before.path.clone());
            let tags = Arc::new(tagger(entry.path, entry.value));
            stage::put(path, Bytes::copy_from_slice(entry.value), tags, revision, before)
        } else {
            let before = before.ok_or("the log removes what is not there")?;
            let last = (entry.kind == REMOVE_SHOWING).then(|| Bytes::copy_from_slice(entry.value));
            stage::remove(before, last, revision)
        };
        let left = (!event.removed).then(|| event.record.clone());
        self.pending.insert(event.record.path.clone(), left);
        self.events.push(Arc::new(event));
        Ok(())
    }
}

/// Opens a frame of records in a snapshot.
pub(crate) fn begin_records(buffer: &mut Vec<u8>) {
    buffer.push(RECORDS);
}

pub(crate) fn put_record(buffer: &mut Vec<u8>, record: &Record) {
    buffer.extend_from_slice(&record.revision.to_le_bytes());
    buffer.extend_from_slice(&record.created.to_le_bytes());
    put_bytes(buffer, record.path.as_bytes());
    put_bytes(buffer, &record.value);
}

/// Ends a snapshot, saying how many records it holds.
pub(crate) fn put_end(buffer: &mut Vec<u8>, count: u64) {
    buffer.push(END);
    buffer.extend_from_slice(&count.to_le_bytes());
}

/// What a frame of a snapshot holds.
pub(crate) enum SnapshotFrame {
    Records(Vec<Record>),
    End(u64),
}

pub(crate) fn read_snapshot_frame(payload: &[u8], tagger: &Tagger) -> Option<SnapshotFrame> {
    let mut from = Cursor(payload);
    match from.byte()? {
        RECORDS => {
            let mut records = Vec::new();
            while !from.is_empty() {
                records.push(read_record(&mut from, tagger)?);
            }
            Some(SnapshotFrame::Records(records))
        }
        END => Some(SnapshotFrame::End(from.number()?)),
        _ => None,
    }
}

fn read_record(from: &mut Cursor<'_>, tagger: &Tagger) -> Option<Record> {
    let (revision, created) = (from.number()?, from.number()?);
    let (path, value) = (from.text()?, from.bytes()?);
    let tags = Arc::new(tagger(path, value));
    Some(Record { path: path.into(), value: Bytes::copy_from_slice(value), revision, created, tags })
}
