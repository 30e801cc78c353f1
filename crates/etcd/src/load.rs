//! Reading all records as they were at one revision.

use std::time::Duration;

use bytes::Bytes;
use client::grpc::{Code, Status};
use store::{Form, Intake, Path, Record, StoreError, Stored, join};

use crate::endpoints::Endpoints;
use crate::keys::{self, Keys, Sort, Unread};
use crate::messages::{KeyValue, RANGE, RangeRequest, RangeResponse};
use crate::terms::{Terms, strange};

/// How many records are asked for at once: a page of the largest still fits in one answer.
const PAGE: i64 = 500;

/// How long one page may take, over all members.
pub const PAGE_MAX: Duration = Duration::from_secs(15);

/// Why nothing was loaded.
#[derive(Debug)]
pub enum NotLoaded {
    /// The revision is compacted.
    Compacted,
    /// Nothing else helps.
    Failed(StoreError),
}

/// Hands on all keys of a range as they were at a revision; 0 for the newest. Returns the revision.
pub async fn read(
    endpoints: &Endpoints,
    (first, end): (Bytes, Bytes),
    at: i64,
    mut take: impl FnMut(&KeyValue) -> Result<(), StoreError>,
) -> Result<i64, NotLoaded> {
    let mut ask =
        RangeRequest { key: first, range_end: end, limit: PAGE, revision: at, ..RangeRequest::default() };
    loop {
        let page: RangeResponse =
            endpoints.ask_again(RANGE, &ask, PAGE_MAX).await.map_err(|status| match status.code {
                Code::OutOfRange => NotLoaded::Compacted,
                _ => NotLoaded::Failed(unreachable(&status)),
            })?;
        // All pages are of the revision of the first.
        if ask.revision == 0 {
            ask.revision = page.header.map(|header| header.revision).unwrap_or_default();
        }
        for kv in &page.kvs {
            take(kv).map_err(NotLoaded::Failed)?;
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(ask.revision) };
        ask.key = [&last.key[..], b"\0"].concat().into();
    }
}

/// Reads all records as they were at a revision; 0 for the newest. Returns the revision at which all of them were read.
pub async fn load(
    endpoints: &Endpoints,
    keys: &Keys,
    (form, terms): (&Form, &Terms),
    at: i64,
) -> Result<(Vec<Record>, i64), NotLoaded> {
    let mut records = Vec::new();
    let take = |kv: &KeyValue| {
        match keys.sort(&kv.key) {
            Sort::Record(path) => {
                records.push(record(keys, path, kv, form).map_err(|why| unread(path, kv, why))?)
            }
            // Ours come before all records.
            Sort::Gone(_) | Sort::Other => terms.heed(keys, kv)?,
        }
        Ok(())
    };
    let at = read(endpoints, keys.all(), at, take).await?;
    Ok((records, at))
}

/// Puts all records in the place of what the memory holds; returns the etcd revision from which to follow.
pub async fn reload(
    endpoints: &Endpoints,
    keys: &Keys,
    (form, terms): (&Form, &Terms),
    intake: &Intake,
    at: i64,
) -> Result<i64, NotLoaded> {
    let (records, at) = load(endpoints, keys, (form, terms), at).await?;
    tracing::info!(records = records.len(), revision = at, "loaded from etcd");
    intake.replace(records, keys.whole(at));
    Ok(at)
}

/// What lies at a path.
pub fn record(keys: &Keys, path: &str, kv: &KeyValue, form: &Form) -> Result<Record, Unread> {
    let (value, change) = value(keys, path, kv, form)?;
    let tags = (form.tagger)(path, &value);
    let stored = Stored {
        path: Path::from(path),
        value,
        revision: keys.revision(kv.mod_revision, change),
        created: keys.revision(kv.create_revision, 0),
        tags,
    };
    Ok(stored.into())
}

/// What is told of what is not read.
pub fn unread(path: &str, kv: &KeyValue, why: Unread) -> StoreError {
    match why {
        Unread::Sealed(why) => StoreError::Sealed { path: path.into(), why },
        Unread::Strange => strange(kv),
    }
}

/// A value with its revision, and which change of its transaction wrote it.
pub fn value(keys: &Keys, path: &str, kv: &KeyValue, form: &Form) -> Result<(Bytes, usize), Unread> {
    let (body, change) = keys::read(form, path, &kv.value)?;
    Ok((join(&body, keys.revision(kv.mod_revision, change)), change))
}

/// Why nothing was read, where no other revision is tried.
pub fn not_read(why: NotLoaded) -> StoreError {
    match why {
        NotLoaded::Failed(error) => error,
        NotLoaded::Compacted => unreachable(&Status::unavailable("it compacts faster than it can be read")),
    }
}

/// What is told to those who asked for something that nobody can do now.
pub fn unreachable(status: &Status) -> StoreError {
    StoreError::Unreachable { journal: "etcd", why: status.to_string() }
}
