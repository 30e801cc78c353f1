//! What a store promises over whichever journal: run over the embedded log here, and over etcd by `crates/etcd/tests`.
//!
//! Nothing here knows how revisions are counted, only that they grow. Each test keeps to collections of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;
use host::Chance;
use store::{Body, Change, Committed, Expect, Range, Revision, Store, StoreError, Tagger, Tags, Txn, Watch};

/// Runs each test over a store that `open` gives.
pub async fn all<F: Future<Output = Store>>(open: impl Fn() -> F) {
    a_write_is_read_back(&open().await).await;
    what_is_expected_must_hold(&open().await).await;
    a_transaction_is_whole_or_not_at_all(&open().await).await;
    each_change_has_a_revision_of_its_own(&open().await).await;
    of_many_at_once_one_wins(&open().await).await;
    a_watcher_sees_how_a_record_goes(&open().await).await;
    a_list_is_of_one_revision(&open().await).await;
    histories_agree_with_a_model(&open().await).await;
    what_is_too_large_is_refused(&open().await).await;
    a_closed_store_refuses_writes(&open().await).await;
}

/// Labels a value with the text before its first `#`.
pub fn tagger() -> Tagger {
    Arc::new(|_, value| tags(&String::from_utf8_lossy(value)))
}

fn tags(value: &str) -> Tags {
    let name = value.split('#').next().unwrap_or_default();
    Tags::new([("name", name)], [])
}

fn body(value: &str) -> Body {
    Body { before: Bytes::from(format!("{value}#")), after: Some(Bytes::from_static(b"#")) }
}

/// Puts `value#<revision>#`.
pub fn put(path: &str, value: &str) -> Change {
    Change::Put { path: path.into(), body: body(value), tags: tags(value) }
}

/// Removes what lies there.
pub fn remove(path: &str) -> Change {
    Change::Remove { path: path.into(), last: None }
}

/// Does changes, expecting nothing.
pub async fn done(store: &Store, changes: Vec<Change>) -> Committed {
    store.commit(Txn { expect: Vec::new(), changes }).await.expect("nothing is expected")
}

/// Does a change where something is expected.
pub async fn expecting(
    store: &Store,
    path: &str,
    expect: Expect,
    change: Change,
) -> Result<Committed, StoreError> {
    store.commit(Txn { expect: vec![(path.into(), expect)], changes: vec![change] }).await
}

/// The value at a path, without its revision.
pub fn text(store: &Store, path: &str) -> Option<String> {
    let record = store.get(path)?;
    let whole = String::from_utf8_lossy(&record.value).into_owned();
    let (name, rest) = whole.split_once('#')?;
    assert_eq!(rest, format!("{}#", record.revision), "the value carries its revision");
    assert_eq!(record.tags, tags(&whole));
    Some(name.to_owned())
}

/// The next events, so many, as `path=value` or `-path=last`, with their revisions.
pub async fn events(watch: &mut Watch, count: usize) -> Vec<(String, Revision)> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let batch = watch.next().await.expect("the store is open and the watcher is not behind");
        seen.extend(batch.iter().map(|event| {
            let record = &event.record;
            let value = String::from_utf8_lossy(&record.value).into_owned();
            let value = value.split('#').next().unwrap_or_default().to_owned();
            let sign = if event.removed { "-" } else { "" };
            (format!("{sign}{}={value}", record.path), record.revision)
        }));
    }
    seen
}

async fn a_write_is_read_back(store: &Store) {
    let first = done(store, vec![put("/back/a/x", "v")]).await;
    assert_eq!((text(store, "/back/a/x"), store.revision() >= first.revision), (Some("v".into()), true));
    let second = done(store, vec![put("/back/a/x", "w")]).await;
    let read = store.get("/back/a/x").expect("it was written");
    assert_eq!((read.revision, read.created), (second.records[0].revision, first.records[0].revision));
    assert_eq!((text(store, "/back/a/x"), read.revision > first.revision), (Some("w".into()), true));
    assert_eq!(second.records[0].value, read.value);
    store.catch_up().await.expect("the journal answers");
    store.reach(second.revision).await.expect("it was reached");
    assert_eq!(store.count("/back/"), 1);
}

