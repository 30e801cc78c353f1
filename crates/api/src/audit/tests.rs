//! What is written of requests to a service, stage by stage.

use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use host::{Host, SimDisk};
use http::{Method, Request};
use model::Tree;
use serde_json::{Value, json};

use super::{Log, Policy, Sink, Trail};
use crate::answer::Body;
use crate::service::tests::{Lab, lab_with};
use crate::settings::Settings;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Sink for Lines {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.0.lock().expect("nobody panics").extend_from_slice(lines);
        Ok(())
    }
}

struct Audited {
    lab: Lab,
    trail: Arc<Trail>,
    lines: Lines,
}

/// A service whose audit log follows these rules.
async fn audited(rules: &str) -> Audited {
    let host = Host::simulated(1, "2026-01-01T00:00:00Z".parse().expect("a fixed time"), SimDisk::new());
    let text = format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{rules}]}}");
    let policy = Policy::read(text.as_bytes()).expect("a good policy");
    let lines = Lines::default();
    let trail =
        Trail::new(&host, policy, Some(Log { sink: Box::new(lines.clone()), truncation: None }), None);
    let lab = lab_with(Settings { audit: Some(trail.clone()), ..Settings::default() }).await;
    Audited { lab, trail, lines }
}

impl Audited {
    /// The events that were written, without the parts that every one has.
    async fn events(&self) -> Vec<Tree> {
        self.trail.close().await;
        let text = self.lines.0.lock().expect("nobody panics").clone();
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).expect("a line is an event")).collect()
    }
}

/// Stage, verb, object, code.
fn brief(event: &Tree) -> String {
    let text = |value: &Tree| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let object = &event["objectRef"];
    format!(
        "{} {} {}/{} {}",
        text(&event["stage"]),
        text(&event["verb"]),
        text(&object["resource"]),
        text(&object["name"]),
        text(&event["responseStatus"]["code"])
    )
}

const SECRETS: &str = "/api/v1/namespaces/default/secrets";

#[tokio::test(start_paused = true)]
async fn metadata_says_who_did_what_and_how_it_ended_and_nothing_of_what_was_sent() {
    let audited = audited("{level: Metadata, resources: [{resources: [secrets]}]}").await;
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"word": "open-sesame"}});
    assert_eq!(audited.lab.post(SECRETS, secret).await.0, 201);
    audited.lab.get(&format!("{SECRETS}/s")).await;
    audited.lab.get(&format!("{SECRETS}/none")).await;
    audited.lab.get("/api/v1/namespaces/default/configmaps").await;
    let events = audited.events().await;
    let wanted = [
        "RequestReceived create secrets/- -",
        "ResponseComplete create secrets/s 201",
        "RequestReceived get secrets/s -",
        "ResponseComplete get secrets/s 200",
        "RequestReceived get secrets/none -",
        "ResponseComplete get secrets/none 404",
    ];
    assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), wanted);
    let text = format!("{events:?}");
    assert!(!text.contains("sesame") && !text.contains("b3Blbi1zZXNhbWU"), "{text}");
    let last = &events[5];
    assert_eq!(last["responseStatus"]["message"], "secrets \"none\" not found");
    let (user, level) = (&last["user"]["username"], &last["level"]);
    assert_eq!(
        (user, level, &last["requestURI"]),
        (&json!("admin"), &json!("Metadata"), &json!("/api/v1/namespaces/default/secrets/none"))
    );
    assert_eq!(last["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(last["auditID"], events[4]["auditID"]);
    assert_eq!(
        (&last["stageTimestamp"], &last["kind"]),
        (&json!("2026-01-01T00:00:00.000000Z"), &json!("Event"))
    );
}

#[tokio::test(start_paused = true)]
async fn request_and_response_are_written_where_they_are_wanted() {
    let rules =
        "{level: RequestResponse, users: [admin], verbs: [create], omitManagedFields: true, omitStages: [RequestReceived]},
                 {level: Request, verbs: [patch], omitStages: [RequestReceived]}";
    let audited = audited(rules).await;
    audited.lab.config_map("a", "x").await;
    let uri = "/api/v1/namespaces/default/configmaps/a";
    audited.lab.ask(Method::PATCH, uri, json!({"data": {"k": "v"}})).await;
    let events = audited.events().await;
    assert_eq!(events.len(), 2, "{events:?}");
    let created = &events[0];
    assert_eq!(created["requestObject"]["metadata"], json!({"name": "a", "labels": {"l": "x"}}));
    let metadata = &created["responseObject"]["metadata"];
    assert!(metadata["uid"].is_string() && metadata["managedFields"].is_null(), "{metadata}");
    assert_eq!(
        (&events[1]["requestObject"], &events[1]["responseObject"]),
        (&json!({"data": {"k": "v"}}), &Value::Null)
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_written_with_its_defaults() {
    let audited =
        audited("{level: Request, users: [admin], verbs: [create], omitStages: [RequestReceived]}").await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}, "unknown": 1});
    assert_eq!(audited.lab.post("/api/v1/namespaces/default/services", service).await.0, 201);
    let events = audited.events().await;
    let sent = &events[0]["requestObject"];
    assert_eq!(
        (&sent["spec"]["type"], &sent["spec"]["ports"][0]["protocol"]),
        (&json!("ClusterIP"), &json!("TCP"))
    );
    // What only the store gives it was not there yet.
    assert!(sent["spec"]["clusterIP"].is_null() && sent["unknown"].is_null(), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_written_when_it_starts_and_when_it_ends() {
    let audited = audited("{level: Metadata, verbs: [watch]}").await;
    let uri = "/api/v1/namespaces/default/configmaps?watch=true";
    let request = Request::get(uri).body(Bytes::new()).expect("a good request");
    let answer = audited.lab.service.handle(&audited.lab.admin, request).await;
    assert!(answer.headers.contains_key("audit-id"));
    let Body::Stream(mut pieces) = answer.body else { panic!("a watch comes in pieces") };
    audited.lab.config_map("a", "x").await;
    assert!(pieces.next().await.is_some());
    drop(pieces);
    let request = Request::get(uri).body(()).expect("a good request");
    drop(audited.lab.service.watch(&audited.lab.admin, request).await.expect("a watch"));
    let one = [
        "RequestReceived watch configmaps/- -",
        "ResponseStarted watch configmaps/- 200",
        "ResponseComplete watch configmaps/- 200",
    ];
    let events = audited.events().await;
    assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), [one, one].concat());
}

