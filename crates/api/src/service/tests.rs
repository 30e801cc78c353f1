//! The service as clients see it, on a simulated host and disk.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::StreamExt;
use host::{Host, SimDisk};
use http::{Method, Request};
use model::Tree;
use serde_json::{Value, json};
use store::{Limits, Store};

use super::{EventKind, Service};
use crate::auth::{Identity, MASTERS};
use crate::settings::Settings;

/// A service on an empty simulated disk, and who asks.
pub(crate) struct Lab {
    pub service: Service,
    pub admin: Identity,
}

pub(crate) async fn lab() -> Lab {
    lab_with(Settings::default()).await
}

pub(crate) async fn lab_with(settings: Settings) -> Lab {
    let start = "2026-01-01T00:00:00Z".parse().expect("a fixed time");
    let host = Host::simulated(7, start, SimDisk::new());
    let store = Store::open(&host, PathBuf::from("/data"), crate::tagger(), Limits::default()).await;
    let store = store.expect("an empty disk");
    let service = Service::open(host, store, settings).await.expect("an empty store");
    Lab { service, admin: Identity::user("admin", &[MASTERS]) }
}

impl Lab {
    /// A request with a JSON body; the code and the body of the answer.
    pub async fn ask(&self, method: Method, uri: &str, body: Tree) -> (u16, Tree) {
        let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(uri).header("content-type", media).body(bytes);
        let response = self.service.call(&self.admin, request.expect("a good request")).await;
        let tree = serde_json::from_slice(response.body()).unwrap_or(Value::Null);
        (response.status().as_u16(), tree)
    }

    pub async fn post(&self, uri: &str, body: Tree) -> (u16, Tree) {
        self.ask(Method::POST, uri, body).await
    }

    pub async fn get(&self, uri: &str) -> (u16, Tree) {
        self.ask(Method::GET, uri, Value::Null).await
    }

    pub async fn delete(&self, uri: &str) -> (u16, Tree) {
        self.ask(Method::DELETE, uri, Value::Null).await
    }

    /// Creates a config map with a label.
    pub async fn config_map(&self, name: &str, label: &str) -> Tree {
        let object = json!({"metadata": {"name": name, "labels": {"l": label}}});
        let (code, made) = self.post(CONFIG_MAPS, object).await;
        assert_eq!(code, 201, "{made}");
        made
    }
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &Tree) -> Vec<&str> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

fn number(tree: &Tree) -> u64 {
    tree.as_str().and_then(|text| text.parse().ok()).expect("a revision")
}

