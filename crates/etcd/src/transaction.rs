//! A transaction of the store as one of etcd's, and what its answer means. Pure.

use std::collections::BTreeSet;

use bytes::Bytes;
use store::{Change, Expect, Form, Path, Record, StoreError, Txn, join, txn_bytes};

use crate::keys::{self, Keys, OPS_MAX};
use crate::messages::{
    Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, RangeRequest, Request, RequestOp,
    TxnRequest, TxnResponse,
};
use crate::terms::Fence;

/// How many bytes a transaction may bring along: etcd refuses requests over 1.5 MiB unless it is told otherwise, and
/// keys, lengths and comparisons are a part of them.
pub const TXN_BYTES_MAX: usize = (3 << 19) - (16 << 10);

/// What a transaction asks for, and of which paths, in order.
#[derive(Debug)]
pub struct Asked {
    pub request: TxnRequest,
    /// What must hold at which path; etcd tells what lies at each when it does not.
    pub needs: Vec<(Path, Need)>,
}

/// What must lie at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing.
    Nothing,
    /// What this etcd revision wrote.
    At(i64),
    /// Anything.
    Something,
}

impl Need {
    fn of(expect: Expect, keys: &Keys) -> Self {
        match expect {
            Expect::Absent => Self::Nothing,
            Expect::At(revision) => Self::At(keys.etcd(revision)),
        }
    }

    fn holds(self, found: Option<i64>) -> bool {
        match self {
            Self::Nothing => found.is_none(),
            Self::At(revision) => found == Some(revision),
            Self::Something => found.is_some(),
        }
    }

    fn compare(self, key: Bytes) -> Compare {
        match self {
            Self::Nothing => by_revision(key, CompareResult::Equal, 0),
            Self::At(revision) => by_revision(key, CompareResult::Equal, revision),
            Self::Something => by_revision(key, CompareResult::Greater, 0),
        }
    }
}

