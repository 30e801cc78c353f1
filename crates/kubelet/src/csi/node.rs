//! What the API is told of drivers: the node's CSINode, and the Node's labels and annotation.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{ClientError, PatchKind};
use model::kinds as gvr;
use model::{Key, Precondition, Tree};
use serde_json::json;

use super::Driver;
use crate::agent::Agent;
use crate::backoff;
use crate::run::node_key;

/// The annotation of a Node with its names in its drivers' words.
pub const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";

/// The drivers by their names.
type Drivers = BTreeMap<String, Driver>;

/// Keeps the node's CSINode until the agent ends.
pub async fn keep(agent: Arc<Agent>) {
    let mut drivers = agent.csi.drivers.subscribe();
    let mut failures = 0;
    loop {
        let now = drivers.borrow_and_update().clone();
        let wait = match write(&agent, &now).await {
            Ok(()) => {
                failures = 0;
                None
            }
            Err(error) => {
                tracing::debug!(%error, "the node's drivers could not be told");
                failures += 1;
                Some(backoff::trouble_wait(failures))
            }
        };
        tokio::select! {
            biased;
            changed = drivers.changed() => if changed.is_err() { return },
            () = agent.rest(wait) => {}
        }
    }
}

async fn write(agent: &Agent, drivers: &Drivers) -> Result<(), ClientError> {
    let client = &agent.means.client;
    let name = &agent.settings.node_name;
    let key = Key::new(&gvr::CSI_NODE, "", name.clone());
    let wanted = entries(drivers);
    match client.get(&key).await {
        Ok(object) => {
            let known = object.tree().unwrap_or_default();
            if known["spec"]["drivers"].as_array().cloned().unwrap_or_default() == wanted {
                return Ok(());
            }
            let patch = json!({"spec": {"drivers": wanted}});
            client
                .patch(&key, "", PatchKind::Merge, &patch, &Precondition::exactly(&object))
                .await
                .map(|_| ())
        }
        Err(ClientError::NotFound { .. }) => {
            let node = client.get(&node_key(agent)).await?;
            let owner = json!([{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.uid()}]);
            let object = json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
                "metadata": {"name": name, "ownerReferences": owner},
                "spec": {"drivers": wanted},
            });
            client.create(&gvr::CSI_NODE, "", &object).await.map(|_| ())
        }
        Err(error) => Err(error),
    }
}

/// The drivers as CSINode names them.
fn entries(drivers: &Drivers) -> Vec<Tree> {
    let all = drivers.values().map(|driver| {
        let segments = driver.segments();
        let keys: Vec<&String> = segments.keys().collect();
        let mut entry = json!({"name": driver.name, "nodeID": driver.node.node_id});
        if !keys.is_empty() {
            entry["topologyKeys"] = json!(keys);
        }
        if driver.node.volumes_max > 0 {
            let count = driver.node.volumes_max.min(i64::from(i32::MAX));
            entry["allocatable"] = json!({ "count": count });
        }
        entry
    });
    all.collect()
}

/// The labels that say where the node is for its drivers.
pub fn labels(drivers: &Drivers) -> BTreeMap<String, String> {
    drivers.values().flat_map(Driver::segments).collect()
}

/// The node's names in its drivers' words, as the annotation has them; `None` without drivers.
pub fn ids(drivers: &Drivers) -> Option<String> {
    let ids: BTreeMap<&String, &String> =
        drivers.iter().map(|(name, driver)| (name, &driver.node.node_id)).collect();
    (!ids.is_empty()).then(|| json!(ids).to_string())
}
