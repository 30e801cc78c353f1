//! Attaching and detaching: which volume is to be on which node, as VolumeAttachments.
//!
//! When nothing changes any more, each volume that has to be attached is so on exactly the nodes whose pods use it, and
//! an exclusive one on one node at most. A volume leaves a node only when it is proven that nobody there writes to it
//! any more: see [`super::proof`]. Time alone proves nothing.

use std::collections::{BTreeMap, BTreeSet};

use model::kinds::{
    CSI_DRIVER, LEASE, NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, VOLUME_ATTACHMENT, of,
};
use model::storage::{self, ATTACHED_FINALIZER};
use model::{Controller, EventNote, Key, Object, Plan, Precondition, Time, Tree, Watch, World};
use serde_json::json;

use super::{claim_names, let_go, proof, tree};
use crate::node_lifecycle::LEASES;
use crate::pods::Pod;
use crate::status;

/// The controller of attachments; its keys are volumes.
pub static CONTROLLER: Controller = Controller {
    name: "attachdetach-controller",
    primary: of::PERSISTENT_VOLUME,
    also: &[
        Watch { gvr: of::POD, wakes: volumes_of_pod },
        Watch {
            gvr: of::VOLUME_ATTACHMENT,
            wakes: |attachment, _| vec![volume_key(volume_of(&tree(attachment)))],
        },
        Watch {
            gvr: of::PERSISTENT_VOLUME_CLAIM,
            wakes: |claim, _| volume_of_claim(claim).into_iter().collect(),
        },
        Watch { gvr: of::NODE, wakes: |node, world| volumes_on(node.name(), world) },
        Watch { gvr: of::LEASE, wakes: volumes_of_lost },
        Watch { gvr: of::CSI_DRIVER, wakes: model::controller::nobody },
    ],
    reconcile,
};

/// Tells each node's status what is attached to it.
pub static NODES: Controller = Controller {
    name: "attachdetach-node-controller",
    primary: of::NODE,
    also: &[
        Watch { gvr: of::VOLUME_ATTACHMENT, wakes: node_of },
        Watch { gvr: of::PERSISTENT_VOLUME, wakes: model::controller::nobody },
    ],
    reconcile: tell_node,
};

fn volume_key(name: &str) -> Key {
    Key::new(&PERSISTENT_VOLUME, "", name)
}

fn volume_of(attachment: &Tree) -> &str {
    attachment["spec"]["source"]["persistentVolumeName"].as_str().unwrap_or_default()
}

fn node_name(attachment: &Tree) -> &str {
    attachment["spec"]["nodeName"].as_str().unwrap_or_default()
}

fn node_of(attachment: &Object, _: &dyn World) -> Vec<Key> {
    vec![Key::new(&NODE, "", node_name(&tree(attachment)))]
}

fn volume_of_claim(claim: &Object) -> Option<Key> {
    tree(claim)["spec"]["volumeName"].as_str().filter(|name| !name.is_empty()).map(volume_key)
}

fn volumes_of_pod(pod: &Object, world: &dyn World) -> Vec<Key> {
    let pod = Pod::read(pod.clone());
    if pod.node().is_empty() {
        return Vec::new();
    }
    let claim = |name: &str| world.get(&Key::new(&PERSISTENT_VOLUME_CLAIM, pod.object.namespace(), name));
    claim_names(&pod).iter().filter_map(|name| volume_of_claim(&claim(name)?)).collect()
}

/// The volumes attached to a node.
fn volumes_on(node: &str, world: &dyn World) -> Vec<Key> {
    let all = world.list(&VOLUME_ATTACHMENT, "");
    let here = all.iter().map(tree).filter(|attachment| node_name(attachment) == node);
    here.map(|attachment| volume_key(volume_of(&attachment))).collect()
}

/// The volumes attached to a node whose lease is lost.
fn volumes_of_lost(lease: &Object, world: &dyn World) -> Vec<Key> {
    let is_lost = lease.namespace() == LEASES && proof::is_lost(lease);
    if is_lost { volumes_on(lease.name(), world) } else { Vec::new() }
}

/// All that is known of one volume.
struct Seen<'w> {
    world: &'w dyn World,
    name: &'w str,
    driver: String,
    handle: String,
    /// Whether it is to be on one node at a time.
    is_exclusive: bool,
    /// The pods that want it, by node, those of the first to ask first.
    wanted: BTreeMap<String, Vec<Pod>>,
    attachments: Vec<Object>,
}

