//! Volumes and claims: binding what fits, by hand of an administrator's volumes, and keeping what is in use.
//!
//! A claim is bound to one volume and a volume to one claim: the volume is promised first, under the revision seen, so
//! two claims never get the same one. Nothing is deleted here: a volume whose claim is gone is released, no more.

use std::sync::Arc;

use model::fit::{NodeFacts, Term};
use model::kinds::{NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, STORAGE_CLASS, of};
use model::{
    Controller, EventNote, Key, Object, Plan, Precondition, Quantity, Selector, Time, Tree, Watch, World,
};
use serde_json::json;

use crate::naming;
use crate::pods::Pod;
use crate::status;

const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_US: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const OLD_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The provisioner of classes whose volumes are made by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The controller of claims.
pub static CLAIMS: Controller = Controller {
    name: "persistentvolumeclaim-binder-controller",
    primary: of::PERSISTENT_VOLUME_CLAIM,
    also: &[
        Watch { gvr: of::PERSISTENT_VOLUME, wakes: claims_of_volume },
        Watch { gvr: of::POD, wakes: claims_of_pod },
        Watch { gvr: of::STORAGE_CLASS, wakes: |_, world| waiting_claims(world) },
        Watch { gvr: of::NODE, wakes: model::controller::nobody },
    ],
    reconcile: claim,
};

/// The controller of volumes.
pub static VOLUMES: Controller = Controller {
    name: "persistentvolume-binder-controller",
    primary: of::PERSISTENT_VOLUME,
    also: &[Watch { gvr: of::PERSISTENT_VOLUME_CLAIM, wakes: volumes_of_claim }],
    reconcile: volume,
};

fn claim_key(namespace: &str, name: &str) -> Key {
    Key::new(&PERSISTENT_VOLUME_CLAIM, namespace, name)
}

/// The claim a volume is promised to, or every claim that waits for a volume.
fn claims_of_volume(volume: &Object, world: &dyn World) -> Vec<Key> {
    let tree = tree(volume);
    let promised = &tree["spec"]["claimRef"];
    match (promised["namespace"].as_str(), promised["name"].as_str()) {
        (Some(namespace), Some(name)) => vec![claim_key(namespace, name)],
        _ => waiting_claims(world),
    }
}

fn waiting_claims(world: &dyn World) -> Vec<Key> {
    let claims = world.list(&PERSISTENT_VOLUME_CLAIM, "");
    let waiting = claims.iter().filter(|claim| tree(claim)["status"]["phase"] != "Bound");
    waiting.map(|claim| claim_key(claim.namespace(), claim.name())).collect()
}

/// The ending claims of a pod: they may go once it has gone.
fn claims_of_pod(pod: &Object, world: &dyn World) -> Vec<Key> {
    let keys = claim_names(&Pod::read(pod.clone())).into_iter().map(|name| claim_key(pod.namespace(), &name));
    keys.filter(|key| world.get(key).is_some_and(|claim| claim.is_ending())).collect()
}

fn claim_names(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec().volumes.iter();
    let named = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.name(), volume.name)),
        (None, None) => None,
    });
    named.collect()
}

fn volumes_of_claim(claim: &Object, world: &dyn World) -> Vec<Key> {
    let volumes = world.list(&PERSISTENT_VOLUME, "");
    let promised =
        volumes.iter().filter(|volume| is_promised_to(&tree(volume), claim.namespace(), claim.name()));
    promised.map(|volume| Key::new(&PERSISTENT_VOLUME, "", volume.name())).collect()
}

fn is_promised_to(volume: &Tree, namespace: &str, name: &str) -> bool {
    let promised = &volume["spec"]["claimRef"];
    promised["namespace"] == namespace && promised["name"] == name
}

fn tree(object: &Object) -> Arc<Tree> {
    object.seen::<Tree>().unwrap_or_default()
}

/// What becomes of a claim: the first that applies.
enum Fate {
    /// It is going and nobody uses it.
    LetGo,
    /// It is going and in use, or bound and in order.
    Keep,
    /// Its volume is gone.
    Lose,
    /// This volume is to be its own.
    Bind(Object),
    /// It waits for its first pod.
    WaitForPod,
    /// Someone else makes its volume.
    Provision(String),
    /// There is no volume for it.
    Wait,
}

