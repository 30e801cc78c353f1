//! The volumes of the built-in drivers: an object as soon as a claim wants one. Its folder is made by the node that
//! mounts it first.

use model::fit::NodeFacts;
use model::kinds::{NODE, PERSISTENT_VOLUME};
use model::storage::{self, DATA_FINALIZER, LOCAL, PROVISIONED_BY, SELECTED_NODE};
use model::{Key, Object, Plan, Precondition, Tree, World};
use serde_json::json;

use super::{about, tree};
use crate::naming;

/// Makes the volume that a claim waits for, or says why not.
pub(super) fn make(plan: &mut Plan, key: &Key, claim: &Object, class: &Tree, world: &dyn World) {
    match whole(claim, class, world) {
        Ok(volume) => {
            let name = volume["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            plan.create(&PERSISTENT_VOLUME, "", volume, "a claim waits for it");
            plan.tell(about(
                claim,
                "ProvisioningSucceeded",
                format!("Successfully provisioned volume {name}"),
            ));
        }
        Err(Refusal::Node) => {
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: null}}});
            plan.patch(
                key.clone(),
                "",
                patch,
                Precondition::exactly(claim),
                "the node chosen for it is gone",
            );
        }
        Err(Refusal::Claim(why)) => {
            let class = class["metadata"]["name"].as_str().unwrap_or_default();
            let message = format!("failed to provision volume with StorageClass \"{class}\": {why}");
            plan.say(about(claim, "ProvisioningFailed", message).warning());
        }
    }
}

enum Refusal {
    /// The node that was chosen is not there: another one is to be chosen.
    Node,
    /// The claim asks for what the driver cannot give.
    Claim(String),
}

fn whole(claim: &Object, class: &Tree, world: &dyn World) -> Result<Tree, Refusal> {
    let wanted = tree(claim);
    let driver = class["provisioner"].as_str().unwrap_or_default();
    let modes = wanted["spec"]["accessModes"].clone();
    let is_block = wanted["spec"]["volumeMode"] == "Block";
    let asks = |mode: &str| modes.as_array().into_iter().flatten().any(|asked| asked == mode);
    if !wanted["spec"]["dataSource"].is_null() || !wanted["spec"]["dataSourceRef"].is_null() {
        return Err(Refusal::Claim(format!("{driver} cannot begin a volume with data of another")));
    }
    if !wanted["spec"]["selector"].is_null() {
        return Err(Refusal::Claim("claim Selector is not supported".to_owned()));
    }
    if let Some(parameter) = class["parameters"].as_object().and_then(|all| all.keys().next()) {
        return Err(Refusal::Claim(format!("invalid parameter {parameter:?}: {driver} knows none")));
    }
    if driver == LOCAL && (asks("ReadWriteMany") || asks("ReadOnlyMany")) {
        let why =
            "a volume of local.kintsugi.dev is on one node: it can be ReadWriteOnce or ReadWriteOncePod";
        return Err(Refusal::Claim(why.to_owned()));
    }
    if is_block {
        return Err(Refusal::Claim(format!("{driver} has no block devices")));
    }
    let name = format!("pvc-{}", claim.uid());
    let mut attributes = json!({});
    let mut spec = json!({
        "accessModes": modes,
        "capacity": {"storage": wanted["spec"]["resources"]["requests"]["storage"]},
        "claimRef": {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace(),
            "name": claim.name(), "uid": claim.uid(), "resourceVersion": claim.meta().resource_version(),
        },
        "persistentVolumeReclaimPolicy": class["reclaimPolicy"],
        "storageClassName": class["metadata"]["name"],
        "volumeMode": wanted["spec"]["volumeMode"],
        "mountOptions": class["mountOptions"],
        "volumeAttributesClassName": wanted["spec"]["volumeAttributesClassName"],
    });
    if driver == LOCAL {
        let node = node(claim, world)?;
        spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]},
        ]}]}});
        attributes[storage::NODE] = node.into();
    }
    spec["csi"] = json!({"driver": driver, "volumeHandle": name, "volumeAttributes": attributes});
    Ok(json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: driver}, "finalizers": [DATA_FINALIZER]},
        "spec": naming::plain(spec),
    }))
}

/// The node of a local volume: the one chosen for its first pod, else any that takes pods, by the claim's own lot.
fn node(claim: &Object, world: &dyn World) -> Result<String, Refusal> {
    if let Some(chosen) = claim.meta().annotations.get(SELECTED_NODE) {
        let is_there = world.get(&Key::new(&NODE, "", chosen)).is_some();
        return if is_there { Ok(chosen.to_owned()) } else { Err(Refusal::Node) };
    }
    let nodes = world.list(&NODE, "");
    let facts = nodes.iter().filter_map(Object::seen::<NodeFacts>);
    let takes_pods = facts.filter(|node| !node.is_unschedulable && node.taints.is_empty());
    let lot = |name: &str| naming::word(&[claim.uid(), name], 8);
    let drawn = takes_pods.min_by_key(|node| lot(&node.name)).map(|node| node.name.clone());
    drawn.ok_or_else(|| Refusal::Claim("no node takes pods now".to_owned()))
}
