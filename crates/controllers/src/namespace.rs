//! Namespaces that end: everything in them is deleted, pods first, and then the namespace is let go.
//!
//! Its five conditions say how far it got. It deletes nothing in a namespace whose deletion was not asked for.

use std::collections::BTreeMap;

use model::controller::EVERY;
use model::kinds::{NAMESPACE, POD, of};
use model::{Controller, Gvr, Key, Object, Plan, Precondition, Time, Tree, Watch, World, Write, time};
use serde_json::json;

use crate::status::{self, Says};

/// The finalizer that keeps a namespace until it is empty.
const FINALIZER: &str = "kubernetes";

/// How long a namespace must have been ending before it counts as empty, in seconds: what was made just before its
/// deletion has then reached the caches. Objects can no longer be made in it, so once empty it stays so.
const EMPTY_AFTER_SECONDS: i64 = 2;

/// How many objects one pass deletes: the next one follows at once.
const DELETED_MAX: usize = 500;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "namespace-controller",
    primary: of::NAMESPACE,
    also: &[Watch { gvr: EVERY, wakes }, Watch { gvr: of::EVENT, wakes }, Watch { gvr: of::LEASE, wakes }],
    reconcile,
};

/// A change of any object wakes its namespace, when that is ending.
fn wakes(object: &Object, world: &dyn World) -> Vec<Key> {
    if object.namespace().is_empty() {
        return Vec::new();
    }
    let key = Key::new(&NAMESPACE, "", object.namespace());
    let is_ending = world.get(&key).is_some_and(|namespace| namespace.is_ending());
    if is_ending { vec![key] } else { Vec::new() }
}

/// What is left in a namespace, by resource.
struct Left(Vec<(Gvr, Vec<Object>)>);

/// Decides on one namespace.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = world.get(key).filter(Object::is_ending) else { return plan };
    let left = Left::read(world, namespace.name());
    let since = namespace.meta().deletion_timestamp.unwrap_or(now);
    let settled = time::after_seconds(since, EMPTY_AFTER_SECONDS);
    if left.0.is_empty() && now >= settled && has_finalizer(&namespace) {
        finalize(&mut plan, key, &namespace);
        return plan;
    }
    if left.0.is_empty() && now < settled {
        plan.wake(settled);
    }
    left.delete(&mut plan, now);
    report(&mut plan, key, &namespace, &left, now);
    plan
}

impl Left {
    fn read(world: &dyn World, namespace: &str) -> Self {
        let resources = world.resources().into_iter().filter(|resource| resource.namespaced);
        let listed = resources.map(|resource| {
            let objects = world.list(&resource.gvr, namespace);
            (resource.gvr, objects)
        });
        Self(listed.filter(|(_, objects)| !objects.is_empty()).collect())
    }

    /// Pods first: while there are any, what they may need stays.
    fn delete(&self, plan: &mut Plan, now: Time) {
        let has_pods = self.0.iter().any(|(gvr, _)| *gvr == POD);
        let turn = self.0.iter().filter(|(gvr, _)| !has_pods || *gvr == POD);
        let alive = turn.flat_map(|(gvr, objects)| {
            objects.iter().filter(|object| !object.is_ending()).map(move |object| (gvr, object))
        });
        for (count, (gvr, object)) in alive.enumerate() {
            if count == DELETED_MAX {
                plan.wake(now);
                break;
            }
            let key = Key::new(gvr, object.namespace(), object.name());
            plan.delete(key, Precondition::same(object), "its namespace ends");
        }
    }

