//! Whether a node can take a pod now, and if not, why: in the words users know.

use model::fit::{self, Misfit};
use model::{Quantity, World};

use crate::cluster::{Cluster, Place, Resident};
use crate::{limits, neighbours, spread, volumes};

/// Why a node cannot take a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasons {
    /// In the words users know.
    pub texts: Vec<String>,
    /// Whether it could if other pods were gone.
    pub is_curable: bool,
}

impl Reasons {
    fn lasting(text: &str) -> Self {
        Self { texts: vec![text.into()], is_curable: false }
    }

    fn curable(text: &str) -> Self {
        Self { texts: vec![text.into()], is_curable: true }
    }
}

/// What about a pod is the same for all nodes, worked out once.
pub struct Wishes<'p> {
    /// The pod.
    pub pod: &'p Resident,
    near: neighbours::Neighbours,
    spread: spread::Spread,
    volumes: volumes::Volumes,
}

impl<'p> Wishes<'p> {
    /// Works them out; an error is a reason that holds on every node.
    pub fn of(pod: &'p Resident, cluster: &Cluster<'_>) -> Result<Self, String> {
        let volumes = volumes::Volumes::of(pod, cluster)?;
        let near = neighbours::Neighbours::of(pod, cluster);
        Ok(Self { pod, near, spread: spread::Spread::of(pod, cluster), volumes })
    }

    /// Whether they are other wishes when other pods are there.
    pub fn depend_on_pods(&self, cluster: &Cluster<'_>) -> bool {
        let facts = &self.pod.facts;
        cluster.shy > 0 || !facts.near.is_empty() || !facts.apart.is_empty() || !facts.spread.is_empty()
    }

    /// What has to be written before the pod can be bound to the node.
    pub fn volumes(&self) -> &volumes::Volumes {
        &self.volumes
    }
}

/// Why the node cannot take the pod: the first kind of reason only, as users know it.
pub fn refuses(wishes: &Wishes<'_>, place: &Place, world: &dyn World) -> Option<Reasons> {
    let facts = &wishes.pod.facts;
    if let Some(misfit) = fit::misfit(&facts.fit, &place.node) {
        return Some(Reasons::lasting(words(misfit)));
    }
    let taken = |port| place.ports.iter().any(|other| other.clashes(port));
    if facts.fit.ports.iter().any(taken) {
        return Some(Reasons::curable("node(s) didn't have free ports for the requested pod ports"));
    }
    let lacks = lacks(wishes.pod, place);
    if lacks.is_some() {
        return lacks;
    }
    match wishes.volumes.taken(place) {
        Some(true) => return Some(Reasons::curable(volumes::TAKEN)),
        Some(false) => return Some(Reasons::lasting(volumes::TAKEN)),
        None => {}
    }
    match wishes.volumes.refuses(place, world) {
        Some(limits::FULL) => return Some(Reasons::curable(limits::FULL)),
        Some(text) => return Some(Reasons::lasting(text)),
        None => {}
    }
    match wishes.spread.refuses(&place.node) {
        Some(spread::MISSING_LABEL) => return Some(Reasons::lasting(spread::MISSING_LABEL)),
        Some(text) => return Some(Reasons::curable(text)),
        None => {}
    }
    match wishes.near.refuses(&place.node) {
        Some(neighbours::NOT_NEAR) => Some(Reasons::lasting(neighbours::NOT_NEAR)),
        Some(text) => Some(Reasons::curable(text)),
        None => None,
    }
}

fn words(misfit: Misfit) -> &'static str {
    match misfit {
        Misfit::Unschedulable => "node(s) were unschedulable",
        Misfit::Name => "node(s) didn't match the requested node name",
        Misfit::Taint => "node(s) had untolerated taint(s)",
        Misfit::Affinity => "node(s) didn't match Pod's node affinity/selector",
    }
}

/// What of its wants the node has too little of.
fn lacks(pod: &Resident, place: &Place) -> Option<Reasons> {
    let mut texts = Vec::new();
    let mut is_curable = true;
    let count = Quantity::units(i64::try_from(place.pods.len()).unwrap_or(i64::MAX) + 1);
    if count > place.has("pods") {
        texts.push("Too many pods".to_owned());
    }
    for (name, amount) in &pod.facts.fit.requests {
        let used = place.used.get(name).copied().unwrap_or_default();
        if !amount.is_zero() && used + *amount > place.has(name) {
            texts.push(format!("Insufficient {name}"));
            is_curable &= *amount <= place.has(name);
        }
    }
    (!texts.is_empty()).then_some(Reasons { texts, is_curable })
}
