//! Pods on nodes with a taint that does not suffer them: they go, at once or when their patience ends.

use model::fence::pod_epoch;
use model::kinds::{NODE, POD, of};
use model::{Controller, EventNote, Key, Object, Plan, Precondition, Time, Watch, World, time};
use serde::Deserialize;
use serde_json::json;

use crate::pods::{Pod, Taint};
use crate::status::{self, Says};
use crate::suspicion;

/// The taint of a node that is silent.
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "taint-eviction-controller",
    primary: of::POD,
    also: &[
        Watch { gvr: of::POD, wakes: of_pod },
        Watch { gvr: of::NODE, wakes: of_node },
        Watch { gvr: of::LEASE, wakes: of_lease },
    ],
    reconcile,
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    taints: Vec<Taint>,
}

/// A pod itself, if its node tolerates not everyone: on most nodes there is nothing to decide.
fn of_pod(pod: &Object, world: &dyn World) -> Vec<Key> {
    let read = Pod::read(pod.clone());
    let node = Key::new(&NODE, "", read.node());
    match world.get(&node) {
        Some(node) if !evicting(&node).is_empty() => vec![Key::new(&POD, pod.namespace(), pod.name())],
        _ => Vec::new(),
    }
}

/// The pods of a node that tolerates not everyone.
fn of_node(node: &Object, world: &dyn World) -> Vec<Key> {
    if evicting(node).is_empty() {
        return Vec::new();
    }
    let pods = Pod::all(world.list(&POD, "")).into_iter().filter(|pod| pod.node() == node.name());
    pods.map(|pod| Key::new(&POD, pod.object.namespace(), pod.name())).collect()
}

/// Those of a node whose lease is lost: what was held back while that was not sure is looked at again.
fn of_lease(lease: &Object, world: &dyn World) -> Vec<Key> {
    let node = suspicion::node_of_lost(lease).and_then(|key| world.get(&key));
    node.map(|node| of_node(&node, world)).unwrap_or_default()
}

fn evicting(node: &Object) -> Vec<Taint> {
    let taints = node.seen::<Node>().map(|node| node.spec.taints.clone()).unwrap_or_default();
    taints.into_iter().filter(|taint| taint.effect == "NoExecute").collect()
}

/// Decides on one pod.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = world.get(key).map(Pod::read).filter(|pod| !pod.node().is_empty()) else { return plan };
    let node = world.get(&Key::new(&NODE, "", pod.node()));
    let mut taints = node.as_ref().map(evicting).unwrap_or_default();
    if pod_epoch(&pod.object).is_some() {
        // Silence is no proof: a fenced pod may run on by its node's voters, and moves when the lease is lost.
        taints.retain(|taint| taint.key != UNREACHABLE);
    }
    match leaves_at(&pod, &taints) {
        None => {}
        Some(_) if pod.is_ending() => {}
        Some(at) if at <= now => evict(&mut plan, key, &pod, now),
        Some(at) => plan.wake(at),
    }
    plan
}

/// When the pod has to leave: at once for a taint it does not tolerate, else when the shortest toleration ends.
fn leaves_at(pod: &Pod, taints: &[Taint]) -> Option<Time> {
    let born = pod.object.meta().creation_timestamp;
    let ends = taints.iter().map(|taint| {
        let mut tolerations = pod.spec().tolerations.iter().filter(|one| one.tolerates(taint)).peekable();
        if tolerations.peek().is_none() {
            return Some(Time::MIN);
        }
        let seconds = tolerations.filter_map(|one| one.toleration_seconds).min()?;
        let since = taint.time_added.max(born)?;
        Some(if seconds <= 0 { Time::MIN } else { time::after_seconds(since, seconds) })
    });
    ends.flatten().min()
}

fn evict(plan: &mut Plan, key: &Key, pod: &Pod, now: Time) {
    let mut conditions = status::conditions(&status::of(&pod.object));
    let says = Says {
        kind: "DisruptionTarget",
        status: "True",
        reason: "DeletionByTaintManager",
        message: "Taint manager: deleting due to NoExecute taint",
    };
    status::set_condition(&mut conditions, says, now);
    let patch = json!({"status": {"conditions": conditions}});
    plan.patch(key.clone(), "status", patch, Precondition::same(&pod.object), "its node does not suffer it");
    plan.delete(key.clone(), Precondition::same(&pod.object), "its node does not suffer it");
    let message = format!("Marking for deletion Pod {}/{}", key.namespace, key.name);
    plan.tell(EventNote::normal(&pod.object, &POD, "Pod", "TaintManagerEviction", message));
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&POD, "default", "a"), world, now)
    }

    const GONE: &str = r#"nodes n spec.taints=[{"key":"node.kubernetes.io/unreachable","effect":"NoExecute","timeAdded":"1970-01-01T00:00:10Z"}]
        "#;

    #[test]
    fn a_pod_leaves_when_its_patience_ends() {
        let pod = r#"pods a on=n spec.tolerations=[{"key":"node.kubernetes.io/unreachable","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}]"#;
        check(&format!("{GONE}{pod}"), 20, decide, "wake 310s");
        check(
            &format!("{GONE}{pod}"),
            310,
            decide,
            r#"patch pods a/status {"status":{"conditions":[{"type":"DisruptionTarget","reason":"DeletionByTaintManager"}]}}
               delete pods a"#,
        );
    }

    #[test]
    fn silence_does_not_move_a_fenced_pod() {
        let pod = r#"pods a on=n metadata.annotations={"healing.kintsugi.dev/fence":"7"}"#;
        check(&format!("{GONE}{pod}"), 1000, decide, "");
    }

    #[test]
    fn a_pod_without_toleration_leaves_at_once_and_one_that_endures_stays() {
        check(&format!("{GONE}pods a on=n"), 11, decide, "patch pods a/status\n delete pods a");
        let patient = r#"pods a on=n spec.tolerations=[{"operator":"Exists"}]"#;
        check(&format!("{GONE}{patient}"), 1000, decide, "");
        check("nodes n\n pods a on=n", 1000, decide, "");
    }
}