    /// `pods. has 1 resource instances, secrets. has 2 resource instances`
    fn told(&self) -> String {
        let told = self.0.iter().map(|(gvr, objects)| {
            format!("{}.{} has {} resource instances", gvr.plural, gvr.group, objects.len())
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// How many objects each finalizer holds.
    fn finalizers(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for finalizer in
            self.0.iter().flat_map(|(_, objects)| objects).flat_map(|object| &object.meta().finalizers)
        {
            *counts.entry(finalizer.clone()).or_insert(0) += 1;
        }
        counts
    }
}

fn has_finalizer(namespace: &Object) -> bool {
    finalizers(namespace).iter().any(|finalizer| finalizer == FINALIZER)
}

fn finalizers(namespace: &Object) -> Vec<Tree> {
    namespace.tree().unwrap_or_default()["spec"]["finalizers"].as_array().cloned().unwrap_or_default()
}

fn finalize(plan: &mut Plan, key: &Key, namespace: &Object) {
    let mut object = namespace.tree().unwrap_or_default();
    let left: Vec<Tree> =
        finalizers(namespace).into_iter().filter(|finalizer| finalizer != FINALIZER).collect();
    object["spec"]["finalizers"] = left.into();
    plan.act(Write::Replace { key: key.clone(), part: "finalize", object }, "it is empty");
}

fn report(plan: &mut Plan, key: &Key, namespace: &Object, left: &Left, now: Time) {
    let known = status::of(namespace);
    let mut conditions = status::conditions(&known);
    let remaining = format!("Some resources are remaining: {}", left.told());
    let held: Vec<String> = left
        .finalizers()
        .into_iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let finalizing = format!("Some content in the namespace has finalizers remaining: {}", held.join(", "));
    let waits_for_pods = left.0.len() > 1 && left.0.iter().any(|(gvr, _)| *gvr == POD);
    let all = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        if waits_for_pods {
            (
                "NamespaceDeletionContentFailure",
                true,
                "ContentDeletionFailed",
                "Failed to delete all resource types: pods go first",
            )
        } else {
            (
                "NamespaceDeletionContentFailure",
                false,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            )
        },
        if left.0.is_empty() {
            ("NamespaceContentRemaining", false, "ContentRemoved", "All content successfully removed")
        } else {
            ("NamespaceContentRemaining", true, "SomeResourcesRemain", remaining.as_str())
        },
        if held.is_empty() {
            (
                "NamespaceFinalizersRemaining",
                false,
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            )
        } else {
            ("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", finalizing.as_str())
        },
    ];
    for (kind, is_true, reason, message) in all {
        let status = if is_true { "True" } else { "False" };
        status::set_condition(&mut conditions, Says { kind, status, reason, message }, now);
    }
    let wanted = json!({"phase": "Terminating", "conditions": conditions});
    status::write(plan, key, namespace, &wanted, "how far its end is");
}

#[cfg(test)]
mod tests {
    use model::tiny::{TinyWorld, at, check};

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&NAMESPACE, "", "shop"), world, now)
    }

    const SHOP: &str = r#"namespaces shop ending@1 spec.finalizers=["kubernetes"]
        "#;

    #[test]
    fn a_namespace_that_does_not_end_is_left_alone() {
        check("namespaces shop\n pods shop/a", 5, decide, "");
    }

    #[test]
    fn pods_go_before_everything_else() {
        check(
            &format!("{SHOP}pods shop/a\n pods shop/b ending@2 metadata.finalizers=[\"x.io/f\"]\n configmaps shop/c\n pods other/d"),
            5,
            decide,
            r#"delete pods shop/a # its namespace ends
               patch namespaces shop/status {"status":{"phase":"Terminating","conditions":[
               {"type":"NamespaceDeletionDiscoveryFailure","status":"False"},
               {"type":"NamespaceDeletionGroupVersionParsingFailure","status":"False"},
               {"type":"NamespaceDeletionContentFailure","status":"True"},
               {"type":"NamespaceContentRemaining","status":"True","message":"Some resources are remaining: configmaps. has 1 resource instances, pods. has 2 resource instances"},
               {"type":"NamespaceFinalizersRemaining","status":"True","message":"Some content in the namespace has finalizers remaining: x.io/f in 1 resource instances"}]}}"#
                .replace("[\n               {", "[{").replace(",\n               {", ",{").as_str(),
        );
    }

    #[test]
    fn an_empty_namespace_is_let_go_once_the_caches_must_have_caught_up() {
        let quiet = TinyWorld::read(SHOP);
        assert_eq!(decide(&quiet, at(2)).wake_at, Some(at(3)));
        check(SHOP, 3, decide, r#"replace namespaces shop finalize {"spec":{"finalizers":[]}}"#);
    }

    #[test]
    fn whatever_is_in_it_everything_goes() {
        let mut world = TinyWorld::read(&format!(
            "{SHOP}pods shop/a\n pods shop/b\n configmaps shop/c\n services shop/s"
        ));
        world.settle(6, at(9), |world| decide(world, at(9)));
        assert!(world.get(&Key::new(&NAMESPACE, "", "shop")).is_none());
        assert!(world.list(&POD, "shop").is_empty());
    }
}
