//! What is done to a store in etcd beside its servers: reading it over, letting etcd forget, and filling it from a backup.

use std::time::Duration;

use bytes::Bytes;
use host::Host;
use store::{Body, Form, Path, Record, Revision, StoreError};

use crate::compact;
use crate::endpoints::Endpoints;
use crate::journal::{OpenError, check_version};
use crate::keys::{self, Keys, OPS_MAX, Sort, Unread};
use crate::load::{self, not_read, unreachable};
use crate::messages::{
    Compare, CompareResult, DeleteRangeRequest, KeyValue, PutRequest, Request, RequestOp, TXN, TxnRequest,
    TxnResponse,
};
use crate::settings::{Settings, SettingsError};
use crate::terms::{self, AHEAD, Found, HEEDED, Heed, RESTORING, SEALING};
use crate::transaction::{TXN_BYTES_MAX, by_revision};

/// How long etcd may take to remove all records of a store: as long as it takes to write them anew, and longer than it gives a
/// transaction itself.
const REMOVE_MAX: Duration = Duration::from_secs(120);

/// Looks after a store in etcd from outside of its servers.
pub struct Care {
    host: Host,
    endpoints: Endpoints,
    keys: Keys,
}

/// What a store holds at one revision.
pub struct Look {
    /// What can be read.
    pub records: Vec<Record>,
    /// What cannot: the key, and why.
    pub unread: Vec<(String, String)>,
    /// The revision of all of it.
    pub revision: Revision,
    /// How many keys there are, ours included.
    pub keys: usize,
    /// The bytes of their values.
    pub bytes: u64,
    /// Whether a restore was begun and is not ended.
    pub is_restoring: bool,
}

impl Care {
    /// Begins to look for a member that answers.
    ///
    /// # Errors
    /// When the settings cannot be used.
    pub fn open(host: &Host, settings: &Settings) -> Result<Self, SettingsError> {
        let endpoints = Endpoints::open(host, settings)?;
        Ok(Self { host: host.clone(), endpoints, keys: Keys::new(&settings.prefix) })
    }

    /// The members, for messages.
    pub fn names(&self) -> &str {
        self.endpoints.names()
    }

    /// Reads all that there is, as of one revision, and changes nothing.
    ///
    /// # Errors
    /// `Unreachable` when etcd does not answer or compacts faster than it can be read.
    pub async fn look(&self, form: &Form, heed: Heed) -> Result<Look, OpenError> {
        check_version(&self.endpoints).await?;
        let Found { keys, restoring, .. } = terms::find(&self.endpoints, &self.keys, heed).await?;
        let mut look = Look {
            records: Vec::new(),
            unread: Vec::new(),
            revision: 0,
            keys: 0,
            bytes: 0,
            is_restoring: restoring != 0,
        };
        let read = load::read(&self.endpoints, keys.all(), 0, |kv| {
            look.take(&keys, kv, form);
            Ok(())
        });
        let at = read.await.map_err(not_read)?;
        look.revision = keys.whole(at);
        Ok(look)
    }

    /// The newest etcd revision that wrote a record whose path begins so; 0 for none.
    ///
    /// # Errors
    /// `Unreachable` when etcd does not answer.
    pub async fn newest(&self, begin: &str) -> Result<i64, StoreError> {
        let mut newest = 0;
        let read = load::read(&self.endpoints, self.keys.below(begin), 0, |kv| {
            newest = newest.max(kv.mod_revision);
            Ok(())
        });
        read.await.map_err(not_read)?;
        Ok(newest)
    }

    /// Has etcd forget now what was superseded; says from which revision on there is history.
    ///
    /// # Errors
    /// `Unreachable` when etcd does not answer.
    pub async fn compact(&self) -> Result<Revision, StoreError> {
        let Found { keys, newest, .. } = self.find().await?;
        let done = compact::let_go(&self.host, &self.endpoints, &keys, newest).await;
        Ok(keys.whole(done.map_err(|status| unreachable(&status))?))
    }

