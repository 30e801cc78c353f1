//! Random histories against the model: what is committed, listed, watched and found again.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use host::SimDisk;
use proptest::prelude::*;

use super::model::{Happened, Model};
use super::{open, put, run, tight};
use crate::{Body, Change, Event, Expect, Range, Revision, Store, StoreError, Txn, Watch};

/// Paths in several collections, among them one whose name begins with another's.
const PATHS: &[&str] =
    &["/pods/a/x", "/pods/a/y", "/pods/b/x", "/pods-x/a/x", "/maps/a/x", "/maps/a/xx", "/lone", "/pods/"];
const PREFIXES: &[&str] = &["", "/", "/pods/", "/pods/a/", "/pods", "/maps/a/x", "/none/", "/lone", "/m"];

#[derive(Debug, Clone)]
enum Step {
    /// Transactions that arrive at once.
    Commit(Vec<Vec<Planned>>),
    List {
        prefix: usize,
        after: Option<usize>,
        limit: usize,
        back: Option<u64>,
    },
    Watch {
        prefix: usize,
        back: u64,
    },
    /// Lets one watcher read what there is for it.
    Read(usize),
    Wait(u64),
    Reopen,
}

/// A change and what is expected of its path: nothing, the truth, or an untruth.
#[derive(Debug, Clone)]
struct Planned {
    path: usize,
    kind: u8,
    expect: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let planned =
        (0..PATHS.len(), 0u8..6, 0u8..6).prop_map(|(path, kind, expect)| Planned { path, kind, expect });
    let txns = prop::collection::vec(prop::collection::vec(planned, 0..4), 1..5);
    let list = (0..PREFIXES.len(), prop::option::of(0..PATHS.len()), 0usize..4, prop::option::of(0u64..12));
    prop_oneof![
        8 => txns.prop_map(Step::Commit),
        4 => list.prop_map(|(prefix, after, limit, back)| Step::List { prefix, after, limit, back }),
        2 => (0..PREFIXES.len(), 0u64..10).prop_map(|(prefix, back)| Step::Watch { prefix, back }),
        4 => (0usize..8).prop_map(Step::Read),
        1 => (0u64..400).prop_map(Step::Wait),
        1 => Just(Step::Reopen),
    ]
}

struct Watcher {
    watch: Watch,
    prefix: &'static str,
    after: Revision,
}

struct World {
    disk: SimDisk,
    store: Store,
    model: Model,
    watchers: Vec<Watcher>,
    written: usize,
}

impl World {
    async fn new() -> Self {
        let disk = SimDisk::new();
        let store = open(&disk, tight()).await.expect("the disk is empty");
        Self { disk, store, model: Model::new(), watchers: Vec::new(), written: 0 }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Commit(txns) => self.commit(txns).await,
            Step::List { prefix, after, limit, back } => self.list(Range {
                prefix: PREFIXES[prefix].into(),
                after: after.map(|path| PATHS[path].into()),
                limit,
                at: back.map(|back| (self.model.revision + 2).saturating_sub(back)),
            }),
            Step::Watch { prefix, back } => {
                self.watch(PREFIXES[prefix], self.model.revision.saturating_sub(back))
            }
            Step::Read(which) => self.read(which),
            Step::Wait(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            Step::Reopen => self.reopen().await,
        }
    }

    async fn commit(&mut self, planned: Vec<Vec<Planned>>) {
        let txns: Vec<Txn> = planned.iter().map(|changes| self.txn(changes)).collect();
        let answers = join_all(txns.iter().map(|txn| self.store.commit(txn.clone()))).await;
        for (txn, answer) in txns.iter().zip(answers) {
            let expected = self.model.commit(txn);
            match answer {
                Ok(done) => {
                    assert!(expected, "{txn:?} should have been refused");
                    let made = &self.model.history[self.model.history.len() - txn.changes.len()..];
                    let got: Vec<_> = done.records.iter().map(|record| record.revision).collect();
                    assert_eq!(got, made.iter().map(|one| one.revision).collect::<Vec<_>>());
                }
                Err(StoreError::Conflict { .. }) => assert!(!expected, "{txn:?} should have been done"),
                Err(error) => panic!("nothing else can go wrong here: {error}"),
            }
        }
    }