/// Decides on one claim.
fn claim(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(object) = world.get(key) else { return plan };
    match fate(world, &object) {
        Fate::Keep => {}
        Fate::LetGo => let_go(&mut plan, key, &object, CLAIM_PROTECTION, "no pod uses it"),
        Fate::Lose => status::write(&mut plan, key, &object, &json!({"phase": "Lost"}), "its volume is gone"),
        Fate::Bind(volume) => bind(&mut plan, key, &object, &volume),
        Fate::WaitForPod => wait(
            &mut plan,
            key,
            &object,
            "WaitForFirstConsumer",
            "waiting for first consumer to be created before binding",
        ),
        Fate::Provision(provisioner) => provision(&mut plan, key, &object, &provisioner),
        Fate::Wait => {
            let message = "no persistent volumes available for this claim and no storage class is set";
            wait(&mut plan, key, &object, "FailedBinding", message);
        }
    }
    plan
}

fn fate(world: &dyn World, object: &Object) -> Fate {
    let claim = tree(object);
    if object.is_ending() {
        let pods = Pod::all(world.list(&POD, object.namespace()));
        let uses =
            |pod: &Pod| !pod.node().is_empty() && claim_names(pod).iter().any(|name| name == object.name());
        let is_held = object.meta().finalizers.iter().any(|held| held == CLAIM_PROTECTION);
        return if is_held && !pods.iter().any(uses) { Fate::LetGo } else { Fate::Keep };
    }
    let named = claim["spec"]["volumeName"].as_str().unwrap_or_default();
    let is_bound = object.meta().annotations.contains_key(BIND_COMPLETED);
    if !named.is_empty() {
        let volume = world.get(&Key::new(&PERSISTENT_VOLUME, "", named));
        let is_ours = |volume: &Object| may_have(&tree(volume), object);
        return match volume {
            None if is_bound => Fate::Lose,
            Some(volume) if is_bound && !is_ours(&volume) => Fate::Lose,
            Some(volume) if is_ours(&volume) => Fate::Bind(volume),
            _ => Fate::Wait,
        };
    }
    let class = claim["spec"]["storageClassName"].as_str().unwrap_or_default();
    let class = world.get(&Key::new(&STORAGE_CLASS, "", class)).map(|class| tree(&class));
    let node = object.meta().annotations.get(SELECTED_NODE);
    let waits = class.as_ref().is_some_and(|class| class["volumeBindingMode"] == "WaitForFirstConsumer");
    match best(world, object, &claim, node) {
        Some(volume) if !waits || node.is_some() || may_have_promised(&volume, object) => Fate::Bind(volume),
        _ if waits && node.is_none() => Fate::WaitForPod,
        _ => match class.as_ref().and_then(|class| class["provisioner"].as_str()) {
            Some(provisioner) if provisioner != NO_PROVISIONER => Fate::Provision(provisioner.to_owned()),
            _ => Fate::Wait,
        },
    }
}

/// Whether the volume is promised to nobody else.
fn may_have(volume: &Tree, claim: &Object) -> bool {
    let promised = &volume["spec"]["claimRef"];
    let uid = promised["uid"].as_str().unwrap_or_default();
    promised.is_null()
        || (is_promised_to(volume, claim.namespace(), claim.name()) && (uid.is_empty() || uid == claim.uid()))
}

fn may_have_promised(volume: &Object, claim: &Object) -> bool {
    is_promised_to(&tree(volume), claim.namespace(), claim.name())
}

/// The volume that fits best: one that is promised to the claim, else the smallest that is large enough.
fn best(world: &dyn World, object: &Object, claim: &Tree, node: Option<&String>) -> Option<Object> {
    let node = node.and_then(|node| world.get(&Key::new(&NODE, "", node.as_str())));
    let node = node.and_then(|node| node.seen::<NodeFacts>());
    let volumes = world.list(&PERSISTENT_VOLUME, "");
    let fitting = volumes.into_iter().filter(|volume| {
        let tree = tree(volume);
        !volume.is_ending()
            && may_have(&tree, object)
            && fits(&tree, volume, claim)
            && reaches(&tree, node.as_deref())
    });
    fitting.min_by_key(|volume| {
        (
            !may_have_promised(volume, object),
            storage(&tree(volume)["spec"]["capacity"]),
            volume.name().to_owned(),
        )
    })
}

