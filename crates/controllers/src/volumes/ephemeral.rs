//! Claims that live with one pod: made from the template in its volume, and gone with it, because it owns them.

use model::kinds::{PERSISTENT_VOLUME_CLAIM, POD, of};
use model::{Controller, EventNote, Key, Object, Plan, Time, Tree, Watch, World};
use serde_json::json;

use crate::pods::Pod;
use crate::{naming, owning};

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "ephemeral-volume-controller",
    primary: of::POD,
    also: &[Watch { gvr: of::POD, wakes: of_pod }, Watch { gvr: of::PERSISTENT_VOLUME_CLAIM, wakes: owner }],
    reconcile,
};

/// A pod itself, if it has such a volume.
fn of_pod(pod: &Object, _: &dyn World) -> Vec<Key> {
    let read = Pod::read(pod.clone());
    let matters = read.spec().volumes.iter().any(|volume| volume.ephemeral.is_some());
    if matters { vec![Key::new(&POD, pod.namespace(), pod.name())] } else { Vec::new() }
}

fn owner(claim: &Object, _: &dyn World) -> Vec<Key> {
    model::controller::owner(claim, &POD, "Pod")
}

/// Decides on one pod.
pub fn reconcile(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = world.get(key).map(Pod::read) else { return plan };
    if pod.object.is_ending() || pod.is_terminal() {
        return plan;
    }
    for volume in &pod.spec().volumes {
        let Some(source) = &volume.ephemeral else { continue };
        let name = format!("{}-{}", pod.name(), volume.name);
        let claim = Key::new(&PERSISTENT_VOLUME_CLAIM, pod.object.namespace(), name.as_str());
        match world.get(&claim) {
            Some(known) if known.controller().is_some_and(|owner| owner.uid == pod.object.uid()) => {}
            Some(_) => {
                let namespace = pod.object.namespace();
                let message = format!(
                    "PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
                    pod.name()
                );
                plan.say(EventNote::normal(&pod.object, &POD, "Pod", "FailedBinding", message).warning());
            }
            None => make(&mut plan, &pod.object, &name, &source["volumeClaimTemplate"]),
        }
    }
    plan
}

fn make(plan: &mut Plan, pod: &Object, name: &str, template: &Tree) {
    let meta = &template["metadata"];
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": name, "namespace": pod.namespace(), "labels": meta["labels"], "annotations": meta["annotations"],
            "ownerReferences": [owning::reference(pod, &POD, "Pod")],
        },
        "spec": template["spec"],
    });
    plan.create(
        &PERSISTENT_VOLUME_CLAIM,
        pod.namespace(),
        naming::plain(claim),
        "a volume of its pod asks for it",
    );
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    const POD_LINE: &str = r#"pods a spec.volumes=[{"name":"v","ephemeral":{"volumeClaimTemplate":{"metadata":{"labels":{"l":"x"}},"spec":{"accessModes":["ReadWriteOnce"]}}}}]
        "#;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&POD, "default", "a"), world, now)
    }

    #[test]
    fn a_claim_is_made_for_the_pod_and_owned_by_it() {
        check(
            POD_LINE,
            5,
            decide,
            r#"create persistentvolumeclaims a-v {"metadata":{"labels":{"l":"x"},"ownerReferences":[{"kind":"Pod","name":"a","controller":true}]},"spec":{"accessModes":["ReadWriteOnce"]}}"#,
        );
    }

    #[test]
    fn a_claim_of_that_name_which_is_not_the_pods_is_left_alone() {
        check(
            &format!("{POD_LINE}persistentvolumeclaims a-v"),
            5,
            decide,
            "say pods a ! FailedBinding PVC default/a-v was not created for pod default/a (pod is not owner)",
        );
        check(&format!("{POD_LINE}persistentvolumeclaims a-v owner=pods/a"), 5, decide, "");
        check(&POD_LINE.replace("pods a", "pods a ending@3"), 5, decide, "");
    }
}
