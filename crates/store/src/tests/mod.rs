//! What the store promises, on a simulated disk and a paused clock.

mod crash;
mod damage;
mod keeping;
mod laws;
mod limits;
mod model;
mod sealing;
mod watching;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::{Host, SimDisk, Time};

use crate::{Body, Change, Expect, Form, Limits, Range, Record, Store, StoreError, Tagger, Tags, Txn};

/// Limits so small that a few dozen writes fill segments, make snapshots and forget history.
pub(crate) fn tight() -> Limits {
    Limits { history_bytes: 4096, segment_bytes: 400, log_bytes: 1000, ..Limits::default() }
}

pub(crate) fn dir() -> PathBuf {
    PathBuf::from("/data/store")
}

pub(crate) fn host(disk: &SimDisk) -> Host {
    Host::simulated(1, Time::UNIX_EPOCH + Duration::from_secs(1_800_000_000), disk.clone())
}

/// Labels a value with the text before its first `#`.
pub(crate) fn tagger() -> Tagger {
    Arc::new(|_, value| tags(&String::from_utf8_lossy(value)))
}

/// A file without the zeros that were set aside after what was written.
pub(crate) fn without_room(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1)]
}

/// Values lie on the disk as they are.
pub(crate) fn plain() -> Form {
    tagger().into()
}

/// Reads a backup, and makes a store of it.
pub(crate) fn restored(
    host: &Host,
    file: &std::path::Path,
    dir: PathBuf,
    seen: u64,
    form: &Form,
) -> Result<crate::Kept, StoreError> {
    crate::Backup::read(host, file, form)?.restore(host, dir, seen, form)
}

pub(crate) fn tags(value: &str) -> Tags {
    let name = value.split('#').next().unwrap_or_default();
    Tags::new([("name", name)], [])
}

pub(crate) async fn open(disk: &SimDisk, limits: Limits) -> Result<Store, StoreError> {
    Store::open(&host(disk), dir(), plain(), limits).await
}

pub(crate) async fn fresh() -> Store {
    open(&SimDisk::new(), Limits::default()).await.expect("the disk is empty and sound")
}

/// Puts `value#<revision>#`.
pub(crate) fn put(path: &str, value: &str) -> Change {
    let body = Body { before: Bytes::from(format!("{value}#")), after: Some(Bytes::from_static(b"#")) };
    Change::Put { path: path.into(), body, tags: tags(value) }
}

pub(crate) fn remove(path: &str) -> Change {
    Change::Remove { path: path.into(), last: None }
}

pub(crate) fn txn(changes: Vec<Change>) -> Txn {
    Txn { expect: Vec::new(), changes }
}

pub(crate) fn expecting(path: &str, expect: Expect, change: Change) -> Txn {
    Txn { expect: vec![(path.into(), expect)], changes: vec![change] }
}

pub(crate) fn text(record: &Record) -> String {
    String::from_utf8_lossy(&record.value).into_owned()
}

/// All records as `path=value`.
pub(crate) fn contents(store: &Store) -> Vec<String> {
    let page = store.list(&Range::default()).expect("the present can always be listed");
    page.records.iter().map(|record| format!("{}={}", record.path, text(record))).collect()
}

/// Runs a test on virtual time in this thread.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime needs only memory").block_on(test)
}

#[test]
fn a_write_is_read_back_with_its_revision_and_tags() {
    run(async {
        let store = fresh().await;
        assert_eq!(store.revision(), 1);
        let done = store.commit(txn(vec![put("/pods/a/x", "v")])).await.expect("nothing is expected");
        assert_eq!((done.revision, text(&done.records[0])), (2, "v#2#".into()));
        let read = store.get("/pods/a/x").expect("it was written");
        assert_eq!((read.revision, read.created, &read.tags), (2, 2, &tags("v")));
        store.commit(txn(vec![put("/pods/a/x", "w")])).await.expect("nothing is expected");
        let read = store.get("/pods/a/x").expect("it was written");
        assert_eq!((read.revision, read.created, text(&read)), (3, 2, "w#3#".into()));
    });
}

#[test]
fn a_transaction_in_conflict_does_nothing_at_all() {
    run(async {
        let store = fresh().await;
        store.commit(expecting("/a/x", Expect::Absent, put("/a/x", "1"))).await.expect("it is absent");
        let again = store.commit(expecting("/a/x", Expect::Absent, put("/a/x", "2"))).await;
        assert!(matches!(again, Err(StoreError::Conflict { actual: Some(2), .. })), "{again:?}");
        let half = store.commit(txn(vec![put("/a/y", "3"), remove("/a/none")])).await;
        assert!(matches!(half, Err(StoreError::Conflict { actual: None, .. })), "{half:?}");
        assert_eq!((contents(&store), store.revision()), (vec!["/a/x=1#2#".to_string()], 2));
    });
}

#[test]
fn transactions_that_arrive_together_see_each_other() {
    run(async {
        let store = fresh().await;
        let create = || store.commit(expecting("/a/x", Expect::Absent, put("/a/x", "1")));
        let (first, second) = futures_util::future::join(create(), create()).await;
        assert_eq!(first.expect("the first finds nothing").revision, 2);
        assert!(matches!(second, Err(StoreError::Conflict { actual: Some(2), .. })));
    });
}

#[test]
fn a_transaction_may_write_a_path_twice() {
    run(async {
        let store = fresh().await;
        let changes = vec![put("/a/x", "1"), remove("/a/x"), put("/a/x", "2"), put("/a/x", "3")];
        let done = store.commit(txn(changes)).await.expect("nothing is expected");
        let revisions: Vec<_> = done.records.iter().map(|record| (record.revision, record.created)).collect();
        assert_eq!(revisions, [(2, 2), (3, 2), (4, 4), (5, 4)]);
        assert_eq!(contents(&store), ["/a/x=3#5#"]);
    });
}

#[test]
fn a_closed_store_refuses_writes_and_can_be_opened_again() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, Limits::default()).await.expect("the disk is empty");
        store.commit(txn(vec![put("/a/x", "1")])).await.expect("the store is open");
        store.close().await;
        assert!(matches!(store.commit(txn(vec![put("/a/x", "2")])).await, Err(StoreError::Closed)));
        let again = open(&disk, Limits::default()).await.expect("it was closed well");
        assert_eq!((contents(&again), again.revision()), (vec!["/a/x=1#2#".to_string()], 2));
    });
}

#[test]
fn an_idle_store_touches_the_disk_no_more() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, Limits::default()).await.expect("the disk is empty");
        store.commit(txn(vec![put("/a/x", "1")])).await.expect("the store is open");
        let syncs = disk.syncs();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(disk.syncs(), syncs);
    });
}

#[test]
fn a_batch_is_synced_once() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, Limits::default()).await.expect("the disk is empty");
        let syncs = disk.syncs();
        let paths: Vec<String> = (0..25).map(|i| format!("/a/{i}")).collect();
        let commits = paths.iter().map(|path| store.commit(txn(vec![put(path, "v")])));
        let done = futures_util::future::join_all(commits).await;
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(disk.syncs(), syncs + 1);
    });
}
