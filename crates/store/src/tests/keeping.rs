//! Backups, restores, checks and shrinking: whole or refused, and nothing is lost on the way.

use std::path::{Path, PathBuf};

use host::{Chance, Disk, SimDisk};

use super::{contents, dir, host, open, plain, put, remove, restored, run, tight, txn, without_room};
use crate::{Harm, Kept, RESTORE_AHEAD, Store, StoreError};

fn file() -> PathBuf {
    PathBuf::from("/backups/one")
}

fn elsewhere() -> PathBuf {
    PathBuf::from("/other/store")
}

async fn fill(store: &Store, count: usize) {
    for number in 0..count {
        let change = put(&format!("/a/{}", number % 10), &format!("{number}"));
        store.commit(txn(vec![change])).await.expect("it is sound");
    }
}

async fn filled(disk: &SimDisk) -> Store {
    let store = open(disk, tight()).await.expect("the disk is empty");
    fill(&store, 60).await;
    store.commit(txn(vec![remove("/a/3")])).await.expect("it is there");
    store
}

async fn open_at(disk: &SimDisk, dir: PathBuf) -> Result<Store, StoreError> {
    Store::open(&host(disk), dir, super::plain(), tight()).await
}

#[test]
fn a_backup_of_a_running_store_makes_the_same_store_elsewhere_far_ahead() {
    run(async {
        let disk = SimDisk::new();
        let store = filled(&disk).await;
        let kept = crate::backup(&host(&disk), dir(), &file(), &plain()).expect("the store is sound");
        assert_eq!(kept, Kept { revision: 62, records: 9 });
        let whole = contents(&store);
        fill(&store, 5).await;
        let made =
            restored(&host(&disk), &file(), elsewhere(), store.revision(), &plain()).expect("it is whole");
        assert_eq!(made, Kept { revision: 67 + RESTORE_AHEAD, records: 9 });
        let again = open_at(&disk, elsewhere()).await.expect("it was made well");
        assert_eq!((contents(&again), again.revision()), (whole, made.revision));
        let old = again.watch("/a/", 67).map(drop);
        assert!(matches!(old, Err(StoreError::Compacted { .. })), "whoever watched lists anew: {old:?}");
        again.commit(txn(vec![put("/a/x", "new")])).await.expect("it takes writes");
        again.close().await;
        assert!(open_at(&disk, elsewhere()).await.is_ok());
    });
}

#[test]
fn nothing_is_restored_over_a_store() {
    run(async {
        let disk = SimDisk::new();
        let store = filled(&disk).await;
        crate::backup(&host(&disk), dir(), &file(), &plain()).expect("the store is sound");
        store.close().await;
        let over = restored(&host(&disk), &file(), dir(), 0, &plain());
        assert!(matches!(over, Err(StoreError::Taken { .. })), "{over:?}");
    });
}

#[test]
fn a_torn_backup_and_one_with_any_byte_flipped_are_refused() {
    run(async {
        let disk = SimDisk::new();
        filled(&disk).await.close().await;
        crate::backup(&host(&disk), dir(), &file(), &plain()).expect("the store is sound");
        let bytes = disk.read(&file()).expect("it was written");
        let refused = |made: Result<Kept, StoreError>| matches!(made, Err(StoreError::Damaged { path, .. }) if path == file());
        for at in 0..bytes.len() {
            assert!(disk.flip(&file(), at));
            assert!(refused(restored(&host(&disk), &file(), elsewhere(), 0, &plain())), "byte {at}");
            assert!(disk.flip(&file(), at));
        }
        for len in (0..bytes.len()).rev() {
            disk.truncate(&file(), len as u64).expect("the power is on");
            assert!(refused(crate::examine(&host(&disk), &file(), &plain())), "cut to {len}");
        }
        assert!(disk.list(&elsewhere()).expect("a folder").is_empty(), "nothing was begun");
    });
}

