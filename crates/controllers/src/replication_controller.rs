//! ReplicationController: what came before ReplicaSets. The decision is [`crate::replicas`].

use model::kinds::{REPLICATION_CONTROLLER, of};
use model::{Controller, Key, Plan, Time, Watch, World};

use crate::replicas::{self, Body, Owner};

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "replication-controller",
    primary: of::REPLICATION_CONTROLLER,
    also: &[Watch {
        gvr: of::POD,
        wakes: |pod, world| replicas::wakes(pod, world, &REPLICATION_CONTROLLER, "ReplicationController"),
    }],
    reconcile,
};

/// Decides on one ReplicationController.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let Some(object) = world.get(key) else { return Plan::default() };
    let Some(body) = object.seen::<Body>() else { return Plan::default() };
    let selector = crate::selector(&body.spec.selector);
    let kind = "ReplicationController";
    let owner = Owner { key: key.clone(), kind, object, body, selector, relatives: Vec::new() };
    replicas::decide(world, &owner, now)
}