    /// Puts these values in the place of all that is there, at revisions after `begins`. Servers that run end, and none starts
    /// until it is done; one that was cut off is done again.
    ///
    /// # Errors
    /// `Conflict` when another restore is under way, `Unreachable` when etcd does not answer: to be done again.
    pub async fn refill(
        &self,
        values: &[(Path, Body)],
        begins: Revision,
        form: &Form,
    ) -> Result<(), StoreError> {
        let Found { keys, restoring, newest, .. } = self.find().await?;
        let ahead = Keys::ahead_for(begins, newest);
        // From here on no server writes: each of its transactions compares when this was written.
        let begun =
            vec![put(keys.own(RESTORING), Bytes::new()), put(keys.own(AHEAD), ahead.to_string().into())];
        let mark = self.done(vec![by_revision(keys.own(RESTORING), CompareResult::Equal, restoring)], begun);
        let mark = mark.await?;
        let mine = || vec![by_revision(keys.own(RESTORING), CompareResult::Equal, mark)];
        let ours = ["agreed/", "gone/", HEEDED, SEALING].map(|begin| keys.owns(begin));
        let gone = keys.records().into_iter().chain(ours).map(|(key, range_end)| RequestOp {
            request: Some(Request::DeleteRange(DeleteRangeRequest { key, range_end })),
        });
        self.done(mine(), gone.collect()).await?;
        let mut last = 0;
        for some in portions(values) {
            let puts = some
                .iter()
                .enumerate()
                .map(|(number, (path, body))| put(keys.record(path), keys::write(form, path, body, number)));
            last = self.done(mine(), puts.collect()).await?;
        }
        // A start reads as of the last compaction: what was before is of no use to it.
        let forgotten = compact::let_go(&self.host, &self.endpoints, &keys, last.max(mark)).await;
        forgotten.map_err(|status| unreachable(&status))?;
        let (key, range_end) = (keys.own(RESTORING), Bytes::new());
        let end = RequestOp { request: Some(Request::DeleteRange(DeleteRangeRequest { key, range_end })) };
        self.done(mine(), vec![end]).await.map(drop)
    }

    /// What holds here, whatever that says about sealing.
    async fn find(&self) -> Result<Found, StoreError> {
        terms::find(&self.endpoints, &self.keys, std::sync::Arc::new(|_| Ok(()))).await
    }

    /// Does a transaction that may be done twice; gives its etcd revision.
    async fn done(&self, compare: Vec<Compare>, success: Vec<RequestOp>) -> Result<i64, StoreError> {
        let ask = TxnRequest { compare, success, failure: Vec::new() };
        let answer: TxnResponse =
            self.endpoints.ask_again(TXN, &ask, REMOVE_MAX).await.map_err(|status| unreachable(&status))?;
        match answer.succeeded {
            true => Ok(answer.header.unwrap_or_default().revision),
            false => Err(StoreError::Conflict { path: "/.restoring".into(), actual: None }),
        }
    }
}

impl Look {
    fn take(&mut self, keys: &Keys, kv: &KeyValue, form: &Form) {
        self.keys += 1;
        self.bytes += kv.value.len() as u64;
        let Sort::Record(path) = keys.sort(&kv.key) else { return };
        match load::record(keys, path, kv, form) {
            Ok(record) => self.records.push(record),
            Err(why) => {
                let why = match why {
                    Unread::Sealed(why) => format!("it cannot be opened: {why}"),
                    Unread::Strange => "Kintsugi did not write it".to_owned(),
                };
                self.unread.push((String::from_utf8_lossy(&kv.key).into_owned(), why));
            }
        }
    }
}

fn put(key: Bytes, value: Bytes) -> RequestOp {
    RequestOp { request: Some(Request::Put(PutRequest { key, value })) }
}

/// As many values at once as etcd takes in a transaction.
fn portions(values: &[(Path, Body)]) -> Vec<&[(Path, Body)]> {
    let size = |(path, body): &(Path, Body)| {
        // Sealing adds a name, a number and a tag; the last line as much again.
        const AROUND: usize = 128;
        path.len() + body.before.len() + body.after.as_ref().map_or(0, Bytes::len) + AROUND
    };
    let (mut all, mut rest) = (Vec::new(), values);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take(OPS_MAX).take_while(|value| {
            bytes += size(value);
            bytes <= TXN_BYTES_MAX
        });
        // One that is too large alone is refused by etcd, by name.
        let (some, after) = rest.split_at(fits.count().max(1));
        all.push(some);
        rest = after;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_goes_at_once_as_etcd_takes() {
        let check = |sizes: &[usize], told: &[usize]| {
            let value = |(at, size): (usize, &usize)| {
                (Path::from(format!("/a/{at}")), Body { before: vec![0; *size].into(), after: None })
            };
            let values: Vec<_> = sizes.iter().enumerate().map(value).collect();
            let portions: Vec<usize> = portions(&values).iter().map(|some| some.len()).collect();
            assert_eq!(portions, told);
        };
        check(&[], &[]);
        check(&[1; 300], &[128, 128, 44]);
        check(&[1 << 20, 1 << 18, 1 << 19, 1], &[2, 2]);
        check(&[TXN_BYTES_MAX, 1], &[1, 1]);
    }
}
