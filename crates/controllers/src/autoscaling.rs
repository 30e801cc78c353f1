//! HorizontalPodAutoscalers: their bounds are kept; beyond that nothing is decided, since nobody measures pods here.
//!
//! It says so in its conditions, in the words users know.

use model::kinds::{
    DEPLOYMENT, HORIZONTAL_POD_AUTOSCALER, REPLICA_SET, REPLICATION_CONTROLLER, STATEFUL_SET, of,
};
use model::{Controller, EventNote, Gvr, Key, Object, Plan, Precondition, Time, Tree, Watch, World};
use serde_json::json;

use crate::status::{self, Says};

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "horizontal-pod-autoscaler",
    primary: of::HORIZONTAL_POD_AUTOSCALER,
    also: &[
        Watch { gvr: of::DEPLOYMENT, wakes: |object, world| scaled_by(object, "Deployment", world) },
        Watch { gvr: of::STATEFUL_SET, wakes: |object, world| scaled_by(object, "StatefulSet", world) },
        Watch { gvr: of::REPLICA_SET, wakes: |object, world| scaled_by(object, "ReplicaSet", world) },
        Watch {
            gvr: of::REPLICATION_CONTROLLER,
            wakes: |object, world| scaled_by(object, "ReplicationController", world),
        },
    ],
    reconcile,
};

/// The autoscalers that have an object as their target.
fn scaled_by(object: &Object, kind: &str, world: &dyn World) -> Vec<Key> {
    let all = world.list(&HORIZONTAL_POD_AUTOSCALER, object.namespace());
    let aims = |scaler: &&Object| {
        let tree = scaler.tree().unwrap_or_default();
        let target = &tree["spec"]["scaleTargetRef"];
        target["kind"] == kind && target["name"] == object.name()
    };
    all.iter()
        .filter(aims)
        .map(|one| Key::new(&HORIZONTAL_POD_AUTOSCALER, one.namespace(), one.name()))
        .collect()
}

/// Decides on one autoscaler.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(scaler) = world.get(key).filter(|scaler| !scaler.is_ending()) else { return plan };
    let tree = scaler.tree().unwrap_or_default();
    let target = target(&scaler, &tree).and_then(|target| Some((world.get(&target)?, target)));
    let mut conditions = status::conditions(&tree["status"]);
    let mut current = 0;
    match target {
        None => {
            let message = "the HPA controller was unable to get the target's current scale: not found";
            say(&mut conditions, ("AbleToScale", "False", "FailedGetScale", message), now);
        }
        Some((object, target)) => {
            let message = "the HPA controller was able to get the target's current scale";
            say(&mut conditions, ("AbleToScale", "True", "SucceededGetScale", message), now);
            current = object.tree().unwrap_or_default()["spec"]["replicas"].as_i64().unwrap_or(1);
            judge(&mut plan, &mut conditions, (&scaler, &tree), &target, current, now);
        }
    }
    let wanted = json!({
        "observedGeneration": scaler.meta().generation, "currentReplicas": current,
        "desiredReplicas": within(&tree, current), "conditions": conditions,
    });
    status::write(&mut plan, key, &scaler, &wanted, "its target changed");
    plan
}

fn judge(
    plan: &mut Plan,
    conditions: &mut Vec<Tree>,
    (scaler, tree): (&Object, &Tree),
    target: &Key,
    current: i64,
    now: Time,
) {
    if current == 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        return say(conditions, ("ScalingActive", "False", "ScalingDisabled", message), now);
    }
    let message =
        "the HPA was unable to compute the replica count: unable to get metrics: no metrics are served here";
    say(conditions, ("ScalingActive", "False", "FailedGetResourceMetric", message), now);
    let wanted = within(tree, current);
    if wanted != current {
        let patch = json!({"spec": {"replicas": wanted}});
        plan.patch(target.clone(), "scale", patch, Precondition::default(), "beyond the autoscaler's bounds");
        let bound = if wanted > current { "below Spec.MinReplicas" } else { "above Spec.MaxReplicas" };
        let message = format!("New size: {wanted}; reason: Current number of replicas {bound}");
        let kind = "HorizontalPodAutoscaler";
        plan.tell(EventNote::normal(scaler, &HORIZONTAL_POD_AUTOSCALER, kind, "SuccessfulRescale", message));
    }
}

/// The number nearest to the present one within the bounds.
fn within(tree: &Tree, current: i64) -> i64 {
    let least = tree["spec"]["minReplicas"].as_i64().unwrap_or(1);
    let most = tree["spec"]["maxReplicas"].as_i64().unwrap_or(i64::MAX).max(least);
    if current == 0 { 0 } else { current.clamp(least, most) }
}

fn target(scaler: &Object, tree: &Tree) -> Option<Key> {
    let named = &tree["spec"]["scaleTargetRef"];
    let gvr: &Gvr = match named["kind"].as_str()? {
        "Deployment" => &DEPLOYMENT,
        "StatefulSet" => &STATEFUL_SET,
        "ReplicaSet" => &REPLICA_SET,
        "ReplicationController" => &REPLICATION_CONTROLLER,
        _ => return None,
    };
    Some(Key::new(gvr, scaler.namespace(), named["name"].as_str()?))
}

fn say(conditions: &mut Vec<Tree>, (kind, status, reason, message): (&str, &str, &str, &str), now: Time) {
    status::set_condition(conditions, Says { kind, status, reason, message }, now);
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    #[test]
    fn bounds_are_kept_and_the_lack_of_metrics_is_told() {
        check(
            r#"horizontalpodautoscalers h spec.scaleTargetRef={"kind":"Deployment","name":"web","apiVersion":"apps/v1"} spec.minReplicas=2 spec.maxReplicas=4
               deployments web spec.replicas=1"#,
            5,
            |world: &dyn World, now| {
                reconcile(&Key::new(&HORIZONTAL_POD_AUTOSCALER, "default", "h"), world, now)
            },
            r#"patch deployments web/scale {"spec":{"replicas":2}} # beyond the autoscaler's bounds ! SuccessfulRescale New size: 2; reason: Current number of replicas below Spec.MinReplicas
               patch horizontalpodautoscalers h/status {"status":{"currentReplicas":1,"desiredReplicas":2,"conditions":[{"type":"AbleToScale","status":"True"},{"type":"ScalingActive","status":"False","reason":"FailedGetResourceMetric"}]}}"#,
        );
    }
}
