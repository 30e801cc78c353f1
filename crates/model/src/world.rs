//! The view through which a decision reads. The engine answers from its caches, a test from a few lines of text.

use crate::fence::Terms;
use crate::{Gvr, Key, Object, Time, kinds};

/// A resource that a world holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Group, version and plural.
    pub gvr: Gvr,
    /// Its kind, such as `Pod`.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}

/// Everything a pass may see. Reading is free of effects; the same world gives the same answers in the same order.
pub trait World {
    /// One object.
    fn get(&self, key: &Key) -> Option<Object>;

    /// All objects of a resource in a namespace (`""`: in all), ordered by namespace and name.
    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object>;

    /// The objects of a resource that name `uid` among their owners, ordered by namespace and name.
    fn owned_by(&self, gvr: &Gvr, uid: &str) -> Vec<Object> {
        let mut all = self.list(gvr, "");
        all.retain(|object| object.meta().owner_references.iter().any(|owner| owner.uid == uid));
        all
    }

    /// Whether any object, of whatever resource, names `uid` among its owners.
    fn owns_any(&self, uid: &str) -> bool {
        self.resources().iter().any(|resource| !self.owned_by(&resource.gvr, uid).is_empty())
    }

    /// Every resource this world holds, custom ones included, ordered by group and plural.
    fn resources(&self) -> Vec<Resource> {
        let all = kinds::KINDS.iter().filter(|kind| kind.verbs == kinds::Verbs::All);
        all.map(|kind| Resource {
            gvr: kind.gvr.clone(),
            kind: kind.kind.to_owned(),
            namespaced: kind.namespaced,
        })
        .collect()
    }

    /// The resource of a kind, as owner references name it.
    fn resource_of(&self, api_version: &str, kind: &str) -> Option<Resource> {
        self.resources()
            .into_iter()
            .find(|known| known.kind == kind && known.gvr.api_version() == api_version)
    }

    /// Whether this world cannot see a resource's objects: that it shows none proves nothing then.
    fn lacks(&self, _gvr: &Gvr) -> bool {
        false
    }

    /// Since when this world has held an object as it is now, by the clock of whoever holds it; `None` where it does not say.
    ///
    /// What others write into an object by their own clocks may be off by hours; this is not.
    fn held_since(&self, _key: &Key) -> Option<Time> {
        None
    }

    /// Since when this world has held a Lease with its present renewal, by the same clock: a write of it by anybody but its
    /// holder is no sign of life.
    fn renewed_since(&self, _lease: &Key) -> Option<Time> {
        None
    }

    /// The lengths that leases are counted with.
    fn terms(&self) -> Terms {
        Terms::LAN
    }

    /// Since when this world has been up to date without a gap: silence before that proves nothing.
    fn began(&self) -> Option<Time> {
        None
    }
}
