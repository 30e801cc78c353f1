//! The journal over a real etcd: the promises of a store, two servers on one etcd, and what happens when etcd goes away.
//!
//! Needs `etcd` on the path; says so and passes where there is none, unless KINTSUGI_ETCD=required.

#[path = "../../../store/tests/suite/mod.rs"]
mod suite;

mod lab;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use host::Host;
use lab::{Lab, heed};
use store::{Expect, Range, Store, StoreError};
use suite::{done, events, expecting, put, remove, text};

#[tokio::test]
async fn etcd_keeps_what_a_store_promises() {
    let Some(lab) = Lab::start().await else { return };
    suite::all(|| lab.store()).await;
}

#[tokio::test]
async fn two_servers_see_each_others_writes() {
    let Some(lab) = Lab::start().await else { return };
    let (one, other) = (lab.store().await, lab.store().await);
    let mut watch = other.watch("/a/", other.revision()).expect("that is now");
    let made = done(&one, vec![put("/a/b/x", "1")]).await;
    // What was acknowledged is there for whoever asks for the newest, anywhere.
    other.catch_up().await.expect("etcd answers");
    assert_eq!(text(&other, "/a/b/x"), Some("1".into()));
    assert_eq!(events(&mut watch, 1).await, [("/a/b/x=1".to_owned(), made.revision)]);
    // Revisions mean the same to both.
    let newer = expecting(&other, "/a/b/x", Expect::At(made.revision), put("/a/b/x", "2")).await;
    let newer = newer.expect("nobody else wrote").revision;
    let late = expecting(&one, "/a/b/x", Expect::At(made.revision), put("/a/b/x", "3")).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
    // Whoever was beaten sees by what.
    assert_eq!(text(&one, "/a/b/x"), Some("2".into()));
    one.reach(newer).await.expect("it is written");
    let lists = [&one, &other].map(|store| {
        let page = store.list(&Range { prefix: "/a/".into(), at: Some(newer), ..Range::default() });
        page.expect("both have it").records.iter().map(|record| record.revision).collect::<Vec<_>>()
    });
    assert_eq!(lists, [vec![newer], vec![newer]]);
    let future = one.reach(newer + 100_000).await;
    assert!(matches!(future, Err(StoreError::Future { .. })), "{future:?}");
}