#[test]
fn a_backup_is_whole_under_its_name_or_not_there_when_the_power_is_cut() {
    for seed in 0..4 {
        let ended = (0..50).position(|syncs| {
            run(async {
                let disk = SimDisk::new();
                filled(&disk).await.close().await;
                disk.fail_after_syncs(syncs);
                let kept = crate::backup(&host(&disk), dir(), &file(), &plain());
                disk.crash(&Chance::from_seed(seed));
                match (&kept, disk.read(&file())) {
                    (Err(_), Err(_)) => {}
                    (_, found) => {
                        found.expect("an acknowledged backup is there");
                        crate::examine(&host(&disk), &file(), &plain()).expect("and whole");
                    }
                }
                kept.is_ok()
            })
        });
        assert!(ended.is_some_and(|syncs| syncs > 1), "{ended:?}");
    }
}

#[test]
fn a_restore_that_is_cut_off_leaves_no_store_that_opens_with_less() {
    for (syncs, seed) in (0..8).flat_map(|syncs| (0..8).map(move |seed| (syncs, seed))) {
        run(async {
            let disk = SimDisk::new();
            let store = filled(&disk).await;
            let whole = contents(&store);
            store.close().await;
            crate::backup(&host(&disk), dir(), &file(), &plain()).expect("the store is sound");
            disk.fail_after_syncs(syncs);
            let made = restored(&host(&disk), &file(), elsewhere(), 0, &plain());
            disk.crash(&Chance::from_seed(seed));
            if disk.list(&elsewhere()).expect("a folder").iter().all(|name| name.ends_with(".new")) {
                assert!(made.is_err());
                return;
            }
            match open_at(&disk, elsewhere()).await {
                Ok(store) => assert_eq!(contents(&store), whole, "after {syncs} syncs, seed {seed}"),
                Err(_) => assert!(made.is_err(), "after {syncs} syncs, seed {seed}"),
            }
        });
    }
}

#[test]
fn a_sound_store_is_found_sound_while_it_runs_and_after() {
    run(async {
        let disk = SimDisk::new();
        let store = filled(&disk).await;
        let report = crate::check(&host(&disk), dir(), &plain()).expect("it can be read");
        assert_eq!((report.opens, report.findings.clone()), (Some((62, 9)), vec![]));
        assert!(report.files >= 2 && report.bytes > 500, "{report:?}");
        let log = newest_log(&disk);
        disk.append(&log).and_then(|mut file| file.write(&[7; 50])).expect("there is room");
        let report = crate::check(&host(&disk), dir(), &plain()).expect("it can be read");
        let found = report.findings.first().expect("the end is torn");
        assert_eq!((report.findings.len(), found.harm, &found.path), (1, Harm::Mends, &log));
        assert!(report.is_sound());
        drop(store);
    });
}

fn newest_log(disk: &SimDisk) -> PathBuf {
    let names = disk.list(&dir()).expect("the folder is there");
    let last = names.into_iter().rfind(|name| name.starts_with("log-")).expect("there is a log");
    dir().join(last)
}

fn paths(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(&dir()).expect("the folder is there").into_iter().map(|name| dir().join(name)).collect()
}

#[test]
fn any_flipped_byte_is_found_by_file_and_place_and_nothing_is_touched() {
    run(async {
        let disk = SimDisk::new();
        filled(&disk).await.close().await;
        let mut found_count = 0;
        for path in paths(&disk) {
            let len = disk.read(&path).expect("it is there").len();
            for at in 0..len {
                assert!(disk.flip(&path, at));
                let syncs = disk.syncs();
                let report = crate::check(&host(&disk), dir(), &plain()).expect("it can be read");
                let found = report.findings.iter().find(|found| found.path == path);
                let found = found.unwrap_or_else(|| panic!("byte {at} of {}: {report:?}", path.display()));
                assert!(found.at <= at as u64, "byte {at}: {found:?}");
                assert_eq!(report.is_sound(), found.harm == Harm::Mends, "{report:?}");
                assert_eq!(disk.syncs(), syncs);
                assert!(disk.flip(&path, at));
                found_count += 1;
            }
        }
        assert!(found_count > 500, "{found_count}");
    });
}

