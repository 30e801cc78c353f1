//! Volumes and claims: binding what fits, having made what does not exist yet, keeping what is in use, and letting go.
//!
//! A claim is bound to one volume and a volume to one claim: the volume is promised first, under the revision seen, so
//! two claims never get the same one. A released volume goes where its policy says so; its data are removed by whoever
//! holds the volume's finalizer, never here.

use std::sync::Arc;

use model::fit::NodeFacts;
use model::kinds::{NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, STORAGE_CLASS, of};
use model::storage::{
    self, NO_PROVISIONER, SELECTED_NODE, VOLUME_PROTECTION, amount, fits, is_promised_to, may_have, reaches,
};
use model::{Controller, EventNote, Key, Object, Plan, Precondition, Time, Tree, Watch, World, time};
use serde_json::json;

use crate::pods::Pod;
use crate::status;

pub mod attach;
pub mod ephemeral;
mod grow;
mod proof;
mod reclaim;
mod supply;

const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_US: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const OLD_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";

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
    also: &[
        Watch { gvr: of::PERSISTENT_VOLUME_CLAIM, wakes: volumes_of_claim },
        Watch { gvr: of::NODE, wakes: reclaim::volumes_of_node },
    ],
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

pub(crate) fn claim_names(pod: &Pod) -> Vec<String> {
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
    /// A built-in driver makes its volume, for this class.
    Supply(Arc<Tree>),
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
        Fate::Supply(class) => supply::make(&mut plan, key, &object, &class, world),
        Fate::Wait => {
            let message =
                match tree(&object)["spec"]["storageClassName"].as_str().filter(|class| !class.is_empty()) {
                    Some(class) if world.get(&Key::new(&STORAGE_CLASS, "", class)).is_none() => {
                        format!("storageclass.storage.k8s.io \"{class}\" not found")
                    }
                    _ => "no persistent volumes available for this claim and no storage class is set"
                        .to_owned(),
                };
            wait(&mut plan, key, &object, "FailedBinding", &message);
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
            Some(provisioner) if storage::is_built_in(provisioner) => {
                class.clone().map_or(Fate::Wait, Fate::Supply)
            }
            Some(provisioner) if provisioner != NO_PROVISIONER => Fate::Provision(provisioner.to_owned()),
            _ => Fate::Wait,
        },
    }
}

fn may_have_promised(volume: &Object, claim: &Object) -> bool {
    is_promised_to(&tree(volume), claim.namespace(), claim.name())
}

/// The volume that fits best: one that is promised to the claim, else the smallest that is large enough.
fn best(world: &dyn World, object: &Object, claim: &Tree, node: Option<&str>) -> Option<Object> {
    let node = node.and_then(|node| world.get(&Key::new(&NODE, "", node)));
    let node = node.and_then(|node| node.seen::<NodeFacts>());
    let volumes = world.list(&PERSISTENT_VOLUME, "");
    let fitting = volumes.into_iter().filter(|volume| {
        let tree = tree(volume);
        !volume.is_ending()
            && may_have(&tree, object)
            && fits(&tree, volume, claim)
            && node.as_deref().is_none_or(|node| reaches(&tree, node))
    });
    fitting.min_by_key(|volume| {
        (
            !may_have_promised(volume, object),
            amount(&tree(volume)["spec"]["capacity"]),
            volume.name().to_owned(),
        )
    })
}

