//! What holds for all servers of a store before they read or write a record: by how much its revisions are ahead of etcd's, and
//! by which key what is secret is sealed.
//!
//! Each lies in a key of ours, and a transaction that depends on it compares when it was written. So a server that has not
//! heard of a change writes nothing by what held before; and since the watch brings it before all that was written after it,
//! none reads anything by it either.

use std::sync::Arc;

use bytes::Bytes;
use host::watch;
use store::StoreError;

use crate::endpoints::Endpoints;
use crate::journal::OPEN_MAX;
use crate::keys::Keys;
use crate::load::unreachable;
use crate::messages::{
    Compare, CompareResult, KeyValue, RangeRequest, Request, RequestOp, TXN, TxnRequest, TxnResponse,
};
use crate::transaction::by_revision;

/// The key that says by how much revisions are ahead; written by a restore alone.
pub const AHEAD: &str = "ahead";
/// The key that is there while a restore is under way.
pub const RESTORING: &str = "restoring";
/// The key that says by which key what is secret is sealed.
pub const SEALING: &str = "sealing";

/// How the names of the keys begin by which servers tell what they have taken up.
pub const HEEDED: &str = "heeded/";

/// Takes up what the servers agreed on about sealing, before anything is read or written by it; or says why it cannot.
pub type Heed = Arc<dyn Fn(&[u8]) -> Result<(), String> + Send + Sync>;

/// What a server knows of it.
#[derive(Clone)]
pub struct Terms {
    heed: Heed,
    /// The etcd revision that wrote the first; 0 for none.
    restored: i64,
    /// The etcd revision that wrote what was heeded last; 0 for none.
    sealing: watch::Sender<i64>,
}

/// What lies in the keys.
pub struct Found {
    /// Keys that count revisions as this store does.
    pub keys: Keys,
    /// What was taken up.
    pub terms: Terms,
    /// The etcd revision that wrote the mark of a restore which is under way; 0 for none.
    pub restoring: i64,
    /// The newest etcd revision.
    pub newest: i64,
}

/// Reads the keys, and takes up what they say.
pub async fn find(endpoints: &Endpoints, keys: &Keys, heed: Heed) -> Result<Found, StoreError> {
    let look = |name: &str| RequestOp {
        request: Some(Request::Range(RangeRequest { key: keys.own(name), ..RangeRequest::default() })),
    };
    let ask = TxnRequest { success: [AHEAD, RESTORING, SEALING].map(look).into(), ..TxnRequest::default() };
    let answer: TxnResponse =
        endpoints.ask_again(TXN, &ask, OPEN_MAX).await.map_err(|status| unreachable(&status))?;
    let found = |at: usize| answer.responses.get(at)?.range.as_ref()?.kvs.first();
    let written = |at: usize| found(at).map(|kv| kv.mod_revision).unwrap_or_default();
    let ahead = found(0).map(|kv| number(&kv.value).ok_or_else(|| strange(kv))).transpose()?;
    let terms = Terms { heed, restored: written(0), sealing: watch::Sender::new(0) };
    if let Some(sealing) = found(2) {
        terms.heed(keys, sealing)?;
    }
    Ok(Found {
        keys: keys.ahead(ahead.unwrap_or_default()),
        terms,
        restoring: written(1),
        newest: answer.header.unwrap_or_default().revision,
    })
}

impl Terms {
    /// Takes up what a key says, where it is one of these and newer than what is known.
    ///
    /// # Errors
    /// `Closed` when this server can only begin anew, `Sealed` when it lacks a key.
    pub fn heed(&self, keys: &Keys, kv: &KeyValue) -> Result<(), StoreError> {
        if kv.key == keys.own(AHEAD) && kv.mod_revision > self.restored {
            return Err(StoreError::Closed);
        }
        if kv.key != keys.own(SEALING) || kv.mod_revision <= *self.sealing.borrow() {
            return Ok(());
        }
        // What was deleted has no creation.
        if kv.create_revision == 0 {
            return Err(StoreError::Closed);
        }
        (self.heed)(&kv.value).map_err(|why| StoreError::Sealed { path: "/.sealing".into(), why })?;
        self.sealing.send_replace(kv.mod_revision);
        Ok(())
    }

    /// The etcd revision that wrote what is known about sealing, and each later one.
    pub fn sealing(&self) -> watch::Receiver<i64> {
        self.sealing.subscribe()
    }

    /// What a transaction compares; taken before it seals anything.
    pub fn fence(&self) -> Fence {
        Fence { restored: self.restored, sealing: *self.sealing.borrow() }
    }
}

/// What a transaction that is written by what is known now compares.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fence {
    restored: i64,
    sealing: i64,
}

impl Fence {
    /// The comparisons of a transaction, which seals something or not.
    pub fn compare(self, keys: &Keys, seals: bool) -> impl Iterator<Item = Compare> {
        let restored = Some(by_revision(keys.own(AHEAD), CompareResult::Equal, self.restored));
        let sealing = seals.then(|| by_revision(keys.own(SEALING), CompareResult::Equal, self.sealing));
        restored.into_iter().chain(sealing)
    }
}

fn number(value: &Bytes) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What is told of a value that nobody of ours has written.
pub fn strange(kv: &KeyValue) -> StoreError {
    StoreError::Damaged {
        path: String::from_utf8_lossy(&kv.key).into_owned().into(),
        at: 0,
        what: "in etcd there is a value that Kintsugi did not write".into(),
    }
}
