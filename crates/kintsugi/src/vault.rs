//! The keys by which what is secret is sealed on the disk: Secrets, in the log, in snapshots and in backups.
//!
//! The file lists the newest key first: it seals; all of them open. While `rewriting` stands in it, something on the disk
//! may be plain or sealed with an older key; when all was written anew, the others and that word are taken out. So a crash
//! between any two steps leaves a store that opens, and the next start ends what was begun.
//!
//! Where several servers share a store, what they agreed on in it says which key seals ([`Agreed`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use etcd::Heed;
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
    /// What the servers of a shared store agreed on last.
    agreed: Option<Agreed>,
    /// Whether the file is as this.
    is_saved: bool,
}

struct Key {
    id: [u8; ID_LEN],
    sealing: RandomizedNonceKey,
}

/// The keys as their file has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// The newest first.
    keys: Vec<KeptKey>,
    /// Whether something may not be sealed with the newest yet.
    rewriting: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeptKey {
    /// Four bytes in hexadecimal.
    id: String,
    /// The key in Base64.
    key: String,
}

/// What the servers of a shared store agree on about its keys, as it lies in etcd.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// How far the rotation is.
    pub phase: Phase,
    /// The name of the key that sealed before.
    old: String,
    /// The name of the one that seals afterwards.
    new: String,
    /// That key, sealed with the old one, in Base64; there until the old one is let go of.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    key: String,
}

/// How far a rotation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Every server takes the new key up, to open with it; the old one seals.
    Opening,
    /// The new key seals, and what the old one sealed is written anew.
    Sealing,
    /// The old key is gone.
    Done,
}

impl Agreed {
    /// The same, further on.
    #[must_use]
    pub fn at(&self, phase: Phase) -> Self {
        let key = if phase == Phase::Done { String::new() } else { self.key.clone() };
        Self { phase, key, ..self.clone() }
    }

