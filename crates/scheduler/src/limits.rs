//! How many volumes of a driver a node takes, as the driver says in the node's CSINode, and how much room there is for
//! new ones, as it says in CSIStorageCapacities.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::fit::NodeFacts;
use model::kinds::{
    CSI_DRIVER, CSI_NODE, CSI_STORAGE_CAPACITY, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, STORAGE_CLASS,
};
use model::storage;
use model::{Key, Object, Quantity, Selector, Tree, World};

use crate::cluster::{Place, Resident};

/// The node has as many volumes as its driver takes.
pub const FULL: &str = "node(s) exceed max volume count";

/// The volumes of some pods, by driver.
type ByDriver = BTreeMap<String, BTreeSet<String>>;

/// The volumes that a pod brings along.
#[derive(Default)]
pub struct Load(ByDriver);

impl Load {
    /// That of a pod.
    pub fn of(pod: &Resident, world: &dyn World) -> Load {
        let mut load = Load::default();
        load.add(pod, world);
        load
    }

    fn add(&mut self, pod: &Resident, world: &dyn World) {
        for claim in &pod.facts.claims {
            if let Some((driver, volume)) = leads(world, pod.object.namespace(), claim) {
                self.0.entry(driver).or_default().insert(volume);
            }
        }
    }

    /// Whether a node has no room for them beside those of the pods there.
    pub fn is_too_much_for(&self, place: &Place, world: &dyn World) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let limits = limits(world, &place.node.name);
        if !self.0.keys().any(|driver| limits.contains_key(driver)) {
            return false;
        }
        let mut there = Load::default();
        for pod in &place.pods {
            there.add(pod, world);
        }
        let is_too_many = |(driver, mine): (&String, &BTreeSet<String>)| {
            let known = there.0.get(driver).cloned().unwrap_or_default();
            let has_new = mine.iter().any(|volume| !known.contains(volume));
            let count = known.union(mine).count() as i64;
            limits.get(driver).is_some_and(|max| has_new && count > *max)
        };
        self.0.iter().any(is_too_many)
    }
}

/// The driver of a claim's volume, and a name for it that no other volume has.
fn leads(world: &dyn World, namespace: &str, claim: &str) -> Option<(String, String)> {
    let claim = tree(&world.get(&Key::new(&PERSISTENT_VOLUME_CLAIM, namespace, claim))?);
    let spec = &claim["spec"];
    match spec["volumeName"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => {
            let volume = tree(&world.get(&Key::new(&PERSISTENT_VOLUME, "", name))?);
            let source = &volume["spec"]["csi"];
            Some((source["driver"].as_str()?.to_owned(), source["volumeHandle"].as_str()?.to_owned()))
        }
        // It will be one of its class.
        None => {
            let class =
                tree(&world.get(&Key::new(&STORAGE_CLASS, "", spec["storageClassName"].as_str()?))?);
            let name = claim["metadata"]["name"].as_str().unwrap_or_default();
            Some((class["provisioner"].as_str()?.to_owned(), format!("{namespace}/{name}")))
        }
    }
}

/// How many volumes a node takes, by driver.
fn limits(world: &dyn World, node: &str) -> BTreeMap<String, i64> {
    let Some(object) = world.get(&Key::new(&CSI_NODE, "", node)) else { return BTreeMap::new() };
    let known = tree(&object);
    let drivers = known["spec"]["drivers"].as_array().into_iter().flatten();
    let limit =
        |driver: &Tree| Some((driver["name"].as_str()?.to_owned(), driver["allocatable"]["count"].as_i64()?));
    drivers.filter_map(limit).collect()
}

/// Why no volume of a class for this claim could be made for a node; `None`: it may be.
pub enum Lack {
    /// The class is not for such nodes.
    Topology,
    /// There is not enough storage that such nodes reach.
    Space,
}

/// What a volume of a class for this claim lacks on a node.
pub fn lack(world: &dyn World, class: &Tree, claim: &Tree, node: &NodeFacts) -> Option<Lack> {
    if !is_allowed(&class["allowedTopologies"], node) {
        return Some(Lack::Topology);
    }
    let driver = class["provisioner"].as_str().unwrap_or_default();
    let known = world.get(&Key::new(&CSI_DRIVER, "", driver)).map(|driver| tree(&driver));
    if known.is_none_or(|driver| driver["spec"]["storageCapacity"] != true) {
        return None;
    }
    let asked = storage::amount(&claim["spec"]["resources"]["requests"]);
    let name = class["metadata"]["name"].as_str().unwrap_or_default();
    let has_room = |object: &Object| {
        let capacity = tree(object);
        capacity["storageClassName"] == name && is_enough(&capacity, asked) && is_there(&capacity, node)
    };
    (!world.list(&CSI_STORAGE_CAPACITY, "").iter().any(has_room)).then_some(Lack::Space)
}

fn is_enough(capacity: &Tree, asked: Quantity) -> bool {
    let amount = |field: &str| capacity[field].as_str().and_then(|text| text.parse::<Quantity>().ok());
    amount("maximumVolumeSize").or_else(|| amount("capacity")).is_some_and(|has| has >= asked)
}

fn is_there(capacity: &Tree, node: &NodeFacts) -> bool {
    let topology = &capacity["nodeTopology"];
    !topology.is_null()
        && Selector::of_tree(Some(topology)).is_ok_and(|selector| selector.matches(&node.labels))
}

/// Whether one of the terms of a class holds of a node; no terms hold everywhere.
fn is_allowed(terms: &Tree, node: &NodeFacts) -> bool {
    let Some(terms) = terms.as_array().filter(|terms| !terms.is_empty()) else { return true };
    let holds = |expression: &Tree| {
        let value = expression["key"].as_str().and_then(|key| node.labels.get(key));
        let values = expression["values"].as_array();
        value.is_some_and(|value| values.into_iter().flatten().any(|one| one == value.as_str()))
    };
    terms.iter().any(|term| term["matchLabelExpressions"].as_array().into_iter().flatten().all(holds))
}

fn tree(object: &Object) -> Arc<Tree> {
    object.seen::<Tree>().unwrap_or_default()
}
