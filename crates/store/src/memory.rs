//! All records and the kept history, in memory. Plain data: time is an argument, nothing waits.
//!
//! Promises: a list is of one revision, now or as far back as the history goes. It only ever holds what is on disk.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use host::Moment;
use host::watch;

use crate::face::{Event, Page, Path, Range, Record, Revision, StoreError};
use crate::history::{Chunk, History};
use crate::limits::Limits;

/// The revision of an empty store. Not 0, which clients take for "any".
pub(crate) const FIRST_REVISION: Revision = 1;

/// The records of all collections, and what happened to them.
pub(crate) struct Memory {
    /// The newest revision.
    pub revision: Revision,
    /// Everything after this revision is in the history.
    pub oldest: Revision,
    /// No more will be written.
    pub closed: bool,
    /// Bytes of paths and values of all records.
    pub live_bytes: u64,
    collections: BTreeMap<Box<str>, Collection>,
    all: Feed,
    history_cost: usize,
}

/// The records whose paths begin with the same segment.
#[derive(Default)]
struct Collection {
    records: BTreeMap<Path, Record>,
    feed: Feed,
}

/// A history, and the bell that rings when it grows.
pub(crate) struct Feed {
    pub history: History,
    pub bell: Bell,
}

/// Wakes the watchers of a feed; shows the newest revision in it.
pub(crate) type Bell = watch::Sender<Revision>;

impl Default for Feed {
    fn default() -> Self {
        Self { history: History::default(), bell: Bell::new(0) }
    }
}

/// The collection of a path (or of a prefix that reaches as far): up to and with the second slash, so that collections
/// sort as their paths do.
fn collection_of(path: &str) -> &str {
    path.match_indices('/').nth(1).map_or(path, |(at, _)| &path[..=at])
}

/// Whether all paths with this prefix lie in one collection.
pub(crate) fn is_within_one(prefix: &str) -> bool {
    prefix.matches('/').count() > 1
}

impl Memory {
    pub fn new(revision: Revision) -> Self {
        Self {
            revision,
            oldest: revision,
            closed: false,
            live_bytes: 0,
            collections: BTreeMap::new(),
            all: Feed::default(),
            history_cost: 0,
        }
    }

    /// Adds a record of a snapshot, which precedes all history.
    pub fn load(&mut self, record: Record) {
        let key = collection_of(&record.path);
        self.live_bytes += size(&record);
        let collection = match self.collections.get_mut(key) {
            Some(collection) => collection,
            None => self.collections.entry(key.into()).or_default(),
        };
        collection.records.insert(record.path.clone(), record);
    }

    /// Holds these records, as of a revision, in the place of all others; cuts off every watcher, and returns the bells to
    /// ring.
    pub fn replace(&mut self, records: Vec<Record>, revision: Revision) -> Vec<Bell> {
        self.all.history.break_off();
        for collection in self.collections.values_mut() {
            collection.feed.history.break_off();
            collection.records.clear();
        }
        (self.revision, self.oldest) = (revision, revision);
        (self.live_bytes, self.history_cost) = (0, 0);
        records.into_iter().for_each(|record| self.load(record));
        let unused: Vec<Box<str>> = self.collections.keys().cloned().collect();
        unused.iter().for_each(|key| self.drop_if_unused(key));
        self.bells()
    }

    /// Notes that up to this revision nothing happened.
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// All events after a revision, the oldest first; `None` when they are not all kept.
    pub fn since(&self, revision: Revision) -> Option<Vec<Arc<Event>>> {
        if revision < self.oldest {
            return None;
        }
        let mut events: Vec<Arc<Event>> = self.all.history.back_to(revision).cloned().collect();
        events.reverse();
        Some(events)
    }

    pub fn get(&self, path: &str) -> Option<&Record> {
        self.collections.get(collection_of(path))?.records.get(path)
    }

    /// How many records lie in the collection of a path or prefix.
    pub fn count(&self, prefix: &str) -> usize {
        self.collections.get(collection_of(prefix)).map_or(0, |collection| collection.records.len())
    }

