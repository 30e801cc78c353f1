//! What the payload of a frame says: a batch of the log, or records of a snapshot. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::face::{Event, Form, Path, Record, Revision, StoreError, Stored};
use crate::frame::{Cursor, put_bytes};
use crate::memory::Memory;
use crate::stage;

const PUT: u8 = 1;
const REMOVE: u8 = 2;
const REMOVE_SHOWING: u8 = 3;
const PUT_SEALED: u8 = 4;
const REMOVE_SHOWING_SEALED: u8 = 5;

const RECORDS: u8 = 1;
const END: u8 = 2;
const SEALED_RECORDS: u8 = 3;

/// What opens a batch in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHead {
    /// The revision of its first event, or of the next one when it has none.
    pub first: Revision,
    /// Milliseconds since 1970 when it was written.
    pub millis: u64,
}

/// Appends a batch: its head and its events, whose revisions follow each other. One without events marks a clean end.
pub(crate) fn put_batch(buffer: &mut Vec<u8>, head: BatchHead, events: &[Arc<Event>], form: &Form) {
    buffer.extend_from_slice(&head.first.to_le_bytes());
    buffer.extend_from_slice(&head.millis.to_le_bytes());
    for event in events {
        put_event(buffer, event, form);
    }
}

fn put_event(buffer: &mut Vec<u8>, event: &Event, form: &Form) {
    let shows_the_same = event.before.as_ref().is_some_and(|before| before.value == event.record.value);
    let (path, value) = (&event.record.path, &event.record.value);
    if event.removed && shows_the_same {
        buffer.push(REMOVE);
        return put_bytes(buffer, path.as_bytes());
    }
    let sealed = form.sealed(path, value);
    buffer.push(match (event.removed, &sealed) {
        (false, None) => PUT,
        (true, None) => REMOVE_SHOWING,
        (false, Some(_)) => PUT_SEALED,
        (true, Some(_)) => REMOVE_SHOWING_SEALED,
    });
    put_bytes(buffer, path.as_bytes());
    put_bytes(buffer, sealed.as_deref().unwrap_or(value));
}

/// Why something that was read is not taken.
#[derive(Debug)]
pub(crate) enum Unread {
    /// It makes no sense.
    Nonsense(&'static str),
    /// It is sealed with a key that is not there.
    Sealed { path: Path, why: String },
}

impl Unread {
    /// As an error about a file and a place in it.
    pub fn at(self, file: &std::path::Path, at: u64) -> StoreError {
        match self {
            Unread::Nonsense(what) => StoreError::Damaged { path: file.to_path_buf(), at, what: what.into() },
            Unread::Sealed { path, why } => StoreError::Sealed { path, why },
        }
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
        form: &Form,
    ) -> Result<(Vec<Arc<Event>>, Revision), Unread> {
        let mut replay = Replay { memory, pending: BTreeMap::new(), events: Vec::new() };
        let mut next = self.head.first;
        while !self.entries.is_empty() {
            let entry = Entry::decode(&mut self.entries)
                .ok_or(Unread::Nonsense("an entry of the log makes no sense"))?;
            if next > after {
                replay.add(entry, next, form)?;
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
            PUT | REMOVE_SHOWING | PUT_SEALED | REMOVE_SHOWING_SEALED => from.bytes()?,
            REMOVE => &[],
            _ => return None,
        };
        Some(Self { kind, path, value })
    }

    /// The value as readers get it.
    fn plain(&self, form: &Form) -> Result<Bytes, Unread> {
        match self.kind {
            PUT_SEALED | REMOVE_SHOWING_SEALED => opened(self.path, self.value, form),
            _ => Ok(Bytes::copy_from_slice(self.value)),
        }
    }
}

fn opened(path: &str, sealed: &[u8], form: &Form) -> Result<Bytes, Unread> {
    form.opened(path, sealed).map_err(|why| Unread::Sealed { path: path.into(), why })
}

struct Replay<'a> {
    memory: &'a Memory,
    /// What the batch's own earlier events left at their paths.
    pending: BTreeMap<Path, Option<Record>>,
    events: Vec<Arc<Event>>,
}

impl Replay<'_> {
    fn add(&mut self, entry: Entry<'_>, revision: Revision, form: &Form) -> Result<(), Unread> {
        let before = match self.pending.get(entry.path) {
            Some(pending) => pending.clone(),
            None => self.memory.get(entry.path).cloned(),
        };
        let event = if matches!(entry.kind, PUT | PUT_SEALED) {
            let path = before.as_ref().map_or_else(|| entry.path.into(), |before| before.path.clone());
            let value = entry.plain(form)?;
            let tags = (form.tagger)(entry.path, &value);
            stage::put(path, value, tags, revision, before)
        } else {
            let before = before.ok_or(Unread::Nonsense("the log removes what is not there"))?;
            let last = if entry.kind == REMOVE { None } else { Some(entry.plain(form)?) };
            stage::remove(before, last, revision)
        };
        let left = (!event.removed).then(|| event.record.clone());
        self.pending.insert(event.record.path.clone(), left);
        self.events.push(Arc::new(event));
        Ok(())
    }
}

