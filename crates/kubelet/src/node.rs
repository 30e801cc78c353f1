//! The Node object: registers this node, says what it is and has, and takes back what others said of it wrongly.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{ClientError, PatchKind};
use host::Time;
use host::watch;
use model::kinds as gvr;
use model::{Precondition, Tree, World};
use runtime::Image;
use serde_json::{Value, json};

use crate::agent::Agent;
use crate::csi::{self, Driver};
use crate::farewell::Farewell;
use crate::resources::Allocatable;
use crate::run::node_key;
use crate::settings::{Machine, Settings};

mod machine;

/// The version of Kubernetes that this node speaks.
pub const VERSION: &str = "v1.36.0";

/// How often the status is written although nothing changed: as upstream's node controller expects at least.
const HEARTBEAT: Duration = Duration::from_secs(300);

/// The least time between two writes of the status, so that a quarrel over a field cannot become a storm.
const PAUSE: Duration = Duration::from_millis(200);

/// How long a node without a Node waits for its lease, which makes one otherwise, and between two tries.
const REGISTERED_AFTER: Duration = Duration::from_secs(2);

/// How many images the status names, the largest first, as upstream.
const IMAGES_MAX: usize = 50;

/// How many names one image has in the status.
const IMAGE_NAMES_MAX: usize = 5;

/// Keeps the Node as it should be until the agent ends.
pub async fn keep(agent: Arc<Agent>, port: u16, mut news: watch::Receiver<()>) {
    let mut wait = PAUSE;
    let mut is_written = false;
    let (mut in_use, mut drivers) = (agent.csi.in_use.subscribe(), agent.csi.drivers.subscribe());
    let mut farewell = agent.farewell.subscribe();
    loop {
        let ready = ready(*farewell.borrow_and_update());
        let seen = agent.means.caches.get(&node_key(&agent));
        let is_well = is_written
            && seen.as_ref().is_some_and(|node| node.view().is_ok_and(|tree| is_told(&tree, ready.0)));
        if !is_well {
            // Whoever doubts this node goes by its lease: taken back before that is renewed, the doubt would come again.
            if !leased(&agent, &mut news).await {
                return;
            }
            match write(&agent, port).await {
                Ok(()) => {
                    is_written = true;
                    wait = PAUSE;
                }
                Err(error) => {
                    tracing::debug!(%error, "the node could not be written");
                    agent.means.host.sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(2));
                    continue;
                }
            }
            agent.means.host.sleep(PAUSE).await;
        }
        let news = agent.means.host.within(HEARTBEAT, news.changed());
        tokio::select! {
            biased;
            // The senders of these two are in the agent: they cannot be gone.
            Ok(()) = in_use.changed() => is_written = false,
            Ok(()) = drivers.changed() => is_written = false,
            Ok(()) = farewell.changed() => is_written = false,
            news = news => match news {
                Some(Ok(())) => {}
                // Nobody is left who could tell of news: the agent ends.
                Some(Err(_)) => return,
                None => is_written = false,
            },
        }
    }
}

/// Waits for the node's lease; `false`: the agent ends. A Node that is not there is made meanwhile: by a taint on it an
/// operator says that the life of this machine that holds the lease is over, where nobody else can.
async fn leased(agent: &Agent, news: &mut watch::Receiver<()>) -> bool {
    let mut is_leased = agent.is_leased.subscribe();
    loop {
        let has_node = agent.means.caches.get(&node_key(agent)).is_some();
        tokio::select! {
            biased;
            // The sender is in the agent: it cannot be gone.
            () = async { drop(is_leased.wait_for(|is_leased| *is_leased).await) } => return true,
            news = news.changed() => if news.is_err() { return false },
            () = agent.means.host.sleep(REGISTERED_AFTER), if !has_node => {
                let made = agent.means.client.create(&gvr::NODE, "", &fresh(&agent.settings)).await;
                if let Err(error) = &made {
                    tracing::debug!(%error, "the node could not be registered");
                }
            }
        }
    }
}

/// What a node says of being ready: status, reason, message.
fn ready(farewell: Farewell) -> (&'static str, &'static str, &'static str) {
    match farewell {
        Farewell::Stays => ("True", "KubeletReady", "kubelet is posting ready status"),
        Farewell::Ends | Farewell::Goes | Farewell::Gone => {
            ("False", "KubeletNotReady", "node is shutting down")
        }
    }
}

