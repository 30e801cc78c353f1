//! What the API itself does for the fence: marks what it binds, and keeps what may still run.
//!
//! A pod with an identity or an exclusive volume is marked with the epoch of its node's lease when it is bound. From then on
//! its name is free only when the node says that it has ended, or its epoch is over: a forced deletion is no proof.

use model::fence::{FENCE, Record, STATE, State, is_exclusive};
use model::{Key, Tree, World, kinds};
use serde_json::json;
use store::{Store, StoreError, Txn};

use crate::auth::Identity;
use crate::encode::put_built_in;
use crate::refusal::{About, Reason, Refusal};
use crate::verbs::child;
use crate::view::View;

/// Objects that are marked in one transaction: a thousand pods are a few MiB, far below what the store takes.
const MARKED_AT_ONCE: usize = 1000;

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
    if let Some(silent) = unsure(world) {
        let why = format!(
            "pod {} cannot be assigned to node \"{node}\" yet: the store was restored, and node \"{silent}\" has not said what \
             runs on it",
            about.name
        );
        return Err(Refusal::new(Reason::TooManyRequests, why).about(about).retry_after(1));
    }
    child(&mut pod["metadata"], "annotations").insert(FENCE.into(), json!(lease.epoch.to_string()));
    Ok(())
}

/// A node that was there before the store was restored, and has not said yet what runs: it may be any fenced pod.
fn unsure(world: &dyn World) -> Option<String> {
    let leases = world.list(&kinds::LEASE, LEASES);
    let unsure = leases.into_iter().find(|lease| {
        lease.meta().annotations.get(STATE).is_some_and(|state| state == State::Restored.word())
    });
    unsure.map(|lease| lease.name().to_owned())
}

/// Marks a store that was made from a backup: every lease as one of which only its node knows what runs (or, when an operator
/// says that nothing does, as lost), and every fenced pod as bound to an epoch that is over. Gives the nodes that have to speak.
///
/// # Errors
/// `StoreError` when the store cannot be written.
pub async fn mark_restored(store: &Store, nothing_runs: bool) -> Result<Vec<String>, StoreError> {
    let (mut nodes, mut changes) = (Vec::new(), Vec::new());
    let state = if nothing_runs { State::Lost } else { State::Restored };
    for object in View(store).list(&kinds::LEASE, LEASES) {
        let Ok(mut lease) = object.tree() else { continue };
        if object.meta().annotations.contains_key(STATE) {
            lease["metadata"]["annotations"][STATE] = json!(state.word());
            changes.push(put_built_in(&kinds::LEASE, &lease));
            nodes.push(object.name().to_owned());
        }
    }
    for object in View(store).list(&kinds::POD, "") {
        let Ok(mut pod) = object.tree() else { continue };
        if object.meta().annotations.contains_key(FENCE) {
            pod["metadata"]["annotations"][FENCE] = json!("0");
            changes.push(put_built_in(&kinds::POD, &pod));
        }
    }
    // Nobody else has the store: they need not go together, only be small enough each.
    for some in changes.chunks(MARKED_AT_ONCE) {
        store.commit(Txn { expect: Vec::new(), changes: some.to_vec() }).await?;
    }
    Ok(nodes)
}

/// Keeps the mark, whatever a writer sends.
pub(super) fn keep(old: &Tree, new: &mut Tree) {
    let mark = &old["metadata"]["annotations"][FENCE];
    if mark.is_string() && new["metadata"]["annotations"][FENCE] != *mark {
        child(&mut new["metadata"], "annotations").insert(FENCE.into(), mark.clone());
    }
}

