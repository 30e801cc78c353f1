//! The keys by which what is secret is sealed on the disk: Secrets, in the log, in snapshots and in backups.
//!
//! The file lists the newest key first: it seals; all of them open. While `rewriting` stands in it, something on the disk
//! may be plain or sealed with an older key; when all was written anew, the others and that word are taken out. So a crash
//! between any two steps leaves a store that opens, and the next start ends what was begun.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use host::Host;
use serde::{Deserialize, Serialize};
use store::{Sealer, Store};

use crate::keys::write_private;

/// Bytes of a key.
const KEY_LEN: usize = 32;
/// Bytes of a key's name, before what it sealed.
const ID_LEN: usize = 4;
/// Bytes of the number that is used once, before what was sealed with it. Drawn by chance: good for some four thousand
/// million values a key.
const NONCE_LEN: usize = 12;

/// The keys of a store.
pub struct Vault {
    path: PathBuf,
    /// Guards the keys for as long as one value is sealed or opened, or they are changed.
    ring: RwLock<Ring>,
}

struct Ring {
    kept: Kept,
    keys: Vec<Key>,
    /// Whether the file is as this.
    is_saved: bool,
}

struct Key {
    id: [u8; ID_LEN],
    sealing: RandomizedNonceKey,
}

/// The keys as their file has them.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    /// The newest first.
    keys: Vec<KeptKey>,
    /// Whether something may not be sealed with the newest yet.
    rewriting: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptKey {
    /// Four bytes in hexadecimal.
    id: String,
    /// The key in Base64.
    key: String,
}

impl Vault {
    /// Reads the keys in a file. Without one a key is drawn, and written by [`Vault::save`]: only when the store is seen to
    /// need no other.
    pub fn open(path: &Path) -> Result<Self> {
        let reading = || format!("cannot read the keys in {}", path.display());
        let (kept, is_saved) = match fs::read(path) {
            Ok(text) => (serde_json::from_slice(&text).with_context(reading)?, true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                (Kept { keys: vec![draw()?], rewriting: true }, false)
            }
            Err(error) => return Err(error).with_context(reading),
        };
        let ring = Ring::new(kept, is_saved).with_context(reading)?;
        Ok(Self { path: path.to_owned(), ring: RwLock::new(ring) })
    }

    /// Writes a key that was drawn, so that what it seals from now on can be opened again.
    pub fn save(&self) -> Result<()> {
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if !ring.is_saved {
            self.write(&ring.kept)?;
            ring.is_saved = true;
        }
        Ok(())
    }

    /// Ends what was begun: writes all anew where something may not be sealed with the newest key, then lets go of the others.
    pub async fn settle(&self, host: &Host, store: &Store) -> Result<()> {
        if !self.is_rewriting() {
            return Ok(());
        }
        // Nothing was ever written to a store that is at its first revision, and all that is in a shared one was sealed with the
        // one key that its servers agree on.
        if store.revision() > 1 && !store.is_shared() {
            store.compact().await.context("cannot write what is secret anew")?;
        }
        let kept = {
            let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
            Kept { keys: ring.kept.keys.iter().take(1).cloned().collect(), rewriting: false }
        };
        self.put(host, kept).await
    }

    /// Takes a new key, writes all anew, and lets go of the old one.
    pub async fn rotate(&self, host: &Host, store: &Store) -> Result<()> {
        ensure!(
            !store.is_shared(),
            "several servers may share this store, and a new key would reach only this one"
        );
        self.settle(host, store).await?;
        let mut kept = self.ring.read().unwrap_or_else(PoisonError::into_inner).kept.clone();
        kept.keys.insert(0, draw()?);
        kept.rewriting = true;
        self.put(host, kept).await?;
        self.settle(host, store).await
    }

    /// Whether something on the disk may not be sealed with the newest key.
    pub fn is_rewriting(&self) -> bool {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).kept.rewriting
    }

    /// Keys are in their file before anything is sealed with them.
    async fn put(&self, host: &Host, kept: Kept) -> Result<()> {
        let ring = Ring::new(kept.clone(), true)?;
        let path = self.path.clone();
        host.blocking(move || write(&path, &kept)).await?;
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = ring;
        Ok(())
    }

    fn write(&self, kept: &Kept) -> Result<()> {
        write(&self.path, kept)
    }
}

fn write(path: &Path, kept: &Kept) -> Result<()> {
    write_private(path, &format!("{}\n", serde_json::to_string_pretty(kept)?))?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .with_context(|| format!("cannot sync {}", dir.display()))
}

fn draw() -> Result<KeptKey> {
    let (mut id, mut key) = ([0; ID_LEN], [0; KEY_LEN]);
    aws_lc_rs::rand::fill(&mut id).context("no chance to be had")?;
    aws_lc_rs::rand::fill(&mut key).context("no chance to be had")?;
    Ok(KeptKey { id: spelled(&id), key: STANDARD.encode(key) })
}