    /// As it lies in etcd.
    pub fn spelled(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// Under which path the new key is sealed.
    fn path(&self) -> String {
        format!("/.sealing/{}", self.new)
    }

    /// The keys of who had these and hears this.
    fn apply(&self, kept: &Kept) -> Result<Kept> {
        let find = |id: &str| kept.keys.iter().find(|key| key.id == id).cloned();
        let old = find(&self.old);
        let new = match (find(&self.new), &old) {
            (Some(new), _) => new,
            (None, Some(old)) if !self.key.is_empty() => {
                let sealed = STANDARD.decode(&self.key).context("the new key is no Base64")?;
                let key = Key::read(old)?
                    .open(&self.path(), &sealed)
                    .context("the old key does not open the new one")?;
                KeptKey { id: self.new.clone(), key: STANDARD.encode(key) }
            }
            (None, _) => anyhow::bail!("what is secret is sealed with key {}, which is not there", self.new),
        };
        let keys = match (self.phase, old) {
            (Phase::Opening, Some(old)) => vec![old, new],
            (Phase::Opening, None) => {
                anyhow::bail!("what is secret is sealed with key {}, which is not there", self.old)
            }
            (Phase::Sealing, old) => [Some(new), old].into_iter().flatten().collect(),
            (Phase::Done, _) => vec![new],
        };
        Ok(Kept { keys, rewriting: self.phase != Phase::Done })
    }
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
            write(&self.path, &ring.kept)?;
            ring.is_saved = true;
        }
        Ok(())
    }

    /// The same, while others seal and open.
    pub async fn save_beside(&self, host: &Host) -> Result<()> {
        let (kept, is_saved) = {
            let ring = self.ring();
            (ring.kept.clone(), ring.is_saved)
        };
        if is_saved {
            return Ok(());
        }
        let (path, writing) = (self.path.clone(), kept.clone());
        host.blocking(move || write(&path, &writing)).await?;
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        ring.is_saved = ring.kept == kept;
        Ok(())
    }

    /// What hears the servers of a shared store agree on keys.
    pub fn heed(self: &Arc<Self>) -> Heed {
        let vault = self.clone();
        Arc::new(move |text| vault.take_up(text).map_err(|why| format!("{why:#}")))
    }

    /// Seals and opens from now on as the servers agreed. Its file is written afterwards, by [`Vault::save_beside`].
    fn take_up(&self, text: &[u8]) -> Result<()> {
        let agreed: Agreed =
            serde_json::from_slice(text).context("what the servers agreed on makes no sense")?;
        let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        let kept = agreed.apply(&ring.kept).with_context(|| {
            format!(
                "{} is of another time: copy it from one of the servers of this store",
                self.path.display()
            )
        })?;
        let is_saved = ring.is_saved && kept == ring.kept;
        *ring = Ring { agreed: Some(agreed), ..Ring::new(kept, is_saved)? };
        Ok(())
    }

    /// What the servers of a shared store agreed on last.
    pub fn agreed(&self) -> Option<Agreed> {
        self.ring().agreed.clone()
    }

    /// Whether servers of a shared store are about to agree on a new key.
    pub fn is_rotating(&self) -> bool {
        self.ring().agreed.as_ref().is_some_and(|agreed| agreed.phase != Phase::Done)
    }

    /// A new key, for the servers of a shared store to agree on.
    pub fn propose(&self) -> Result<Agreed> {
        let ring = self.ring();
        let drawn = draw()?;
        let mut agreed = Agreed {
            phase: Phase::Opening,
            old: ring.kept.keys[0].id.clone(),
            new: drawn.id,
            key: String::new(),
        };
        let key = STANDARD.decode(&drawn.key).context("a key is no Base64")?;
        agreed.key = STANDARD.encode(ring.keys[0].seal(&agreed.path(), &key));
        Ok(agreed)
    }

    /// What the file would say if it held one of the keys alone, for each of them.
    pub fn each_alone(&self) -> Result<Vec<String>> {
        let alone = |key: &KeptKey| spell(&Kept { keys: vec![key.clone()], rewriting: false });
        self.ring().kept.keys.iter().map(alone).collect()
    }

    /// What it says when a rotation is done that is under way.
    pub fn alone_then(&self) -> Result<String> {
        let ring = self.ring();
        let agreed = ring.agreed.as_ref().context("no rotation is under way")?;
        spell(&agreed.at(Phase::Done).apply(&ring.kept)?)
    }

    /// Lets go of all keys but one, by its place.
    pub async fn keep_one(&self, host: &Host, place: usize) -> Result<()> {
        let kept = {
            let ring = self.ring();
            let keys = ring.kept.keys.get(place).cloned().into_iter().collect();
            let kept = Kept { keys, rewriting: false };
            if ring.is_saved && ring.kept == kept {
                return Ok(());
            }
            kept
        };
        self.put(host, kept).await
    }

    fn ring(&self) -> RwLockReadGuard<'_, Ring> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what was begun in a store of one server: writes all anew where something may not be sealed with the newest key, then
    /// lets go of the others.
    pub async fn settle(&self, host: &Host, store: &Store) -> Result<()> {
        if !self.is_rewriting() {
            return Ok(());
        }
        // Nothing was ever written to a store that is at its first revision.
        if store.revision() > 1 {
            store.compact().await.context("cannot write what is secret anew")?;
        }
        self.keep_one(host, 0).await
    }

    /// Takes a new key, writes all anew, and lets go of the old one. In a store of one server; see [`crate::rotation`].
    pub async fn rotate(&self, host: &Host, store: &Store) -> Result<()> {
        self.settle(host, store).await?;
        let mut kept = self.ring().kept.clone();
        kept.keys.insert(0, draw()?);
        kept.rewriting = true;
        self.put(host, kept).await?;
        self.settle(host, store).await
    }

    /// Whether something on the disk may not be sealed with the newest key.
    pub fn is_rewriting(&self) -> bool {
        self.ring().kept.rewriting
    }

    /// Keys are in their file before anything is sealed with them.
    async fn put(&self, host: &Host, kept: Kept) -> Result<()> {
        let ring = Ring::new(kept.clone(), true)?;
        let path = self.path.clone();
        host.blocking(move || write(&path, &kept)).await?;
        let mut held = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        *held = Ring { agreed: held.agreed.take(), ..ring };
        Ok(())
    }
}

/// The text of a file.
fn spell(kept: &Kept) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(kept)?))
}

fn write(path: &Path, kept: &Kept) -> Result<()> {
    write_private(path, &spell(kept)?)?;
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
        Ok(Self { kept, keys, agreed: None, is_saved })
    }
}

impl Key {
    fn read(kept: &KeptKey) -> Result<Self> {
        let id = u32::from_str_radix(&kept.id, 16).context("a key's name is no hexadecimal number")?;
        let key = STANDARD.decode(&kept.key).context("a key is no Base64")?;
        let sealing = RandomizedNonceKey::new(&AES_256_GCM, &key).context("a key has not 32 bytes")?;
        Ok(Self { id: id.to_be_bytes(), sealing })
    }

