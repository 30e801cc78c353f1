//! Garbage collection: what becomes of children when their owners go.
//!
//! An object whose owners are all gone goes too; an owner that is deleted in the foreground waits for its children; one
//! that is deleted as an orphaner lets them go. It works on every kind, custom ones included. Before it deletes for
//! want of an owner it asks the server itself for that owner, by uid: a cache that lags never costs an object.

use model::controller::EVERY;
use model::kinds::of;
use model::{
    Controller, Key, Object, Owner, Plan, Precondition, Propagation, Resource, Time, Tree, Watch, World,
    Write,
};
use serde_json::json;

use crate::owning;

/// Keeps an owner until its blocking children are gone.
const FOREGROUND: &str = "foregroundDeletion";
/// Keeps an owner until its children have been let go.
const ORPHAN: &str = "orphan";

/// How many children one pass takes up: the next one follows at once, and others get their turn between.
const CHILDREN_MAX: usize = 500;

/// The controller. Its keys are of any resource; the one it has as primary changes seldom.
pub static CONTROLLER: Controller = Controller {
    name: "garbage-collector",
    primary: of::CUSTOM_RESOURCE_DEFINITION,
    also: &[Watch { gvr: EVERY, wakes }],
    reconcile,
};

/// What one owner is to its child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tie {
    /// It is there, or may be: the child stays.
    Solid,
    /// It is not in the caches.
    Gone,
    /// It is being deleted in the foreground and waits for this child.
    Waits,
}

/// The keys that a change of any object wakes: its own, its children's when it is gone, its owners' when they wait.
fn wakes(object: &Object, world: &dyn World) -> Vec<Key> {
    let (api_version, kind) = object.says_it_is();
    let Some(resource) = world.resource_of(&api_version, &kind) else { return Vec::new() };
    let key = key_of(&resource, object);
    let is_gone = world.get(&key).is_none_or(|there| there.uid() != object.uid());
    let mut keys: Vec<Key> = owners_that_wait(object, world);
    if is_gone {
        keys.extend(children(world, object).into_iter().map(|(resource, child)| key_of(&resource, &child)));
        return keys;
    }
    let held = object.meta().finalizers.iter().any(|held| held == FOREGROUND || held == ORPHAN);
    let loose = || ties(object, world).iter().any(|(_, _, tie)| *tie != Tie::Solid);
    if (object.is_ending() && held) || loose() {
        keys.push(key);
    }
    keys
}

fn owners_that_wait(object: &Object, world: &dyn World) -> Vec<Key> {
    let owners = object.meta().owner_references.iter();
    let keys = owners.filter_map(|owner| key_of_owner(object, owner, world));
    keys.filter(|key| world.get(key).is_some_and(|owner| is_waiting(&owner))).collect()
}

/// Decides on one object.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(object) = world.get(key) else { return plan };
    match () {
        () if object.is_ending() && holds(&object, ORPHAN) => {
            let_children_go(&mut plan, key, &object, world, now)
        }
        () if is_waiting(&object) => delete_children(&mut plan, key, &object, world, now),
        () if object.is_ending() => {}
        () => collect(&mut plan, key, &object, world),
    }
    plan
}

fn holds(object: &Object, finalizer: &str) -> bool {
    object.meta().finalizers.iter().any(|held| held == finalizer)
}

fn is_waiting(object: &Object) -> bool {
    object.is_ending() && holds(object, FOREGROUND)
}

/// An orphaner: first every child loses its reference, then the owner may go.
fn let_children_go(plan: &mut Plan, key: &Key, object: &Object, world: &dyn World, now: Time) {
    let children = children(world, object);
    for (resource, child) in children.iter().take(CHILDREN_MAX) {
        let owners = owning::without(child, object.uid());
        owning::set_owners(plan, &resource.gvr, child, owners, "its owner lets it go");
    }
    if children.len() > CHILDREN_MAX {
        plan.wake(now);
    } else if children.is_empty() {
        release(plan, key, object, ORPHAN, "all its children have been let go");
    }
}

/// A foreground deletion: the children go first; those with another owner only lose the reference.
fn delete_children(plan: &mut Plan, key: &Key, object: &Object, world: &dyn World, now: Time) {
    let children = children(world, object);
    let blocks = |child: &Object| {
        child
            .meta()
            .owner_references
            .iter()
            .any(|owner| owner.uid == object.uid() && owner.block_owner_deletion)
    };
    if !children.iter().any(|(_, child)| blocks(child)) {
        release(plan, key, object, FOREGROUND, "no child blocks its deletion any more");
        return;
    }
    let alive = children.iter().filter(|(_, child)| !child.is_ending());
    for (resource, child) in alive.clone().take(CHILDREN_MAX) {
        collect(plan, &key_of(resource, child), child, world);
    }
    if alive.count() > CHILDREN_MAX {
        plan.wake(now);
    }
}