/// One step a pass: the volume's promise, the claim's choice, the claim's status.
fn bind(plan: &mut Plan, key: &Key, object: &Object, volume: &Object) {
    let (claim, known) = (tree(object), tree(volume));
    if known["spec"]["claimRef"]["uid"] != object.uid() {
        let promise = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": object.namespace(),
            "name": object.name(), "uid": object.uid(), "resourceVersion": object.meta().resource_version(),
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
    if grow::wants_more(&claim, &known) && grow::grow(plan, object, volume, &claim, &known) {
        return;
    }
    let mut wanted = json!({"phase": "Bound", "accessModes": known["spec"]["accessModes"]});
    // Later on the size of another driver's volume is told by whoever grew it.
    if claim["status"]["phase"] != "Bound" || claim["status"]["capacity"].is_null() || grow::is_ours(&known) {
        wanted["capacity"] = known["spec"]["capacity"].clone();
    }
    // A class of attributes comes with the volume; later on it is told by whoever changed it.
    let class = &known["spec"]["volumeAttributesClassName"];
    if class.as_str().is_some_and(|class| !class.is_empty())
        && claim["status"]["currentVolumeAttributesClassName"].is_null()
    {
        wanted["currentVolumeAttributesClassName"] = class.clone();
    }
    status::write(plan, key, object, &wanted, "it is bound");
}

fn wait(plan: &mut Plan, key: &Key, object: &Object, reason: &str, message: &str) {
    status::write(plan, key, object, &json!({"phase": "Pending"}), "it waits");
    plan.say(about(object, reason, message));
}

/// News of a claim.
fn about(claim: &Object, reason: &str, message: impl Into<String>) -> EventNote {
    EventNote::normal(claim, &PERSISTENT_VOLUME_CLAIM, "PersistentVolumeClaim", reason, message)
}

/// Tells whoever makes volumes of this class that one is wanted.
fn provision(plan: &mut Plan, key: &Key, object: &Object, provisioner: &str) {
    if object.meta().annotations.get(PROVISIONER).is_none_or(|known| known != provisioner) {
        let patch =
            json!({"metadata": {"annotations": {PROVISIONER: provisioner, OLD_PROVISIONER: provisioner}}});
        plan.patch(key.clone(), "", patch, Precondition::exactly(object), "its class has a provisioner");
    }
    let message = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
         system administrator. If volume creation is delayed, please verify that the provisioner is running and \
         correctly registered."
    );
    plan.say(about(object, "ExternalProvisioning", message));
}

fn let_go(plan: &mut Plan, key: &Key, object: &Object, finalizer: &str, why: &str) {
    let left: Vec<&String> = object.meta().finalizers.iter().filter(|held| *held != finalizer).collect();
    let patch = json!({"metadata": {"finalizers": left}});
    plan.patch(key.clone(), "", patch, Precondition::exactly(object), why);
}

/// Decides on one volume.
fn volume(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(object) = world.get(key) else { return plan };
    let volume = tree(&object);
    let phase = phase(world, &volume);
    if object.is_ending() && phase != "Bound" {
        match object.meta().finalizers.iter().any(|held| held == VOLUME_PROTECTION) {
            true => let_go(&mut plan, key, &object, VOLUME_PROTECTION, "no claim is bound to it"),
            false => reclaim::give_up(&mut plan, key, &object, &volume, world),
        }
        return plan;
    }
    match reclaim::fate(&object, &volume, phase) {
        reclaim::Fate::Stay => say_phase(&mut plan, key, &object, phase, "", now),
        reclaim::Fate::Fail { reason, message } => {
            say_phase(&mut plan, key, &object, "Failed", &message, now);
            plan.say(
                EventNote::normal(&object, &PERSISTENT_VOLUME, "PersistentVolume", reason, message).warning(),
            );
        }
        reclaim::Fate::Go => {
            say_phase(&mut plan, key, &object, phase, "", now);
            plan.delete(
                key.clone(),
                Precondition::same(&object),
                "its claim is gone, and its policy is to delete it",
            );
        }
    }
    plan
}