/// Decides on one volume.
fn reconcile(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(seen) = see(key, world) else { return plan };
    for attachment in &seen.attachments {
        let known = tree(attachment);
        if seen.wanted.contains_key(node_name(&known)) && !attachment.is_ending() {
            tell_users(&mut plan, &seen, &known);
        } else {
            release(&mut plan, &seen, attachment, &known);
        }
    }
    let mut taken: BTreeSet<String> =
        seen.attachments.iter().map(|attachment| node_name(&tree(attachment)).to_owned()).collect();
    let mut waiting: Vec<&String> = seen.wanted.keys().filter(|node| !taken.contains(*node)).collect();
    waiting
        .sort_by_key(|node| seen.wanted[*node].iter().map(|pod| pod.object.meta().creation_timestamp).min());
    for node in waiting {
        if seen.is_exclusive && !taken.is_empty() {
            say_taken(&mut plan, &seen, node);
            continue;
        }
        attach(&mut plan, &seen, node);
        taken.insert(node.clone());
    }
    plan
}

fn see<'w>(key: &'w Key, world: &'w dyn World) -> Option<Seen<'w>> {
    let mut attachments = world.list(&VOLUME_ATTACHMENT, "");
    attachments.retain(|attachment| volume_of(&tree(attachment)) == key.name);
    let volume = world.get(key).map(|volume| tree(&volume));
    let spec = volume.as_deref().map(|volume| &volume["spec"]);
    let text = |field: &str| spec.and_then(|spec| spec["csi"][field].as_str()).unwrap_or_default().to_owned();
    let (driver, handle) = (text("driver"), text("volumeHandle"));
    let mut seen = Seen {
        world,
        name: &key.name,
        is_exclusive: spec.is_none_or(|spec| storage::is_exclusive(&spec["accessModes"])),
        wanted: BTreeMap::new(),
        attachments,
        driver,
        handle,
    };
    if seen.driver.is_empty() || !is_attached(world, &seen.driver) {
        // Nothing of ours, or of a driver that no longer attaches: what is left goes.
        return (!seen.attachments.is_empty()).then_some(seen);
    }
    let claim = &spec?["claimRef"];
    let text = |field: &str| claim[field].as_str().unwrap_or_default();
    let object = world.get(&Key::new(&PERSISTENT_VOLUME_CLAIM, text("namespace"), text("name")));
    let is_bound = object.is_some_and(|object| {
        object.uid() == text("uid") && tree(&object)["spec"]["volumeName"] == key.name.as_str()
    });
    if is_bound {
        let pods = Pod::all(world.list(&POD, text("namespace"))).into_iter();
        let uses = |pod: &Pod| claim_names(pod).iter().any(|name| name == text("name"));
        for pod in pods.filter(|pod| !pod.node().is_empty() && !pod.is_terminal() && uses(pod)) {
            seen.wanted.entry(pod.node().to_owned()).or_default().push(pod);
        }
    }
    Some(seen)
}

fn is_attached(world: &dyn World, driver: &str) -> bool {
    let known = world.get(&Key::new(&CSI_DRIVER, "", driver));
    known.is_none_or(|known| tree(&known)["spec"]["attachRequired"] != false)
}

fn lease_of(world: &dyn World, node: &str) -> Option<Object> {
    world.get(&Key::new(&LEASE, LEASES, node))
}

fn attach(plan: &mut Plan, seen: &Seen<'_>, node: &str) {
    let mut meta = json!({"name": storage::attachment_name(&seen.driver, &seen.handle, node)});
    if storage::is_built_in(&seen.driver) {
        meta["finalizers"] = json!([ATTACHED_FINALIZER]);
    }
    if let Some(epoch) = lease_of(seen.world, node).as_ref().and_then(proof::epoch_of) {
        meta["annotations"] = json!({model::fence::EPOCH: epoch});
    }
    let object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": meta,
        "spec": {"attacher": seen.driver, "nodeName": node, "source": {"persistentVolumeName": seen.name}},
    });
    plan.create(&VOLUME_ATTACHMENT, "", object, "a pod there uses the volume");
}

/// Lets go of what nobody there wants any more, as far as that is proven.
fn release(plan: &mut Plan, seen: &Seen<'_>, attachment: &Object, known: &Tree) {
    let node = node_name(known);
    let object = seen.world.get(&Key::new(&NODE, "", node));
    let given = proof::Given {
        attachment,
        node: object.as_ref(),
        lease: lease_of(seen.world, node).as_ref(),
        volume: &storage::unique_name(&seen.driver, &seen.handle),
    }
    .proof();
    let key = Key::new(&VOLUME_ATTACHMENT, "", attachment.name());
    let is_held = attachment.meta().finalizers.iter().any(|held| held == ATTACHED_FINALIZER);
    // Attachments that somebody made by hand or for a purpose of their own are theirs to delete.
    let is_ours = is_held || attachment.name().starts_with(storage::ATTACHMENT_PREFIX);
    match (attachment.is_ending(), given) {
        (false, given) if is_ours && (is_held || given.is_some()) => {
            // Of a built-in driver's attachment this asks the node only: its finalizer is the node's word.
            plan.delete(
                key,
                Precondition::exactly(attachment),
                given.unwrap_or("no pod there uses the volume"),
            );
        }
        (true, Some(why)) if is_held => let_go(plan, &key, attachment, ATTACHED_FINALIZER, why),
        _ => {}
    }
}

