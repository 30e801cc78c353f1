//! ResourceQuotas: what a namespace uses of what it may.
//!
//! It counts anew from what is there, and so corrects whatever the counting at admission missed: deletions above all.

use std::collections::BTreeSet;

use model::controller::{EVERY, nobody};
use model::kinds::{POD, RESOURCE_QUOTA, of};
use model::usage::{self, Usage};
use model::{Controller, Gvr, Key, Object, Plan, Quantity, Time, Tree, Watch, World};
use serde_json::{Map, json};

use crate::status;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "resourcequota-controller",
    primary: of::RESOURCE_QUOTA,
    also: &[Watch { gvr: EVERY, wakes }, Watch { gvr: of::LEASE, wakes: nobody }],
    reconcile,
};

/// A change of anything in a namespace wakes its quotas.
fn wakes(object: &Object, world: &dyn World) -> Vec<Key> {
    if object.namespace().is_empty() {
        return Vec::new();
    }
    let quotas = world.list(&RESOURCE_QUOTA, object.namespace());
    quotas.iter().map(|quota| Key::new(&RESOURCE_QUOTA, quota.namespace(), quota.name())).collect()
}

/// Decides on one quota.
pub fn reconcile(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(quota) = world.get(key).filter(|quota| !quota.is_ending()) else { return plan };
    let tree = quota.tree().unwrap_or_default();
    let hard = tree["spec"]["hard"].as_object().cloned().unwrap_or_default();
    let used = used(world, &quota, &tree, &hard);
    let wanted = json!({"hard": hard, "used": used});
    let mut wanted = with_removals(&tree["status"], wanted);
    keep_equal(&tree["status"]["used"], &mut wanted["used"]);
    status::write(&mut plan, key, &quota, &wanted, "what the namespace uses changed");
    plan
}

/// Counts what stands in the quota's namespace.
fn used(world: &dyn World, quota: &Object, tree: &Tree, hard: &Map<String, Tree>) -> Map<String, Tree> {
    let mut total = Usage::new();
    for gvr in counted(world, hard) {
        for object in world.list(&gvr, quota.namespace()) {
            let Ok(object) = object.tree() else { continue };
            if !usage::is_in_scope(tree, &gvr, &object) {
                continue;
            }
            for (name, amount) in
                usage::usage(&gvr, &object).into_iter().filter(|(name, _)| hard.contains_key(name))
            {
                *total.entry(name).or_default() += amount;
            }
        }
    }
    let amount = |name: &String| total.get(name).copied().unwrap_or(Quantity::ZERO).to_string();
    hard.keys().map(|name| (name.clone(), amount(name).into())).collect()
}

/// The resources that the names of a quota are about.
fn counted(world: &dyn World, hard: &Map<String, Tree>) -> Vec<Gvr> {
    let mut plurals = BTreeSet::new();
    for name in hard.keys() {
        match name.strip_prefix("count/") {
            Some(counted) => plurals.insert(counted.to_owned()),
            None if name.starts_with("services") => plurals.insert("services".into()),
            None if name.contains("storageclass.storage.k8s.io/") || name == "requests.storage" => {
                plurals.insert("persistentvolumeclaims".into())
            }
            None => plurals.insert(name.clone()),
        };
    }
    let is_counted = |gvr: &Gvr| *gvr == POD || plurals.contains(&gvr.to_string());
    world.resources().into_iter().map(|resource| resource.gvr).filter(is_counted).collect()
}

/// Names that the quota no longer has are taken out.
fn with_removals(known: &Tree, mut wanted: Tree) -> Tree {
    for part in ["hard", "used"] {
        let gone = known[part].as_object().into_iter().flatten().map(|(name, _)| name);
        for name in gone {
            if wanted[part].get(name).is_none() {
                wanted[part][name] = Tree::Null;
            }
        }
    }
    wanted
}

/// An amount that is the same is not written in another form.
fn keep_equal(known: &Tree, wanted: &mut Tree) {
    for (name, value) in wanted.as_object_mut().into_iter().flatten() {
        let read = |tree: &Tree| tree.as_str().and_then(|text| text.parse::<Quantity>().ok());
        if let (Some(before), Some(after)) = (read(&known[name.as_str()]), read(value))
            && before == after
        {
            *value = known[name.as_str()].clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    fn judge(text: &str, expected: &str) {
        let key = Key::new(&RESOURCE_QUOTA, "default", "q");
        check(text, 5, |world: &dyn World, now| reconcile(&key, world, now), expected);
    }

    #[test]
    fn everything_named_is_counted_and_zeros_are_told() {
        judge(
            r#"resourcequotas q spec.hard={"pods":"5","cpu":"1","configmaps":"10","count/replicasets.apps":"5","services.nodeports":"1"}
               pods a spec.containers=[{"name":"c","resources":{"requests":{"cpu":"300m"}}}]
               pods b spec.containers=[{"name":"c","resources":{"requests":{"cpu":"200m"}}}]
               pods c succeeded spec.containers=[{"name":"c","resources":{"requests":{"cpu":"200m"}}}]
               configmaps x
               services s spec.type=NodePort spec.ports=[{"port":1}]"#,
            r#"patch resourcequotas q/status {"status":{"hard":{"pods":"5"},"used":{"pods":"2","cpu":"500m","configmaps":"1","count/replicasets.apps":"0","services.nodeports":"1"}}}"#,
        );
    }

    #[test]
    fn what_is_counted_right_is_left_alone_and_what_is_not_is_corrected() {
        judge(r#"resourcequotas q spec.hard={"cpu":"1"} status={"hard":{"cpu":"1"},"used":{"cpu":"0"}}"#, "");
        judge(
            r#"resourcequotas q spec.hard={"cpu":"1"} status={"hard":{"cpu":"2","pods":"1"},"used":{"cpu":"0","pods":"0"}}"#,
            r#"patch resourcequotas q/status {"status":{"hard":{"cpu":"1","pods":null},"used":{"pods":null}}}"#,
        );
    }
}