fn storage(amounts: &Tree) -> Quantity {
    amounts["storage"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn fits(volume: &Tree, object: &Object, claim: &Tree) -> bool {
    let (volume, claim) = (&volume["spec"], &claim["spec"]);
    let text = |tree: &Tree, field: &str, instead: &str| tree[field].as_str().unwrap_or(instead).to_owned();
    let modes = |tree: &Tree| tree["accessModes"].as_array().cloned().unwrap_or_default();
    let has = modes(volume);
    let selector = match &claim["selector"] {
        Tree::Null => Selector::everything(),
        selector => Selector::of_tree(Some(selector)).unwrap_or_else(|_| Selector::nothing()),
    };
    text(volume, "storageClassName", "") == text(claim, "storageClassName", "")
        && text(volume, "volumeMode", "Filesystem") == text(claim, "volumeMode", "Filesystem")
        && modes(claim).iter().all(|mode| has.contains(mode))
        && storage(&volume["capacity"]) >= storage(&claim["resources"]["requests"])
        && selector.matches(&object.meta().labels)
}

/// Whether the node, where one was chosen, can reach the volume.
fn reaches(volume: &Tree, node: Option<&NodeFacts>) -> bool {
    let required = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    let (Some(node), Some(terms)) = (node, required.as_array()) else { return true };
    let read = terms.iter().filter_map(|term| serde_json::from_value(naming::plain(term.clone())).ok());
    read.map(|term| Term::read(&term)).any(|term| term.matches(node))
}

/// One step a pass: the volume's promise, the claim's choice, the claim's status.
fn bind(plan: &mut Plan, key: &Key, object: &Object, volume: &Object) {
    let (claim, known) = (tree(object), tree(volume));
    if known["spec"]["claimRef"]["uid"] != object.uid() {
        let promise = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": object.namespace(),
            "name": object.name(), "uid": object.uid(), "resourceVersion": object.meta().resource_version,
        });
        let mut patch = json!({"spec": {"claimRef": promise}});
        if known["spec"]["claimRef"].is_null() {
            patch["metadata"]["annotations"][BOUND_BY_US] = "yes".into();
        }
        let volume_key = Key::new(&PERSISTENT_VOLUME, "", volume.name());
        plan.patch(volume_key, "", patch, Precondition::exactly(volume), "it fits a claim that waits");
        return;
    }
    if claim["spec"]["volumeName"] != volume.name() || !object.meta().annotations.contains_key(BIND_COMPLETED)
    {
        let mut patch = json!({"metadata": {"annotations": {BIND_COMPLETED: "yes"}}});
        if claim["spec"]["volumeName"].as_str().is_none_or(str::is_empty) {
            patch["spec"]["volumeName"] = volume.name().into();
            patch["metadata"]["annotations"][BOUND_BY_US] = "yes".into();
        }
        plan.patch(key.clone(), "", patch, Precondition::exactly(object), "a volume is promised to it");
        return;
    }
    let wanted = json!({
        "phase": "Bound", "accessModes": known["spec"]["accessModes"], "capacity": known["spec"]["capacity"],
    });
    status::write(plan, key, object, &wanted, "it is bound");
}

fn wait(plan: &mut Plan, key: &Key, object: &Object, reason: &str, message: &str) {
    status::write(plan, key, object, &json!({"phase": "Pending"}), "it waits");
    plan.tell(EventNote::normal(object, &PERSISTENT_VOLUME_CLAIM, "PersistentVolumeClaim", reason, message));
}

/// Tells whoever makes volumes of this class that one is wanted.
fn provision(plan: &mut Plan, key: &Key, object: &Object, provisioner: &str) {
    if object.meta().annotations.get(PROVISIONER).is_none_or(|known| known != provisioner) {
        let patch =
            json!({"metadata": {"annotations": {PROVISIONER: provisioner, OLD_PROVISIONER: provisioner}}});
        plan.patch(key.clone(), "", patch, Precondition::exactly(object), "its class has a provisioner");
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        let kind = "PersistentVolumeClaim";
        plan.tell(EventNote::normal(object, &PERSISTENT_VOLUME_CLAIM, kind, "ExternalProvisioning", message));
    }
}

fn let_go(plan: &mut Plan, key: &Key, object: &Object, finalizer: &str, why: &str) {
    let left: Vec<&String> = object.meta().finalizers.iter().filter(|held| *held != finalizer).collect();
    let patch = json!({"metadata": {"finalizers": left}});
    plan.patch(key.clone(), "", patch, Precondition::exactly(object), why);
}

/// Decides on one volume.
fn volume(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(object) = world.get(key) else { return plan };
    let volume = tree(&object);
    let phase = phase(world, &volume);
    if object.is_ending() && phase != "Bound" {
        if object.meta().finalizers.iter().any(|held| held == VOLUME_PROTECTION) {
            let_go(&mut plan, key, &object, VOLUME_PROTECTION, "no claim is bound to it");
        }
        return plan;
    }
    status::write(&mut plan, key, &object, &json!({"phase": phase}), "its claim changed");
    plan
}