fn say_taken(plan: &mut Plan, seen: &Seen<'_>, node: &str) {
    let others = seen.wanted.iter().filter(|(other, _)| *other != node).flat_map(|(_, pods)| pods);
    let names: Vec<&str> = others.map(Pod::name).collect();
    let why = if names.is_empty() {
        "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
    } else {
        format!("Volume is already used by pod(s) {}", names.join(", "))
    };
    let message = format!("Multi-Attach error for volume \"{}\" {why}", seen.name);
    for pod in &seen.wanted[node] {
        plan.say(
            EventNote::normal(&pod.object, &POD, "Pod", "FailedAttachVolume", message.clone()).warning(),
        );
    }
}

/// Tells the pods that wait for an attachment how it went.
fn tell_users(plan: &mut Plan, seen: &Seen<'_>, known: &Tree) {
    let error = known["status"]["attachError"]["message"].as_str();
    let is_done = known["status"]["attached"] == true;
    let waits = |pod: &&Pod| tree(&pod.object)["status"]["phase"] == "Pending";
    for pod in seen.wanted.get(node_name(known)).into_iter().flatten().filter(waits) {
        let note =
            |reason: &str, message: String| EventNote::normal(&pod.object, &POD, "Pod", reason, message);
        let name = seen.name;
        match error {
            _ if is_done => plan.say(note(
                "SuccessfulAttachVolume",
                format!("AttachVolume.Attach succeeded for volume \"{name}\""),
            )),
            Some(why) => plan.say(
                note(
                    "FailedAttachVolume",
                    format!("AttachVolume.Attach failed for volume \"{name}\" : {why}"),
                )
                .warning(),
            ),
            None => {}
        }
    }
}

fn tell_node(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = world.get(key) else { return plan };
    let all = world.list(&VOLUME_ATTACHMENT, "");
    let here =
        all.iter().map(tree).filter(|one| node_name(one) == key.name && one["status"]["attached"] == true);
    let names: BTreeSet<String> = here.filter_map(|attachment| unique_name(world, &attachment)).collect();
    let attached: Vec<Tree> = names.iter().map(|name| json!({"name": name, "devicePath": ""})).collect();
    let attached = if attached.is_empty() { Tree::Null } else { attached.into() };
    status::write(
        &mut plan,
        key,
        &node,
        &json!({"volumesAttached": attached}),
        "what is attached to it changed",
    );
    plan
}