/// Says a transaction in etcd's terms. `lying` is what lies at a path as far as is known, and the fence was taken before this
/// seals anything.
///
/// # Errors
/// `TooLarge`, `TooMany`, `Twice`: etcd would refuse it.
pub fn ask(
    keys: &Keys,
    form: &Form,
    fence: Fence,
    txn: &Txn,
    lying: impl Fn(&str) -> Option<Record>,
) -> Result<Asked, StoreError> {
    let bytes = txn_bytes(txn);
    if bytes > TXN_BYTES_MAX {
        return Err(StoreError::TooLarge { bytes, limit: TXN_BYTES_MAX });
    }
    let mut success = Vec::with_capacity(txn.changes.len());
    let expected = txn.expect.iter().map(|(path, expect)| (path.clone(), Need::of(*expect, keys)));
    let mut needs: Vec<(Path, Need)> = expected.collect();
    let mut touched = BTreeSet::new();
    for (number, change) in txn.changes.iter().enumerate() {
        let path = match change {
            Change::Put { path, .. } | Change::Remove { path, .. } => path,
        };
        if !touched.insert(path.clone()) {
            return Err(StoreError::Twice { path: path.clone() });
        }
        match change {
            Change::Put { body, .. } => {
                success.push(put(keys.record(path), keys::write(form, path, body, number)))
            }
            Change::Remove { last, .. } => {
                if !needs.iter().any(|(of, need)| of == path && matches!(need, Need::At(_))) {
                    needs.push((path.clone(), Need::Something));
                }
                // How it goes need not be told where it goes as it is.
                let is_known = |last: &&store::Body| {
                    lying(path).is_some_and(|record| join(last, record.revision) == record.value)
                };
                if let Some(last) = last.as_ref().filter(|last| !is_known(last)) {
                    success.push(put(keys.gone(number), keys::write_gone(form, path, last, number)));
                }
                let key = keys.record(path);
                success.push(op(Request::DeleteRange(DeleteRangeRequest { key, ..Default::default() })));
            }
        }
    }
    let seals = |change: &Change| {
        let (Change::Put { path, .. } | Change::Remove { path, .. }) = change;
        form.sealer.as_ref().is_some_and(|sealer| sealer.seals(path))
    };
    let fence: Vec<Compare> = fence.compare(keys, txn.changes.iter().any(seals)).collect();
    // A transaction that expects nothing is as large as etcd takes it.
    let changes = success.len().max(if needs.is_empty() { 0 } else { needs.len() + fence.len() });
    if changes > OPS_MAX {
        return Err(StoreError::TooMany { changes, limit: OPS_MAX });
    }
    let look = |(path, _): &(Path, Need)| {
        op(Request::Range(RangeRequest {
            key: keys.record(path),
            keys_only: true,
            ..RangeRequest::default()
        }))
    };
    let needed = needs.iter().map(|(path, need)| need.compare(keys.record(path)));
    let compare = needed.chain(fence).collect();
    let failure = needs.iter().map(look).collect();
    Ok(Asked { request: TxnRequest { compare, success, failure }, needs })
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put(key: Bytes, value: Bytes) -> RequestOp {
    op(Request::Put(PutRequest { key, value }))
}

/// Compares the revision that wrote a key last; that of nothing is 0.
pub fn by_revision(key: Bytes, result: CompareResult, revision: i64) -> Compare {
    Compare { result: result.into(), target: CompareTarget::Mod.into(), key, mod_revision: Some(revision) }
}

/// The first path at which something else lies than was expected, and the etcd revision that wrote it. None: it is the fence
/// that does not hold.
pub fn beaten(needs: &[(Path, Need)], answer: &TxnResponse) -> Option<(Path, Option<i64>)> {
    let found = answer.responses.iter().map(|one| {
        let range = one.range.as_ref();
        range.and_then(|range| range.kvs.first()).map(|kv| kv.mod_revision)
    });
    let beaten = needs.iter().zip(found).find(|((_, need), found)| !need.holds(*found));
    beaten.map(|((path, _), found)| (path.clone(), found))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use store::{Body, Tags};

    use super::*;

    fn body(text: &'static str) -> Body {
        Body { before: Bytes::from_static(text.as_bytes()), after: None }
    }

    fn put_at(path: &str) -> Change {
        Change::Put { path: path.into(), body: body("v"), tags: Tags::default() }
    }

    fn nothing(_: &str) -> Option<Record> {
        None
    }

    /// `comparison, … -> operation, …`
    fn check(expect: &[(&str, Expect)], changes: Vec<Change>, told: &str) {
        let form = Form { tagger: Arc::new(|_, _| Tags::default()), sealer: None };
        let expect = expect.iter().map(|(path, expect)| ((*path).into(), *expect)).collect();
        let asked = match ask(&Keys::new("/k"), &form, Fence::default(), &Txn { expect, changes }, nothing) {
            Ok(asked) => asked,
            Err(error) => return assert_eq!(error.to_string(), told),
        };
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).replace('\n', "|");
        let sign = |result| if result == i32::from(CompareResult::Equal) { '=' } else { '>' };
        let fence = asked.request.compare.last().map(|one| text(&one.key));
        assert_eq!(fence.as_deref(), Some("/k/.ahead"));
        let compare = asked.request.compare[..asked.needs.len()].iter().map(|one| {
            format!("{}{}{}", text(&one.key), sign(one.result), one.mod_revision.unwrap_or_default())
        });
        let done = asked.request.success.iter().map(|op| match &op.request {
            Some(Request::Put(put)) => format!("put {} {}", text(&put.key), text(&put.value)),
            Some(Request::DeleteRange(delete)) => format!("delete {}", text(&delete.key)),
            other => format!("{other:?}"),
        });
        let (compare, done): (Vec<_>, Vec<_>) = (compare.collect(), done.collect());
        assert_eq!(format!("{} -> {}", compare.join(", "), done.join(", ")), told);
        assert_eq!(asked.request.failure.len(), asked.needs.len());
    }

    #[test]
    fn a_transaction_is_said_in_etcds_terms() {
        check(&[("/a/x", Expect::Absent)], vec![put_at("/a/x")], "/k/a/x=0 -> put /k/a/x v|0 -");
        check(&[("/a/x", Expect::At(7 << 7 | 3))], vec![put_at("/a/y")], "/k/a/x=7 -> put /k/a/y v|0 -");
        let remove = |last: Option<Body>| Change::Remove { path: "/a/x".into(), last };
        check(&[], vec![remove(None)], "/k/a/x>0 -> delete /k/a/x");
        check(&[("/a/x", Expect::At(7 << 7))], vec![remove(None)], "/k/a/x=7 -> delete /k/a/x");
        check(
            &[],
            vec![put_at("/a/y"), remove(Some(body("w")))],
            "/k/a/x>0 -> put /k/a/y v|0 -, put /k/.gone/1 /a/x|w|1 -, delete /k/a/x",
        );
    }

    #[test]
    fn what_etcd_would_refuse_is_refused_with_its_reason() {
        check(&[], vec![put_at("/a/x"), put_at("/a/x")], "a transaction changes /a/x twice");
        let many = (0..129).map(|at| put_at(&format!("/a/{at}"))).collect();
        check(&[], many, "a transaction of 129 changes exceeds the limit of 128");
        let large = Body { before: vec![0; TXN_BYTES_MAX].into(), after: None };
        let large = Change::Put { path: "/a/x".into(), body: large, tags: Tags::default() };
        check(&[], vec![large], "a transaction of 1556548 bytes exceeds the limit of 1556480");
    }
}
