//! Containers outlive the server, and what was acknowledged outlives its violent death.

use std::sync::Mutex;

use client::{Access, Client, Https};
use model::kinds;
use serde_json::json;

use crate::harness::{Cluster, until_true};
use crate::{READY, RESTARTS, with_web};

/// Clients that create objects at once.
const CLIENTS: usize = 4;
/// Acknowledged creates before the server is killed: enough for the log to be in full swing.
const ACKNOWLEDGED_MIN: usize = 200;

#[test]
fn containers_outlive_the_server_and_are_adopted_without_a_restart() {
    let mut cluster = with_web();
    let before = cluster.kubectl(&["get", "pods", "-o", RESTARTS]);
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        cluster.end_server(signal);
        cluster.up();
        cluster.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
        assert_eq!(cluster.kubectl(&["get", "pods", "-o", RESTARTS]), before, "after signal {signal}");
    }
}

#[test]
fn a_server_held_up_at_its_end_by_a_client_condemns_no_node() {
    let mut cluster = with_web();
    // Whose pods they are, and since when their nodes are what they are.
    let pods = "{.items[*].metadata.uid}{.items[*].status.conditions[?(@.type=='Ready')].lastTransitionTime}";
    let seen = ["get", "pods,nodes", "-o", &format!("jsonpath={pods}")];
    let before = cluster.kubectl(&seen);
    // A watcher that never hangs up: the server waits for it longer than a lease lasts.
    let watcher = cluster.kubectl_beside(&["get", "pods", "--watch"]);
    watcher.until(|said| said.contains("web-"));
    watcher.signal(libc::SIGSTOP);
    cluster.end_server(libc::SIGTERM);
    cluster.up();
    cluster.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
    assert_eq!(cluster.kubectl(&seen), before);
}

#[test]
fn a_server_killed_under_load_loses_no_acknowledged_object_and_no_container() {
    let mut cluster = with_web();
    let before = cluster.kubectl(&["get", "pods", "-o", RESTARTS]);
    let acknowledged = Mutex::new(Vec::new());
    let pid = i32::try_from(cluster.server_pid()).expect("a pid is small");
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (cluster, acknowledged) = (&cluster, &acknowledged);
            scope.spawn(move || cluster.within(|| create_until_refused(cluster, client, acknowledged)));
        }
        let count = || acknowledged.lock().map_or(ACKNOWLEDGED_MIN, |names| names.len());
        until_true("enough creates", || count() >= ACKNOWLEDGED_MIN);
        crate::harness::signal(pid, libc::SIGKILL);
    });
    cluster.end_server(libc::SIGKILL);
    cluster.up();
    let there = cluster.kubectl(&["get", "configmaps", "-o", "name"]);
    let there: Vec<&str> = there.lines().collect();
    let acknowledged = acknowledged.into_inner().expect("no client panicked");
    let lost: Vec<&String> =
        acknowledged.iter().filter(|name| !there.contains(&format!("configmap/{name}").as_str())).collect();
    assert!(lost.is_empty(), "{} of {} are lost: {lost:?}", lost.len(), acknowledged.len());
    cluster.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
    assert_eq!(cluster.kubectl(&["get", "pods", "-o", RESTARTS]), before);
}

/// Creates one object after the other until the server is gone, and notes which were acknowledged.
fn create_until_refused(cluster: &Cluster, client: usize, acknowledged: &Mutex<Vec<String>>) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let kubeconfig = std::fs::read(cluster.data_dir().join("kubeconfig")).expect("the server wrote it");
        let access = Access::from_kubeconfig(&kubeconfig).expect("it is a kubeconfig");
        let transport = Https::new(&access).expect("it can be used");
        let api = Client::new(std::sync::Arc::new(transport), "test");
        for number in 0.. {
            let name = format!("c{client}-{number}");
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
            match api.create(&kinds::CONFIG_MAP, "default", &object).await {
                Ok(_) => acknowledged.lock().expect("no client panicked").push(name),
                Err(_) => return,
            }
        }
    });
}
