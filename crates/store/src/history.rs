//! What happened, in order: chunks of shared events, one chunk for each batch that was written.
//!
//! A watcher holds a place in it, never the events, so a slow one costs nothing and holds nobody up.

use std::collections::VecDeque;
use std::sync::Arc;

use host::Moment;

use crate::face::{Event, Revision};

/// What an event costs beside the bytes of its path and value: the structs, their counters and allocations.
const EVENT_OVERHEAD: usize = 256;

/// The events that one batch wrote, in order. Never empty.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub events: Box<[Arc<Event>]>,
    pub at: Moment,
    pub cost: usize,
}

impl Chunk {
    pub fn new(events: Vec<Arc<Event>>, at: Moment) -> Self {
        assert!(!events.is_empty(), "a chunk holds at least one event");
        let cost = events.iter().map(|event| cost(event)).sum();
        Self { events: events.into(), at, cost }
    }

    /// The revision of its last event.
    pub fn last(&self) -> Revision {
        self.events.last().map_or(0, |event| event.record.revision)
    }

    /// Where the events after `revision` begin.
    pub fn place_after(&self, revision: Revision) -> usize {
        self.events.partition_point(|event| event.record.revision <= revision)
    }
}

fn cost(event: &Event) -> usize {
    EVENT_OVERHEAD + event.record.path.len() + event.record.value.len()
}

/// Chunks from the oldest kept to the newest, each with a place that stays the same while it is kept.
#[derive(Debug, Default)]
pub(crate) struct History {
    chunks: VecDeque<Arc<Chunk>>,
    /// How many chunks were let go: the place of the first one kept.
    first: u64,
}

impl History {
    pub fn push(&mut self, chunk: Arc<Chunk>) {
        self.chunks.push_back(chunk);
    }

    pub fn oldest(&self) -> Option<&Arc<Chunk>> {
        self.chunks.front()
    }

    pub fn pop(&mut self) -> Option<Arc<Chunk>> {
        let chunk = self.chunks.pop_front()?;
        self.first += 1;
        Some(chunk)
    }

    /// Lets everything go, and skips a place: who waits for the next chunk finds that it missed one.
    pub fn break_off(&mut self) {
        self.first += self.chunks.len() as u64 + 1;
        self.chunks.clear();
    }

    pub fn len(&self) -> usize {
        self.chunks.len()
    }

    /// The place of the first chunk with an event after `revision`.
    pub fn place_after(&self, revision: Revision) -> u64 {
        self.first + self.chunks.partition_point(|chunk| chunk.last() <= revision) as u64
    }

    /// The chunk at `place`; `Err` when it was let go, `None` when it is yet to come.
    pub fn at(&self, place: u64) -> Result<Option<&Arc<Chunk>>, Gone> {
        let index = place.checked_sub(self.first).ok_or(Gone)?;
        Ok(usize::try_from(index).ok().and_then(|index| self.chunks.get(index)))
    }

    /// The events after `revision`, the newest first.
    pub fn back_to(&self, revision: Revision) -> impl Iterator<Item = &Arc<Event>> {
        let newest_first = self.chunks.iter().rev().flat_map(|chunk| chunk.events.iter().rev());
        newest_first.take_while(move |event| event.record.revision > revision)
    }
}

/// That place of the history is no longer kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Gone;
