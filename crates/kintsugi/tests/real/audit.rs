//! The audit log, as whoever runs a cluster reads it.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{Cluster, until_true};
use crate::outside::{Outside, certificate};

#[test]
fn what_users_do_reaches_a_webhook_and_a_file_and_nobody_waits_for_either() {
    let (bundle, pair) = certificate(&["127.0.0.1"]);
    let taken = Arc::new(Mutex::new(Vec::<Value>::new()));
    let mut webhook = None;
    let cluster = Cluster::start_beside(1, |cluster| {
        let taking = taken.clone();
        let outside = Outside::start(cluster, &pair, move |_, list: &Value| {
            let events = list["items"].as_array().cloned().unwrap_or_default();
            taking.lock().expect("nobody panics").extend(events);
            json!({})
        });
        let file = |name: &str, text: &str| {
            let path = cluster.dir().join(name);
            std::fs::write(&path, text).expect("the folder is ours");
            path.display().to_string()
        };
        let server = format!("https://127.0.0.1:{}/log", outside.port);
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "w", "cluster": {"server": server, "certificate-authority-data": bundle}}],
            "users": [], "contexts": [{"name": "c", "context": {"cluster": "w", "user": ""}}]});
        let policy = "{apiVersion: audit.k8s.io/v1, kind: Policy, omitStages: [RequestReceived], rules: [
            {level: Request, users: [kubernetes-admin], verbs: [create], resources: [{resources: [services]}]},
            {level: Metadata, users: [kubernetes-admin], resources: [{resources: [secrets, configmaps]}]}]}";
        let settings = [
            "--audit-policy-file".to_owned(),
            file("policy.yaml", policy),
            "--audit-log-path".to_owned(),
            cluster.dir().join("audit.log").display().to_string(),
            "--audit-webhook-config-file".to_owned(),
            file("webhook", &config.to_string()),
            "--audit-webhook-batch-wait-seconds".to_owned(),
            "1".to_owned(),
        ];
        webhook = Some(outside);
        settings.into()
    });
    cluster.kubectl(&["create", "secret", "generic", "s", "--from-literal=word=open-sesame"]);
    cluster.kubectl(&["create", "service", "clusterip", "web", "--tcp=80"]);
    let log = || std::fs::read_to_string(cluster.dir().join("audit.log")).unwrap_or_default();
    let of = |events: &[Value], resource: &str| {
        events.iter().find(|event| event["objectRef"]["resource"] == resource).cloned()
    };
    let seen = || taken.lock().expect("nobody panics").clone();
    until_true("the webhook to be told", || {
        of(&seen(), "secrets").is_some() && of(&seen(), "services").is_some()
    });
    let service = of(&seen(), "services").expect("just seen");
    assert_eq!(service["requestObject"]["spec"]["ports"][0]["protocol"], "TCP", "{service}");
    until_true("the file to be written", || log().contains("\"resource\":\"services\""));
    let text = format!("{}{:?}", log(), seen());
    let sealed = STANDARD.encode("open-sesame");
    assert!(!text.contains("open-sesame") && !text.contains(sealed.trim_end_matches('=')), "{text}");

    // The webhook goes away, and nobody notices but whoever counts.
    drop(webhook);
    cluster.kubectl(&["create", "configmap", "later"]);
    until_true("the file to tell of it", || log().contains("\"name\":\"later\""));
}
