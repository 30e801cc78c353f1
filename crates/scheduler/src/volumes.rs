//! Where a pod can reach its volumes, and where volumes can be had for its claims.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::fit::NodeFacts;
use model::kinds::{PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS};
use model::storage::{self, LOCAL, NO_PROVISIONER, SELECTED_NODE};
use model::{Key, Object, Tree, World};

use crate::cluster::{Cluster, Place, Resident};
use crate::limits::{self, Lack, Load};

const OUT_OF_REACH: &str = "node(s) didn't match PersistentVolume's node affinity";
const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";
const NO_SPACE: &str = "node(s) did not have enough free storage";
/// Somebody else has a claim that one pod may have.
pub const TAKEN: &str =
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

/// What a pod's claims ask of its node.
pub struct Volumes {
    /// The volumes that it has.
    bound: Vec<Arc<Tree>>,
    /// Claims that wait to be told their node.
    pub waiting: Vec<Waiting>,
    /// The claims that no two pods may use.
    alone: BTreeSet<String>,
    namespace: String,
    /// What the pod brings along.
    load: Load,
    /// The nodes on which pods use one of those.
    taken_on: BTreeSet<String>,
}

/// A claim that waits for its first pod.
pub struct Waiting {
    /// It.
    pub object: Object,
    /// Volumes that are there and that it could have.
    free: Vec<Arc<Tree>>,
    /// The class that a volume is made by for it.
    class: Arc<Tree>,
    tree: Arc<Tree>,
}

impl Volumes {
    /// Looks the claims up; an error is a reason that holds on every node.
    pub fn of(pod: &Resident, cluster: &Cluster<'_>) -> Result<Self, String> {
        let mut volumes = Self {
            bound: Vec::new(),
            waiting: Vec::new(),
            alone: BTreeSet::new(),
            namespace: pod.object.namespace().to_owned(),
            taken_on: BTreeSet::new(),
            load: Load::of(pod, cluster.world),
        };
        for name in &pod.facts.claims {
            let key = Key::new(&PERSISTENT_VOLUME_CLAIM, pod.object.namespace(), name.as_str());
            let object = cluster
                .world
                .get(&key)
                .ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
            if object.is_ending() {
                return Err(format!("persistentvolumeclaim \"{name}\" is being deleted"));
            }
            volumes.add(cluster.world, object)?;
        }
        if !volumes.alone.is_empty() {
            let users = cluster.places.iter().filter(|place| volumes.is_taken_on(place));
            volumes.taken_on = users.map(|place| place.node.name.clone()).collect();
        }
        Ok(volumes)
    }

    fn add(&mut self, world: &dyn World, object: Object) -> Result<(), String> {
        let claim = tree(&object);
        let spec = &claim["spec"];
        let modes = spec["accessModes"].as_array();
        if modes.into_iter().flatten().any(|mode| mode == "ReadWriteOncePod") {
            self.alone.insert(object.name().to_owned());
        }
        let volume = spec["volumeName"].as_str().filter(|name| !name.is_empty());
        match volume.filter(|_| claim["status"]["phase"] == "Bound") {
            Some(volume) => {
                let gone = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
                let volume = world.get(&Key::new(&PERSISTENT_VOLUME, "", volume)).ok_or(gone)?;
                self.bound.push(tree(&volume));
                Ok(())
            }
            None => {
                let class = spec["storageClassName"].as_str().filter(|class| !class.is_empty());
                let class = class.and_then(|class| world.get(&Key::new(&STORAGE_CLASS, "", class)));
                let class = class.map(|class| tree(&class));
                let waits = class.filter(|class| class["volumeBindingMode"] == "WaitForFirstConsumer");
                let class = waits.ok_or("pod has unbound immediate PersistentVolumeClaims")?;
                let free = free(world, &object, &claim);
                self.waiting.push(Waiting { object, free, class, tree: claim });
                Ok(())
            }
        }
    }

    /// Whether a pod there uses a claim that no two may use.
    fn is_taken_on(&self, place: &Place) -> bool {
        let uses = |pod: &Resident| {
            pod.object.namespace() == self.namespace
                && pod.facts.claims.iter().any(|claim| self.alone.contains(claim))
        };
        place.pods.iter().any(uses)
    }

    /// Why the node is no place for the pod.
    pub fn refuses(&self, place: &Place, world: &dyn World) -> Option<&'static str> {
        let node = &place.node;
        if self.load.is_too_much_for(place, world) {
            return Some(limits::FULL);
        }
        if !self.bound.iter().all(|volume| storage::reaches(volume, node)) {
            return Some(OUT_OF_REACH);
        }
        self.waiting.iter().find_map(|waiting| waiting.refuses(node, world))
    }

    /// Whether somebody else has one of the claims: on this node (which could be helped), or on another.
    pub fn taken(&self, place: &Place) -> Option<bool> {
        match () {
            () if self.alone.is_empty() => None,
            () if self.is_taken_on(place) => Some(true),
            () if self.taken_on.iter().any(|node| *node != place.node.name) => Some(false),
            () => None,
        }
    }
}

impl Waiting {
    fn refuses(&self, node: &NodeFacts, world: &dyn World) -> Option<&'static str> {
        let chosen = self.object.meta().annotations.get(SELECTED_NODE);
        let has_volume = self.free.iter().any(|volume| storage::reaches(volume, node));
        match self.class["provisioner"].as_str().unwrap_or_default() {
            _ if chosen.is_some_and(|chosen| *chosen != node.name) => Some(OUT_OF_REACH),
            _ if has_volume => None,
            NO_PROVISIONER => Some(NO_VOLUME),
            LOCAL => {
                let has = node.allocatable.get("ephemeral-storage");
                let asked = storage::amount(&self.tree["spec"]["resources"]["requests"]);
                has.is_some_and(|has| *has < asked).then_some(NO_SPACE)
            }
            _ => match limits::lack(world, &self.class, &self.tree, node) {
                None => None,
                Some(Lack::Topology) => Some(NO_VOLUME),
                Some(Lack::Space) => Some(NO_SPACE),
            },
        }
    }
}

/// The volumes that nobody has and that a claim could have.
fn free(world: &dyn World, object: &Object, claim: &Tree) -> Vec<Arc<Tree>> {
    let volumes = world.list(&PERSISTENT_VOLUME, "").into_iter();
    let could = volumes.filter(|volume| {
        let tree = tree(volume);
        !volume.is_ending() && storage::may_have(&tree, object) && storage::fits(&tree, object, claim)
    });
    could.map(|volume| tree(&volume)).collect()
}

fn tree(object: &Object) -> Arc<Tree> {
    object.seen::<Tree>().unwrap_or_default()
}
