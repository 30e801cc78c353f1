//! The brain that places pods: pure decisions.
//!
//! One pass looks at all pods that wait, the most urgent first, and places each against one running sum of what the
//! nodes have left, so that two pods never take the same room. It promises that the same world gives the same places;
//! it never moves a pod that is bound, and deletes one only to make room for a more urgent one.

use model::kinds::{POD, PRIORITY_CLASS, of};
use model::{Controller, Gvr, Key, Object, Plan, Time, Watch, World};

mod cluster;
mod facts;
mod filter;
mod limits;
mod neighbours;
mod place;
mod preempt;
mod score;
mod spread;
#[cfg(test)]
mod tests;
mod volumes;

use facts::Glance;

/// The name by which pods ask for this scheduler.
pub const NAME: &str = "default-scheduler";

/// The scheduler. Its one key stands for the whole cluster, so passes never run beside each other: it is not the key of
/// any object, and other keys of its primary resource (priority classes, which change about never) decide nothing.
pub static CONTROLLER: Controller = Controller {
    name: NAME,
    primary: of::PRIORITY_CLASS,
    also: &[
        Watch { gvr: of::POD, wakes: of_pod },
        Watch { gvr: of::NODE, wakes: |_, _| vec![whole_cluster()] },
        Watch { gvr: of::NAMESPACE, wakes: model::controller::nobody },
        Watch { gvr: of::PERSISTENT_VOLUME, wakes: |_, _| vec![whole_cluster()] },
        Watch { gvr: of::PERSISTENT_VOLUME_CLAIM, wakes: |_, _| vec![whole_cluster()] },
        Watch { gvr: of::STORAGE_CLASS, wakes: |_, _| vec![whole_cluster()] },
        Watch { gvr: of::CSI_DRIVER, wakes: |_, _| vec![whole_cluster()] },
        Watch { gvr: of::CSI_NODE, wakes: |_, _| vec![whole_cluster()] },
        Watch { gvr: of::CSI_STORAGE_CAPACITY, wakes: |_, _| vec![whole_cluster()] },
        Watch { gvr: of::POD_DISRUPTION_BUDGET, wakes: model::controller::nobody },
    ],
    reconcile,
};

/// The key that stands for the whole cluster.
pub fn whole_cluster() -> Key {
    Key::new(&PRIORITY_CLASS, "", NAME)
}

/// Places the pods that wait.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    if *key != whole_cluster() || !any_waits(world) {
        return Plan::default();
    }
    place::all(world, now)
}

/// A pod wakes the scheduler when it waits, and when it leaves room behind.
fn of_pod(pod: &Object, world: &dyn World) -> Vec<Key> {
    let Some(glance) = pod.seen::<Glance>() else { return Vec::new() };
    let gone = || world.get(&key_of(&POD, pod)).is_none_or(|there| there.uid() != pod.uid());
    let may_matter = glance.waits(pod) || glance.is_terminal || pod.is_ending() || gone();
    if may_matter { vec![whole_cluster()] } else { Vec::new() }
}

/// Whether there is anything to place. Asked once a pass, however many events woke it: it looks at every pod.
fn any_waits(world: &dyn World) -> bool {
    let waits = |pod: &Object| pod.seen::<Glance>().is_some_and(|glance| glance.waits(pod));
    world.list(&POD, "").iter().any(waits)
}

fn key_of(gvr: &Gvr, object: &Object) -> Key {
    Key::new(gvr, object.namespace(), object.name())
}
