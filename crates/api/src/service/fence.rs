//! What the API itself does for the fence: marks what it binds, and keeps what may still run.
//!
//! A pod with an identity or an exclusive volume is marked with the epoch of its node's lease when it is bound. From then on
//! its name is free only when the node says that it has ended, or its epoch is over: a forced deletion is no proof.

use model::fence::{FENCE, Record, State, is_exclusive};
use model::{Key, Tree, World, kinds};
use serde_json::json;

use crate::auth::Identity;
use crate::refusal::{About, Refusal};
use crate::verbs::child;

/// Where the leases of nodes are.
const LEASES: &str = "kube-node-lease";

fn lease_of(node: &str, world: &dyn World) -> Option<Record> {
    world.get(&Key::new(&kinds::LEASE, LEASES, node)).and_then(|lease| Record::read(&lease))
}

/// Marks a pod that was just given its node. To a node whose lease is not held no fenced pod is given: it could not run it.
pub(super) fn stamp(pod: &mut Tree, about: &About, world: &dyn World) -> Result<(), Refusal> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
    let is_exclusive_claim = |claim: &str| {
        let claim = world.get(&Key::new(&kinds::PERSISTENT_VOLUME_CLAIM, namespace.as_str(), claim));
        let modes =
            claim.and_then(|claim| claim.tree().ok()).unwrap_or_default()["spec"]["accessModes"].take();
        modes.as_array().is_some_and(|modes| {
            modes.iter().any(|mode| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod")
        })
    };
    if !is_exclusive(pod, is_exclusive_claim) {
        return Ok(());
    }
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned();
    // A node that holds no such lease is none of ours: it is treated as Kubernetes does.
    let Some(lease) = lease_of(&node, world) else { return Ok(()) };
    if lease.state != State::Held {
        let why = format!("pod {} cannot be assigned to node \"{node}\": its lease is lost", about.name);
        return Err(Refusal::conflict(about, why));
    }
    child(&mut pod["metadata"], "annotations").insert(FENCE.into(), json!(lease.epoch.to_string()));
    Ok(())
}

/// Keeps the mark, whatever a writer sends.
pub(super) fn keep(old: &Tree, new: &mut Tree) {
    let mark = &old["metadata"]["annotations"][FENCE];
    if mark.is_string() && new["metadata"]["annotations"][FENCE] != *mark {
        child(&mut new["metadata"], "annotations").insert(FENCE.into(), mark.clone());
    }
}

/// Whether the pod may still run, so that its name is not free: it is fenced, its epoch goes on, and it is not its own
/// node that says it has ended.
pub(super) fn reserves(pod: &Tree, who: &Identity, world: &dyn World) -> bool {
    let Some(epoch) =
        pod["metadata"]["annotations"][FENCE].as_str().and_then(|epoch| epoch.parse::<u64>().ok())
    else {
        return false;
    };
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() || who.name == format!("system:node:{node}") {
        return false;
    }
    lease_of(node, world).is_some_and(|lease| match lease.state {
        State::Held | State::Ending => lease.epoch <= epoch,
        State::Lost => lease.epoch < epoch,
    })
}
