//! Services and nodes: addresses that answer from everywhere.

use std::collections::BTreeSet;

use serde_json::json;

use crate::harness::{Cluster, Space, signal, tool, until_true, web_pod};
use crate::{READY, RESTARTS, WEB};

#[test]
fn a_node_port_answers_at_the_node_and_affinity_keeps_a_client_with_its_pod() {
    let space = Space::new("ports");
    space.apply(WEB);
    space.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
    space.kubectl(&[
        "expose",
        "deployment",
        "web",
        "--name=outer",
        "--type=NodePort",
        "--port=80",
        "--target-port=8080",
    ]);
    let port = space.value("service/outer", "{.spec.ports[0].nodePort}");
    let node = space.value("node/node-1", "{.status.addresses[?(@.type=='InternalIP')].address}");
    let body = space.cluster().until_http(&format!("{node}:{port}"), "/", |_| true);
    assert!(body.starts_with("web-"), "{body}");
    let service = format!("{}:80", space.value("service/web", "{.spec.clusterIP}"));
    let answered = |times: usize| -> BTreeSet<String> {
        (0..times).filter_map(|_| space.cluster().http_get(&service, "/")).collect()
    };
    until_true("every pod to answer", || answered(30).len() == 3);
    space.kubectl(&["patch", "service", "web", "-p", r#"{"spec":{"sessionAffinity":"ClientIP"}}"#]);
    until_true("one pod alone to answer", || answered(30).len() == 1);
}

#[test]
fn a_service_reaches_nobody_once_its_pods_are_gone() {
    let space = Space::new("nobody");
    space.apply(WEB);
    space.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
    let service = format!("{}:80", space.value("service/web", "{.spec.clusterIP}"));
    space.cluster().until_http(&service, "/", |_| true);
    space.kubectl(&["scale", "deployment", "web", "--replicas=0"]);
    space.until(&["get", "pods", "-o", "name"], str::is_empty);
    until_true("the Service to fall silent", || space.cluster().http_get(&service, "/").is_none());
}

/// Two nodes with a web pod on each, and a Service before both.
fn two_nodes() -> Cluster {
    let cluster = Cluster::start(2);
    cluster.import_demo_image();
    for number in [1, 2] {
        let mut pod = web_pod(&format!("web-{number}"));
        pod["metadata"]["labels"] = json!({"app": "web"});
        pod["spec"]["nodeName"] = json!(format!("node-{number}"));
        cluster.apply(&pod.to_string());
    }
    cluster.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]);
    cluster.kubectl(&["wait", "--for=condition=Ready", "pods", "--all", "--timeout=120s"]);
    cluster
}

#[test]
fn pods_on_two_nodes_reach_each_other_and_services_and_an_agent_may_die() {
    let cluster = two_nodes();
    let ips = ["web-1", "web-2"].map(|pod| cluster.value(&format!("pod/{pod}"), "{.status.podIP}"));
    let reach_all = || {
        for pod in ["web-1", "web-2"] {
            for (ip, name) in ips.iter().zip(["web-1 ", "web-2 "]) {
                let target = format!("get {ip}:8080");
                let words = [vec!["exec", pod, "--"], tool(&target)].concat();
                cluster.until(&words, |out| out.starts_with(name));
            }
            let words = [vec!["exec", pod, "--"], tool("get web:80")].concat();
            cluster.until(&words, |out| out.starts_with("web-1 "));
            cluster.until(&words, |out| out.starts_with("web-2 "));
        }
    };
    reach_all();
    let before = cluster.kubectl(&["get", "pods", "-o", RESTARTS]);
    let old = agent_of(&cluster).expect("the second node has an agent");
    signal(old, libc::SIGKILL);
    assert!(cluster.http_get(&format!("{}:8080", ips[1]), "/").is_some(), "its containers run on");
    until_true("another agent in its place", || agent_of(&cluster).is_some_and(|new| new != old));
    reach_all();
    cluster.kubectl(&["wait", "--for=condition=Ready", "nodes", "--all", "--timeout=120s"]);
    assert_eq!(cluster.kubectl(&["get", "pods", "-o", RESTARTS]), before);
}

/// The process of the second node's agent; none when it is dead.
fn agent_of(cluster: &Cluster) -> Option<i32> {
    let settings = agent_settings(cluster);
    let entries = std::fs::read_dir("/proc").expect("procfs is mounted");
    let mut pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.find(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        words.get(1) == Some(&"agent") && words.contains(&settings.as_str())
    })
}

fn agent_settings(cluster: &Cluster) -> String {
    cluster.data_dir().join("nodes/node-2/agent.json").display().to_string()
}
