//! Watching: a place in the history, and a bell that says when to look again.

use std::sync::Arc;

use host::watch;

use crate::face::{Event, Path, Revision, StoreError};
use crate::history::{Chunk, Gone};
use crate::memory::is_within_one;
use crate::store::Shared;

/// Follows all that happens under a prefix, in order, from a revision on.
///
/// Holds no events back from being forgotten: one that falls behind the kept history is cut off.
pub struct Watch {
    shared: Arc<Shared>,
    prefix: Path,
    bell: watch::Receiver<Revision>,
    /// The place in the history of the chunk to come.
    place: u64,
    /// What was asked for: the first chunk may hold events up to it.
    after: Revision,
    /// All up to this revision was handed out.
    seen: Revision,
    /// Whether each event of the feed must be held against the prefix.
    narrow: bool,
}

impl Watch {
    pub(crate) fn new(shared: Arc<Shared>, prefix: &str, after: Revision) -> Result<Self, StoreError> {
        let mut memory = shared.write();
        memory.reaches(after)?;
        let feed = memory.feed_to_watch(prefix);
        let (bell, place) = (feed.bell.subscribe(), feed.history.place_after(after));
        drop(memory);
        let whole = prefix.is_empty()
            || (is_within_one(prefix) && prefix.matches('/').count() == 2 && prefix.ends_with('/'));
        Ok(Self { shared, prefix: prefix.into(), bell, place, after, seen: after, narrow: !whole })
    }

    /// Waits for the next events. May be dropped while it waits without losing any.
    ///
    /// # Errors
    /// `TooSlow` when the history was forgotten before it was read, `Closed` when the store is.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            // One that always finds more shall not keep its thread from others.
            tokio::task::coop::consume_budget().await;
            // Marked as heard before looking, so that what comes after the look rings again.
            self.bell.borrow_and_update();
            if let Some(batch) = self.try_next()? {
                return Ok(batch);
            }
            if self.bell.changed().await.is_err() {
                return Err(StoreError::Closed);
            }
        }
    }

    /// The next events, if there are any yet.
    ///
    /// # Errors
    /// As [`Watch::next`].
    pub fn try_next(&mut self) -> Result<Option<Batch>, StoreError> {
        while let Some(chunk) = self.take()? {
            let from = chunk.place_after(self.after);
            let batch = Batch { chunk, from, prefix: self.narrow.then(|| self.prefix.clone()) };
            if batch.iter().next().is_some() {
                return Ok(Some(batch));
            }
        }
        Ok(None)
    }

    /// Takes the next chunk of the feed, holding the memory no longer than that.
    fn take(&mut self) -> Result<Option<Arc<Chunk>>, StoreError> {
        let memory = self.shared.read();
        let feed = memory.feed(&self.prefix).ok_or(StoreError::Closed)?;
        match feed.history.at(self.place) {
            Err(Gone) => Err(StoreError::TooSlow),
            Ok(Some(chunk)) => {
                self.place += 1;
                self.seen = chunk.last();
                Ok(Some(chunk.clone()))
            }
            Ok(None) if memory.closed => Err(StoreError::Closed),
            Ok(None) => Ok(None),
        }
    }

    /// The revision up to which everything under the prefix was handed out, for bookmarks.
    pub fn revision(&self) -> Revision {
        let memory = self.shared.read();
        let waiting = memory.feed(&self.prefix).map(|feed| feed.history.at(self.place));
        match waiting {
            Some(Ok(None)) => memory.revision.max(self.seen),
            _ => self.seen,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The bell counts its receivers: let go of ours first.
        self.bell = watch::Sender::new(0).subscribe();
        self.shared.write().unwatch(&self.prefix);
    }
}

/// Events that were written together, shared among all watchers. Never empty.
#[derive(Debug, Clone)]
pub struct Batch {
    chunk: Arc<Chunk>,
    from: usize,
    prefix: Option<Path>,
}

impl Batch {
    /// The events, in the order of their revisions.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Event>> {
        let events = &self.chunk.events[self.from..];
        let prefix = self.prefix.as_deref();
        events.iter().filter(move |event| prefix.is_none_or(|prefix| event.record.path.starts_with(prefix)))
    }
}
