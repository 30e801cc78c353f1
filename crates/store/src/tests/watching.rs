//! Watchers: no gap, no repeat, woken for their own collection, cut off when they sleep too long.

use std::time::Duration;

use futures_util::FutureExt;
use host::SimDisk;

use super::laws::happened;
use super::{fresh, open, put, remove, run, tight, txn};
use crate::{Store, StoreError};

async fn write(store: &Store, path: &str, value: &str) {
    store.commit(txn(vec![put(path, value)])).await.expect("it is sound");
}

#[test]
fn a_watcher_waits_and_is_shown_what_comes() {
    run(async {
        let store = fresh().await;
        let mut watch = store.watch("/pods/", 1).expect("nothing was forgotten");
        assert!(watch.next().now_or_never().is_none());
        let writer = store.clone();
        let later = async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            write(&writer, "/maps/a/x", "m").await;
            write(&writer, "/pods/a/x", "p").await;
            writer.commit(txn(vec![remove("/pods/a/x")])).await.expect("it is there");
        };
        let seen = async {
            let mut seen = Vec::new();
            while seen.len() < 2 {
                let batch = watch.next().await.expect("the store is open");
                seen.extend(batch.iter().map(|event| happened(event)));
            }
            seen
        };
        let ((), seen) = futures_util::future::join(later, seen).await;
        let short: Vec<_> = seen.iter().map(|one| (one.revision, one.removed, one.value.as_str())).collect();
        assert_eq!(short, [(3, false, "p#3#"), (4, true, "p#3#")]);
    });
}

#[test]
fn a_watcher_is_not_woken_by_another_collection() {
    run(async {
        let store = fresh().await;
        let mut watch = store.watch("/pods/", 1).expect("nothing was forgotten");
        let mut wait = tokio_test_wake(&mut watch);
        assert!(!wait.woken());
        write(&store, "/maps/a/x", "m").await;
        assert!(!wait.woken());
        write(&store, "/pods/a/x", "p").await;
        assert!(wait.woken());
    });
}

/// A future polled once, and whether its waker was called since.
struct Wait<'a> {
    _future: std::pin::Pin<Box<dyn Future<Output = Result<crate::Batch, StoreError>> + 'a>>,
    called: std::sync::Arc<Called>,
}

struct Called(std::sync::atomic::AtomicBool);

impl std::task::Wake for Called {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

impl Wait<'_> {
    fn woken(&mut self) -> bool {
        self.called.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

fn tokio_test_wake(watch: &mut crate::Watch) -> Wait<'_> {
    let called = std::sync::Arc::new(Called(false.into()));
    let waker = std::task::Waker::from(called.clone());
    let mut future: std::pin::Pin<Box<dyn Future<Output = _>>> = Box::pin(watch.next());
    assert!(future.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
    Wait { _future: future, called }
}

#[test]
fn a_watcher_that_sleeps_is_cut_off_and_holds_up_nobody() {
    run(async {
        let store = open(&SimDisk::new(), tight()).await.expect("the disk is empty");
        let mut slow = store.watch("/pods/", 1).expect("nothing was forgotten");
        let mut quick = store.watch("/pods/", 1).expect("nothing was forgotten");
        let mut idle = store.watch("/maps/", 1).expect("nothing was forgotten");
        for number in 0..100 {
            write(&store, "/pods/a/x", &format!("{number}")).await;
            let batch = quick.next().await.expect("it keeps up");
            assert_eq!(batch.iter().count(), 1);
        }
        assert!(matches!(slow.next().await.map(drop), Err(StoreError::TooSlow)));
        assert!(idle.try_next().is_ok_and(|batch| batch.is_none()));
        assert_eq!((idle.revision(), quick.revision()), (101, 101));
    });
}

#[test]
fn the_revision_of_a_watch_never_runs_ahead_of_what_it_handed_out() {
    run(async {
        let store = fresh().await;
        let mut watch = store.watch("/pods/", 1).expect("nothing was forgotten");
        write(&store, "/maps/a/x", "m").await;
        assert_eq!(watch.revision(), 2);
        write(&store, "/pods/a/x", "p").await;
        write(&store, "/maps/a/x", "n").await;
        assert_eq!(watch.revision(), 1);
        assert!(watch.try_next().is_ok_and(|batch| batch.is_some()));
        assert_eq!(watch.revision(), 4);
    });
}

#[test]
fn closing_ends_every_watch_after_what_was_written() {
    run(async {
        let store = fresh().await;
        let mut watch = store.watch("/pods/", 1).expect("nothing was forgotten");
        write(&store, "/pods/a/x", "p").await;
        store.close().await;
        assert!(watch.next().await.is_ok());
        assert!(matches!(watch.next().await.map(drop), Err(StoreError::Closed)));
    });
}

#[test]
fn dropping_the_last_handle_ends_every_watch() {
    run(async {
        let store = fresh().await;
        let mut watch = store.watch("/pods/", 1).expect("nothing was forgotten");
        drop(store);
        assert!(matches!(watch.next().await.map(drop), Err(StoreError::Closed)));
    });
}

#[test]
fn a_watch_of_the_future_or_of_forgotten_history_is_refused() {
    run(async {
        let store = open(&SimDisk::new(), tight()).await.expect("the disk is empty");
        for number in 0..100 {
            write(&store, "/pods/a/x", &format!("{number}")).await;
        }
        assert!(matches!(store.watch("/pods/", 1).map(drop), Err(StoreError::Compacted { asked: 1, .. })));
        assert!(matches!(
            store.watch("/pods/", 102).map(drop),
            Err(StoreError::Future { asked: 102, newest: 101 })
        ));
    });
}