#[tokio::test(start_paused = true)]
async fn an_object_lives_from_post_to_delete() {
    let lab = lab().await;
    let made = lab.config_map("a", "x").await;
    assert_eq!(made["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(lab.get(&path).await, (200, made.clone()));
    assert_eq!(lab.post(CONFIG_MAPS, json!({"metadata": {"name": "a"}})).await.1["reason"], "AlreadyExists");

    let mut changed = made.clone();
    changed["data"] = json!({"k": "v"});
    let (code, put) = lab.ask(Method::PUT, &path, changed.clone()).await;
    assert_eq!((code, &put["data"]["k"]), (200, &json!("v")));
    assert!(number(&put["metadata"]["resourceVersion"]) > number(&made["metadata"]["resourceVersion"]));
    assert_eq!(lab.ask(Method::PUT, &path, changed).await.1["reason"], "Conflict");
    assert_eq!(lab.ask(Method::PUT, &path, put.clone()).await.1, put, "an unchanged object is not written");

    let (_, patched) = lab.ask(Method::PATCH, &path, json!({"data": {"k": null, "m": "n"}})).await;
    assert_eq!(patched["data"], json!({"m": "n"}));
    let (code, status) = lab.delete(&path).await;
    assert_eq!(
        (code, &status["status"], &status["details"]["uid"]),
        (200, &json!("Success"), &made["metadata"]["uid"])
    );
    assert_eq!(lab.get(&path).await.1["message"], "configmaps \"a\" not found");
}

#[tokio::test(start_paused = true)]
async fn a_walk_in_pages_sees_one_revision() {
    let lab = lab().await;
    for at in 0..5 {
        lab.config_map(&format!("c{at}"), "x").await;
    }
    let (_, first) = lab.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["c0", "c1"], &json!(3)));
    lab.delete(&format!("{CONFIG_MAPS}/c3")).await;
    let token = first["metadata"]["continue"].as_str().expect("there is more");
    let (_, second) = lab.get(&format!("{CONFIG_MAPS}?limit=10&continue={token}")).await;
    assert_eq!(names(&second), ["c2", "c3", "c4"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"].get("continue").is_none());
    let (_, chosen) =
        lab.get(&format!("{CONFIG_MAPS}?labelSelector=l%3Dx&fieldSelector=metadata.name!%3Dc0")).await;
    assert_eq!(names(&chosen), ["c1", "c2", "c4"]);
    assert_eq!(lab.get(&format!("{CONFIG_MAPS}?fieldSelector=spec.x%3D1")).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_enters_and_leaves_its_selection() {
    let lab = lab().await;
    lab.config_map("a", "x").await;
    let uri = format!(
        "{CONFIG_MAPS}?watch=true&labelSelector=l%3Dx&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let request = Request::builder().uri(uri).body(()).expect("a good request");
    let mut events = lab.service.watch(&lab.admin, request).await.expect("a good watch");
    lab.config_map("b", "y").await;
    for (name, label) in [("a", "y"), ("b", "x"), ("b", "x2")] {
        lab.ask(
            Method::PATCH,
            &format!("{CONFIG_MAPS}/{name}"),
            json!({"metadata": {"labels": {"l": label}}}),
        )
        .await;
    }
    lab.ask(Method::PATCH, &format!("{CONFIG_MAPS}/a"), json!({"metadata": {"labels": {"l": "x"}}})).await;
    lab.delete(&format!("{CONFIG_MAPS}/a")).await;
    let mut told = Vec::new();
    for _ in 0..7 {
        let (kind, bytes) = events.next().await.expect("the watch goes on");
        let object: Tree = serde_json::from_slice(&bytes).expect("JSON");
        if kind == EventKind::Bookmark {
            assert_eq!(object["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
        }
        let (name, label) = (&object["metadata"]["name"], &object["metadata"]["labels"]["l"]);
        told.push(format!(
            "{} {} {}",
            kind.as_str(),
            name.as_str().unwrap_or("-"),
            label.as_str().unwrap_or("-")
        ));
    }
    assert_eq!(
        told,
        ["ADDED a x", "BOOKMARK - -", "DELETED a x", "ADDED b x", "DELETED b x", "ADDED a x", "DELETED a x"]
    );
}

#[tokio::test(start_paused = true)]
async fn dry_runs_and_collections() {
    let lab = lab().await;
    let (code, made) =
        lab.post(&format!("{CONFIG_MAPS}?dryRun=All"), json!({"metadata": {"name": "dry"}})).await;
    assert_eq!((code, &made["metadata"]["name"]), (201, &json!("dry")));
    assert_eq!(lab.get(&format!("{CONFIG_MAPS}/dry")).await.0, 404);
    for at in 0..3 {
        lab.config_map(&format!("c{at}"), if at == 0 { "keep" } else { "go" }).await;
    }
    assert_eq!(lab.delete(&format!("{CONFIG_MAPS}?labelSelector=l%3Dgo")).await.0, 200);
    assert_eq!(names(&lab.get(CONFIG_MAPS).await.1), ["c0"]);
    let (code, _) =
        lab.post("/api/v1/namespaces/nowhere/configmaps", json!({"metadata": {"name": "x"}})).await;
    assert_eq!(code, 404);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_when_it_is_let_go() {
    let lab = lab().await;
    let (code, made) = lab.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await;
    assert_eq!(
        (code, &made["status"]["phase"], &made["spec"]["finalizers"]),
        (201, &json!("Active"), &json!(["kubernetes"]))
    );
    let (_, going) = lab.delete("/api/v1/namespaces/n").await;
    assert_eq!(going["status"]["phase"], "Terminating");
    let (code, refused) =
        lab.post("/api/v1/namespaces/n/configmaps", json!({"metadata": {"name": "x"}})).await;
    assert_eq!((code, &refused["details"]["causes"][0]["reason"]), (403, &json!("NamespaceTerminating")));
    let mut free = going.clone();
    free["spec"]["finalizers"] = json!([]);
    assert_eq!(lab.ask(Method::PUT, "/api/v1/namespaces/n/finalize", free).await.0, 200);
    assert_eq!(lab.get("/api/v1/namespaces/n").await.0, 404);
    assert_eq!(lab.delete("/api/v1/namespaces/default").await.0, 403);
}

#[tokio::test(start_paused = true)]
async fn discovery_and_health_answer() {
    let lab = lab().await;
    let (_, groups) = lab.get("/apis").await;
    assert_eq!(groups["kind"], "APIGroupList");
    let (_, core) = lab.get("/api/v1").await;
    let all = core["resources"].as_array().expect("a list");
    assert!(all.iter().any(|one| one["name"] == "namespaces/status"), "{core}");
    assert_eq!(lab.get("/version").await.1["minor"], "36");
    assert_eq!(lab.get("/livez").await.0, 200);
    lab.service.tell_metrics(Box::new(|| "more 1\n".into()));
    assert_eq!(lab.get("/metrics").await.0, 200);
    assert_eq!(lab.get("/apis/nothing/v1/things").await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_the_control_plane_are_listed_as_they_are() {
    const PATH: &str = "/api/v1/componentstatuses";
    let lab = lab().await;
    let (_, one) = lab.get(&format!("{PATH}/scheduler")).await;
    assert_eq!(one["conditions"][0]["status"], "False", "nothing runs it: {one}");
    lab.service.tell_loops(Box::new(|| Ok(())));
    let (code, list) = lab.get(PATH).await;
    assert_eq!((code, &list["kind"]), (200, &json!("ComponentStatusList")));
    assert_eq!(names(&list), ["controller-manager", "etcd-0", "scheduler"]);
    let healthy = json!([{"type": "Healthy", "status": "True", "message": "ok"}]);
    assert!(list["items"].as_array().expect("a list").iter().all(|item| item["conditions"] == healthy));
    assert_eq!(names(&lab.get(&format!("{PATH}?fieldSelector=metadata.name%3Detcd-0")).await.1), ["etcd-0"]);
    assert_eq!(names(&lab.get(&format!("{PATH}?labelSelector=a")).await.1), [""; 0]);
    assert_eq!(lab.get(&format!("{PATH}/etcd-7")).await.0, 404);
    lab.service.store().close().await;
    let (_, store) = lab.get(&format!("{PATH}/etcd-0")).await;
    assert_eq!(store["conditions"][0]["status"], "False", "{store}");
    let request =
        Request::builder().uri(PATH).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    let table = lab.service.call(&lab.admin, request.body(Bytes::new()).expect("a good request")).await;
    let table: Tree = serde_json::from_slice(table.body()).expect("a table");
    assert_eq!(table["rows"][0]["cells"], json!(["controller-manager", "Healthy", "ok", ""]));
    assert_eq!(table["rows"][1]["cells"][1], "Unhealthy");
}

#[tokio::test(start_paused = true)]
async fn field_validation_is_as_asked() {
    let lab = lab().await;
    let odd = |name: &str| json!({"metadata": {"name": name}, "dat": {}});
    let (code, refused) = lab.post(&format!("{CONFIG_MAPS}?fieldValidation=Strict"), odd("a")).await;
    assert_eq!(
        (code, refused["message"].as_str()),
        (400, Some("strict decoding error: unknown field \"dat\""))
    );
    let (code, made) = lab.post(CONFIG_MAPS, odd("a")).await;
    assert_eq!((code, made.get("dat")), (201, None));
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_rests_too_long_is_told_where_to_go_on() {
    let lab = lab().await;
    for at in 0..4 {
        lab.config_map(&format!("c{at}"), "x").await;
    }
    let (_, first) = lab.get(&format!("{CONFIG_MAPS}?limit=2")).await;
    for at in 0..3 {
        tokio::time::sleep(std::time::Duration::from_secs(301)).await;
        lab.config_map(&format!("d{at}"), "x").await;
    }
    let token = first["metadata"]["continue"].as_str().expect("there is more");
    let (code, refused) = lab.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!((code, &refused["reason"]), (410, &json!("Expired")), "{refused}");
    let token = refused["metadata"]["continue"].as_str().expect("a new token");
    let (_, second) = lab.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!((names(&second), &second["metadata"]["remainingItemCount"]), (vec!["c2", "c3"], &json!(3)));
    assert_ne!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let old = first["metadata"]["resourceVersion"].as_str().expect("a revision");
    let request = Request::builder().uri(format!("{CONFIG_MAPS}?watch=true&resourceVersion={old}")).body(());
    let refused =
        lab.service.watch(&lab.admin, request.expect("a good request")).await.err().expect("too old");
    assert_eq!(refused.status(), 410);
}
