//! Damage is told from a torn last write, and refused by name; a folder has one user.

use std::path::PathBuf;

use host::{Disk, Host, RealDisk, SimDisk};

use super::{contents, dir, open, plain, put, run, tight, txn, without_room};
use crate::{Limits, Store, StoreError};

async fn written(limits: Limits, count: usize) -> SimDisk {
    let disk = SimDisk::new();
    let store = open(&disk, limits).await.expect("the disk is empty");
    for number in 0..count {
        store
            .commit(txn(vec![put(&format!("/a/{}", number % 10), &format!("{number}"))]))
            .await
            .expect("it is sound");
    }
    store.close().await;
    disk
}

fn files(disk: &SimDisk) -> Vec<PathBuf> {
    disk.list(&dir()).expect("the folder is there").into_iter().map(|name| dir().join(name)).collect()
}

#[test]
fn any_flipped_byte_of_a_store_that_was_closed_is_refused_or_harmless() {
    run(async {
        let count = 60;
        let whole = contents(&open(&written(tight(), count).await, tight()).await.expect("it is sound"));
        let disk = written(tight(), count).await;
        let paths = files(&disk);
        assert!(paths.iter().any(|path| path.to_string_lossy().contains("snapshot-")), "{paths:?}");
        let mut refused = 0;
        for path in paths {
            let len = without_room(&disk.read(&path).expect("it is there")).len();
            for at in 0..len {
                assert!(disk.flip(&path, at));
                match open(&disk, tight()).await {
                    Err(StoreError::Damaged { path: named, .. }) => {
                        assert_eq!(named, path);
                        refused += 1;
                        assert!(disk.flip(&path, at));
                    }
                    Err(error) => panic!("byte {at} of {}: {error}", path.display()),
                    // The mark of the clean end alone may go, and is cut off as if torn.
                    Ok(store) => {
                        assert_eq!(contents(&store), whole, "byte {at} of {}", path.display());
                        assert!(len - at <= 28, "byte {at} of {len} of {} was let pass", path.display());
                        break;
                    }
                }
            }
        }
        assert!(refused > 500, "{refused}");
    });
}

#[test]
fn a_missing_part_of_the_log_or_its_snapshot_is_refused_by_name() {
    run(async {
        let mut paths = files(&written(tight(), 60).await);
        // The newest segment alone leaves no trace elsewhere.
        let newest =
            paths.iter().rposition(|path| path.to_string_lossy().contains("log-")).expect("there is a log");
        paths.remove(newest);
        for gone in &paths {
            let disk = written(tight(), 60).await;
            disk.remove(gone).expect("it is there");
            let opened = open(&disk, tight()).await.map(|store| contents(&store));
            assert!(
                matches!(opened, Err(StoreError::Damaged { .. })),
                "without {}: {opened:?}",
                gone.display()
            );
        }
    });
}

#[test]
fn a_torn_end_is_cut_and_the_rest_served() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, Limits::default()).await.expect("the disk is empty");
        store.commit(txn(vec![put("/a/x", "1")])).await.expect("it is sound");
        drop(store);
        let log = files(&disk).pop().expect("there is a log");
        let sound = disk.read(&log).expect("it is there");
        disk.append(&log).and_then(|mut file| file.write(&[0xab; 300])).expect("there is room");
        let store = open(&disk, Limits::default()).await.expect("the end is torn, nothing more");
        assert_eq!(contents(&store), ["/a/x=1#2#"]);
        assert_eq!(without_room(&disk.read(&log).expect("it is there")), without_room(&sound));
    });
}

#[test]
fn room_that_was_set_aside_is_written_over_and_what_lies_there_is_cut() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, Limits::default()).await.expect("the disk is empty");
        store.commit(txn(vec![put("/a/x", "1")])).await.expect("it is sound");
        let log = files(&disk).pop().expect("there is a log");
        let len = disk.read(&log).expect("it is there").len();
        store.commit(txn(vec![put("/a/y", "2")])).await.expect("it is sound");
        assert_eq!(disk.read(&log).expect("it is there").len(), len);
        store.close().await;
        assert!(disk.flip(&log, len - 1));
        let store = open(&disk, Limits::default()).await.expect("nothing is there that counts");
        assert_eq!(contents(&store), ["/a/x=1#2#", "/a/y=2#3#"]);
        assert_eq!(disk.read(&log).expect("it is there").last(), Some(&0));
    });
}

#[test]
fn two_cannot_open_one_folder() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder of our own");
        let host = Host::real();
        let open = || Store::open(&host, folder.path().join("deep/store"), plain(), Limits::default());
        let store = open().await.expect("nobody uses it");
        assert!(matches!(open().await.map(drop), Err(StoreError::InUse { .. })));
        store.commit(txn(vec![put("/a/x", "1")])).await.expect("it is sound");
        store.close().await;
        let again = open().await.expect("it was let go");
        assert_eq!(contents(&again), ["/a/x=1#2#"]);
        assert!(RealDisk.list(&folder.path().join("deep/store")).is_ok_and(|names| names.len() == 2));
        again.close().await;
    });
}
