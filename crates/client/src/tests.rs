//! What the client and its caches promise, against the fake server, on virtual time.

use std::sync::Arc;

use host::{Host, SimDisk, Time};
use model::{Gvr, Key, Precondition, Propagation, World, Write};
use serde_json::json;

use crate::fake::Fake;
use crate::{Caches, Client, ClientError, Follow, PatchKind, Select};

const PODS: Gvr = Gvr::new("", "v1", "pods");

fn host() -> Host {
    Host::simulated(1, Time::UNIX_EPOCH, SimDisk::new())
}

fn client(fake: &Fake) -> Client {
    Client::new(Arc::new(fake.clone()), "test")
}

fn pod(name: &str) -> model::Tree {
    json!({"metadata": {"name": name, "namespace": "a"}, "spec": {}})
}

fn key(name: &str) -> Key {
    Key::new(&PODS, "a", name)
}

#[tokio::test(start_paused = true)]
async fn an_object_is_made_read_patched_and_deleted() {
    let client = client(&Fake::new());
    let made = client.create(&PODS, "a", &pod("x")).await.expect("the name is free");
    let patch = json!({"spec": {"nodeName": "n"}});
    let when = Precondition::exactly(&made);
    let patched = client.patch(&key("x"), "", PatchKind::Merge, &patch, &when).await.expect("nobody wrote");
    assert_eq!(patched.tree().expect("an object")["spec"]["nodeName"], "n");
    let refused = client.patch(&key("x"), "", PatchKind::Merge, &patch, &when).await;
    assert!(matches!(refused, Err(ClientError::Conflict { .. })), "{refused:?}");
    let (all, revision) = client.list(&PODS, "a", &Select::all()).await.expect("a list");
    assert_eq!((all.len(), revision.as_str()), (1, "2"));
    assert!(client.delete(&key("x"), &Default::default()).await.expect("it is there").is_none());
    assert!(matches!(client.get(&key("x")).await, Err(ClientError::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn carrying_out_a_write_twice_counts_as_done() {
    let fake = Fake::new();
    let client = client(&fake);
    let create = Write::Create { gvr: PODS, namespace: "a".into(), object: pod("x") };
    let first = client.carry_out(&create).await.expect("the name is free");
    let second = client.carry_out(&create).await.expect("it is there");
    assert_eq!((first.already, second.already, second.revision()), (false, true, Some(1)));
    let delete = Write::Delete {
        key: key("x"),
        when: Precondition { uid: Some(first.object.expect("made").uid().into()), resource_version: None },
        grace_seconds: Some(0),
        propagation: Propagation::Background,
    };
    assert!(!client.carry_out(&delete).await.expect("it is there").already);
    assert!(client.carry_out(&delete).await.expect("it is gone").already);
    let evict = Write::Evict { pod: key("x"), when: Precondition::default() };
    assert!(client.carry_out(&evict).await.expect("it is gone").already);
}

#[tokio::test(start_paused = true)]
async fn a_write_on_another_incarnation_is_refused() {
    let fake = Fake::new();
    let client = client(&fake);
    fake.put("/api/v1/namespaces/a/pods", pod("x"));
    let other = Precondition { uid: Some("other".into()), resource_version: None };
    let writes = [
        Write::Bind { pod: key("x"), uid: "other".into(), node: "n".into() },
        Write::Evict { pod: key("x"), when: other.clone() },
        Write::Patch { key: key("x"), part: "", patch: json!({"spec": {"a": 1}}), when: other.clone() },
        Write::Delete { key: key("x"), when: other, grace_seconds: None, propagation: Propagation::Orphan },
        Write::Absent { key: key("x"), uid: "uid-1".into() },
    ];
    for write in writes {
        let done = client.carry_out(&write).await;
        assert!(matches!(done, Err(ClientError::Conflict { .. })), "{write:?}: {done:?}");
    }
    assert!(client.carry_out(&Write::Absent { key: key("x"), uid: "other".into() }).await.is_ok());
}

/// Follows all pods; gives the names held once nothing moves any more.
async fn settled(caches: &Caches) -> Vec<String> {
    caches.synced().await;
    // Paused time stands still until every task waits: after this, all news has been taken.
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    caches.list(&PODS, "").iter().map(|pod| pod.name().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_cache_shows_what_is_there_and_what_comes() {
    for streaming in [true, false] {
        let fake = Fake::new();
        if !streaming {
            fake.refuse_streaming();
        }
        fake.put("/api/v1/namespaces/a/pods", pod("x"));
        let caches = Caches::new(client(&fake), host());
        let mut changes = caches.changes();
        caches.follow(Follow::all(&PODS));
        assert_eq!(settled(&caches).await, ["x"], "streaming: {streaming}");
        fake.put("/api/v1/namespaces/a/pods", pod("y"));
        fake.remove("/api/v1/namespaces/a/pods/x");
        assert_eq!(settled(&caches).await, ["y"], "streaming: {streaming}");
        assert_eq!(caches.reached(&PODS), Some(3));
        assert_eq!(caches.reached(&Gvr::new("", "v1", "nodes")), None);
        let told = [changes.next().await, changes.next().await]
            .map(|change| (change.key.name, change.new.is_some()));
        assert_eq!(told, [("x".to_owned(), false), ("y".to_owned(), true)]);
        assert!(changes.try_next().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_watch_resumes_without_a_gap() {
    let fake = Fake::new();
    fake.put("/api/v1/namespaces/a/pods", pod("x"));
    let caches = Caches::new(client(&fake), host());
    caches.follow(Follow::all(&PODS));
    settled(&caches).await;
    let mut changes = caches.changes();
    fake.set_cut(true);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    fake.put("/api/v1/namespaces/a/pods", pod("y"));
    fake.remove("/api/v1/namespaces/a/pods/x");
    fake.set_cut(false);
    tokio::time::sleep(crate::follow::RETRY_MAX).await;
    assert_eq!(settled(&caches).await, ["y"]);
    assert_eq!([changes.next().await.key.name, changes.next().await.key.name], ["y", "x"]);
}

#[tokio::test(start_paused = true)]
async fn a_cache_begins_anew_when_its_history_is_gone() {
    let fake = Fake::new();
    fake.put("/api/v1/namespaces/a/pods", pod("x"));
    fake.put("/api/v1/namespaces/a/pods", pod("y"));
    let caches = Caches::new(client(&fake), host());
    caches.follow(Follow::all(&PODS));
    settled(&caches).await;
    let mut changes = caches.changes();
    fake.set_cut(true);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    fake.remove("/api/v1/namespaces/a/pods/x");
    fake.put("/api/v1/namespaces/a/pods", pod("z"));
    fake.compact();
    fake.set_cut(false);
    tokio::time::sleep(crate::follow::RETRY_MAX).await;
    assert_eq!(settled(&caches).await, ["y", "z"]);
    let told =
        [changes.next().await, changes.next().await].map(|change| (change.key.name, change.new.is_some()));
    assert_eq!(told, [("x".to_owned(), false), ("z".to_owned(), true)]);
    assert!(changes.try_next().is_none(), "what did not change is not told");
}

#[tokio::test(start_paused = true)]
async fn several_selections_of_a_resource_are_read_as_one() {
    let fake = Fake::new();
    fake.put("/api/v1/namespaces/a/pods", pod("x"));
    fake.put("/api/v1/namespaces/b/pods", json!({"metadata": {"name": "y", "namespace": "b"}}));
    let caches = Caches::new(client(&fake), host());
    caches.follow(Follow { namespace: "b".into(), ..Follow::all(&PODS) });
    caches.follow(Follow { namespace: "a".into(), ..Follow::all(&PODS) });
    assert_eq!(settled(&caches).await, ["x", "y"]);
    assert!(caches.get(&key("x")).is_some());
    caches.unfollow(&Follow { namespace: "a".into(), ..Follow::all(&PODS) });
    assert_eq!(settled(&caches).await, ["y"]);
}
