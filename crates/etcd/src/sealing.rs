//! What servers agree on about sealing: saying it, telling that it was taken up, and writing anew what was sealed before.

use std::collections::BTreeSet;

use futures_util::future::try_join_all;
use host::watch;
use store::StoreError;

use crate::compact;
use crate::journal::{Etcd, Inner, OPEN_MAX};
use crate::keys::{self, Sort};
use crate::load::{self, unreachable};
use crate::messages::{
    CompareResult, DeleteRangeRequest, KeyValue, PutRequest, Request, RequestOp, TxnRequest,
};
use crate::terms::{HEEDED, SEALING};
use crate::transaction::by_revision;

/// How much is written anew at once: etcd groups what arrives together, and whoever waits for it has other things to write.
const ANEW_AT_ONCE: usize = 16;

impl Etcd {
    /// Shows the etcd revision that wrote what the servers agreed on about sealing, and each later one once it is taken up.
    pub fn sealing(&self) -> watch::Receiver<i64> {
        self.0.terms.sealing()
    }

    /// Has the servers agree on something about sealing, and on what goes with it by their names, unless they agreed on something
    /// else since the etcd revision `at`; says whether they did. What they told of the last is forgotten when it is `over`.
    ///
    /// # Errors
    /// `Unreachable` when etcd does not answer: it may have been done.
    pub async fn agree_on_sealing(
        &self,
        at: i64,
        text: &str,
        agreed: &[(&str, &str)],
        over: bool,
    ) -> Result<bool, StoreError> {
        let inner = &self.0;
        let put = |key, value: &str| RequestOp {
            request: Some(Request::Put(PutRequest { key, value: value.to_owned().into() })),
        };
        let mut success = vec![put(inner.keys.own(SEALING), text)];
        success
            .extend(agreed.iter().map(|(name, text)| put(inner.keys.own(&format!("agreed/{name}")), text)));
        if over {
            let (key, range_end) = inner.keys.owns(HEEDED);
            let forget = Request::DeleteRange(DeleteRangeRequest { key, range_end });
            success.push(RequestOp { request: Some(forget) });
        }
        let holds = by_revision(inner.keys.own(SEALING), CompareResult::Equal, at);
        let fence = inner.terms.fence().compare(&inner.keys, false);
        let compare = fence.chain([holds]).collect();
        inner
            .ask_twice(&TxnRequest { compare, success, failure: Vec::new() })
            .await
            .map(|answer| answer.succeeded)
    }

    /// Tells the others that this server has in its file what they agreed on at an etcd revision.
    ///
    /// # Errors
    /// `Unreachable` when etcd does not answer.
    pub async fn tell_heeded(&self, server: &str, at: i64) -> Result<(), StoreError> {
        let key = self.0.keys.own(&format!("{HEEDED}{server}"));
        let put = Request::Put(PutRequest { key, value: at.to_string().into() });
        let success = vec![RequestOp { request: Some(put) }];
        self.0.ask_twice(&TxnRequest { success, ..TxnRequest::default() }).await.map(drop)
    }

    /// The servers that told so.
    ///
    /// # Errors
    /// `Unreachable` when etcd does not answer.
    pub async fn heeded(&self, at: i64) -> Result<BTreeSet<String>, StoreError> {
        let (first, end) = self.0.keys.owns(HEEDED);
        let mut servers = BTreeSet::new();
        let read = load::read(&self.0.endpoints, (first.clone(), end), 0, |kv| {
            if kv.value == at.to_string() {
                servers.insert(String::from_utf8_lossy(&kv.key[first.len()..]).into_owned());
            }
            Ok(())
        });
        read.await.map_err(load::not_read)?;
        Ok(servers)
    }

    /// Writes all anew that was sealed before the servers agreed at this etcd revision on what seals now, and has etcd forget how
    /// it was; says how much. Each write is for watchers like any other.
    ///
    /// # Errors
    /// `Sealed` when something cannot be opened, `Unreachable` when etcd does not answer: to be done again.
    pub async fn seal_anew(&self, at: i64) -> Result<usize, StoreError> {
        let inner = &self.0;
        let mut found = Vec::new();
        let read = load::read(&inner.endpoints, inner.keys.all(), 0, |kv| {
            let sealer = inner.form.sealer.as_ref();
            let is_meant = match inner.keys.sort(&kv.key) {
                Sort::Record(path) => sealer.is_some_and(|sealer| sealer.seals(path)),
                Sort::Gone(_) => true,
                Sort::Other => false,
            };
            if is_meant && kv.mod_revision < at {
                found.push(kv.clone());
            }
            Ok(())
        });
        read.await.map_err(load::not_read)?;
        for some in found.chunks(ANEW_AT_ONCE) {
            try_join_all(some.iter().map(|kv| inner.write_anew(kv, at))).await?;
        }
        let now = compact::horizon(&inner.endpoints, &inner.keys, OPEN_MAX).await;
        let upto = now.map_err(|status| unreachable(&status))?.1;
        // A start reads as of the last compaction, and has to open what it reads.
        let forgotten = compact::let_go(&inner.host, &inner.endpoints, &inner.keys, upto).await;
        forgotten.map_err(|status| unreachable(&status))?;
        Ok(found.len())
    }
}

impl Inner {
    /// Writes anew what was sealed before the servers agreed at an etcd revision.
    async fn write_anew(&self, kv: &KeyValue, at: i64) -> Result<(), StoreError> {
        let fence = self.terms.fence().compare(&self.keys, false);
        let agreed = by_revision(self.keys.own(SEALING), CompareResult::Equal, at);
        let same = by_revision(kv.key.clone(), CompareResult::Equal, kv.mod_revision);
        let success = vec![RequestOp { request: Some(self.anew(kv)?) }];
        // Whoever wrote it meanwhile has sealed it as all do now.
        let compare = fence.chain([agreed, same]).collect();
        self.ask_twice(&TxnRequest { compare, success, failure: Vec::new() }).await.map(drop)
    }

    /// What takes the place of something that is sealed; how a record went is of no use to anybody any more.
    fn anew(&self, kv: &KeyValue) -> Result<Request, StoreError> {
        let Sort::Record(path) = self.keys.sort(&kv.key) else {
            return Ok(Request::DeleteRange(DeleteRangeRequest {
                key: kv.key.clone(),
                ..Default::default()
            }));
        };
        let (body, _) = keys::read(&self.form, path, &kv.value).map_err(|why| load::unread(path, kv, why))?;
        let value = keys::write(&self.form, path, &body, 0);
        Ok(Request::Put(PutRequest { key: kv.key.clone(), value }))
    }
}
