//! What the node says of itself and its pods.

use std::collections::BTreeMap;
use std::fmt::Write;

use http::Response;
use serde_json::{Value, json};

use super::{Body, json_of, text};
use crate::agent::Agent;
use crate::usage::{self, Usage, Volume};

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
        let mut told = json!({
            "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid}, "containers": containers,
            "cpu": {"time": now, "usageCoreNanoSeconds": usage.iter().map(|used| used.cpu_nanos).sum::<u64>()},
            "memory": {"time": now, "workingSetBytes": usage.iter().map(|used| used.memory).sum::<u64>()},
        });
        let volumes = usage::of(agent, &shown).await;
        if !volumes.is_empty() {
            let each = volumes.iter().map(|volume| volume_stats(volume, &pod.namespace, &now));
            told["volume"] = each.collect();
        }
        pods.push(told);
    }
    json_of(&json!({"node": {"nodeName": agent.settings.node_name, "startTime": now}, "pods": pods}))
}

/// What is known of a volume, as upstream's summary says it.
fn volume_stats(volume: &Volume, namespace: &str, now: &str) -> Value {
    let mut told = json!({"name": volume.name, "time": now});
    if let Some(claim) = &volume.claim {
        told["pvcRef"] = json!({"name": claim, "namespace": namespace});
    }
    for (amount, [available, total, used]) in [
        (volume.usage.bytes, ["availableBytes", "capacityBytes", "usedBytes"]),
        (volume.usage.inodes, ["inodesFree", "inodes", "inodesUsed"]),
    ] {
        if let Some(amount) = amount {
            told[available] = amount.available.into();
            told[total] = amount.total.into();
            told[used] = amount.used.into();
        }
    }
    if let Some((is_abnormal, _)) = &volume.usage.condition {
        told["volumeHealthStats"] = json!({"abnormal": is_abnormal});
    }
    told
}

/// A number of a volume, where it is known.
type Reading = fn(&Usage) -> Option<u64>;

/// What is known of the volumes of claims, by namespace and claim, in the text format of Prometheus.
fn volume_metrics(all: &BTreeMap<(String, String), Usage>) -> String {
    let rows: [(&str, Reading); 7] = [
        ("available_bytes", |usage| usage.bytes.map(|amount| amount.available)),
        ("capacity_bytes", |usage| usage.bytes.map(|amount| amount.total)),
        ("health_status_abnormal", |usage| Some(u64::from(usage.condition.as_ref()?.0))),
        ("inodes", |usage| usage.inodes.map(|amount| amount.total)),
        ("inodes_free", |usage| usage.inodes.map(|amount| amount.available)),
        ("inodes_used", |usage| usage.inodes.map(|amount| amount.used)),
        ("used_bytes", |usage| usage.bytes.map(|amount| amount.used)),
    ];
    let mut out = String::new();
    for (name, value) in rows {
        let known = all.iter().filter_map(|(of, usage)| Some((of, value(usage)?)));
        for (at, ((namespace, claim), value)) in known.enumerate() {
            if at == 0 {
                // Writing to a string cannot fail.
                let _ = writeln!(out, "# TYPE kubelet_volume_stats_{name} gauge");
            }
            let labels = format!("namespace={namespace:?},persistentvolumeclaim={claim:?}");
            let _ = writeln!(out, "kubelet_volume_stats_{name}{{{labels}}} {value}");
        }
    }
    out
}

/// What containers use, and in the whole how full the volumes of claims are, in the text format of Prometheus.
pub async fn metrics(agent: &Agent) -> Response<Body> {
    let mut out = resources(agent).await;
    let mut volumes = BTreeMap::new();
    for shown in agent.registry.all() {
        for volume in usage::of(agent, &shown).await {
            let Some(claim) = volume.claim else { continue };
            volumes.entry((shown.pod.namespace.clone(), claim)).or_insert(volume.usage);
        }
    }
    out.push_str(&volume_metrics(&volumes));
    text(http::StatusCode::OK, out)
}

/// What containers use, in the text format of Prometheus.
pub async fn resource_metrics(agent: &Agent) -> Response<Body> {
    text(http::StatusCode::OK, resources(agent).await)
}

async fn resources(agent: &Agent) -> String {
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
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Amount;

    fn volume() -> Volume {
        let bytes = Some(Amount { available: 1, total: 3, used: 2 });
        let usage = Usage { bytes, inodes: None, condition: Some((true, "worn".to_owned())) };
        Volume { name: "data".to_owned(), claim: Some("db".to_owned()), usage }
    }

    #[test]
    fn a_volume_is_told_with_its_claim_and_what_is_known_of_it() {
        let told = volume_stats(&volume(), "shop", "now");
        let wanted = json!({
            "name": "data", "time": "now", "pvcRef": {"name": "db", "namespace": "shop"},
            "availableBytes": 1, "capacityBytes": 3, "usedBytes": 2, "volumeHealthStats": {"abnormal": true},
        });
        assert_eq!(told, wanted);
    }

    #[test]
    fn metrics_name_the_claim_and_leave_out_what_is_not_known() {
        let all = [(("shop".to_owned(), "db".to_owned()), volume().usage)].into();
        let labels = r#"{namespace="shop",persistentvolumeclaim="db"}"#;
        let wanted: String = [
            ("available_bytes", 1),
            ("capacity_bytes", 3),
            ("health_status_abnormal", 1),
            ("used_bytes", 2),
        ]
        .map(|(name, value)| {
            format!("# TYPE kubelet_volume_stats_{name} gauge\nkubelet_volume_stats_{name}{labels} {value}\n")
        })
        .concat();
        assert_eq!(volume_metrics(&all), wanted);
    }
}