    /// Takes in what a batch wrote, forgets history beyond the limits, and returns the bells to ring.
    pub fn apply(&mut self, events: Vec<Arc<Event>>, at: Moment, limits: &Limits) -> Vec<Bell> {
        let mut touched: BTreeMap<Box<str>, Vec<Arc<Event>>> = BTreeMap::new();
        for event in &events {
            self.revision = event.record.revision;
            let key = collection_of(&event.record.path);
            match touched.get_mut(key) {
                Some(events) => events.push(event.clone()),
                None => drop(touched.insert(key.into(), vec![event.clone()])),
            }
        }
        let whole = Arc::new(Chunk::new(events, at));
        self.history_cost += whole.cost;
        self.all.history.push(whole.clone());
        let mut bells = vec![self.all.bell.clone()];
        for (key, events) in touched {
            let shared = events.len() == whole.events.len();
            let chunk = if shared { whole.clone() } else { Arc::new(Chunk::new(events, at)) };
            bells.push(self.apply_to(key, chunk));
        }
        self.forget(at, limits);
        bells
    }

    fn apply_to(&mut self, key: Box<str>, chunk: Arc<Chunk>) -> Bell {
        let collection = self.collections.entry(key).or_default();
        for event in &chunk.events {
            let record = &event.record;
            let before = if event.removed {
                collection.records.remove(&record.path)
            } else {
                self.live_bytes += size(record);
                collection.records.insert(record.path.clone(), record.clone())
            };
            self.live_bytes -= before.as_ref().map_or(0, size);
        }
        collection.feed.history.push(chunk);
        collection.feed.bell.clone()
    }

    /// Lets go of history that is too old or too much; the newest batch always stays.
    fn forget(&mut self, now: Moment, limits: &Limits) {
        while self.all.history.len() > 1 && self.should_forget(now, limits) {
            let Some(chunk) = self.all.history.pop() else { return };
            self.oldest = chunk.last();
            self.history_cost -= chunk.cost;
            for event in &chunk.events {
                self.forget_in(collection_of(&event.record.path));
            }
        }
    }

    fn should_forget(&self, now: Moment, limits: &Limits) -> bool {
        let too_old = self.all.history.oldest().is_some_and(|chunk| now.since(chunk.at) > limits.history_age);
        too_old || self.history_cost > limits.history_bytes
    }

    fn forget_in(&mut self, key: &str) {
        let Some(collection) = self.collections.get_mut(key) else { return };
        let history = &mut collection.feed.history;
        while history.oldest().is_some_and(|chunk| chunk.last() <= self.oldest) {
            history.pop();
        }
        self.drop_if_unused(key);
    }

    /// Drops a collection in which nothing lies, happened or is watched.
    pub fn drop_if_unused(&mut self, key: &str) {
        let unused = self.collections.get(key).is_some_and(|collection| {
            let feed = &collection.feed;
            collection.records.is_empty() && feed.history.len() == 0 && feed.bell.receiver_count() == 0
        });
        if unused {
            self.collections.remove(key);
        }
    }

    /// The feed that holds all events under `prefix`, made when there is none yet.
    pub fn feed_to_watch(&mut self, prefix: &str) -> &Feed {
        if !is_within_one(prefix) {
            return &self.all;
        }
        &self.collections.entry(collection_of(prefix).into()).or_default().feed
    }

    /// The feed that a watcher of `prefix` follows.
    pub fn feed(&self, prefix: &str) -> Option<&Feed> {
        if !is_within_one(prefix) {
            return Some(&self.all);
        }
        self.collections.get(collection_of(prefix)).map(|collection| &collection.feed)
    }

    /// Says that a watcher of `prefix` is gone.
    pub fn unwatch(&mut self, prefix: &str) {
        if is_within_one(prefix) {
            self.drop_if_unused(collection_of(prefix));
        }
    }

    /// Marks the end, and returns every bell.
    pub fn close(&mut self) -> Vec<Bell> {
        self.closed = true;
        self.bells()
    }

    fn bells(&self) -> Vec<Bell> {
        let bells = self.collections.values().map(|collection| collection.feed.bell.clone());
        bells.chain([self.all.bell.clone()]).collect()
    }

    /// Whether the history reaches back to `revision`, so that all that came after it is known.
    pub fn reaches(&self, revision: Revision) -> Result<(), StoreError> {
        if revision > self.revision {
            return Err(StoreError::Future { asked: revision, newest: self.revision });
        }
        if revision < self.oldest {
            return Err(StoreError::Compacted { asked: revision, oldest: self.oldest });
        }
        Ok(())
    }

