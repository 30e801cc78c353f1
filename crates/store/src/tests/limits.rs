//! At the limits: no room, too much, too old.

use std::time::Duration;

use host::{Disk, SimDisk};

use super::{contents, dir, open, put, run, tight, txn};
use crate::{Limits, Range, StoreError};

#[test]
fn a_full_disk_refuses_whole_transactions_and_recovers_when_there_is_room() {
    run(async {
        for room in 0..400 {
            let disk = SimDisk::new();
            let store = open(&disk, tight()).await.expect("the disk is empty");
            disk.set_room(room);
            let mut done = 0;
            while store
                .commit(txn(vec![put("/a/x", &format!("{done}")), put("/a/y", &format!("{done}"))]))
                .await
                .is_ok()
            {
                done += 1;
            }
            let before = contents(&store);
            let full = store.commit(txn(vec![put("/a/z", "z")])).await;
            assert!(matches!(full, Err(StoreError::Full { .. })) || room > 0, "{full:?}");
            disk.set_room(u64::MAX);
            store.commit(txn(vec![put("/a/w", "w")])).await.expect("there is room again");
            let after = contents(&store);
            assert!(before.iter().all(|line| after.contains(line)), "room {room}");
            store.close().await;
            let again = open(&disk, tight()).await.expect("it was closed well");
            assert_eq!(contents(&again), after, "room {room}");
        }
    });
}

#[test]
fn a_snapshot_that_finds_no_room_is_tried_again() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, tight()).await.expect("the disk is empty");
        let write =
            |number: usize| store.commit(txn(vec![put(&format!("/a/{}", number % 50), &"v".repeat(40))]));
        let mut number = 0;
        while bytes_on(&disk) < 6_000 {
            number += 1;
            disk.set_room(200);
            let _ = write(number).await;
        }
        disk.set_room(u64::MAX);
        for more in 0..200 {
            write(number + more).await.expect("there is room again");
        }
        assert!(bytes_on(&disk) < 20_000, "{} bytes", bytes_on(&disk));
        let names = disk.list(&dir()).expect("the folder is there");
        assert_eq!(names.iter().filter(|name| name.starts_with("snapshot-")).count(), 1, "{names:?}");
    });
}

fn bytes_on(disk: &SimDisk) -> usize {
    let names = disk.list(&dir()).expect("the folder is there");
    names.iter().map(|name| disk.read(&dir().join(name)).map_or(0, |bytes| bytes.len())).sum()
}

#[test]
fn the_log_stays_within_its_bounds_however_much_is_written() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, tight()).await.expect("the disk is empty");
        for number in 0..3000 {
            store
                .commit(txn(vec![put(&format!("/a/{}", number % 5), &"v".repeat(30))]))
                .await
                .expect("there is room");
        }
        assert!(bytes_on(&disk) < 6_000, "{} bytes", bytes_on(&disk));
        let before = contents(&store);
        store.close().await;
        assert_eq!(contents(&open(&disk, tight()).await.expect("it was closed well")), before);
    });
}

#[test]
fn history_is_kept_for_its_time_and_then_let_go() {
    run(async {
        let store = super::fresh().await;
        store.commit(txn(vec![put("/a/x", "1")])).await.expect("it is sound");
        tokio::time::sleep(Duration::from_secs(299)).await;
        store.commit(txn(vec![put("/a/x", "2")])).await.expect("it is sound");
        assert!(
            store.list(&Range { at: Some(1), ..Range::default() }).is_ok_and(|page| page.records.is_empty())
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
        store.commit(txn(vec![put("/a/x", "3")])).await.expect("it is sound");
        let old = store.list(&Range { at: Some(1), ..Range::default() });
        assert!(matches!(old, Err(StoreError::Compacted { asked: 1, oldest: 2 })), "{old:?}");
        assert!(store.watch("/a/", 1).is_err() && store.watch("/a/", 2).is_ok());
    });
}

#[test]
fn history_outlives_a_restart() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, Limits::default()).await.expect("the disk is empty");
        for number in 0..3 {
            store.commit(txn(vec![put("/a/x", &format!("{number}"))])).await.expect("it is sound");
        }
        store.close().await;
        let store = open(&disk, Limits::default()).await.expect("it was closed well");
        let mut watch = store.watch("/a/", 2).expect("the history was found again");
        let mut seen = Vec::new();
        while let Some(batch) = watch.try_next().expect("nothing was forgotten") {
            seen.extend(batch.iter().map(|event| super::text(&event.record)));
        }
        assert_eq!(seen, ["1#3#", "2#4#"]);
    });
}

#[test]
fn a_transaction_beyond_the_limit_is_refused() {
    run(async {
        let limits = Limits { txn_bytes: 1000, ..Limits::default() };
        let store = open(&SimDisk::new(), limits).await.expect("the disk is empty");
        let large = store.commit(txn(vec![put("/a/x", &"v".repeat(1000))])).await;
        assert!(matches!(large, Err(StoreError::TooLarge { limit: 1000, .. })), "{large:?}");
        store.commit(txn(vec![put("/a/x", "v")])).await.expect("this one fits");
    });
}

#[test]
fn more_than_may_wait_waits_at_the_door() {
    run(async {
        let limits = Limits { queue_len: 2, queue_bytes: 300, txn_bytes: 300, ..Limits::default() };
        let store = open(&SimDisk::new(), limits).await.expect("the disk is empty");
        let paths: Vec<String> = (0..50).map(|number| format!("/a/{number}")).collect();
        let done =
            futures_util::future::join_all(paths.iter().map(|path| store.commit(txn(vec![put(path, "v")]))))
                .await;
        assert!(done.iter().all(Result::is_ok));
        assert_eq!(contents(&store).len(), 50);
    });
}
