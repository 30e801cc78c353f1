//! The view through which a decision reads. The engine answers from its caches, a test from a few lines of text.

use crate::{Gvr, Key, Object};

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
}