    pub fn list(&self, range: &Range) -> Result<Page, StoreError> {
        let revision = range.at.unwrap_or(self.revision);
        self.reaches(revision)?;
        let mut all = self.records_at(range, revision);
        let limit = if range.limit == 0 { usize::MAX } else { range.limit };
        let found: Vec<&Record> = all.by_ref().take(limit).collect();
        // Looked at before they are cloned: so the processor fetches many at once, where counting up waits for each.
        std::hint::black_box(found.iter().map(|record| record.value.len()).sum::<usize>());
        let records = found.into_iter().cloned().collect();
        let remaining = all.count();
        Ok(Page { records, revision, more: remaining > 0, remaining })
    }

    /// Every record as of the oldest kept revision, for a snapshot under the history.
    pub fn base(&self) -> Vec<Record> {
        self.records_at(&Range::default(), self.oldest).cloned().collect()
    }

    /// The records of a range, ordered, as they were at a revision that the history reaches.
    fn records_at<'a>(&'a self, range: &'a Range, revision: Revision) -> impl Iterator<Item = &'a Record> {
        let undone = self.undone_after(range, revision);
        let mut past = undone.values().copied().flatten().collect::<Vec<_>>().into_iter().peekable();
        let now = self.collections_under(&range.prefix).flat_map(|collection| collection.records_in(range));
        let is_undone = move |record: &Record| !undone.is_empty() && undone.contains_key(&*record.path);
        let mut now = now.filter(move |record| !is_undone(record)).peekable();
        std::iter::from_fn(move || match (past.peek(), now.peek()) {
            (Some(then), Some(still)) if then.path < still.path => past.next(),
            (Some(_), None) => past.next(),
            _ => now.next(),
        })
    }

    /// What lay at each path of the range that was written after `revision`.
    fn undone_after<'a>(
        &'a self,
        range: &'a Range,
        revision: Revision,
    ) -> BTreeMap<&'a str, Option<&'a Record>> {
        let mut undone = BTreeMap::new();
        if revision == self.revision {
            return undone;
        }
        let collections = self.collections_under(&range.prefix);
        for event in collections.flat_map(|collection| collection.feed.history.back_to(revision)) {
            if range.holds(&event.record.path) {
                undone.insert(&*event.record.path, event.before.as_ref());
            }
        }
        undone
    }

    /// The collections that may hold paths with this prefix, in the order of their paths.
    fn collections_under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Collection> {
        let (from, one) = (collection_of(prefix), is_within_one(prefix));
        let after = self.collections.range::<str, _>((Bound::Included(from), Bound::Unbounded));
        after
            .take_while(move |(key, _)| if one { ***key == *from } else { key.starts_with(prefix) })
            .map(|(_, c)| c)
    }
}

impl Collection {
    /// Its records in a range, ordered. Where they end is looked up, not seen by their paths: those lie all over the memory,
    /// and to look at each takes longer than all the rest.
    fn records_in(&self, range: &Range) -> impl Iterator<Item = &Record> {
        let prefix = range.prefix.as_str();
        let from = match range.after.as_deref() {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let end = end_of(prefix);
        let to = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let is_beyond = matches!((from, to), (Bound::Excluded(after), Bound::Excluded(end)) if after >= end);
        let records = (!is_beyond).then(|| self.records.range::<str, _>((from, to)));
        records.into_iter().flatten().map(|(_, record)| record)
    }
}

/// The least path that is greater than all with this prefix; `None` where there is none.
fn end_of(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    while let Some(last) = end.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            end.push(next);
            return Some(end);
        }
    }
    None
}

impl Range {
    fn holds(&self, path: &str) -> bool {
        path.starts_with(&self.prefix) && self.after.as_deref().is_none_or(|after| path > after)
    }
}

/// The bytes of a record's path and value.
fn size(record: &Record) -> u64 {
    (record.path.len() + record.value.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_ends_where_the_next_prefix_begins() {
        for (prefix, end) in [("/pods/a/", Some("/pods/a0")), ("a\u{d7ff}", Some("a\u{e000}")), ("", None)] {
            assert_eq!(end_of(prefix).as_deref(), end, "{prefix:?}");
        }
        assert_eq!(end_of("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(end_of("\u{10ffff}"), None);
    }
}
