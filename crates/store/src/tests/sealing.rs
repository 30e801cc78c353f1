//! Values that are sealed on the disk: never plain there, always plain for readers, refused by name without their key.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use host::{Disk, SimDisk};

use super::{contents, dir, host, plain, put, remove, restored, run, tagger, tight, txn};
use crate::{Form, Sealer, Store, StoreError};

/// Seals what lies below `/secret/`: turns every bit around, says with which key, and for which path.
struct Toy {
    keys: Mutex<Vec<u8>>,
}

impl Sealer for Toy {
    fn seals(&self, path: &str) -> bool {
        path.starts_with("/secret/")
    }

    fn seal(&self, path: &str, value: &[u8]) -> Vec<u8> {
        let first = self.keys.lock().expect("nobody panics")[0];
        let mut sealed = vec![first, path.len() as u8];
        sealed.extend(value.iter().map(|byte| !byte));
        sealed
    }

    fn open(&self, path: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
        if !self.keys.lock().expect("nobody panics").contains(&sealed[0]) {
            return Err(format!("key {} is not in /keys", sealed[0]));
        }
        assert_eq!(usize::from(sealed[1]), path.len(), "sealed for another path");
        Ok(sealed[2..].iter().map(|byte| !byte).collect())
    }
}

fn sealing(keys: &[u8]) -> (Arc<Toy>, Form) {
    let toy = Arc::new(Toy { keys: Mutex::new(keys.to_vec()) });
    (toy.clone(), Form { tagger: tagger(), sealer: Some(toy) })
}

async fn open(disk: &SimDisk, form: Form) -> Result<Store, StoreError> {
    Store::open(&host(disk), dir(), form, tight()).await
}

/// How often a text stands in the files of the store.
fn found(disk: &SimDisk, text: &[u8]) -> usize {
    let names = disk.list(&dir()).expect("the folder is there");
    let files = names.iter().filter_map(|name| disk.read(&dir().join(name)).ok());
    files.map(|bytes| bytes.windows(text.len()).filter(|window| *window == text).count()).sum()
}

async fn fill(store: &Store) {
    for number in 0..40 {
        let path = format!("/secret/a/{}", number % 4);
        store.commit(txn(vec![put(&path, "hush"), put("/open/a/x", "loud")])).await.expect("it is sound");
    }
    store.commit(txn(vec![remove("/secret/a/1")])).await.expect("it is there");
}

#[test]
fn sealed_values_are_plain_for_readers_and_never_on_the_disk() {
    run(async {
        let disk = SimDisk::new();
        let (_, form) = sealing(&[1]);
        let store = open(&disk, form.clone()).await.expect("the disk is empty");
        fill(&store).await;
        let whole = contents(&store);
        assert!(whole.contains(&"/secret/a/0=hush#74#".to_owned()), "{whole:?}");
        store.close().await;
        assert_eq!(found(&disk, b"hush"), 0);
        assert!(found(&disk, b"loud") > 0);
        let again = open(&disk, form).await.expect("it was closed well");
        assert_eq!(contents(&again), whole);
        let read = again.get("/secret/a/0").expect("it is there");
        assert_eq!(&read.tags, &super::tags("hush"));
    });
}

#[test]
fn without_its_key_a_store_is_refused_and_the_key_is_named() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, sealing(&[1]).1).await.expect("the disk is empty");
        fill(&store).await;
        store.close().await;
        let refused = open(&disk, sealing(&[2]).1).await.map(drop);
        assert!(
            matches!(&refused, Err(StoreError::Sealed { why, .. }) if why == "key 1 is not in /keys"),
            "{refused:?}"
        );
        assert!(matches!(open(&disk, plain()).await.map(drop), Err(StoreError::Sealed { .. })));
        let report = crate::check(&host(&disk), dir(), &plain()).expect("it can be read");
        assert!(!report.is_sound() && report.findings.len() == 1, "{report:?}");
        assert!(open(&disk, sealing(&[2, 1]).1).await.is_ok());
    });
}

#[test]
fn what_was_plain_is_sealed_when_the_log_is_shrunk_and_an_old_key_is_needed_no_more() {
    run(async {
        let disk = SimDisk::new();
        let store = open(&disk, plain()).await.expect("the disk is empty");
        fill(&store).await;
        let whole = contents(&store);
        store.close().await;
        assert!(found(&disk, b"hush") > 0);
        let (toy, form) = sealing(&[1]);
        let store = open(&disk, form).await.expect("plain values are read too");
        store.compact().await.expect("the disk is sound");
        assert_eq!(found(&disk, b"hush"), 0);
        toy.keys.lock().expect("nobody panics").insert(0, 2);
        store.compact().await.expect("the disk is sound");
        store.close().await;
        let again = open(&disk, sealing(&[2]).1).await.expect("the old key is needed no more");
        assert_eq!(contents(&again), whole);
    });
}

#[test]
fn a_backup_is_sealed_too() {
    run(async {
        let disk = SimDisk::new();
        let (_, form) = sealing(&[1]);
        let store = open(&disk, form.clone()).await.expect("the disk is empty");
        fill(&store).await;
        let file = PathBuf::from("/backups/one");
        crate::backup(&host(&disk), dir(), &file, &form).expect("the store is sound");
        let bytes = disk.read(&file).expect("it was written");
        assert!(!bytes.windows(4).any(|window| window == b"hush"));
        let unread = crate::examine(&host(&disk), &file, &plain());
        assert!(matches!(unread, Err(StoreError::Sealed { .. })), "{unread:?}");
        let to = PathBuf::from("/other/store");
        let (_, newer) = sealing(&[2, 1]);
        restored(&host(&disk), &file, to.clone(), 0, &newer).expect("it is whole");
        let again = Store::open(&host(&disk), to, sealing(&[2]).1, tight()).await;
        assert_eq!(contents(&again.expect("sealed with the newer key")), contents(&store));
    });
}