fn phase(world: &dyn World, volume: &Tree) -> &'static str {
    let promised = &volume["spec"]["claimRef"];
    let Some(uid) = promised["uid"].as_str().filter(|uid| !uid.is_empty()) else { return "Available" };
    let text = |field: &str| promised[field].as_str().unwrap_or_default();
    match world.get(&claim_key(text("namespace"), text("name"))) {
        Some(claim) if claim.uid() == uid => "Bound",
        // The cache of claims may lag behind the promise; a claim that comes to be seen puts this right.
        _ => "Released",
    }
}

#[cfg(test)]
mod tests {
    use model::tiny::{TinyWorld, at, check};

    use super::*;

    const CLAIM: &str = r#"persistentvolumeclaims data metadata.finalizers=["kubernetes.io/pvc-protection"] spec.accessModes=["ReadWriteOnce"] spec.resources.requests.storage=5Gi
        "#;
    const BIG: &str = r#"persistentvolumes big spec.accessModes=["ReadWriteOnce"] spec.capacity.storage=10Gi
        "#;

    fn key() -> Key {
        claim_key("default", "data")
    }

    fn settle(world: &mut TinyWorld) {
        for _ in 0..4 {
            world.settle(6, at(5), |world| claim(&key(), world, at(5)));
            for object in world.list(&PERSISTENT_VOLUME, "") {
                let key = Key::new(&PERSISTENT_VOLUME, "", object.name());
                world.settle(6, at(5), |world| volume(&key, world, at(5)));
            }
        }
    }

    fn phase_of(world: &TinyWorld, key: &Key) -> String {
        world
            .tree(key)
            .map(|tree| tree["status"]["phase"].as_str().unwrap_or_default().to_owned())
            .unwrap_or_default()
    }

    #[test]
    fn a_claim_gets_the_smallest_volume_that_is_large_enough() {
        let text = format!(
            r#"{CLAIM}{BIG}persistentvolumes small spec.accessModes=["ReadWriteOnce"] spec.capacity.storage=1Gi
               persistentvolumes right spec.accessModes=["ReadWriteOnce","ReadOnlyMany"] spec.capacity.storage=5Gi
               persistentvolumes other spec.storageClassName=fast spec.accessModes=["ReadWriteOnce"] spec.capacity.storage=5Gi"#
        );
        let mut world = TinyWorld::read(&text);
        settle(&mut world);
        assert_eq!(world.tree(&key()).expect("a claim")["spec"]["volumeName"], "right");
        assert_eq!(phase_of(&world, &key()), "Bound");
        assert_eq!(phase_of(&world, &Key::new(&PERSISTENT_VOLUME, "", "right")), "Bound");
        assert_eq!(phase_of(&world, &Key::new(&PERSISTENT_VOLUME, "", "big")), "Available");
        world.drop(&key());
        settle(&mut world);
        assert_eq!(phase_of(&world, &Key::new(&PERSISTENT_VOLUME, "", "right")), "Released");
    }

    #[test]
    fn a_claim_of_a_waiting_class_waits_for_its_pod() {
        let class = "storageclasses local volumeBindingMode=WaitForFirstConsumer provisioner=kubernetes.io/no-provisioner\n";
        let waiting = CLAIM.replace("spec.resources", "spec.storageClassName=local spec.resources");
        let volume = BIG.replace("spec.capacity", "spec.storageClassName=local spec.capacity");
        check(
            &format!("{waiting}{volume}{class}"),
            5,
            |world: &dyn World, now| claim(&key(), world, now),
            r#"patch persistentvolumeclaims data/status {"status":{"phase":"Pending"}} # it waits ! WaitForFirstConsumer waiting for first consumer to be created before binding"#,
        );
        let chosen = waiting.replace(
            "spec.access",
            "metadata.annotations.[volume.kubernetes.io/selected-node]=n spec.access",
        );
        check(
            &format!("{chosen}{volume}{class}nodes n"),
            5,
            |world: &dyn World, now| claim(&key(), world, now),
            r#"patch persistentvolumes big {"spec":{"claimRef":{"name":"data"}}}"#,
        );
    }

    #[test]
    fn a_claim_in_use_stays_until_its_pods_are_gone() {
        let ending = CLAIM.replace("data ", "data ending@1 ");
        let pod = r#"pods a on=n spec.volumes=[{"name":"v","persistentVolumeClaim":{"claimName":"data"}}]"#;
        let decide = |world: &dyn World, now: Time| claim(&key(), world, now);
        check(&format!("{ending}{pod}"), 5, decide, "");
        check(&ending, 5, decide, r#"patch persistentvolumeclaims data {"metadata":{"finalizers":[]}}"#);
    }
}