fn spelled(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Ring {
    fn new(kept: Kept, is_saved: bool) -> Result<Self> {
        let keys = kept.keys.iter().map(Key::read).collect::<Result<Vec<_>>>()?;
        ensure!(!keys.is_empty(), "there are no keys in it");
        Ok(Self { kept, keys, is_saved })
    }
}

impl Key {
    fn read(kept: &KeptKey) -> Result<Self> {
        let id = u32::from_str_radix(&kept.id, 16).context("a key's name is no hexadecimal number")?;
        let key = STANDARD.decode(&kept.key).context("a key is no Base64")?;
        let sealing = RandomizedNonceKey::new(&AES_256_GCM, &key).context("a key has not 32 bytes")?;
        Ok(Self { id: id.to_be_bytes(), sealing })
    }
}

impl Sealer for Vault {
    fn seals(&self, path: &str) -> bool {
        api::is_secret(path)
    }

    fn seal(&self, path: &str, value: &[u8]) -> Vec<u8> {
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let key = &ring.keys[0];
        let mut text = value.to_vec();
        let nonce = key.sealing.seal_in_place_append_tag(Aad::from(path.as_bytes()), &mut text);
        let nonce =
            nonce.expect("values are far below what a key can seal, and the kernel has chance to give");
        let mut sealed = Vec::with_capacity(ID_LEN + NONCE_LEN + text.len());
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        sealed
    }

    fn open(&self, path: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
        let (id, rest) = sealed.split_first_chunk::<ID_LEN>().ok_or("it is cut short")?;
        let (nonce, text) = rest.split_first_chunk::<NONCE_LEN>().ok_or("it is cut short")?;
        let ring = self.ring.read().unwrap_or_else(PoisonError::into_inner);
        let key = ring.keys.iter().find(|key| key.id == *id);
        let key = key.ok_or_else(|| {
            format!(
                "it is sealed with key {}, which is not in {}: put that file back",
                spelled(id),
                self.path.display()
            )
        })?;
        let mut text = text.to_vec();
        let opened = key.sealing.open_in_place(Nonce::from(nonce), Aad::from(path.as_bytes()), &mut text);
        let len = opened
            .map_err(|_| format!("key {} of {} does not open it", spelled(id), self.path.display()))?
            .len();
        text.truncate(len);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &Path) -> Vault {
        let vault = Vault::open(path).expect("a good file or none");
        vault.save().expect("a folder of our own");
        vault
    }

    #[test]
    fn what_is_sealed_opens_at_its_own_path_with_its_own_key_and_untouched_alone() {
        let dir = tempfile::tempdir().expect("a folder of our own");
        let path = dir.path().join("store.keys");
        let vault = opened(&path);
        let sealed = vault.seal("/secrets/a/x", b"hush");
        assert!(!sealed.windows(4).any(|window| window == b"hush"));
        assert_ne!(sealed, vault.seal("/secrets/a/x", b"hush"), "the same value is never sealed the same");
        assert_eq!(opened(&path).open("/secrets/a/x", &sealed).as_deref(), Ok(&b"hush"[..]));
        assert!(vault.open("/secrets/a/y", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(vault.open("/secrets/a/x", &bad).is_err(), "byte {at}");
        }
        let other = opened(&dir.path().join("other.keys"));
        let why = other.open("/secrets/a/x", &sealed).expect_err("another key");
        assert!(why.contains("other.keys: put that file back"), "{why}");
        assert!(vault.seals("/secrets/a/x") && !vault.seals("/configmaps/a/x"));
    }

    #[test]
    fn a_key_that_was_drawn_is_on_the_disk_only_once_it_is_saved() {
        let dir = tempfile::tempdir().expect("a folder of our own");
        let path = dir.path().join("store.keys");
        drop(Vault::open(&path).expect("none"));
        assert!(!path.exists());
        fs::write(&path, "{}").expect("a folder of our own");
        assert!(Vault::open(&path).is_err(), "a damaged file is not replaced silently");
    }

    #[tokio::test]
    async fn rotation_leaves_one_new_key_and_ends_what_an_earlier_one_began() {
        let dir = tempfile::tempdir().expect("a folder of our own");
        let path = dir.path().join("store.keys");
        let host = Host::real();
        let open_store = async |vault: std::sync::Arc<Vault>| {
            crate::control::open_sealed(&host, dir.path().join("store"), vault).await
        };
        let vault = std::sync::Arc::new(opened(&path));
        let store = open_store(vault.clone()).await.expect("an empty folder");
        let change = store::Change::Put {
            path: "/secrets/a/x".into(),
            body: store::Body { before: "{\"hush\":1}".into(), after: None },
            tags: store::Tags::default(),
        };
        store.commit(store::Txn { expect: vec![], changes: vec![change] }).await.expect("it is sound");
        let first = vault.seal("/secrets/a/x", b"hush");
        vault.rotate(&host, &store).await.expect("the disk is sound");
        assert!(vault.open("/secrets/a/x", &first).is_err(), "the old key is gone");
        // A crash after the new key was written, and before anything was written anew.
        let mut kept = vault.ring.read().expect("nobody panics").kept.clone();
        kept.keys.insert(0, draw().expect("chance"));
        kept.rewriting = true;
        write(&path, &kept).expect("a folder of our own");
        store.close().await;
        let vault = std::sync::Arc::new(opened(&path));
        let store = open_store(vault.clone()).await.expect("the older key still opens");
        vault.settle(&host, &store).await.expect("the disk is sound");
        assert_eq!(vault.ring.read().expect("nobody panics").keys.len(), 1);
        store.close().await;
        let store = open_store(std::sync::Arc::new(opened(&path))).await.expect("the newest key is enough");
        assert_eq!(store.get("/secrets/a/x").map(|record| record.value.clone()), Some("{\"hush\":1}".into()));
        store.close().await;
    }
}