fn say_phase(plan: &mut Plan, key: &Key, object: &Object, phase: &str, message: &str, now: Time) {
    let known = &tree(object)["status"];
    let since = match known["phase"] == phase {
        true => known["lastPhaseTransitionTime"].clone(),
        false => time::seconds(now).into(),
    };
    let message = if message.is_empty() { Tree::Null } else { message.into() };
    let wanted = json!({"phase": phase, "message": message, "lastPhaseTransitionTime": since});
    status::write(plan, key, object, &wanted, "its claim changed");
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
            r#"patch persistentvolumeclaims data/status {"status":{"phase":"Pending"}} # it waits
               say persistentvolumeclaims data ! WaitForFirstConsumer waiting for first consumer to be created before binding"#,
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

    const CLASS: &str = "storageclasses local provisioner=local.kintsugi.dev reclaimPolicy=Delete volumeBindingMode=WaitForFirstConsumer allowVolumeExpansion=true\n";

    fn wanted(more: &str) -> String {
        let selected = "metadata.annotations.[volume.kubernetes.io/selected-node]=n spec.access";
        let claim = CLAIM.replace("spec.resources", "spec.storageClassName=local spec.resources");
        format!("{CLASS}{}{more}", claim.replace("spec.access", selected))
    }

    #[test]
    fn a_built_in_driver_makes_a_volume_on_the_node_that_was_chosen() {
        let decide = |world: &dyn World, now: Time| claim(&key(), world, now);
        check(
            &wanted("nodes n"),
            5,
            decide,
            r#"create persistentvolumes pvc-persistentvolumeclaims-data {"metadata":{"annotations":{"pv.kubernetes.io/provisioned-by":"local.kintsugi.dev"},"finalizers":["volumes.kintsugi.dev/data"]},"spec":{"capacity":{"storage":"5Gi"},"persistentVolumeReclaimPolicy":"Delete","csi":{"driver":"local.kintsugi.dev","volumeAttributes":{"node":"n"}},"claimRef":{"name":"data","uid":"persistentvolumeclaims-data"}}}"#,
        );
        check(
            &wanted("nodes m"),
            5,
            decide,
            r#"patch persistentvolumeclaims data {"metadata":{"annotations":{"volume.kubernetes.io/selected-node":null}}} # the node chosen for it is gone"#,
        );
        let many = wanted("nodes n").replace("ReadWriteOnce", "ReadWriteMany");
        check(
            &many,
            5,
            decide,
            r#"say persistentvolumeclaims data ! ProvisioningFailed failed to provision volume with StorageClass "local": a volume of local.kintsugi.dev is on one node: it can be ReadWriteOnce or ReadWriteOncePod"#,
        );
    }

    #[test]
    fn a_made_volume_is_bound_grows_with_its_claim_and_goes_with_it() {
        let mut world = TinyWorld::read(&wanted("nodes n labels=kubernetes.io/hostname:n"));
        settle(&mut world);
        let name = Key::new(&PERSISTENT_VOLUME, "", "pvc-persistentvolumeclaims-data");
        assert_eq!((phase_of(&world, &key()), phase_of(&world, &name)), ("Bound".into(), "Bound".into()));
        assert_eq!(world.tree(&key()).expect("a claim")["status"]["capacity"]["storage"], "5Gi");
        let mut plan = Plan::default();
        let patch = json!({"spec": {"resources": {"requests": {"storage": "7Gi"}}}});
        let object = world.get(&key()).expect("a claim");
        plan.patch(key(), "", patch, Precondition::exactly(&object), "the author wants more");
        world.apply(&plan, at(5)).expect("nothing against it");
        settle(&mut world);
        assert_eq!(world.tree(&key()).expect("a claim")["status"]["capacity"]["storage"], "7Gi");
        world.drop(&key());
        settle(&mut world);
        let left = world.get(&name).expect("its data are not removed yet");
        assert!(left.is_ending() && left.meta().finalizers[..] == ["volumes.kintsugi.dev/data"]);
    }

    #[test]
    fn a_volume_that_goes_with_its_node_is_given_up() {
        let volume = r#"persistentvolumes v ending@3 metadata.finalizers=["volumes.kintsugi.dev/data"] spec.csi={"driver":"local.kintsugi.dev","volumeAttributes":{"node":"n"}}
            "#;
        let decide =
            |world: &dyn World, now: Time| super::volume(&Key::new(&PERSISTENT_VOLUME, "", "v"), world, now);
        check(&format!("{volume}nodes n"), 5, decide, "");
        check(volume, 5, decide, r#"patch persistentvolumes v {"metadata":{"finalizers":[]}}"#);
    }

    #[test]
    fn what_nobody_can_remove_is_said_to_have_failed() {
        let volume = r#"persistentvolumes v spec.persistentVolumeReclaimPolicy=Delete spec.hostPath.path=/x spec.claimRef={"namespace":"default","name":"gone","uid":"u"}"#;
        let decide =
            |world: &dyn World, now: Time| super::volume(&Key::new(&PERSISTENT_VOLUME, "", "v"), world, now);
        check(
            volume,
            5,
            decide,
            r#"patch persistentvolumes v/status {"status":{"phase":"Failed"}}
               say persistentvolumes v ! VolumeFailedDelete error getting deleter volume plugin for volume "v": no deletable volume plugin matched"#,
        );
    }
}