/// Whether the pod may still run, so that its name is not free: it is fenced, its epoch goes on, and it is not its own
/// node that deletes it, which says that it has ended. What a node writes of a pod otherwise says nothing of the kind.
pub(super) fn reserves(pod: &Tree, deleter: Option<&Identity>, world: &dyn World) -> bool {
    let Some(epoch) =
        pod["metadata"]["annotations"][FENCE].as_str().and_then(|epoch| epoch.parse::<u64>().ok())
    else {
        return false;
    };
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    let has_ended = deleter.is_some_and(|who| who.name == format!("system:node:{node}"));
    if node.is_empty() || has_ended {
        return false;
    }
    let lease = lease_of(node, world);
    tracing::debug!(pod = %pod["metadata"]["name"], node, epoch, ?lease, "the name of a fenced pod is wanted");
    lease.is_some_and(|lease| match lease.state {
        State::Held | State::Ending | State::Restored => lease.epoch <= epoch,
        State::Lost => lease.epoch < epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Lab, lab};
    use super::*;

    const LEASES_URI: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

    async fn node(lab: &Lab, name: &str, state: &str) {
        let node = json!({"metadata": {"name": name}});
        assert_eq!(lab.post("/api/v1/nodes", node).await.0, 201);
        let voters = r#"{"number":1,"voters":[],"leaseMillis":4000}"#;
        let annotations = json!({
            "healing.kintsugi.dev/epoch": "7", "healing.kintsugi.dev/incarnation": "1",
            "healing.kintsugi.dev/voters": voters, "healing.kintsugi.dev/lease-state": state,
        });
        let lease = json!({"metadata": {"name": name, "annotations": annotations}, "spec": {}});
        assert_eq!(lab.post(LEASES_URI, lease).await.0, 201);
    }

    async fn fenced_pod(lab: &Lab, name: &str) {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "u", "controller": true}]);
        let pod = json!({"metadata": {"name": name, "ownerReferences": owner},
            "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let (code, told) = lab.post("/api/v1/namespaces/default/pods", pod).await;
        assert_eq!(code, 201, "{told}");
    }

    async fn bind(lab: &Lab, pod: &str, node: &str) -> (u16, Tree) {
        let uri = format!("/api/v1/namespaces/default/pods/{pod}/binding");
        lab.post(&uri, json!({"metadata": {"name": pod}, "target": {"kind": "Node", "name": node}})).await
    }

    async fn state(lab: &Lab, node: &str) -> Tree {
        let lease = lab.get(&format!("{LEASES_URI}/{node}")).await.1;
        lease["metadata"]["annotations"]["healing.kintsugi.dev/lease-state"].clone()
    }

    async fn says(lab: &Lab, node: &str, state: &str) {
        let patch = json!({"metadata": {"annotations": {"healing.kintsugi.dev/lease-state": state}}});
        let uri = format!("{LEASES_URI}/{node}");
        assert_eq!(lab.ask(http::Method::PATCH, &uri, patch).await.0, 200);
    }

    async fn served() -> Lab {
        let lab = lab().await;
        let account = json!({"metadata": {"name": "default"}});
        lab.post("/api/v1/namespaces/default/serviceaccounts", account).await;
        node(&lab, "a", "Held").await;
        node(&lab, "b", "Lost").await;
        fenced_pod(&lab, "db-0").await;
        fenced_pod(&lab, "db-1").await;
        assert_eq!(bind(&lab, "db-0", "a").await.0, 201);
        lab
    }

    #[tokio::test(start_paused = true)]
    async fn a_fenced_pod_is_gone_only_when_its_node_deletes_it() {
        let mut lab = served().await;
        let uri = "/api/v1/namespaces/default/pods/db-0";
        let forced = json!({"gracePeriodSeconds": 0});
        lab.ask(http::Method::DELETE, uri, forced.clone()).await;
        assert_eq!(lab.get(uri).await.1["metadata"]["deletionGracePeriodSeconds"], 0, "it may run");
        lab.admin = Identity::user("system:node:a", &["system:nodes", crate::auth::MASTERS]);
        let runs = json!({"status": {"message": "it runs"}});
        lab.ask(http::Method::PATCH, &format!("{uri}/status"), runs).await;
        assert_eq!(lab.get(uri).await.0, 200, "its node has told that it runs");
        lab.ask(http::Method::DELETE, uri, forced).await;
        assert_eq!(lab.get(uri).await.0, 404);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restore_nothing_fenced_is_bound_before_every_node_has_spoken() {
        let lab = served().await;
        let nodes = mark_restored(lab.service.store(), false).await.expect("the store is sound");
        assert_eq!(nodes, ["a", "b"]);
        let mark = lab.get("/api/v1/namespaces/default/pods/db-0").await.1;
        assert_eq!(mark["metadata"]["annotations"][FENCE], "0", "bound to an epoch that is over");
        // Its own node has begun anew, the other one, which was lost once, has not been heard of.
        says(&lab, "a", "Held").await;
        let (code, told) = bind(&lab, "db-1", "a").await;
        assert_eq!(code, 429, "{told}");
        assert!(
            told["message"].as_str().is_some_and(|why| why.contains("node \"b\" has not said")),
            "{told}"
        );
        says(&lab, "b", "Lost").await;
        assert_eq!(bind(&lab, "db-1", "a").await.0, 201);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operators_word_that_nothing_runs_makes_every_lease_a_lost_one() {
        let lab = served().await;
        mark_restored(lab.service.store(), true).await.expect("the store is sound");
        assert_eq!((state(&lab, "a").await, state(&lab, "b").await), (json!("Lost"), json!("Lost")));
    }
}