async fn what_is_expected_must_hold(store: &Store) {
    let path = "/expect/a/x";
    let made = expecting(store, path, Expect::Absent, put(path, "1")).await.expect("nothing lies there");
    let again = expecting(store, path, Expect::Absent, put(path, "2")).await;
    assert!(
        matches!(&again, Err(StoreError::Conflict { path: at, actual: Some(_) }) if **at == *path),
        "{again:?}"
    );
    let newer =
        expecting(store, path, Expect::At(made.revision), put(path, "3")).await.expect("it lies there");
    let late = expecting(store, path, Expect::At(made.revision), put(path, "4")).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    assert_eq!(text(store, path), Some("3".into()));
    expecting(store, path, Expect::At(newer.revision), remove(path)).await.expect("it lies there");
    let gone = store.commit(Txn { expect: Vec::new(), changes: vec![remove(path)] }).await;
    assert!(matches!(gone, Err(StoreError::Conflict { actual: None, .. })), "{gone:?}");
    let gone = expecting(store, path, Expect::At(newer.revision), put(path, "5")).await;
    assert!(matches!(gone, Err(StoreError::Conflict { actual: None, .. })), "{gone:?}");
    assert_eq!(text(store, path), None);
}

async fn a_transaction_is_whole_or_not_at_all(store: &Store) {
    let half = store
        .commit(Txn { expect: Vec::new(), changes: vec![put("/whole/a/y", "3"), remove("/whole/a/none")] })
        .await;
    assert!(matches!(half, Err(StoreError::Conflict { actual: None, .. })), "{half:?}");
    assert_eq!(text(store, "/whole/a/y"), None);
    done(store, vec![put("/whole/a/x", "1"), put("/whole-too/a/x", "2")]).await;
    assert_eq!(
        (text(store, "/whole/a/x"), text(store, "/whole-too/a/x")),
        (Some("1".into()), Some("2".into()))
    );
}

/// So a watcher that was cut off between two changes of one transaction goes on at the second.
async fn each_change_has_a_revision_of_its_own(store: &Store) {
    let before = done(store, vec![put("/own/a/gone", "0")]).await.revision;
    let made = done(store, vec![put("/own/a/x", "1"), remove("/own/a/gone"), put("/own/a/y", "2")]).await;
    let revisions: Vec<Revision> = made.records.iter().map(|record| record.revision).collect();
    assert!(revisions.is_sorted_by(|one, next| one < next) && revisions[0] > before, "{revisions:?}");
    assert_eq!(made.revision, revisions[2]);
    let all = ["/own/a/x=1", "-/own/a/gone=0", "/own/a/y=2"];
    for from in 0..=2 {
        let after = if from == 0 { before } else { revisions[from - 1] };
        let mut watch = store.watch("/own/", after).expect("the history reaches back");
        let wanted: Vec<_> = (from..3).map(|at| (all[at].to_owned(), revisions[at])).collect();
        assert_eq!(events(&mut watch, 3 - from).await, wanted);
        let page = store.list(&Range { prefix: "/own/".into(), at: Some(after), ..Range::default() });
        let there = page.expect("the history reaches back").records.len();
        assert_eq!(there, [1, 2, 1][from]);
    }
}

async fn of_many_at_once_one_wins(store: &Store) {
    let commits = (0..32).map(|at| {
        let value = at.to_string();
        async move { expecting(store, "/many/a/x", Expect::Absent, put("/many/a/x", &value)).await }
    });
    let won = join_all(commits).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(won, 1);
    let paths: Vec<String> = (0..64).map(|at| format!("/many/b/{at}")).collect();
    let commits = paths.iter().map(|path| done(store, vec![put(path, "v")]));
    let mut revisions: Vec<Revision> = join_all(commits).await.iter().map(|done| done.revision).collect();
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!((revisions.len(), store.count("/many/")), (64, 65));
}

async fn a_watcher_sees_how_a_record_goes(store: &Store) {
    let path = "/goes/a/x";
    let made = done(store, vec![put(path, "v")]).await.revision;
    let mut watch = store.watch("/goes/", made).expect("that is now");
    let last = Change::Remove { path: path.into(), last: Some(body("last")) };
    let gone = done(store, vec![last]).await;
    assert_eq!(events(&mut watch, 1).await, [("-/goes/a/x=last".to_owned(), gone.revision)]);
    // With its own last value told, nothing but the revision changes.
    done(store, vec![put(path, "w")]).await;
    let last = Change::Remove { path: path.into(), last: Some(body("w")) };
    let gone = done(store, vec![last]).await;
    let seen = events(&mut watch, 2).await;
    assert_eq!(seen[1], ("-/goes/a/x=w".to_owned(), gone.revision));
    done(store, vec![put(path, "u")]).await;
    done(store, vec![remove(path)]).await;
    assert_eq!(events(&mut watch, 2).await[1].0, "-/goes/a/x=u");
}