fn unique_name(world: &dyn World, attachment: &Tree) -> Option<String> {
    let volume = tree(&world.get(&volume_key(volume_of(attachment)))?);
    let source = &volume["spec"]["csi"];
    Some(storage::unique_name(source["driver"].as_str()?, source["volumeHandle"].as_str()?))
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    const NODES_TEXT: &str = "nodes a\n nodes b\n";
    const VOLUME: &str = r#"persistentvolumes v spec.accessModes=["ReadWriteOnce"] spec.claimRef={"namespace":"default","name":"data","uid":"persistentvolumeclaims-data"} spec.csi={"driver":"shared.kintsugi.dev","volumeHandle":"h"}
        persistentvolumeclaims data spec.volumeName=v
        "#;

    fn pod(name: &str, node: &str) -> String {
        format!(
            r#"pods {name} on={node} spec.volumes=[{{"name":"d","persistentVolumeClaim":{{"claimName":"data"}}}}]
        "#
        )
    }

    fn attachment(node: &str, more: &str) -> String {
        format!(
            r#"volumeattachments x {more} metadata.finalizers=["volumes.kintsugi.dev/attached"] spec={{"attacher":"shared.kintsugi.dev","nodeName":"{node}","source":{{"persistentVolumeName":"v"}}}}
        "#
        )
    }

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&volume_key("v"), world, now)
    }

    #[test]
    fn a_volume_is_attached_to_the_node_of_its_pod() {
        check(
            &format!("{NODES_TEXT}{VOLUME}{}", pod("p", "a")),
            5,
            decide,
            r#"create volumeattachments csi-* {"spec":{"attacher":"shared.kintsugi.dev","nodeName":"a","source":{"persistentVolumeName":"v"}}}"#,
        );
        check(&format!("{NODES_TEXT}{VOLUME}"), 5, decide, "");
        let ours = attachment("a", "status.attached=true");
        check(
            &format!("{NODES_TEXT}{VOLUME}{}{ours}", pod("p", "a").replace("on=a", "on=a pending")),
            5,
            decide,
            "say pods p ! SuccessfulAttachVolume AttachVolume.Attach succeeded for volume \"v\"",
        );
    }

    #[test]
    fn an_exclusive_volume_is_on_one_node_at_a_time() {
        let ours = attachment("a", "status.attached=true");
        let running = pod("p", "a").replace("on=a", "on=a ready");
        check(
            &format!("{NODES_TEXT}{VOLUME}{running}{}{ours}", pod("q", "b")),
            5,
            decide,
            "say pods q ! FailedAttachVolume Multi-Attach error for volume \"v\" Volume is already used by pod(s) p",
        );
        let many = VOLUME.replace("ReadWriteOnce", "ReadWriteMany");
        check(
            &format!("{NODES_TEXT}{many}{running}{}{ours}", pod("q", "b")),
            5,
            decide,
            r#"create volumeattachments csi-* {"spec":{"nodeName":"b"}}"#,
        );
    }

    #[test]
    fn a_volume_is_asked_back_when_its_pod_is_gone_and_taken_only_on_proof() {
        let ours = attachment("a", "status.attached=true");
        check(&format!("{NODES_TEXT}{VOLUME}{ours}"), 5, decide, "delete volumeattachments x");
        let ending = attachment("a", "ending@4 status.attached=true");
        check(&format!("{NODES_TEXT}{VOLUME}{ending}"), 500, decide, "");
        let waits = format!("{VOLUME}{ending}{}", pod("q", "b"));
        check(
            &format!("{NODES_TEXT}{waits}"),
            500,
            decide,
            "say pods q ! FailedAttachVolume Multi-Attach error for volume \"v\" Volume is already exclusively attached to one node and can't be attached to another",
        );
        let out = r#"nodes a spec.taints=[{"key":"node.kubernetes.io/out-of-service","effect":"NoExecute"}]
            nodes b
            "#;
        check(
            &format!("{out}{VOLUME}{ending}"),
            5,
            decide,
            r#"patch volumeattachments x {"metadata":{"finalizers":[]}} # its node is out of service"#,
        );
        let lost = "leases kube-node-lease/a metadata.annotations.[healing.kintsugi.dev/lease-state]=Lost\n";
        check(
            &format!("{NODES_TEXT}{VOLUME}{lost}{ending}"),
            5,
            decide,
            r#"patch volumeattachments x {"metadata":{"finalizers":[]}} # its node's lease is lost"#,
        );
    }

    #[test]
    fn another_drivers_volume_is_let_go_when_its_node_says_that_nobody_uses_it() {
        let theirs = |text: &str| {
            text.replace("shared.kintsugi.dev", "other")
                .replace(r#" metadata.finalizers=["volumes.kintsugi.dev/attached"]"#, "")
                .replace("volumeattachments x", "volumeattachments csi-x")
        };
        let ours = theirs(&attachment("a", "status.attached=true"));
        let volume = theirs(VOLUME);
        let uses = "nodes a status.volumesInUse=[\"kubernetes.io/csi/other^h\"]\n";
        check(&format!("{uses}{volume}{ours}"), 500, decide, "");
        check(&format!("nodes a\n {volume}{ours}"), 5, decide, "delete volumeattachments csi-x");
        let by_hand = ours.replace("csi-x", "made-by-hand");
        check(&format!("nodes a\n {volume}{by_hand}"), 5, decide, "");
        let silent = "nodes a status.conditions=[{\"type\":\"Ready\",\"status\":\"Unknown\"}]\n";
        check(&format!("{silent}{volume}{ours}"), 500, decide, "");
        let lost = "leases kube-node-lease/a metadata.annotations.[healing.kintsugi.dev/lease-state]=Lost\n";
        check(
            &format!("{silent}{lost}{volume}{ours}"),
            5,
            decide,
            "delete volumeattachments csi-x # its node's lease is lost",
        );
    }

    #[test]
    fn a_node_is_told_what_is_attached_to_it() {
        let ours = attachment("a", "status.attached=true");
        let tell = |world: &dyn World, now: Time| tell_node(&Key::new(&NODE, "", "a"), world, now);
        let wanted = r#"patch nodes a/status {"status":{"volumesAttached":[{"name":"kubernetes.io/csi/shared.kintsugi.dev^h"}]}}"#;
        check(&format!("{NODES_TEXT}{VOLUME}{ours}"), 5, tell, wanted);
        check(&format!("{NODES_TEXT}{VOLUME}"), 5, tell, "");
    }
}