fn release(plan: &mut Plan, key: &Key, object: &Object, finalizer: &str, why: &str) {
    let left: Vec<&String> = object.meta().finalizers.iter().filter(|held| *held != finalizer).collect();
    let patch = json!({"metadata": {"finalizers": left}});
    plan.patch(key.clone(), "", patch, Precondition::exactly(object), why);
}

/// What becomes of a child: the first that applies.
fn collect(plan: &mut Plan, key: &Key, object: &Object, world: &dyn World) {
    let ties = ties(object, world);
    let is = |wanted: Tie| ties.iter().any(|(_, _, tie)| *tie == wanted);
    match () {
        () if ties.is_empty() || !(is(Tie::Gone) || is(Tie::Waits)) => {}
        () if is(Tie::Solid) => {
            prove_gone(plan, &ties);
            let stay = ties.iter().filter(|(_, _, tie)| *tie == Tie::Solid);
            let stay = stay.map(|(owner, _, _)| owning::written(owner)).collect();
            owning::set_owners(plan, &key.gvr, object, stay, "an owner is gone, another one stays");
        }
        () if is(Tie::Waits) && world.owns_any(object.uid()) => {
            unblock_circle(plan, key, object, world);
            delete(plan, key, object, Propagation::Foreground, "its owner waits for it and its children");
        }
        () if is(Tie::Waits) => delete(plan, key, object, own_way(object), "its owner waits for it"),
        () => {
            prove_gone(plan, &ties);
            delete(plan, key, object, own_way(object), "its owner is gone");
        }
    }
}

/// Where a child of this object is itself being waited for, this object must not block: nothing would ever end.
fn unblock_circle(plan: &mut Plan, key: &Key, object: &Object, world: &dyn World) {
    let in_circle = children(world, object).iter().any(|(_, child)| is_waiting(child));
    if !in_circle || !object.meta().owner_references.iter().any(|owner| owner.block_owner_deletion) {
        return;
    }
    let unblocked = object.meta().owner_references.iter().cloned();
    let unblocked: Vec<Tree> =
        unblocked.map(|owner| owning::written(&Owner { block_owner_deletion: false, ..owner })).collect();
    owning::set_owners(plan, &key.gvr, object, unblocked, "owners in a circle must not wait for each other");
}

/// How the object itself asks to be deleted.
fn own_way(object: &Object) -> Propagation {
    match () {
        () if holds(object, ORPHAN) => Propagation::Orphan,
        () if holds(object, FOREGROUND) => Propagation::Foreground,
        () => Propagation::Background,
    }
}

fn delete(plan: &mut Plan, key: &Key, object: &Object, propagation: Propagation, why: &str) {
    let when = Precondition::same(object);
    plan.act(Write::Delete { key: key.clone(), when, grace_seconds: None, propagation }, why);
}

fn prove_gone(plan: &mut Plan, ties: &[(&Owner, Option<Key>, Tie)]) {
    for (owner, key, tie) in ties {
        if let (Some(key), Tie::Gone) = (key, tie) {
            plan.act(Write::Absent { key: key.clone(), uid: owner.uid.clone() }, "a cache may lag");
        }
    }
}

/// What each owner is to the object.
fn ties<'o>(object: &'o Object, world: &dyn World) -> Vec<(&'o Owner, Option<Key>, Tie)> {
    let tie = |owner: &'o Owner| {
        // An owner of a kind that is not served here, or in no place where it could be: nothing is known of it.
        let Some(key) = key_of_owner(object, owner, world) else { return (owner, None, Tie::Solid) };
        let tie = match world.get(&key).filter(|found| found.uid() == owner.uid) {
            None => Tie::Gone,
            Some(found) if owner.block_owner_deletion && is_waiting(&found) => Tie::Waits,
            Some(_) => Tie::Solid,
        };
        (owner, Some(key), tie)
    };
    object.meta().owner_references.iter().map(tie).collect()
}

fn key_of_owner(object: &Object, owner: &Owner, world: &dyn World) -> Option<Key> {
    let resource = world.resource_of(&owner.api_version, &owner.kind)?;
    match (resource.namespaced, object.namespace()) {
        (true, "") => None,
        (true, namespace) => Some(Key::new(&resource.gvr, namespace, owner.name.as_str())),
        (false, _) => Some(Key::new(&resource.gvr, "", owner.name.as_str())),
    }
}

fn key_of(resource: &Resource, object: &Object) -> Key {
    Key::new(&resource.gvr, object.namespace(), object.name())
}

/// Every object that names this one as its owner.
fn children(world: &dyn World, object: &Object) -> Vec<(Resource, Object)> {
    // Most objects have none, and to ask for each resource takes long.
    if !world.owns_any(object.uid()) {
        return Vec::new();
    }
    let resources = world.resources().into_iter();
    let owned = |resource: Resource| {
        let children = world.owned_by(&resource.gvr, object.uid());
        children.into_iter().map(move |child| (resource.clone(), child))
    };
    let reachable = |(_, child): &(Resource, Object)| {
        object.namespace().is_empty() || child.namespace() == object.namespace()
    };
    resources.flat_map(owned).filter(reachable).collect()
}

