//! ReplicaSet: as many pods of one template as asked for. The decision is [`crate::replicas`].

use model::kinds::{POD, REPLICA_SET, of};
use model::{Controller, Key, Object, Plan, Time, Watch, World};

use crate::replicas::{self, Body, Owner};

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "replicaset-controller",
    primary: of::REPLICA_SET,
    also: &[Watch {
        gvr: of::POD,
        wakes: |pod, world| replicas::wakes(pod, world, &REPLICA_SET, "ReplicaSet"),
    }],
    reconcile,
};

/// Decides on one ReplicaSet.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let Some(object) = world.get(key) else { return Plan::default() };
    let Some(body) = object.seen::<Body>() else { return Plan::default() };
    let selector = crate::selector(&body.spec.selector);
    let relatives = relatives(&object, world);
    let owner = Owner { key: key.clone(), kind: "ReplicaSet", object, body, selector, relatives };
    replicas::decide(world, &owner, now)
}

/// The pods of the other ReplicaSets of the same Deployment.
fn relatives(set: &Object, world: &dyn World) -> Vec<Object> {
    let Some(owner) = set.controller() else { return Vec::new() };
    let sets = world.owned_by(&REPLICA_SET, &owner.uid);
    let others = sets.iter().filter(|other| other.uid() != set.uid());
    others.flat_map(|other| world.owned_by(&POD, other.uid())).collect()
}