async fn a_list_is_of_one_revision(store: &Store) {
    let mut at = 0;
    for number in 0..9 {
        at = done(store, vec![put(&format!("/list/a/{number}"), "v")]).await.revision;
    }
    done(store, vec![remove("/list/a/3")]).await;
    done(store, vec![put("/list/a/9", "v")]).await;
    let mut after = None;
    let mut walked = Vec::new();
    loop {
        let range = Range { prefix: "/list/".into(), after, limit: 4, at: Some(at) };
        let page = store.list(&range).expect("the history reaches back");
        walked.extend(page.records.iter().map(|record| record.path.to_string()));
        assert_eq!(page.remaining, 9 - walked.len());
        if !page.more {
            break;
        }
        after = walked.last().cloned();
    }
    let all: Vec<String> = (0..9).map(|number| format!("/list/a/{number}")).collect();
    assert_eq!(walked, all);
    let future = store.list(&Range { prefix: "/list/".into(), at: Some(u64::MAX), ..Range::default() });
    assert!(matches!(future, Err(StoreError::Future { .. })));
}

/// Random transactions of several writers at once; what is acknowledged, listed and watched is what a plain map says.
async fn histories_agree_with_a_model(store: &Store) {
    let chance = Chance::from_seed(7);
    let start = store.revision();
    let mut watch = store.watch("/model/", start).expect("that is now");
    let mut written: BTreeMap<Revision, (String, Option<String>)> = BTreeMap::new();
    for round in 0..40 {
        let txns: Vec<Txn> = (0..4).map(|at| random_txn(store, &chance, round * 4 + at)).collect();
        let done = join_all(txns.iter().map(|txn| store.commit(txn.clone()))).await;
        for (txn, done) in txns.iter().zip(done) {
            let committed = match done {
                Ok(committed) => committed,
                Err(StoreError::Conflict { .. }) => continue,
                Err(error) => panic!("{error}"),
            };
            for (change, record) in txn.changes.iter().zip(&committed.records) {
                let now = match change {
                    Change::Put { body, .. } => Some(String::from_utf8_lossy(&body.before).into_owned()),
                    Change::Remove { .. } => None,
                };
                let old = written.insert(record.revision, (record.path.to_string(), now));
                assert!(old.is_none(), "revision {} was given twice", record.revision);
            }
        }
    }
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    let seen = events(&mut watch, written.len()).await;
    for ((told, at), (revision, (path, now))) in seen.iter().zip(&written) {
        assert_eq!(at, revision, "each change is seen once, in order");
        let wanted = match now {
            Some(value) => {
                model.insert(path.clone(), value.clone());
                format!("{path}={}", value.trim_end_matches('#'))
            }
            None => {
                let last = model.remove(path).expect("what was removed was there");
                format!("-{path}={}", last.trim_end_matches('#'))
            }
        };
        assert_eq!(*told, wanted);
    }
    let page = store.list(&Range { prefix: "/model/".into(), ..Range::default() }).expect("the present");
    let there: Vec<&str> = page.records.iter().map(|record| &*record.path).collect();
    assert_eq!(there, model.keys().map(String::as_str).collect::<Vec<_>>());
}

fn random_txn(store: &Store, chance: &Chance, number: u64) -> Txn {
    let mut txn = Txn::default();
    let first = chance.below(6);
    for step in 0..=chance.below(3) {
        // Each path once.
        let path = format!("/model/a/{}", (first + step) % 6);
        let lying = store.get(&path).map(|record| record.revision);
        match chance.below(4) {
            0 => txn.expect.push((path.as_str().into(), Expect::Absent)),
            1 | 2 => txn.expect.extend(lying.map(|revision| (path.as_str().into(), Expect::At(revision)))),
            _ => {}
        }
        txn.changes.push(match (chance.below(3), lying) {
            (0, Some(_)) => remove(&path),
            _ => put(&path, &format!("{number}.{step}")),
        });
    }
    txn
}

async fn what_is_too_large_is_refused(store: &Store) {
    let value = "v".repeat(64 << 20);
    let huge = store.commit(Txn { expect: Vec::new(), changes: vec![put("/large/a/x", &value)] }).await;
    assert!(matches!(huge, Err(StoreError::TooLarge { .. })));
    let value = "v".repeat(1 << 20);
    done(store, vec![put("/large/a/x", &value)]).await;
    assert_eq!(text(store, "/large/a/x"), Some(value));
}

async fn a_closed_store_refuses_writes(store: &Store) {
    let at = done(store, vec![put("/closed/a/x", "1")]).await.revision;
    let mut watch = store.watch("/closed/", at).expect("that is now");
    store.close().await;
    let refused = store.commit(Txn { expect: Vec::new(), changes: vec![put("/closed/a/x", "2")] }).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
    assert!(matches!(watch.next().await, Err(StoreError::Closed)));
    assert_eq!(text(store, "/closed/a/x"), Some("1".into()));
}