#[cfg(test)]
mod tests {
    use model::Gvr;
    use model::kinds::{POD, REPLICA_SET};
    use model::tiny::{TinyWorld, at, check};

    use super::*;

    fn judge(gvr: &Gvr, name: &str, text: &str, expected: &str) {
        let key = Key::new(gvr, "default", name);
        check(text, 5, |world: &dyn World, now| reconcile(&key, world, now), expected);
    }

    #[test]
    fn a_child_goes_when_its_owner_is_gone_and_proved_so() {
        judge(
            &POD,
            "a",
            "pods a owner=replicasets/web",
            "absent replicasets web uid replicasets-web
             delete pods a # its owner is gone",
        );
        judge(&POD, "a", "pods a owner=replicasets/web\n replicasets web", "");
        judge(
            &POD,
            "a",
            "pods a owner=replicasets/web\n replicasets web metadata.uid=another",
            "absent replicasets web uid replicasets-web
             delete pods a",
        );
    }

    #[test]
    fn a_child_with_another_owner_only_loses_the_reference() {
        judge(
            &POD,
            "a",
            r#"pods a metadata.ownerReferences=[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"x","uid":"gone"},{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web","uid":"replicasets-web"}]
               replicasets web"#,
            r#"absent replicasets x uid gone
               patch pods a {"metadata":{"ownerReferences":[{"name":"web"}]}}"#,
        );
    }

    #[test]
    fn an_owner_of_an_unknown_kind_keeps_its_child() {
        judge(
            &POD,
            "a",
            r#"pods a metadata.ownerReferences=[{"apiVersion":"x.io/v1","kind":"Thing","name":"x","uid":"u"}]"#,
            "",
        );
    }

    #[test]
    fn foreground_deletion_takes_the_children_first() {
        let owner = r#"replicasets web ending@1 metadata.finalizers=["foregroundDeletion"]"#;
        judge(
            &REPLICA_SET,
            "web",
            &format!("{owner}\n pods a owner=replicasets/web\n pods b owner=replicasets/web ending@2"),
            "delete pods a # its owner waits for it",
        );
        judge(&REPLICA_SET, "web", owner, r#"patch replicasets web {"metadata":{"finalizers":[]}}"#);
    }

    #[test]
    fn an_orphaner_lets_its_children_go_before_it_goes() {
        let mut world = TinyWorld::read(
            r#"replicasets web ending@1 metadata.finalizers=["orphan"]
               pods a owner=replicasets/web
               pods b owner=replicasets/web"#,
        );
        let key = Key::new(&REPLICA_SET, "default", "web");
        world.settle(4, at(5), |world| reconcile(&key, world, at(5)));
        assert!(world.get(&key).is_none());
        let pods = world.list(&POD, "");
        assert!(pods.len() == 2 && pods.iter().all(|pod| pod.meta().owner_references.is_empty()));
    }

    #[test]
    fn owners_in_a_circle_end() {
        let owned = |name: &str, owner: &str| {
            format!(
                r#"pods {name} metadata.ownerReferences=[{{"apiVersion":"v1","kind":"Pod","name":"{owner}","uid":"pods-{owner}","blockOwnerDeletion":true}}]"#
            )
        };
        let text = format!(
            "{} ending@1 metadata.finalizers=[\"foregroundDeletion\"]\n{}\n{}",
            owned("a", "c"),
            owned("b", "a"),
            owned("c", "b")
        );
        let mut world = TinyWorld::read(&text);
        for _ in 0..20 {
            for name in ["a", "b", "c"] {
                let plan = reconcile(&Key::new(&POD, "default", name), &world, at(5));
                let _ = world.apply(&plan, at(5));
            }
        }
        assert!(world.list(&POD, "").is_empty(), "{:?}", world.list(&POD, ""));
    }

    #[test]
    fn what_is_gone_wakes_its_children_and_the_owner_that_waits_for_it() {
        let mut world = TinyWorld::read(
            r#"replicasets web ending@1 metadata.finalizers=["foregroundDeletion"]
               pods a owner=replicasets/web
               configmaps c owner=pods/a"#,
        );
        let key = Key::new(&POD, "default", "a");
        let pod = world.get(&key).expect("it is there");
        world.drop(&key);
        let woken: Vec<String> = wakes(&pod, &world).iter().map(ToString::to_string).collect();
        assert_eq!(woken, ["replicasets.apps default/web", "configmaps default/c"]);
    }

    #[test]
    fn a_child_whose_owner_is_there_wakes_nobody() {
        let world = TinyWorld::read("pods a owner=replicasets/web\n replicasets web");
        let pod = world.get(&Key::new(&POD, "default", "a")).expect("it is there");
        assert!(wakes(&pod, &world).is_empty());
    }
}