#[test]
fn every_damaged_place_is_named_not_only_the_first() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, crate::Limits::default()).await.expect("the disk is empty");
        fill(&store, 60).await;
        store.close().await;
        let log = newest_log(&disk);
        for at in [100, 700, 1500] {
            assert!(disk.flip(&log, at));
        }
        let report = crate::check(&host(&disk), dir(), &plain()).expect("it can be read");
        assert_eq!((report.findings.len(), report.opens), (3, None), "{report:?}");
    });
}

fn bytes(disk: &SimDisk, dir: &Path) -> usize {
    let names = disk.list(dir).expect("the folder is there");
    names
        .iter()
        .filter_map(|name| disk.read(&dir.join(name)).ok())
        .map(|bytes| without_room(&bytes).len())
        .sum()
}

#[test]
fn shrinking_writes_all_anew_while_watches_go_on() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, crate::Limits::default()).await.expect("the disk is empty");
        fill(&store, 500).await;
        let mut watch = store.watch("/a/", 400).expect("nothing was forgotten");
        let before = bytes(&disk, &dir());
        let at = store.compact().await.expect("the disk is sound");
        assert_eq!(at, 501);
        assert!(bytes(&disk, &dir()) < before / 10, "{before} and {}", bytes(&disk, &dir()));
        fill(&store, 1).await;
        let mut seen = 0;
        while let Some(batch) = watch.try_next().expect("nothing was forgotten") {
            seen += batch.iter().count();
        }
        assert_eq!(seen, 102);
        // Twice without a write between, which writes the same snapshot once more.
        assert_eq!(store.compact().await.expect("the disk is sound"), 502);
        assert_eq!(store.compact().await.expect("the disk is sound"), 502);
        let whole = contents(&store);
        store.close().await;
        let again = open(&disk, crate::Limits::default()).await.expect("it was closed well");
        assert_eq!(contents(&again), whole);
        assert!(matches!(again.watch("/a/", 501).map(drop), Err(StoreError::Compacted { .. })));
        assert_eq!(again.compact().await.expect("a store just opened can be shrunk"), 502);
        again.close().await;
        assert!(open(&disk, crate::Limits::default()).await.is_ok());
    });
}

#[test]
fn nothing_is_lost_when_the_power_is_cut_while_shrinking() {
    for (syncs, seed) in (0..24).flat_map(|syncs| (0..6).map(move |seed| (syncs, seed))) {
        run(async {
            let disk = SimDisk::new();
            let store = open(&disk, tight()).await.expect("the disk is empty");
            fill(&store, 20).await;
            let mut whole = contents(&store);
            disk.fail_after_syncs(syncs);
            for number in 0..4 {
                let shrunk = store.compact().await;
                let wrote = store.commit(txn(vec![put("/b/x", &format!("{number}"))])).await;
                assert!(shrunk.is_ok() || wrote.is_err(), "a failed sync ends writing");
                if wrote.is_ok() {
                    whole = contents(&store);
                }
            }
            drop(store);
            disk.crash(&Chance::from_seed(seed));
            let again = open(&disk, tight()).await;
            let again = again.unwrap_or_else(|error| panic!("after {syncs} syncs, seed {seed}: {error}"));
            let found = contents(&again);
            let without_last: Vec<_> =
                found.iter().filter(|line| !line.starts_with("/b/")).cloned().collect();
            let wanted: Vec<_> = whole.iter().filter(|line| !line.starts_with("/b/")).cloned().collect();
            assert_eq!(without_last, wanted, "after {syncs} syncs, seed {seed}");
            assert!(found.len() >= whole.len(), "after {syncs} syncs, seed {seed}");
        });
    }
}
