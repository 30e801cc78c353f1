//! An object as everybody below the write path holds it: its canonical bytes and a little read out of them.

use std::any::Any;
use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Texts, Time};

/// An object: canonical JSON bytes, shared, with its metadata read out once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Object(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Bytes,
    meta: Meta,
    /// What has been read out of the bytes so far, one of each type: a memory only, it never changes an answer.
    seen: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

/// The part of `metadata` that decisions read. Small: there are as many as objects, and each is held for as long.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Meta {
    /// Name, namespace, uid and resource version, one after the other.
    words: Box<str>,
    /// Where each of them but the last ends.
    ends: [u32; 3],
    /// Grows with each change of the desired state.
    pub generation: i64,
    /// When it was created.
    pub creation_timestamp: Option<Time>,
    /// When its deletion was asked for.
    pub deletion_timestamp: Option<Time>,
    /// How long its deletion may take.
    pub deletion_grace_period_seconds: Option<i64>,
    /// Labels.
    pub labels: Texts,
    /// Annotations.
    pub annotations: Texts,
    /// Who must let go before it is removed.
    pub finalizers: Box<[String]>,
    /// Whose child it is.
    pub owner_references: Box<[Owner]>,
}

impl Meta {
    /// The name.
    pub fn name(&self) -> &str {
        self.word(0, self.ends[0])
    }

    /// The namespace; empty for cluster-wide objects.
    pub fn namespace(&self) -> &str {
        self.word(self.ends[0], self.ends[1])
    }

    /// The unique id of this incarnation of the name.
    pub fn uid(&self) -> &str {
        self.word(self.ends[1], self.ends[2])
    }

    /// The revision at which these bytes were written, in decimal.
    pub fn resource_version(&self) -> &str {
        &self.words[self.ends[2] as usize..]
    }

    fn word(&self, from: u32, to: u32) -> &str {
        &self.words[from as usize..to as usize]
    }
}

/// The same as it is read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ReadMeta<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    uid: Cow<'a, str>,
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
    generation: i64,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    labels: Texts,
    annotations: Texts,
    finalizers: Box<[String]>,
    owner_references: Box<[Owner]>,
}

impl From<ReadMeta<'_>> for Meta {
    fn from(read: ReadMeta<'_>) -> Self {
        let words = [&*read.name, &*read.namespace, &*read.uid, &*read.resource_version];
        let mut end = 0;
        let ends = [words[0], words[1], words[2]].map(|word| {
            // An object has at most some megabytes.
            end += word.len() as u32;
            end
        });
        Self {
            words: words.concat().into(),
            ends,
            generation: read.generation,
            creation_timestamp: read.creation_timestamp,
            deletion_timestamp: read.deletion_timestamp,
            deletion_grace_period_seconds: read.deletion_grace_period_seconds,
            labels: read.labels,
            annotations: read.annotations,
            finalizers: read.finalizers,
            owner_references: read.owner_references,
        }
    }
}

/// One owner reference.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    /// `group/version` of the owner.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's uid.
    pub uid: String,
    /// Whether this owner is the one that manages the object.
    pub controller: bool,
    /// Whether the owner's foreground deletion waits for the object.
    pub block_owner_deletion: bool,
}

/// Bytes that are not an object.
#[derive(Debug, thiserror::Error)]
#[error("not an object")]
pub struct NotAnObject(#[from] serde_json::Error);

#[derive(Deserialize)]
struct MetaOnly<'a> {
    #[serde(borrow, default)]
    metadata: ReadMeta<'a>,
}

impl Object {
    /// Reads the metadata of `bytes` and keeps both.
    pub fn read(bytes: Bytes) -> Result<Self, NotAnObject> {
        let MetaOnly { metadata } = serde_json::from_slice(&bytes)?;
        let meta = metadata.into();
        Ok(Self(Arc::new(Inner { bytes, meta, seen: Mutex::default() })))
    }

    /// The canonical JSON bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The metadata.
    pub fn meta(&self) -> &Meta {
        &self.0.meta
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.meta.name()
    }

