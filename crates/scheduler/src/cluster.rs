//! The running sum of one pass: the nodes, who is on them, and what they have left.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::fit::{HostPort, NodeFacts};
use model::kinds::{NAMESPACE, NODE, POD};
use model::pod::{self, Amounts};
use model::{Object, Quantity, Time, World};

use crate::facts::{Facts, Near};

/// A pod with what is read of it.
#[derive(Debug, Clone)]
pub struct Resident {
    /// The object.
    pub object: Object,
    /// What is read of it.
    pub facts: Arc<Facts>,
}

/// A node and who is on it.
#[derive(Debug, Clone)]
pub struct Place {
    /// The node.
    pub node: Arc<NodeFacts>,
    /// Its pods, the ones placed in this pass included.
    pub pods: Vec<Resident>,
    /// What they ask for in all.
    pub used: Amounts,
    /// The same for scoring: a pod that asks for nothing counts as a small one.
    pub weighed: (i64, i64),
    /// The ports they take.
    pub ports: Vec<HostPort>,
}

/// All nodes.
#[derive(Clone)]
pub struct Cluster<'w> {
    /// Where the rest is read.
    pub world: &'w dyn World,
    /// The nodes by name.
    pub places: Vec<Place>,
    /// The time.
    pub now: Time,
    /// How many pods must not be near others.
    pub shy: usize,
    namespaces: BTreeMap<String, Object>,
}

/// What a container that asks for no CPU counts as when nodes are compared, in thousandths: the usual small service.
const CPU_AT_LEAST: i64 = 100;
/// What a container that asks for no memory counts as when nodes are compared, in bytes (200 MiB).
const MEMORY_AT_LEAST: i64 = 200 * 1024 * 1024;

impl<'w> Cluster<'w> {
    /// Counts up a world.
    pub fn read(world: &'w dyn World, pods: &[Resident], now: Time) -> Self {
        let nodes = world.list(&NODE, "");
        let mut places: Vec<Place> =
            nodes.iter().filter_map(Object::seen::<NodeFacts>).map(Place::empty).collect();
        places.sort_by(|one, other| one.node.name.cmp(&other.node.name));
        let namespaces = world.list(&NAMESPACE, "").into_iter();
        let namespaces = namespaces.map(|object| (object.name().to_owned(), object)).collect();
        let mut cluster = Self { world, places, now, shy: 0, namespaces };
        for pod in pods.iter().filter(|pod| pod.facts.resides()) {
            cluster.put(pod.clone(), &pod.facts.fit.node);
        }
        cluster
    }

    /// The pods of a world.
    pub fn pods(world: &dyn World) -> Vec<Resident> {
        let all = world.list(&POD, "").into_iter();
        all.filter_map(|object| Some(Resident { facts: object.seen()?, object })).collect()
    }

    /// Counts a pod on a node.
    pub fn put(&mut self, pod: Resident, node: &str) {
        self.shy += usize::from(!pod.facts.apart.is_empty());
        if let Ok(at) = self.places.binary_search_by(|place| place.node.name.as_str().cmp(node)) {
            self.places[at].put(pod);
        }
    }

    /// Whether the other pod is one of those that `near` means, for the pod that has it.
    pub fn means(&self, near: &Near, pod: &Object, other: &Object) -> bool {
        near.selector.matches(&other.meta().labels) && self.is_in(near, pod, other.namespace())
    }

    fn is_in(&self, near: &Near, pod: &Object, namespace: &str) -> bool {
        if near.namespaces.is_empty() && near.namespace_selector.is_none() {
            return namespace == pod.namespace();
        }
        let labels = || self.namespaces.get(namespace).map(|object| object.meta().labels.clone());
        near.namespaces.iter().any(|named| named == namespace)
            || near
                .namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.matches(&labels().unwrap_or_default()))
    }
}

impl Place {
    fn empty(node: Arc<NodeFacts>) -> Self {
        Self { node, pods: Vec::new(), used: Amounts::new(), weighed: (0, 0), ports: Vec::new() }
    }

    fn put(&mut self, pod: Resident) {
        pod::add(&mut self.used, &pod.facts.fit.requests);
        let (cpu, memory) = weight(&pod.facts);
        self.weighed = (self.weighed.0 + cpu, self.weighed.1 + memory);
        self.ports.extend(pod.facts.fit.ports.iter().cloned());
        self.pods.push(pod);
    }

    /// The same node without some of its pods.
    pub fn without(&self, gone: impl Fn(&Resident) -> bool) -> Self {
        let mut place = Self::empty(Arc::clone(&self.node));
        self.pods.iter().filter(|pod| !gone(pod)).cloned().for_each(|pod| place.put(pod));
        place
    }

    /// How much of a resource it has for pods.
    pub fn has(&self, resource: &str) -> Quantity {
        self.node.allocatable.get(resource).copied().unwrap_or_default()
    }
}

/// CPU in thousandths and bytes of memory, for scoring.
pub fn weight(facts: &Facts) -> (i64, i64) {
    let asked = |name: &str| facts.fit.requests.get(name).copied().filter(|amount| !amount.is_zero());
    (
        asked("cpu").map_or(CPU_AT_LEAST, Quantity::milli_value),
        asked("memory").map_or(MEMORY_AT_LEAST, Quantity::value),
    )
}
