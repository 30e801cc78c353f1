//! Where a pod can reach its volumes.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use model::fit::{NodeFacts, Term};
use model::kinds::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS};
use model::{Key, Object, World};

use crate::cluster::Resident;

/// The annotation by which the scheduler tells where a claim will be used first.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const OUT_OF_REACH: &str = "node(s) didn't match PersistentVolume's node affinity";

/// What a pod's claims ask of its node.
pub struct Volumes {
    /// For each bound volume, the terms of which one must hold on the node.
    reach: Vec<Vec<Term>>,
    /// Claims that wait to be told their node.
    pub waiting: Vec<Object>,
}

impl Volumes {
    /// Looks the claims up; an error is a reason that holds on every node.
    pub fn of(pod: &Resident, world: &dyn World) -> Result<Self, String> {
        let mut volumes = Self { reach: Vec::new(), waiting: Vec::new() };
        for name in &pod.facts.claims {
            let key = Key::new(&PERSISTENT_VOLUME_CLAIM, pod.object.namespace(), name.as_str());
            let object =
                world.get(&key).ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
            if object.is_ending() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            volumes.add(world, object)?;
        }
        Ok(volumes)
    }

    fn add(&mut self, world: &dyn World, object: Object) -> Result<(), String> {
        let claim: PersistentVolumeClaim = object.view().unwrap_or_default();
        let bound = claim.status.and_then(|status| status.phase).as_deref() == Some("Bound");
        let spec = claim.spec.unwrap_or_default();
        match spec.volume_name.filter(|name| bound && !name.is_empty()) {
            Some(volume) => {
                let gone = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
                let volume = world.get(&Key::new(&PERSISTENT_VOLUME, "", volume)).ok_or(gone)?;
                self.reach.extend(reach(&volume));
                Ok(())
            }
            None if waits_for_its_pod(world, spec.storage_class_name.as_deref()) => {
                self.waiting.push(object);
                Ok(())
            }
            None => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
        }
    }

    /// Why the node is no place for the pod.
    pub fn refuses(&self, node: &NodeFacts) -> Option<&'static str> {
        let reached = |terms: &Vec<Term>| terms.iter().any(|term| term.matches(node));
        let chosen = |claim: &Object| {
            claim.meta().annotations.get(SELECTED_NODE).is_none_or(|chosen| *chosen == node.name)
        };
        let all = self.reach.iter().all(reached) && self.waiting.iter().all(chosen);
        (!all).then_some(OUT_OF_REACH)
    }
}

fn reach(volume: &Object) -> Option<Vec<Term>> {
    let volume: PersistentVolume = volume.view().unwrap_or_default();
    let required = volume.spec?.node_affinity?.required?;
    Some(required.node_selector_terms.iter().map(Term::read).collect())
}

fn waits_for_its_pod(world: &dyn World, class: Option<&str>) -> bool {
    let class = class.filter(|class| !class.is_empty());
    let class = class.and_then(|class| world.get(&Key::new(&STORAGE_CLASS, "", class)));
    let class: Option<StorageClass> = class.and_then(|class| class.view().ok());
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}
