//! What a controller is: data that names what it watches, and one pure function that decides.
//!
//! The engine runs controllers; they know nothing of it. A watch event only says "look again at this key": the
//! pass reads what it needs through the [`World`], and the same world and time give the same plan.

use crate::{Gvr, Key, Object, Plan, Time, World};

/// A controller, as the engine runs it.
pub struct Controller {
    /// Its name, such as `replicaset-controller`: the source of its events and its user agent.
    pub name: &'static str,
    /// The resource whose keys it takes: every change of such an object wakes the object's own key, unless a watch of the
    /// same resource in `also` says which changes matter. Where most do not, that spares as many passes.
    pub primary: Gvr,
    /// The other resources it reads. Whatever it reads has to be listed, or it is not in the caches.
    pub also: &'static [Watch],
    /// Decides on one key. The object may be gone: then the key is still passed, so that what is left can be cleared.
    pub reconcile: fn(&Key, &dyn World, Time) -> Plan,
}

/// Another resource that a controller reads, and which keys a change of it wakes.
pub struct Watch {
    /// The resource.
    pub gvr: Gvr,
    /// The keys of the primary resource to look at again, given the object as it was and as it is (each in turn).
    ///
    /// Use [`nobody`] for what is read but need not wake anyone.
    pub wakes: fn(&Object, &dyn World) -> Vec<Key>,
}

/// Stands, as a `primary` or in a [`Watch`], for every resource that the world holds, custom ones included.
///
/// With it as `primary`, every change of any object wakes that object's key. Events and leases are left out: they
/// come often and own nothing.
pub const EVERY: Gvr = Gvr::new("*", "*", "*");

/// Wakes nobody: for resources that are only read.
pub fn nobody(_: &Object, _: &dyn World) -> Vec<Key> {
    Vec::new()
}

/// Wakes the controlling owner when it is of the resource `owner` and of the kind named.
pub fn owner(object: &Object, owner: &Gvr, kind: &str) -> Vec<Key> {
    let named =
        object.controller().filter(|named| named.kind == kind && named.api_version == owner.api_version());
    named.map(|named| Key::new(owner, object.namespace(), named.name.clone())).into_iter().collect()
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("name", &self.name)
            .field("primary", &self.primary)
            .finish_non_exhaustive()
    }
}