/// Whether the node is told to be ready (`True`), or not to be (`False`).
pub fn is_told(node: &Tree, ready: &str) -> bool {
    let conditions = node["status"]["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == ready)
}

async fn write(agent: &Agent, port: u16) -> Result<(), ClientError> {
    let (client, key) = (&agent.means.client, node_key(agent));
    let now = agent.means.host.now();
    let images = agent.means.runtime.images().await.unwrap_or_default();
    let node = match client.get(&key).await {
        Ok(node) => node,
        Err(ClientError::NotFound { .. }) => {
            match client.create(&gvr::NODE, "", &fresh(&agent.settings)).await {
                Ok(node) => node,
                Err(ClientError::AlreadyExists { .. }) => client.get(&key).await?,
                Err(error) => return Err(error),
            }
        }
        Err(error) => return Err(error),
    };
    let known: Value = node.view().unwrap_or_default();
    let none = Precondition::default();
    let drivers = agent.csi.drivers.borrow().clone();
    if let Some(patch) = meta_patch(&agent.settings, &drivers, &known) {
        client.patch(&key, "", PatchKind::Merge, &patch, &none).await?;
    }
    let in_use = agent.csi.in_use.borrow().clone();
    let conditions = conditions(&known, now, ready(*agent.farewell.borrow()));
    let mut status = status(&agent.settings, port, &images, &conditions);
    if let Some(in_use) = &in_use {
        status["volumesInUse"] = if in_use.is_empty() { Value::Null } else { json!(in_use) };
    }
    client.patch(&key, "status", PatchKind::Strategic, &json!({ "status": status }), &none).await?;
    if let Some(in_use) = in_use {
        agent.csi.told.send_replace(in_use);
    }
    Ok(())
}

fn labels(settings: &Settings) -> Value {
    let mut labels = json!({
        "kubernetes.io/hostname": settings.node_name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": settings.machine.architecture,
        "beta.kubernetes.io/os": "linux",
        "beta.kubernetes.io/arch": settings.machine.architecture,
    });
    for (key, value) in &settings.labels {
        labels[key] = json!(value);
    }
    labels
}

fn fresh(settings: &Settings) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": settings.node_name, "labels": labels(settings)},
        "spec": {},
    });
    if !settings.pod_cidr.is_empty() {
        node["spec"] = json!({"podCIDR": settings.pod_cidr, "podCIDRs": [settings.pod_cidr]});
    }
    node
}

/// What metadata and spec lack of what this node says of itself.
fn meta_patch(settings: &Settings, drivers: &BTreeMap<String, Driver>, known: &Value) -> Option<Value> {
    let mut patch = json!({});
    let mut wanted = labels(settings);
    for (key, value) in csi::node::labels(drivers) {
        wanted[key] = json!(value);
    }
    let ids = json!(csi::node::ids(drivers));
    if known["metadata"]["annotations"][csi::node::NODE_IDS] != ids {
        patch["metadata"]["annotations"][csi::node::NODE_IDS] = ids;
    }
    let missing = wanted
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| known["metadata"]["labels"][*key] != **value);
    for (key, value) in missing {
        patch["metadata"]["labels"][key] = value.clone();
    }
    if !settings.pod_cidr.is_empty() && known["spec"]["podCIDR"].is_null() {
        patch["spec"] = json!({"podCIDR": settings.pod_cidr, "podCIDRs": [settings.pod_cidr]});
    }
    (patch != json!({})).then_some(patch)
}

fn status(settings: &Settings, port: u16, images: &[Image], conditions: &[Value]) -> Value {
    let machine = &settings.machine;
    let mut addresses: Vec<Value> =
        settings.node_addresses.iter().map(|ip| json!({"type": "InternalIP", "address": ip})).collect();
    addresses.push(json!({"type": "Hostname", "address": settings.node_name}));
    json!({
        "capacity": amounts(&machine.capacity),
        "allocatable": amounts(&machine.allocatable),
        "addresses": addresses,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": {
            "machineID": machine.machine_id, "systemUUID": machine.machine_id, "bootID": machine.boot_id,
            "kernelVersion": machine.kernel, "osImage": machine.os_image,
            "containerRuntimeVersion": "kintsugi://0.0.0", "kubeletVersion": VERSION, "kubeProxyVersion": "",
            "operatingSystem": "linux", "architecture": machine.architecture,
        },
        "conditions": conditions,
        "images": listed(images),
    })
}

fn amounts(all: &Allocatable) -> Value {
    let cpu = if all.cpu_millis.is_multiple_of(1000) {
        (all.cpu_millis / 1000).to_string()
    } else {
        format!("{}m", all.cpu_millis)
    };
    json!({
        "cpu": cpu,
        "memory": format!("{}Ki", all.memory / 1024),
        "ephemeral-storage": format!("{}Ki", all.ephemeral_storage / 1024),
        "pods": all.pods.to_string(),
        "hugepages-1Gi": "0", "hugepages-2Mi": "0",
    })
}

fn conditions(known: &Value, now: Time, ready: (&str, &str, &str)) -> Vec<Value> {
    let told = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", ready.0, ready.1, ready.2),
    ];
    let before = |kind: &str| {
        let mut all = known["status"]["conditions"].as_array().into_iter().flatten();
        all.rfind(|condition| condition["type"] == kind).cloned()
    };
    let written = model::time::seconds(now);
    let all = told.into_iter().map(|(kind, value, reason, message)| {
        let since = before(kind)
            .filter(|known| known["status"] == value)
            .map(|known| known["lastTransitionTime"].clone());
        json!({
            "type": kind, "status": value, "reason": reason, "message": message, "lastHeartbeatTime": written,
            "lastTransitionTime": since.filter(Value::is_string).unwrap_or_else(|| json!(written)),
        })
    });
    all.collect()
}

fn listed(images: &[Image]) -> Vec<Value> {
    let mut images: Vec<&Image> = images.iter().collect();
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let shown = images.into_iter().take(IMAGES_MAX).map(|image| {
        let names: Vec<&String> = image.digests.iter().chain(&image.tags).take(IMAGE_NAMES_MAX).collect();
        json!({"names": names, "sizeBytes": image.size})
    });
    shown.collect()
}

impl Machine {
    /// Looks at the machine that this runs on; `data_dir` says which disk counts.
    pub fn look(data_dir: &std::path::Path) -> Machine {
        machine::look(data_dir)
    }
}