    fn txn(&mut self, planned: &[Planned]) -> Txn {
        let lying = self.model.at(self.model.revision);
        let mut txn = Txn::default();
        for one in planned {
            let path = PATHS[one.path];
            self.written += 1;
            let truth = lying.get(path).map_or(Expect::Absent, |(_, at)| Expect::At(*at));
            match one.expect {
                0 => txn.expect.push((path.into(), Expect::At(7))),
                1..=3 => txn.expect.push((path.into(), truth)),
                _ => {}
            }
            let value = format!("v{}", self.written);
            txn.changes.push(match one.kind {
                0 => Change::Remove { path: path.into(), last: None },
                1 => {
                    let last = Body { before: Bytes::from(value), after: Some(Bytes::from_static(b"!")) };
                    Change::Remove { path: path.into(), last: Some(last) }
                }
                _ => put(path, &value),
            });
        }
        txn
    }

    fn list(&self, range: Range) {
        let asked = range.at.unwrap_or(self.model.revision);
        match self.store.list(&range) {
            Ok(page) => {
                let (records, remaining) = self.model.list(&range);
                let got: Vec<_> = page.records.iter().map(|r| (r.path.to_string(), super::text(r))).collect();
                assert_eq!((got, page.remaining), (records, remaining), "{range:?}");
                assert_eq!((page.more, page.revision), (remaining > 0, asked));
            }
            Err(StoreError::Future { asked, newest }) => {
                assert!(asked > newest && newest == self.model.revision)
            }
            Err(StoreError::Compacted { asked, oldest }) => {
                assert!(asked < oldest && oldest == self.store.oldest())
            }
            Err(error) => panic!("nothing else can go wrong here: {error}"),
        }
    }

    fn watch(&mut self, prefix: &'static str, after: Revision) {
        match self.store.watch(prefix, after) {
            Ok(watch) => self.watchers.push(Watcher { watch, prefix, after }),
            Err(error) => {
                assert!(matches!(error, StoreError::Compacted { .. }) && after < self.store.oldest())
            }
        }
    }

    fn read(&mut self, which: usize) {
        if self.watchers.is_empty() {
            return;
        }
        let which = which % self.watchers.len();
        if !self.read_one(which) {
            self.watchers.remove(which);
        }
    }

    /// Reads all there is; false when the watcher was cut off.
    fn read_one(&mut self, which: usize) -> bool {
        let Watcher { watch, prefix, after } = &mut self.watchers[which];
        let mut seen = Vec::new();
        let cut_off = loop {
            match watch.try_next() {
                Ok(Some(batch)) => seen.extend(batch.iter().map(|event| happened(event))),
                Ok(None) => break false,
                Err(StoreError::TooSlow) => break true,
                Err(error) => panic!("nothing else can go wrong here: {error}"),
            }
        };
        let expected = self.model.after(prefix, *after);
        if cut_off {
            assert!(expected.starts_with(&seen), "cut off, yet without a gap before");
            assert!(self.store.oldest() > *after, "cut off, though nothing was forgotten");
            return false;
        }
        assert_eq!(seen, expected, "under {prefix} after {after}");
        assert_eq!(watch.revision(), self.model.revision);
        *after = self.model.revision;
        true
    }

    async fn reopen(&mut self) {
        self.watchers.clear();
        let oldest = self.store.oldest();
        self.store.close().await;
        self.store = open(&self.disk, tight()).await.expect("it was closed well");
        assert_eq!(self.store.revision(), self.model.revision);
        assert!(self.store.oldest() <= oldest, "history outlives a restart");
    }

    /// Everything agrees: the present, all of the kept past, and every watcher.
    fn check(&mut self) {
        for at in self.store.oldest()..=self.model.revision {
            self.list(Range { at: Some(at), ..Range::default() });
        }
        for which in 0..self.watchers.len() {
            self.read_one(which);
        }
        for record in &self.store.list(&Range::default()).expect("the present can be listed").records {
            assert_eq!(record.tags, super::tags(&super::text(record)));
        }
    }
}

pub(crate) fn happened(event: &Event) -> Happened {
    let record = &event.record;
    Happened {
        revision: record.revision,
        path: record.path.to_string(),
        value: super::text(record),
        removed: event.removed,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_list_of_all_that_happened_says(steps in prop::collection::vec(step(), 1..80)) {
        run(async {
            let mut world = World::new().await;
            for step in steps {
                world.step(step).await;
            }
            world.check();
            world.reopen().await;
            world.check();
        });
    }
}
