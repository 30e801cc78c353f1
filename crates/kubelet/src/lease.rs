//! Says every second that this node is alive: renews its lease in `kube-node-lease`.

use std::sync::Arc;
use std::time::Duration;

use client::{ClientError, PatchKind};
use model::kinds as gvr;
use model::{Key, Object, Precondition, World};
use serde_json::json;

use crate::agent::Agent;
use crate::run::node_key;

/// The namespace of leases of nodes.
const NAMESPACE: &str = "kube-node-lease";

/// How long one renewal may take; the next one says the same, only later.
const RENEWAL_MAX: Duration = Duration::from_secs(5);

/// Renews until the agent ends.
pub async fn keep(agent: Arc<Agent>) {
    let key = Key::new(&gvr::LEASE, NAMESPACE, agent.settings.node_name.clone());
    let mut is_there = false;
    loop {
        let renewal = async { if is_there { renew(&agent, &key).await } else { make(&agent, &key).await } };
        let renewed = agent.means.host.within(RENEWAL_MAX, renewal).await;
        agent.is_leased.send_replace(matches!(renewed, Some(Ok(()))));
        match renewed {
            Some(Ok(())) => is_there = true,
            Some(Err(ClientError::NotFound { .. })) => is_there = false,
            Some(Err(error)) => tracing::debug!(%error, "the node's lease could not be renewed"),
            None => tracing::debug!("the node's lease was not renewed in time"),
        }
        agent.means.host.sleep(agent.settings.lease_every).await;
    }
}

async fn renew(agent: &Agent, key: &Key) -> Result<(), ClientError> {
    let patch = json!({"spec": {"renewTime": model::time::micros(agent.means.host.now())}});
    let done = agent.means.client.patch(key, "", PatchKind::Merge, &patch, &Precondition::default()).await;
    done.map(|_| ())
}

async fn make(agent: &Agent, key: &Key) -> Result<(), ClientError> {
    let node = agent.means.caches.get(&node_key(agent));
    let owners: Vec<_> = node.iter().map(owner).collect();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": key.name, "namespace": NAMESPACE, "ownerReferences": owners},
        "spec": {
            "holderIdentity": key.name,
            "leaseDurationSeconds": agent.settings.lease_seconds,
            "renewTime": model::time::micros(agent.means.host.now()),
        },
    });
    match agent.means.client.create(&gvr::LEASE, NAMESPACE, &lease).await {
        Err(ClientError::AlreadyExists { .. }) => renew(agent, key).await,
        other => other.map(|_| ()),
    }
}

fn owner(node: &Object) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Node", "name": node.name(), "uid": node.uid()})
}