    /// The namespace; empty for cluster-wide objects.
    pub fn namespace(&self) -> &str {
        self.0.meta.namespace()
    }

    /// The uid.
    pub fn uid(&self) -> &str {
        self.0.meta.uid()
    }

    /// The revision as a number; 0 when it has none.
    pub fn revision(&self) -> u64 {
        self.0.meta.resource_version().parse().unwrap_or(0)
    }

    /// Whether its deletion was asked for.
    pub fn is_ending(&self) -> bool {
        self.0.meta.deletion_timestamp.is_some()
    }

    /// The owner that manages it.
    pub fn controller(&self) -> Option<&Owner> {
        self.0.meta.owner_references.iter().find(|owner| owner.controller)
    }

    /// The `apiVersion` and the `kind` that it names; empty where it names none.
    pub fn says_it_is(&self) -> (Cow<'_, str>, Cow<'_, str>) {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Header {
            api_version: String,
            kind: String,
        }
        if let Some((api_version, kind)) = canonical_header(&self.0.bytes) {
            return (api_version.into(), kind.into());
        }
        let Header { api_version, kind } = self.view().unwrap_or_default();
        (api_version.into(), kind.into())
    }

    /// A typed view, decoded anew; for logic that needs names. Never a form to store or patch.
    pub fn view<T: DeserializeOwned>(&self) -> Result<T, NotAnObject> {
        Ok(serde_json::from_slice(&self.0.bytes)?)
    }

    /// A slim projection of what a decision reads, decoded once for all who hold this revision of the object.
    ///
    /// For small types only: it lives as long as the object does. `None` when the bytes do not fit the type.
    pub fn seen<T: DeserializeOwned + Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let known = |seen: &[Arc<dyn Any + Send + Sync>]| {
            seen.iter().find_map(|one| Arc::clone(one).downcast::<T>().ok())
        };
        // Guards the list of what has been read; nothing is decoded while it is held.
        let lock = || self.0.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = known(&lock()) {
            return Some(seen);
        }
        let fresh: Arc<T> = Arc::new(self.view().ok()?);
        lock().push(Arc::<T>::clone(&fresh));
        Some(fresh)
    }

    /// Lets go of what [`Object::seen`] has read so far: it is read again when somebody asks.
    pub fn forget_seen(&self) {
        let seen = std::mem::take(&mut *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner));
        drop(seen);
    }

    /// The whole as a tree.
    pub fn tree(&self) -> Result<crate::Tree, NotAnObject> {
        self.view()
    }
}

/// The `apiVersion` and the `kind` with which canonical bytes begin; `None` where these do not, or not plainly.
fn canonical_header(bytes: &[u8]) -> Option<(&str, &str)> {
    let (api_version, rest) = plain_text(bytes.strip_prefix(b"{\"apiVersion\":")?)?;
    let (kind, _) = plain_text(rest.strip_prefix(b",\"kind\":")?)?;
    Some((api_version, kind))
}

/// The text that begins some JSON, and what follows it; `None` where it does not begin with a text, or with one in which
/// something is escaped.
fn plain_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let bytes = bytes.strip_prefix(b"\"")?;
    let end = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    let (text, rest) = bytes.split_at(end);
    Some((std::str::from_utf8(text).ok()?, rest.strip_prefix(b"\"")?))
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.0.bytes == other.0.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_object_says_it_is_is_read_from_any_form() {
        let check = |text: &str, api_version: &str, kind: &str| {
            let object = Object::read(Bytes::from(text.to_owned())).expect("an object");
            assert_eq!(object.says_it_is(), (api_version.into(), kind.into()), "{text}");
        };
        check(
            r#"{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"a"}}"#,
            "apps/v1",
            "DaemonSet",
        );
        check(r#"{"kind": "Pod", "apiVersion": "v1"}"#, "v1", "Pod");
        check(r#"{"apiVersion":"v1","kind":"\u0050od"}"#, "v1", "Pod");
        check(r#"{"apiVersion":"v1","kind":7}"#, "", "");
        check(r#"{"metadata":{}}"#, "", "");
    }
}
