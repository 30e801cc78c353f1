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

/// How soon a namespace is looked at again while some resource cannot be listed, in seconds: nothing else may come of it that
/// would wake it. What cannot be listed is mostly converted by a webhook that is away.
const LISTED_AGAIN_SECONDS: i64 = 5;

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
struct Left {
    found: Vec<(Gvr, Vec<Object>)>,
    /// The resources of which nobody can say what is left.
    unseen: Vec<Gvr>,
}

/// Decides on one namespace.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(namespace) = world.get(key).filter(Object::is_ending) else { return plan };
    let left = Left::read(world, namespace.name());
    let since = namespace.meta().deletion_timestamp.unwrap_or(now);
    let settled = time::after_seconds(since, EMPTY_AFTER_SECONDS);
    if left.is_nothing() && now >= settled && has_finalizer(&namespace) {
        finalize(&mut plan, key, &namespace);
        return plan;
    }
    if left.is_nothing() && now < settled {
        plan.wake(settled);
    }
    if !left.unseen.is_empty() {
        plan.wake(time::after_seconds(now, LISTED_AGAIN_SECONDS));
    }
    left.delete(&mut plan, now);
    // A deletion that is refused leaves the reason in the status.
    let refused = status::patch(key, &namespace, &told(&namespace, &left, Some("{refusal}"), now));
    for act in plan.acts.iter_mut().filter(|act| matches!(act.write, Write::Delete { .. })) {
        act.otherwise = refused.clone().map(Box::new);
    }
    let wanted = told(&namespace, &left, None, now);
    status::write(&mut plan, key, &namespace, &wanted, "how far its end is");
    plan
}

impl Left {
    fn read(world: &dyn World, namespace: &str) -> Self {
        let resources = world.resources().into_iter().filter(|resource| resource.namespaced);
        let (unseen, seen): (Vec<_>, Vec<_>) = resources.partition(|resource| world.lacks(&resource.gvr));
        let listed = seen.into_iter().map(|resource| {
            let objects = world.list(&resource.gvr, namespace);
            (resource.gvr, objects)
        });
        Self {
            found: listed.filter(|(_, objects)| !objects.is_empty()).collect(),
            unseen: unseen.into_iter().map(|resource| resource.gvr).collect(),
        }
    }

    fn is_nothing(&self) -> bool {
        self.found.is_empty() && self.unseen.is_empty()
    }

    /// Pods first: while there are any, what they may need stays.
    fn delete(&self, plan: &mut Plan, now: Time) {
        let has_pods = self.found.iter().any(|(gvr, _)| *gvr == POD);
        let turn = self.found.iter().filter(|(gvr, _)| !has_pods || *gvr == POD);
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
        let told = self.found.iter().map(|(gvr, objects)| {
            format!("{}.{} has {} resource instances", gvr.plural, gvr.group, objects.len())
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// How many objects each finalizer holds.
    fn finalizers(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for finalizer in
            self.found.iter().flat_map(|(_, objects)| objects).flat_map(|object| &object.meta().finalizers)
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

/// How far its end is, as its status says it; `refusal` is what was answered to a deletion.
fn told(namespace: &Object, left: &Left, refusal: Option<&str>, now: Time) -> Tree {
    let known = status::of(namespace);
    let mut conditions = status::conditions(&known);
    let remaining = format!("Some resources are remaining: {}", left.told());
    let held: Vec<String> = left
        .finalizers()
        .into_iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect();
    let finalizing = format!("Some content in the namespace has finalizers remaining: {}", held.join(", "));
    let waits_for_pods = left.found.len() > 1 && left.found.iter().any(|(gvr, _)| *gvr == POD);
    let unseen: Vec<String> =
        left.unseen.iter().map(|gvr| format!("{}.{} cannot be listed", gvr.plural, gvr.group)).collect();
    let failures = refusal.map(str::to_owned).into_iter().chain(unseen).collect::<Vec<_>>();
    let failed = match waits_for_pods && failures.is_empty() {
        true => "Failed to delete all resource types: pods go first".to_owned(),
        false => {
            let remaining = left.found.len() + left.unseen.len();
            let failures = failures.join(", ");
            format!("Failed to delete all resource types, {remaining} remaining: {failures}")
        }
    };
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
        if waits_for_pods || !failures.is_empty() {
            ("NamespaceDeletionContentFailure", true, "ContentDeletionFailed", failed.as_str())
        } else {
            (
                "NamespaceDeletionContentFailure",
                false,
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            )
        },
        if left.found.is_empty() {
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
    json!({"phase": "Terminating", "conditions": conditions})
}

#[cfg(test)]
mod tests {
    use model::tiny::{TinyWorld, at, check};

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&NAMESPACE, "", "shop"), world, now)
    }

    /// A world that cannot see Secrets.
    struct Blind(TinyWorld);

    impl World for Blind {
        fn get(&self, key: &Key) -> Option<Object> {
            self.0.get(key)
        }

        fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object> {
            if self.lacks(gvr) { Vec::new() } else { self.0.list(gvr, namespace) }
        }

        fn lacks(&self, gvr: &Gvr) -> bool {
            gvr.plural == "secrets"
        }
    }

    #[test]
    fn what_cannot_be_listed_may_still_be_there() {
        let world = Blind(TinyWorld::read(&format!("{SHOP}secrets shop/s")));
        let plan = decide(&world, at(100));
        let told: Vec<String> = plan.acts.iter().map(|act| format!("{:?}", act.write)).collect();
        let lets_go = plan.acts.iter().any(|act| matches!(act.write, Write::Replace { .. }));
        assert!(!lets_go, "{told:?}");
        assert!(told.iter().any(|write| write.contains("secrets. cannot be listed")), "{told:?}");
        assert_eq!(plan.wake_at, Some(at(105)), "it is looked at again");
    }

    #[test]
    fn a_deletion_that_is_refused_is_told() {
        let world = TinyWorld::read(&format!("{SHOP}secrets shop/s"));
        let plan = decide(&world, at(100));
        let deletion = plan.acts.iter().find(|act| matches!(act.write, Write::Delete { .. })).expect("one");
        let otherwise = format!("{:?}", deletion.otherwise);
        let wanted = "Failed to delete all resource types, 1 remaining: {refusal}";
        assert!(otherwise.contains(wanted), "{otherwise}");
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
