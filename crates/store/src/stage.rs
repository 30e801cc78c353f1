//! Decides what a batch of transactions writes, against the memory and what the batch wrote before. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::face::{Body, Change, Committed, Event, Expect, Path, Record, Revision, StoreError, Stored, Txn};
use crate::memory::Memory;
use crate::tags::Tags;

/// What lies at paths that were written but are not in the memory yet.
pub(crate) type Pending = BTreeMap<Path, Option<Record>>;

/// A batch as it grows: the memory stays as it is until the batch is on disk.
pub(crate) struct Stage<'a> {
    memory: &'a Memory,
    pending: Pending,
    revision: Revision,
    /// What the batch writes, in order.
    pub events: Vec<Arc<Event>>,
}

impl<'a> Stage<'a> {
    pub fn new(memory: &'a Memory) -> Self {
        Self { memory, pending: Pending::new(), revision: memory.revision, events: Vec::new() }
    }

    /// Adds a transaction whole, or refuses it whole.
    pub fn add(&mut self, txn: Txn) -> Result<Committed, StoreError> {
        for (path, expect) in &txn.expect {
            check(path, *expect, self.lying(&Pending::new(), path))?;
        }
        let mut mine = Pending::new();
        let mut events = Vec::with_capacity(txn.changes.len());
        for change in txn.changes {
            let revision = self.revision + 1 + events.len() as u64;
            let event = self.event(&mine, change, revision)?;
            let now = (!event.removed).then(|| event.record.clone());
            mine.insert(event.record.path.clone(), now);
            events.push(Arc::new(event));
        }
        self.revision += events.len() as u64;
        // Not `append`, which would build the whole map anew for each transaction.
        self.pending.extend(mine);
        let records = events.iter().map(|event| event.record.clone()).collect();
        self.events.append(&mut events);
        Ok(Committed { records, revision: self.revision })
    }

    fn event(&self, mine: &Pending, change: Change, revision: Revision) -> Result<Event, StoreError> {
        match change {
            Change::Put { path, body, tags } => {
                let before = self.lying(mine, &path).cloned();
                Ok(put(path, join(&body, revision), tags, revision, before))
            }
            Change::Remove { path, last } => {
                let Some(before) = self.lying(mine, &path).cloned() else {
                    return Err(StoreError::Conflict { path, actual: None });
                };
                Ok(remove(before, last.map(|body| join(&body, revision)), revision))
            }
        }
    }

    /// What lies at a path after the transaction's own changes, the batch's, and all that is durable.
    fn lying<'b>(&'b self, mine: &'b Pending, path: &str) -> Option<&'b Record> {
        match mine.get(path).or_else(|| self.pending.get(path)) {
            Some(pending) => pending.as_ref(),
            None => self.memory.get(path),
        }
    }
}

fn check(path: &Path, expect: Expect, lying: Option<&Record>) -> Result<(), StoreError> {
    let actual = lying.map(|record| record.revision);
    let holds = match expect {
        Expect::Absent => actual.is_none(),
        Expect::At(revision) => actual == Some(revision),
    };
    if holds { Ok(()) } else { Err(StoreError::Conflict { path: path.clone(), actual }) }
}

/// The event of a put. Path and tags that stayed the same are shared with the record before.
pub(crate) fn put(path: Path, value: Bytes, tags: Tags, revision: Revision, before: Option<Record>) -> Event {
    let record = match &before {
        Some(old) => {
            let tags = if old.tags == tags { old.tags.clone() } else { tags };
            Stored { path: old.path.clone(), value, revision, created: old.created, tags }
        }
        None => Stored { path, value, revision, created: revision, tags },
    };
    Event { record: record.into(), before, removed: false }
}

/// The event of a removal.
pub(crate) fn remove(before: Record, last: Option<Bytes>, revision: Revision) -> Event {
    let value = last.unwrap_or_else(|| before.value.clone());
    let record = Stored { value, revision, ..Stored::clone(&before) };
    Event { record: record.into(), before: Some(before), removed: true }
}

/// The value with the revision written in. Always a copy of its own size, so that no request's buffer is kept alive.
pub fn join(body: &Body, revision: Revision) -> Bytes {
    let Some(after) = &body.after else { return Bytes::copy_from_slice(&body.before) };
    let digits = revision.to_string();
    let mut value = Vec::with_capacity(body.before.len() + digits.len() + after.len());
    value.extend_from_slice(&body.before);
    value.extend_from_slice(digits.as_bytes());
    value.extend_from_slice(after);
    Bytes::from(value)
}
