//! What the node says of itself and its pods.

use std::fmt::Write;

use http::Response;
use serde_json::json;

use super::{Body, json_of, text};
use crate::agent::Agent;

/// The pods here, with the status that this node gives them.
pub fn pods(agent: &Agent) -> Response<Body> {
    let items: Vec<_> = agent
        .registry
        .all()
        .iter()
        .map(|shown| {
            let mut pod = serde_json::to_value(&shown.pod.pod).unwrap_or_default();
            pod["status"] = serde_json::to_value(&*shown.status).unwrap_or_default();
            pod
        })
        .collect();
    json_of(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

/// What pods use, as `metrics.k8s.io` sources read it.
pub async fn summary(agent: &Agent) -> Response<Body> {
    let now = model::time::seconds(agent.means.host.now());
    let mut pods = Vec::new();
    for shown in agent.registry.all() {
        let usage = agent.means.runtime.usage(&shown.pod.uid).await.unwrap_or_default();
        let containers: Vec<_> = usage
            .iter()
            .map(|used| {
                json!({
                    "name": used.name, "startTime": now,
                    "cpu": {"time": now, "usageCoreNanoSeconds": used.cpu_nanos},
                    "memory": {"time": now, "workingSetBytes": used.memory},
                })
            })
            .collect();
        let pod = &shown.pod;
        pods.push(json!({
            "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}, "containers": containers,
            "cpu": {"time": now, "usageCoreNanoSeconds": usage.iter().map(|used| used.cpu_nanos).sum::<u64>()},
            "memory": {"time": now, "workingSetBytes": usage.iter().map(|used| used.memory).sum::<u64>()},
        }));
    }
    json_of(&json!({"node": {"nodeName": agent.settings.node_name, "startTime": now}, "pods": pods}))
}

/// What containers use, in the text format of Prometheus.
pub async fn metrics(agent: &Agent) -> Response<Body> {
    let mut out = String::from(
        "# TYPE container_cpu_usage_seconds_total counter\n# TYPE container_memory_working_set_bytes gauge\n",
    );
    for shown in agent.registry.all() {
        for used in agent.means.runtime.usage(&shown.pod.uid).await.unwrap_or_default() {
            let labels = format!(
                "container={:?},namespace={:?},pod={:?}",
                used.name, shown.pod.namespace, shown.pod.name
            );
            let seconds = used.cpu_nanos as f64 / 1e9;
            // Writing to a string cannot fail.
            let _ = writeln!(out, "container_cpu_usage_seconds_total{{{labels}}} {seconds}");
            let _ = writeln!(out, "container_memory_working_set_bytes{{{labels}}} {}", used.memory);
        }
    }
    text(http::StatusCode::OK, out)
}
