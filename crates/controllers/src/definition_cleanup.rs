//! CustomResourceDefinitions that end: their objects are deleted first, in pieces, and then the definition is let go.
//!
//! Nothing can be made of a definition that ends. That it has no objects left is said in its status, which the API accepts
//! only when it is so, whatever the caches show; only then goes the finalizer. It deletes nothing of a definition whose
//! deletion was not asked for.

use model::controller::EVERY;
use model::kinds::of;
use model::{Controller, Gvr, Key, Object, Plan, Precondition, Time, Tree, Watch, World};
use serde_json::json;

use crate::status::{self, Says};

/// The finalizer that keeps a definition until its objects are gone.
const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// What the condition `Terminating` says when all are gone.
const COMPLETED: &str = "InstanceDeletionCompleted";

/// How many objects one pass deletes: the next one follows at once, and others get their turn between.
const DELETED_MAX: usize = 500;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "customresourcedefinition-cleanup-controller",
    primary: of::CUSTOM_RESOURCE_DEFINITION,
    also: &[Watch { gvr: EVERY, wakes }],
    reconcile,
};

/// A change of a custom object wakes its definition, when that is ending.
fn wakes(object: &Object, world: &dyn World) -> Vec<Key> {
    let (api_version, kind) = object.says_it_is();
    let Some(resource) = world.resource_of(&api_version, &kind) else { return Vec::new() };
    let key = key_of(&resource.gvr);
    let is_ending = world.get(&key).is_some_and(|definition| definition.is_ending());
    if is_ending { vec![key] } else { Vec::new() }
}

fn key_of(gvr: &Gvr) -> Key {
    Key::new(&of::CUSTOM_RESOURCE_DEFINITION, "", format!("{}.{}", gvr.plural, gvr.group))
}

/// Decides on one definition.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(definition) = world.get(key).filter(Object::is_ending) else { return plan };
    if !definition.meta().finalizers.iter().any(|held| held == FINALIZER) {
        return plan;
    }
    let conditions = status::conditions(&status::of(&definition));
    let said = status::condition(&conditions, "Terminating").map(|said| said["reason"].clone());
    if said == Some(json!(COMPLETED)) {
        let left: Vec<&String> =
            definition.meta().finalizers.iter().filter(|held| *held != FINALIZER).collect();
        let patch = json!({"metadata": {"finalizers": left}});
        plan.patch(key.clone(), "", patch, Precondition::exactly(&definition), "its objects are gone");
        return plan;
    }
    let left = objects(key, world);
    delete(&mut plan, &left, now);
    report(&mut plan, key, &definition, conditions, left.len(), now);
    plan
}

/// What is left of it, in whichever version the caches have.
fn objects(key: &Key, world: &dyn World) -> Vec<(Gvr, Object)> {
    let own = world.resources().into_iter().filter(|resource| key_of(&resource.gvr) == *key);
    let listed = own.map(|resource| {
        let objects = world.list(&resource.gvr, "");
        objects.into_iter().map(move |object| (resource.gvr.clone(), object)).collect::<Vec<_>>()
    });
    listed.max_by_key(Vec::len).unwrap_or_default()
}

fn delete(plan: &mut Plan, left: &[(Gvr, Object)], now: Time) {
    let alive = left.iter().filter(|(_, object)| !object.is_ending());
    for (count, (gvr, object)) in alive.enumerate() {
        if count == DELETED_MAX {
            plan.wake(now);
            break;
        }
        let key = Key::new(gvr, object.namespace(), object.name());
        plan.delete(key, Precondition::same(object), "its definition ends");
    }
}

fn report(
    plan: &mut Plan,
    key: &Key,
    definition: &Object,
    mut conditions: Vec<Tree>,
    left: usize,
    now: Time,
) {
    let says = match left {
        0 => {
            Says { kind: "Terminating", status: "False", reason: COMPLETED, message: "removed all instances" }
        }
        _ => Says {
            kind: "Terminating",
            status: "True",
            reason: "InstanceDeletionInProgress",
            message: "CustomResource deletion is in progress",
        },
    };
    status::set_condition(&mut conditions, says, now);
    status::write(plan, key, definition, &json!({"conditions": conditions}), "how far its end is");
}

#[cfg(test)]
mod tests {
    use model::tiny::{TinyWorld, at, check};

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&of::CUSTOM_RESOURCE_DEFINITION, "", "pods."), world, now)
    }

    /// A tiny world has no custom resources; pods stand for them.
    const ENDING: &str = r#"customresourcedefinitions pods. ending@1 metadata.finalizers=["customresourcecleanup.apiextensions.k8s.io","x.io/f"]"#;
    const WAITS: &str = r#"patch customresourcedefinitions pods./status {"status":{"conditions":[{"type":"Terminating","status":"True","reason":"InstanceDeletionInProgress"}]}}"#;

    #[test]
    fn a_definition_that_does_not_end_or_is_not_held_is_left_alone() {
        check("customresourcedefinitions pods.\n pods shop/a", 5, decide, "");
        check("customresourcedefinitions pods. ending@1\n pods shop/a", 5, decide, "");
    }

    #[test]
    fn its_objects_go_first_wherever_they_are() {
        let world = format!("{ENDING}\n pods shop/a\n pods other/b ending@2 metadata.finalizers=[\"x\"]");
        check(&world, 5, decide, &format!("delete pods shop/a # its definition ends\n {WAITS}"));
    }

    #[test]
    fn that_they_are_gone_is_said_before_the_finalizer_goes() {
        let said = r#"{"type":"Terminating","status":"False","reason":"InstanceDeletionCompleted"}"#;
        let patch = r#"patch customresourcedefinitions pods./status {"status":{"conditions":["#;
        check(ENDING, 5, decide, &format!("{patch}{said}]}}}}"));
        let done = format!("{ENDING} status.conditions=[{said}]");
        check(
            &done,
            5,
            decide,
            r#"patch customresourcedefinitions pods. {"metadata":{"finalizers":["x.io/f"]}} # its objects are gone"#,
        );
    }

    #[test]
    fn many_go_in_pieces_until_none_is_left() {
        let many: String = (0..DELETED_MAX + 1).map(|number| format!("\n pods shop/p{number}")).collect();
        let mut world = TinyWorld::read(&format!("{}{many}", ENDING.replace(",\"x.io/f\"", "")));
        let plan = decide(&world, at(5));
        assert_eq!((plan.acts.len(), plan.wake_at), (DELETED_MAX + 1, Some(at(5))));
        world.settle(6, at(5), |world| decide(world, at(5)));
        assert!(world.list(&of::POD, "").is_empty());
        assert!(world.list(&of::CUSTOM_RESOURCE_DEFINITION, "").is_empty());
    }
}
