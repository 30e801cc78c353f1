//! Pods that nobody will ever finish: those of nodes that are gone, and those that end without ever having had one.

use model::fence::pod_epoch;
use model::kinds::{LEASE, NODE, POD, of};
use model::{Controller, Key, Object, Plan, Precondition, Propagation, Time, Watch, World, Write, time};
use serde_json::json;

use crate::node_lifecycle::LEASES;
use crate::pods::Pod;
use crate::status::{self, Says};

/// How old a pod must be before the absence of its node counts, in seconds: a node may be made after its pods.
const QUARANTINE_SECONDS: i64 = 40;

/// The taint by which an operator says that a node is out of service.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "pod-garbage-collector",
    primary: of::POD,
    also: &[
        Watch { gvr: of::POD, wakes: of_pod },
        Watch { gvr: of::NODE, wakes: of_node },
        Watch { gvr: of::LEASE, wakes: of_lease },
    ],
    reconcile,
};

/// A pod itself, if it is on its way out or its node is not there: of others nothing is to be decided.
fn of_pod(pod: &Object, world: &dyn World) -> Vec<Key> {
    let read = Pod::read(pod.clone());
    let has_lost_its_node =
        || !read.node().is_empty() && world.get(&Key::new(&NODE, "", read.node())).is_none();
    let matters = pod.is_ending() || has_lost_its_node();
    if matters { vec![Key::new(&POD, pod.namespace(), pod.name())] } else { Vec::new() }
}

/// The pods of a node that is gone or out of service.
fn of_node(node: &Object, world: &dyn World) -> Vec<Key> {
    let known = world.get(&Key::new(&NODE, "", node.name()));
    if known.as_ref().is_some_and(|known| !is_out_of_service(known)) {
        return Vec::new();
    }
    let pods = Pod::all(world.list(&POD, "")).into_iter().filter(|pod| pod.node() == node.name());
    pods.map(|pod| Key::new(&POD, pod.object.namespace(), pod.name())).collect()
}

/// The fenced pods of a node whose lease is gone: nothing keeps them any more. Renewals, which come all the time, wake nobody.
fn of_lease(lease: &Object, world: &dyn World) -> Vec<Key> {
    let is_there = || world.get(&Key::new(&LEASE, LEASES, lease.name())).is_some();
    if lease.namespace() != LEASES || is_there() {
        return Vec::new();
    }
    let pods = Pod::all(world.list(&POD, "")).into_iter();
    let theirs = pods.filter(|pod| pod.node() == lease.name() && pod_epoch(&pod.object).is_some());
    theirs.map(|pod| Key::new(&POD, pod.object.namespace(), pod.name())).collect()
}

fn is_out_of_service(node: &Object) -> bool {
    let tree = node.tree().unwrap_or_default();
    tree["spec"]["taints"].as_array().into_iter().flatten().any(|taint| taint["key"] == OUT_OF_SERVICE)
}

/// Decides on one pod.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = world.get(key).map(Pod::read) else { return plan };
    if pod.node().is_empty() {
        if pod.is_ending() {
            remove(&mut plan, key, &pod, "it ends and never had a node");
        }
        return plan;
    }
    // Such a pod may run on, and its node may tell of it, until its lease is lost: then the fence lets go of it.
    let is_fenced = pod_epoch(&pod.object).is_some();
    if is_fenced && world.get(&Key::new(&LEASE, LEASES, pod.node())).is_some() {
        return plan;
    }
    let node_key = Key::new(&NODE, "", pod.node());
    match world.get(&node_key) {
        Some(node) if pod.is_ending() && is_out_of_service(&node) => {
            fail(&mut plan, key, &pod, now, "its node is out of service");
        }
        Some(_) => {}
        None => {
            let since = pod.object.meta().creation_timestamp.unwrap_or(Time::MIN);
            match time::after_seconds(since, QUARANTINE_SECONDS) {
                at if at > now => plan.wake(at),
                _ => fail(&mut plan, key, &pod, now, "its node is gone"),
            }
        }
    }
    plan
}

/// Nobody will say how it ended: it failed.
fn fail(plan: &mut Plan, key: &Key, pod: &Pod, now: Time, why: &str) {
    if !pod.is_terminal() {
        let mut conditions = status::conditions(&status::of(&pod.object));
        let message = "PodGC: node no longer exists";
        let says = Says { kind: "DisruptionTarget", status: "True", reason: "DeletionByPodGC", message };
        status::set_condition(&mut conditions, says, now);
        let patch = json!({"status": {"phase": "Failed", "conditions": conditions}});
        plan.patch(key.clone(), "status", patch, Precondition::same(&pod.object), why);
    }
    remove(plan, key, pod, why);
}

fn remove(plan: &mut Plan, key: &Key, pod: &Pod, why: &str) {
    let when = Precondition::same(&pod.object);
    let propagation = Propagation::Background;
    if pod.object.is_ending() && pod.object.meta().deletion_grace_period_seconds == Some(0) {
        return;
    }
    plan.act(Write::Delete { key: key.clone(), when, grace_seconds: Some(0), propagation }, why);
}

#[cfg(test)]
mod tests {
    use model::tiny::{TinyWorld, check};

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&POD, "default", "a"), world, now)
    }

    #[test]
    fn pods_of_a_node_that_is_gone_fail_and_go_after_a_while() {
        check("pods a on=n ready created@10", 20, decide, "wake 50s");
        check(
            "pods a on=n ready created@10",
            50,
            decide,
            r#"patch pods a/status {"status":{"phase":"Failed"}}
               delete pods a grace 0"#,
        );
        check("nodes n\n pods a on=n ready created@10", 50, decide, "");
    }

    #[test]
    fn a_fenced_pod_is_left_to_the_fence_while_there_is_a_lease() {
        let pod = r#"pods a on=n ready created@10 metadata.annotations={"healing.kintsugi.dev/fence":"7"}"#;
        check(&format!("leases kube-node-lease/n\n{pod}"), 50, decide, "");
        let gone = r#"patch pods a/status {"status":{"phase":"Failed"}}
                      delete pods a grace 0"#;
        check(pod, 50, decide, gone);
    }

    #[test]
    fn a_lease_that_is_gone_wakes_the_fenced_pods_of_its_node_and_one_that_is_renewed_nobody() {
        let pods = r#"
            pods a on=n metadata.annotations={"healing.kintsugi.dev/fence":"7"}
            pods b on=n
            pods c on=m metadata.annotations={"healing.kintsugi.dev/fence":"7"}"#;
        let lease = TinyWorld::read("leases kube-node-lease/n");
        let lease = lease.get(&Key::new(&LEASE, LEASES, "n")).expect("it is there");
        let woken = |world: &str| -> Vec<String> {
            let keys = of_lease(&lease, &TinyWorld::read(world));
            keys.into_iter().map(|key| key.name).collect()
        };
        assert_eq!(woken(pods), ["a"]);
        assert!(woken(&format!("leases kube-node-lease/n{pods}")).is_empty());
    }

    #[test]
    fn a_pod_that_ends_without_a_node_goes() {
        check("pods a ending@3", 5, decide, "delete pods a grace 0");
        check("pods a", 5, decide, "");
    }
}