#[tokio::test(start_paused = true)]
async fn whom_a_user_acts_as_is_written_beside_who_they_are() {
    let audited = audited("{level: Metadata, users: [admin], omitStages: [RequestReceived]}").await;
    let request = Request::get("/api/v1/namespaces/default/configmaps")
        .header("impersonate-user", "ann")
        .header("audit-id", "mine")
        .body(Bytes::new())
        .expect("a good request");
    audited.lab.service.handle(&audited.lab.admin, request).await;
    let events = audited.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (&events[0]["user"]["username"], &events[0]["impersonatedUser"]["username"]),
        (&json!("admin"), &json!("ann"))
    );
    assert_eq!(events[0]["auditID"], "mine");
}

#[tokio::test(start_paused = true)]
async fn what_pod_security_notes_is_in_the_log_also_when_it_refuses() {
    let audited =
        audited("{level: Metadata, resources: [{resources: [pods]}], omitStages: [RequestReceived]}").await;
    let labels = json!({"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/audit": "restricted"});
    audited.lab.post("/api/v1/namespaces", json!({"metadata": {"name": "n", "labels": labels}})).await;
    audited.lab.post("/api/v1/namespaces/n/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(audited.lab.post("/api/v1/namespaces/n/pods", pod).await.0, 403);
    let events = audited.events().await;
    let notes = &events[0]["annotations"];
    assert_eq!(notes["pod-security.kubernetes.io/enforce-policy"], "restricted:latest", "{notes}");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_is_written_down_without_a_name() {
    let audited = audited("{level: Metadata, omitStages: [RequestReceived]}").await;
    let request = Request::get("/api/v1/pods").body(Bytes::new()).expect("a good request");
    let refusal = crate::refusal::Refusal::new(crate::refusal::Reason::Unauthorized, "Unauthorized");
    let id = audited.lab.service.note_stranger(&request, &refusal.into());
    assert!(id.is_some());
    let events = audited.events().await;
    let last = events.last().expect("it was written");
    assert_eq!((brief(last).as_str(), &last["user"]), ("ResponseComplete list pods/- 401", &Value::Null));
}