/// Opens a frame of records in a snapshot: sealed ones, or plain ones.
pub(crate) fn begin_records(buffer: &mut Vec<u8>, sealed: bool) {
    buffer.push(if sealed { SEALED_RECORDS } else { RECORDS });
}

/// Appends a record with its value, or the sealed form of it.
pub(crate) fn put_record(buffer: &mut Vec<u8>, record: &Record, sealed: Option<&[u8]>) {
    buffer.extend_from_slice(&record.revision.to_le_bytes());
    buffer.extend_from_slice(&record.created.to_le_bytes());
    put_bytes(buffer, record.path.as_bytes());
    put_bytes(buffer, sealed.unwrap_or(&record.value));
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

/// Reads a frame of a snapshot.
pub(crate) fn read_snapshot_frame(payload: &[u8], form: &Form) -> Result<SnapshotFrame, Unread> {
    const NONSENSE: Unread = Unread::Nonsense("the records make no sense");
    let mut from = Cursor(payload);
    match from.byte().ok_or(NONSENSE)? {
        kind @ (RECORDS | SEALED_RECORDS) => {
            let mut records = Vec::new();
            while !from.is_empty() {
                let raw = RawRecord::decode(&mut from).ok_or(NONSENSE)?;
                records.push(raw.record(kind == SEALED_RECORDS, form)?);
            }
            Ok(SnapshotFrame::Records(records))
        }
        END => Ok(SnapshotFrame::End(from.number().ok_or(NONSENSE)?)),
        _ => Err(NONSENSE),
    }
}

/// A record as it lies in a frame.
struct RawRecord<'a> {
    revision: Revision,
    created: Revision,
    path: &'a str,
    value: &'a [u8],
}

impl<'a> RawRecord<'a> {
    fn decode(from: &mut Cursor<'a>) -> Option<Self> {
        let (revision, created) = (from.number()?, from.number()?);
        Some(Self { revision, created, path: from.text()?, value: from.bytes()? })
    }

    fn record(self, is_sealed: bool, form: &Form) -> Result<Record, Unread> {
        let value = match is_sealed {
            true => opened(self.path, self.value, form)?,
            false => Bytes::copy_from_slice(self.value),
        };
        let tags = (form.tagger)(self.path, &value);
        let (path, revision, created) = (self.path.into(), self.revision, self.created);
        Ok(Stored { path, value, revision, created, tags }.into())
    }
}

/// Whether a frame of a log or a snapshot has the right shape, whatever its values are.
pub(crate) fn has_shape(payload: &[u8], is_batch: bool) -> bool {
    if is_batch {
        return BatchRead::decode(payload).is_some_and(|mut batch| {
            while !batch.entries.is_empty() {
                if Entry::decode(&mut batch.entries).is_none() {
                    return false;
                }
            }
            true
        });
    }
    let mut from = Cursor(payload);
    match from.byte() {
        Some(RECORDS | SEALED_RECORDS) => {
            while !from.is_empty() {
                if RawRecord::decode(&mut from).is_none() {
                    return false;
                }
            }
            true
        }
        Some(END) => from.number().is_some(),
        _ => false,
    }
}