#[tokio::test]
async fn keys_of_others_in_the_same_etcd_hold_nobody_up() {
    let Some(lab) = Lab::start().await else { return };
    let store = lab.store().await;
    for _ in 0..3 {
        lab.etcdctl(&["put", "/registry/pods/a/x", "theirs"]);
        store.catch_up().await.expect("a mark of ours comes by");
    }
    let at = done(&store, vec![put("/a/b/x", "1")]).await.revision;
    lab.etcdctl(&["del", "/registry/pods/a/x"]);
    store.catch_up().await.expect("a mark of ours comes by");
    assert!(store.revision() > at);
    assert_eq!(store.list(&Range::default()).expect("the present").records.len(), 1);
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_when_etcd_was_killed_and_came_back() {
    let Some(mut lab) = Lab::start().await else { return };
    let (one, other) = (lab.store().await, lab.store().await);
    let mut watch = other.watch("/a/", other.revision()).expect("that is now");
    done(&one, vec![put("/a/b/x", "1")]).await;
    lab.kill();
    let (nobody, _) = tokio::join!(one.catch_up(), async {
        // Reads of what is in the memory go on meanwhile.
        assert_eq!(text(&one, "/a/b/x"), Some("1".into()));
    });
    assert!(matches!(nobody, Err(StoreError::Unreachable { .. })), "{nobody:?}");
    lab.restart().await;
    lab.until(|| async { one.catch_up().await.is_ok() }).await;
    done(&one, vec![put("/a/b/y", "2")]).await;
    let seen: Vec<String> = events(&mut watch, 2).await.into_iter().map(|(told, _)| told).collect();
    assert_eq!(seen, ["/a/b/x=1", "/a/b/y=2"]);
}

/// While the server cannot reach etcd, what comes next is compacted: nobody can know what happened.
#[tokio::test]
async fn a_watcher_whose_history_was_compacted_is_told_to_list_again() {
    let Some(lab) = Lab::start().await else { return };
    let store = lab.store().await;
    let at = done(&store, vec![put("/a/b/x", "1"), put("/a/b/z", "1")]).await.revision;
    let mut watch = store.watch("/a/", at).expect("that is now");
    lab.hide().await;
    lab.etcdctl(&["del", "/kintsugi/a/b/z"]);
    for _ in 0..3 {
        lab.etcdctl(&["put", "/kintsugi/a/b/x", "2##\n0 2"]);
    }
    lab.compact();
    lab.show();
    let ended = watch.next().await.map(|_| ());
    assert!(matches!(ended, Err(StoreError::TooSlow)), "{ended:?}");
    let old = store.watch("/a/", at).map(|_| ());
    assert!(matches!(old, Err(StoreError::Compacted { .. })), "{old:?}");
    store.catch_up().await.expect("etcd answers");
    assert_eq!((text(&store, "/a/b/x"), text(&store, "/a/b/z")), (Some("2".into()), None));
    // And it goes on from there.
    let mut watch = store.watch("/a/", store.revision()).expect("that is now");
    done(&store, vec![put("/a/b/y", "3")]).await;
    assert_eq!(events(&mut watch, 1).await[0].0, "/a/b/y=3");
}

#[tokio::test]
async fn a_restarted_server_knows_the_history_since_the_last_compaction() {
    let Some(lab) = Lab::start().await else { return };
    let store = lab.store().await;
    let first = done(&store, vec![put("/a/b/x", "1")]).await.revision;
    let kept = store.compact().await.expect("etcd answers");
    assert!(kept >= first);
    let second = done(&store, vec![put("/a/b/x", "2")]).await.revision;
    let third = done(&store, vec![remove("/a/b/x")]).await.revision;
    let again = lab.store().await;
    let mut watch = again.watch("/a/", second).expect("it was not compacted");
    assert_eq!(events(&mut watch, 1).await, [("-/a/b/x=2".to_owned(), third)]);
    assert!(matches!(again.watch("/a/", first - 1).map(|_| ()), Err(StoreError::Compacted { .. })));
}

#[tokio::test]
async fn what_the_first_server_says_is_agreed_on() {
    let Some(lab) = Lab::start().await else { return };
    let (_store, one) = lab.open().await;
    let (_store, other) = lab.open().await;
    assert_eq!(one.agreed("keys").await.expect("etcd answers"), None);
    assert_eq!(one.agree("keys", "a").await.expect("etcd answers"), "a");
    assert_eq!(other.agree("keys", "b").await.expect("etcd answers"), "a");
    assert_eq!(other.agreed("keys").await.expect("etcd answers"), Some("a".into()));
}

/// As when it was restored from a snapshot: nothing that is in a server's memory is true any more.
#[tokio::test]
async fn an_etcd_that_has_gone_back_is_served_no_more() {
    let Some(mut lab) = Lab::start().await else { return };
    let store = lab.store().await;
    for value in ["1", "2", "3"] {
        done(&store, vec![put("/a/b/x", value)]).await;
    }
    let mut watch = store.watch("/a/", store.revision()).expect("that is now");
    lab.kill();
    lab.forget();
    lab.restart().await;
    lab.until(|| async { matches!(store.catch_up().await, Err(StoreError::Closed)) }).await;
    let refused = store.commit(store::Txn { expect: Vec::new(), changes: vec![put("/a/b/x", "4")] }).await;
    assert!(matches!(refused, Err(StoreError::Closed)), "{refused:?}");
    assert!(matches!(watch.next().await, Err(StoreError::Closed)));
}

/// Seals Secrets with the letter that was agreed on last, and opens them with any.
struct Letter(AtomicU8);

impl store::Sealer for Letter {
    fn seals(&self, path: &str) -> bool {
        path.starts_with("/secrets/")
    }

    fn seal(&self, _path: &str, value: &[u8]) -> Vec<u8> {
        [&[self.0.load(Ordering::SeqCst)], value].concat()
    }

    fn open(&self, _path: &str, sealed: &[u8]) -> Result<Vec<u8>, String> {
        sealed.get(1..).map(<[u8]>::to_vec).ok_or_else(|| "it is cut short".to_owned())
    }
}

async fn lettered(lab: &Lab) -> (Store, etcd::Etcd) {
    let letter = Arc::new(Letter(AtomicU8::new(b'a')));
    let form = store::Form { tagger: suite::tagger(), sealer: Some(letter.clone()) };
    let heed = Arc::new(move |text: &[u8]| {
        letter.0.store(text.first().copied().unwrap_or(b'?'), Ordering::SeqCst);
        Ok(())
    });
    lab.open_as(form, heed).await.expect("etcd is there")
}

/// However late a server hears of a new key: it writes nothing with the old one.
#[tokio::test]
async fn nothing_is_sealed_but_as_the_servers_agreed() {
    let Some(lab) = Lab::start().await else { return };
    let ((one, of_one), (other, of_other)) = (lettered(&lab).await, lettered(&lab).await);
    let raw = |name: &str| lab.etcdctl(&["get", "--print-value-only", &format!("/kintsugi/secrets/{name}")]);
    done(&one, vec![put("/secrets/a/old", "1"), put("/a/b/plain", "1")]).await;
    done(&one, vec![put("/secrets/a/gone", "1")]).await;
    let gone = store::Change::Remove {
        path: "/secrets/a/gone".into(),
        last: Some(store::Body { before: "last".into(), after: None }),
    };
    done(&one, vec![gone]).await;
    assert!(raw("a/old").starts_with('a') && lab.etcdctl(&["get", "/kintsugi/.gone/0"]).contains("alast"));
    other.catch_up().await.expect("etcd answers");
    let mut watch = other.watch("/secrets/", other.revision()).expect("that is now");
    let plain = other.get("/a/b/plain").expect("it was written").revision;

    assert!(of_one.agree_on_sealing(0, "b", &[("keys", "new")], false).await.expect("etcd answers"));
    for at in 0..20 {
        done(&other, vec![put(&format!("/secrets/a/{at}"), "1")]).await;
        assert!(raw(&format!("a/{at}")).starts_with('b'), "{at}");
    }
    assert!(!of_other.agree_on_sealing(0, "c", &[], false).await.expect("etcd answers"), "it was beaten");
    assert_eq!(of_other.agreed("keys").await.expect("etcd answers"), Some("new".into()));
    let at = *of_other.sealing().borrow();
    of_other.tell_heeded("server", at).await.expect("etcd answers");
    let heeded = of_one.heeded(at).await.expect("etcd answers");
    assert_eq!(heeded.into_iter().collect::<Vec<_>>(), ["server"]);

    // What was sealed before is written anew, once, and nothing else.
    assert_eq!(of_other.seal_anew(at).await.expect("etcd answers"), 2);
    assert_eq!(of_one.seal_anew(at).await.expect("etcd answers"), 0);
    assert!(raw("a/old").starts_with('b'));
    assert_eq!(lab.etcdctl(&["get", "--prefix", "/kintsugi/.gone/"]), "");
    let seen: Vec<String> = events(&mut watch, 21).await.into_iter().map(|(told, _)| told).collect();
    assert_eq!(seen.last().map(String::as_str), Some("/secrets/a/old=1"), "{seen:?}");
    other.catch_up().await.expect("etcd answers");
    assert_eq!(other.get("/a/b/plain").expect("it is there").revision, plain);

    // A server that starts knows what holds, and nothing of what held before.
    assert!(of_one.agree_on_sealing(at, "d", &[], true).await.expect("etcd answers"));
    let (third, _) = lettered(&lab).await;
    done(&third, vec![put("/secrets/a/third", "1")]).await;
    assert!(raw("a/third").starts_with('d'));
    assert_eq!(lab.etcdctl(&["get", "--prefix", "/kintsugi/.heeded/"]), "");
}

/// All that a store holds is put in the place of another's, as from a backup.
#[tokio::test]
async fn a_store_that_is_filled_anew_begins_after_all_that_was_seen_of_it() {
    let Some(lab) = Lab::start().await else { return };
    let (care, form) = (lab.care(), store::Form::from(suite::tagger()));
    let store = lab.store().await;
    let seen = done(&store, vec![put("/a/b/x", "1"), put("/a/b/y", "1")]).await.revision;
    let mut watch = store.watch("/a/", seen).expect("that is now");
    let values: Vec<(store::Path, store::Body)> = (0..300)
        .map(|at| {
            let body = store::Body { before: format!("{at}#").into(), after: Some("#".into()) };
            (format!("/a/b/{at}").into(), body)
        })
        .collect();
    let begins = seen + (1 << 30);
    care.refill(&values, begins, &form).await.expect("etcd answers");
    // Whoever served what was there ends, and writes nothing more.
    assert!(matches!(watch.next().await.map(drop), Ok(()) | Err(StoreError::Closed)));
    let late = store.commit(store::Txn { expect: Vec::new(), changes: vec![put("/a/b/late", "1")] }).await;
    assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
    let again = lab.store().await;
    let records = again.list(&Range::default()).expect("the present").records;
    assert_eq!(records.len(), 300);
    assert!(records.iter().all(|record| record.revision > begins), "{records:?}");
    assert_eq!(text(&again, "/a/b/7"), Some("7".into()));
    assert!(matches!(again.watch("/a/", seen).map(|_| ()), Err(StoreError::Compacted { .. })));
    // And it goes on from there: by names, by revisions, and once more.
    let made = done(&again, vec![put("/a/b/x", "2")]).await.revision;
    let newer = expecting(&again, "/a/b/x", Expect::At(made), put("/a/b/x", "3")).await;
    assert!(newer.expect("nobody else wrote").revision > made);
    let look = care.look(&form, heed()).await.expect("etcd answers");
    assert_eq!((look.records.len(), look.unread.len(), look.is_restoring), (301, 0, false));
    assert_eq!(look.revision / 128, again.revision() / 128);
    care.refill(&values[..1], look.revision + (1 << 30), &form).await.expect("etcd answers");
    let last = lab.store().await;
    assert_eq!(last.list(&Range::default()).expect("the present").records.len(), 1);
    assert!(last.revision() > look.revision + (1 << 30));
}

#[tokio::test]
async fn a_store_that_holds_a_part_of_a_backup_is_opened_by_nobody() {
    let Some(lab) = Lab::start().await else { return };
    lab.etcdctl(&["put", "/kintsugi/.restoring", ""]);
    let opened = lab.try_open().await.map(|_| ()).expect_err("it holds a part alone");
    assert!(opened.to_string().contains("do it again"), "{opened}");
    let (care, form) = (lab.care(), store::Form::from(suite::tagger()));
    assert!(care.look(&form, heed()).await.expect("etcd answers").is_restoring);
    care.refill(&[], 1 << 30, &form).await.expect("etcd answers");
    assert!(lab.try_open().await.is_ok());
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let Some(lab) = Lab::start().await else { return };
    let store = lab.store().await;
    done(&store, vec![put("/a/b/x", "1")]).await;
    store.close().await;
    lab.etcdctl(&["put", "/kintsugi/a/b/y", "theirs"]);
    lab.etcdctl(&["put", "/kintsugi/a/b/z", "theirs\n0 - sealed"]);
    let look = lab.care().look(&suite::tagger().into(), heed()).await.expect("etcd answers");
    let unread: Vec<&str> = look.unread.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((look.records.len(), unread), (1, vec!["/kintsugi/a/b/y", "/kintsugi/a/b/z"]));
    assert!(look.unread[1].1.contains("there are no keys"), "{:?}", look.unread);
}

/// No acknowledged write is lost while etcd is killed again and again; one that was not may be there or not.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_any_number_of_crashes() {
    let Some(mut lab) = Lab::start().await else { return };
    let store = lab.store().await;
    let mut acknowledged: Vec<(String, String)> = Vec::new();
    for round in 0..3 {
        let writer = async {
            let mut done = Vec::new();
            for number in 0..200 {
                let path = format!("/a/{round}/{number}");
                let made = expecting(&store, &path, Expect::Absent, put(&path, "v")).await;
                match made {
                    Ok(made) => {
                        done.push((path, String::from_utf8_lossy(&made.records[0].value).into_owned()))
                    }
                    Err(StoreError::Unreachable { .. }) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            done
        };
        let killer = async {
            lab.until(|| async { store.count("/a/") > round * 20 + 5 }).await;
            lab.kill();
            lab.restart().await;
        };
        let (done, ()) = tokio::join!(writer, killer);
        acknowledged.extend(done);
        lab.until(|| async { store.catch_up().await.is_ok() }).await;
    }
    let fresh = lab.store().await;
    assert!(acknowledged.len() >= 15, "{}", acknowledged.len());
    for (path, value) in acknowledged {
        let read = fresh.get(&path).expect("it was acknowledged");
        assert_eq!(String::from_utf8_lossy(&read.value), value);
    }
    assert_eq!(contents(&fresh), contents(&store));
}

fn contents(store: &Store) -> Vec<(String, u64)> {
    let page = store.list(&Range::default()).expect("the present");
    page.records.iter().map(|record| (record.path.to_string(), record.revision)).collect()
}

#[tokio::test]
async fn etcd_is_known_by_its_authority_and_knows_its_clients_by_theirs() {
    let Some(lab) = Lab::start().await else { return };
    let (host, limits) = (Host::real(), store::Limits::default);
    let (store, _) =
        etcd::open(&host, &lab.tls("ca.crt"), suite::tagger(), heed(), limits()).await.expect("it is there");
    done(&store, vec![put("/a/b/x", "1")]).await;
    assert_eq!(text(&lab.store().await, "/a/b/x"), Some("1".into()));
    let mut nobody = lab.tls("ca.crt");
    nobody.certificate = None;
    let strangers = [lab.tls("other.crt"), nobody];
    let opened = strangers.map(|settings| async move {
        etcd::open(&Host::real(), &settings, suite::tagger(), heed(), store::Limits::default()).await.is_ok()
    });
    assert_eq!(futures_util::future::join_all(opened).await, [false, false]);
}

#[tokio::test]
async fn who_cannot_be_reached_is_named() {
    let Some(_lab) = Lab::start().await else { return };
    let host = Host::real();
    let settings = etcd::Settings::new("http://127.0.0.1:1,http://127.0.0.1:2").expect("two addresses");
    let opening = etcd::open(&host, &settings, suite::tagger(), heed(), store::Limits::default());
    let opened = host.within(Duration::from_secs(120), opening).await.expect("it gives up");
    let error = opened.map(|_| ()).expect_err("nobody is there").to_string();
    assert!(error.contains("127.0.0.1:1, 127.0.0.1:2"), "{error}");
}