    /// The sealed form of a value: the key's name, a number that is used once, and what cannot be read.
    fn seal(&self, path: &str, value: &[u8]) -> Vec<u8> {
        let mut text = value.to_vec();
        let nonce = self.sealing.seal_in_place_append_tag(Aad::from(path.as_bytes()), &mut text);
        let nonce =
            nonce.expect("values are far below what a key can seal, and the kernel has chance to give");
        let mut sealed = Vec::with_capacity(ID_LEN + NONCE_LEN + text.len());
        sealed.extend_from_slice(&self.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&text);
        sealed
    }

    /// The value again; `None` when it is not this key's, or not of this path, or was changed.
    fn open(&self, path: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, text) = sealed.strip_prefix(&self.id)?.split_first_chunk::<NONCE_LEN>()?;
        let mut text = text.to_vec();
        let opened = self.sealing.open_in_place(Nonce::from(nonce), Aad::from(path.as_bytes()), &mut text);
        let len = opened.ok()?.len();
        text.truncate(len);
        Some(text)
    }
}

impl Sealer for Vault {
    fn seals(&self, path: &str) -> bool {
        api::is_secret(path)
    }

    fn seal(&self, path: &str, value: &[u8]) -> Vec<u8> {
        self.ring().keys[0].seal(path, value)
    }

    fn open(&self, path: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
        let id = sealed.first_chunk::<ID_LEN>().ok_or("it is cut short")?;
        let ring = self.ring();
        let key = ring.keys.iter().find(|key| key.id == *id);
        let key = key.ok_or_else(|| {
            format!(
                "it is sealed with key {}, which is not in {}: put that file back",
                spelled(id),
                self.path.display()
            )
        })?;
        let opened = key.open(path, sealed);
        opened.ok_or_else(|| format!("key {} of {} does not open it", spelled(id), self.path.display()))
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

    /// The places of the keys that a server has in the end which had these in its file: `a` the old one, `b` the new one.
    #[test]
    fn a_server_takes_up_what_was_agreed_on() {
        let dir = tempfile::tempdir().expect("a folder of our own");
        let path = |name: &str| dir.path().join(name);
        let first = opened(&path("first"));
        let opening = first.propose().expect("chance");
        let a = first.ring().kept.keys[0].clone();
        let b = opening.apply(&first.ring().kept).expect("it is sealed with its key").keys[1].clone();
        let stranger = draw().expect("chance");
        let check = |had: &str, phase: Phase, wanted: Option<&str>| {
            let of = |letter: char| match letter {
                'a' => a.clone(),
                'b' => b.clone(),
                _ => stranger.clone(),
            };
            let file = path("file");
            write(&file, &Kept { keys: had.chars().map(of).collect(), rewriting: false })
                .expect("our folder");
            let vault = Arc::new(opened(&file));
            let heard = (vault.heed())(opening.at(phase).spelled().expect("plain text").as_bytes());
            let Some(wanted) = wanted else {
                let why = heard.expect_err("it lacks a key");
                return assert!(why.contains("copy it from one of the servers"), "{why}");
            };
            assert_eq!(heard, Ok(()), "{had} {phase:?}");
            // It can be read again after a crash, and what it says is the same whoever wrote it.
            vault.save().expect("our folder");
            let kept = opened(&file).ring().kept.clone();
            assert_eq!(kept.keys, wanted.chars().map(of).collect::<Vec<_>>(), "{had} {phase:?}");
            assert_eq!((kept.rewriting, vault.is_rotating()), (phase != Phase::Done, phase != Phase::Done));
            assert_eq!(
                vault.alone_then().ok(),
                spell(&Kept { keys: vec![b.clone()], rewriting: false }).ok()
            );
        };
        for (had, opening, sealing, done) in [
            ("a", Some("ab"), Some("ba"), None),
            ("ab", Some("ab"), Some("ba"), Some("b")),
            ("ba", Some("ab"), Some("ba"), Some("b")),
            ("b", None, Some("b"), Some("b")),
            ("x", None, None, None),
        ] {
            check(had, Phase::Opening, opening);
            check(had, Phase::Sealing, sealing);
            check(had, Phase::Done, done);
        }
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
