//! ResourceQuotas: nothing is made beyond them. What is used is counted up in the same transaction.

use model::tree::{entries, text};
use model::{Quantity, Tree, kinds};
use serde_json::{Map, json};
use store::Expect;

use super::usage::{Usage, is_exempt, is_in_scope, is_of_containers, usage};
use super::{Asked, Extra};
use crate::encode;
use crate::refusal::Refusal;
use crate::verbs::child;
use crate::view::path_of;

/// Refuses what goes beyond a quota, and counts what does not.
pub fn judge(asked: &Asked<'_>, object: &Tree, extra: &mut Extra) -> Result<(), Refusal> {
    if is_exempt(asked.resource) || !matches!(asked.part, "" | "resize") {
        return Ok(());
    }
    let quotas = asked.world.list(&kinds::RESOURCE_QUOTA, asked.namespace);
    if quotas.is_empty() {
        return Ok(());
    }
    let more = added(asked, object);
    for stored in quotas {
        let Ok(mut quota) = stored.tree() else { continue };
        if !is_in_scope(&quota, asked.resource, object) {
            continue;
        }
        let wanted = of_interest(&quota, &more);
        count_first(asked, &mut quota, &wanted);
        check_said(asked, &quota, object)?;
        if wanted.iter().all(|(_, amount)| amount.is_zero() || amount.is_negative()) {
            continue;
        }
        check_room(asked, &quota, object, &wanted)?;
        let key = model::Key::new(&kinds::RESOURCE_QUOTA, asked.namespace, stored.name());
        extra.expect.push((path_of(&key).into(), Expect::At(stored.revision())));
        extra.changes.push(encode::put_built_in(&kinds::RESOURCE_QUOTA, &counted(quota, &wanted)));
    }
    Ok(())
}

/// What the object uses more than before.
fn added(asked: &Asked<'_>, object: &Tree) -> Usage {
    let mut more = usage(asked.resource, object);
    if let Some(old) = asked.old {
        for (name, amount) in usage(asked.resource, old) {
            *more.entry(name).or_default() -= amount;
        }
    }
    more
}

fn hard(quota: &Tree) -> impl Iterator<Item = (&str, Quantity)> {
    entries(quota, "spec.hard").filter_map(|(name, value)| Some((name, value.as_str()?.parse().ok()?)))
}

fn of_interest(quota: &Tree, more: &Usage) -> Usage {
    hard(quota).filter_map(|(name, _)| Some((name.to_owned(), *more.get(name)?))).collect()
}

/// A quota of cpu or memory counts only if each container says how much it wants.
fn check_said(asked: &Asked<'_>, quota: &Tree, object: &Tree) -> Result<(), Refusal> {
    if !asked.creates(&kinds::POD) {
        return Ok(());
    }
    let mut missing: Vec<String> = Vec::new();
    for (name, _) in hard(quota).filter(|(name, _)| is_of_containers(name)) {
        let (part, bare) = match name.split_once('.') {
            Some((part, bare)) => (part, bare),
            None => ("requests", name),
        };
        let containers = model::tree::items(object, "spec.containers").iter();
        let silent: Vec<&str> = containers
            .chain(model::tree::items(object, "spec.initContainers"))
            .filter(|container| container["resources"][part][bare].is_null())
            .map(|container| text(container, "name"))
            .collect();
        if !silent.is_empty() {
            missing.push(format!("{name} for: {}", silent.join(",")));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let name = text(quota, "metadata.name");
    Err(asked.forbid(object, format!("failed quota: {name}: must specify {}", missing.join("; "))))
}

/// A quota that nobody has counted yet is counted here: each of its names is about one resource alone, this one.
fn count_first(asked: &Asked<'_>, quota: &mut Tree, wanted: &Usage) {
    let missing: Vec<String> =
        wanted.keys().filter(|name| quota["status"]["used"][name.as_str()].is_null()).cloned().collect();
    if missing.is_empty() {
        return;
    }
    let mut sums = Usage::new();
    let there = asked.world.list(&asked.resource.stored, asked.namespace);
    for object in there.iter().filter_map(|object| object.tree().ok()) {
        if is_in_scope(quota, asked.resource, &object) {
            for (name, amount) in usage(asked.resource, &object) {
                *sums.entry(name).or_default() += amount;
            }
        }
    }
    let told = missing.into_iter().map(|name| {
        let sum = sums.get(&name).copied().unwrap_or_default();
        (name, json!(sum.to_string()))
    });
    child(child_tree(quota, "status"), "used").extend(told.collect::<Map<_, _>>());
}

fn child_tree<'a>(tree: &'a mut Tree, name: &str) -> &'a mut Tree {
    child(tree, name);
    &mut tree[name]
}

fn used(quota: &Tree, name: &str) -> Quantity {
    quota["status"]["used"][name].as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn check_room(asked: &Asked<'_>, quota: &Tree, object: &Tree, wanted: &Usage) -> Result<(), Refusal> {
    let over: Vec<(&str, Quantity)> = hard(quota)
        .filter(|(name, limit)| {
            wanted.get(*name).is_some_and(|more| {
                !more.is_zero() && !more.is_negative() && used(quota, name) + *more > *limit
            })
        })
        .collect();
    if over.is_empty() {
        return Ok(());
    }
    let told = |amount: &dyn Fn(&str, Quantity) -> Quantity| {
        over.iter()
            .map(|(name, limit)| format!("{name}={}", amount(name, *limit)))
            .collect::<Vec<_>>()
            .join(",")
    };
    let why = format!(
        "exceeded quota: {}, requested: {}, used: {}, limited: {}",
        text(quota, "metadata.name"),
        told(&|name, _| wanted.get(name).copied().unwrap_or_default()),
        told(&|name, _| used(quota, name)),
        told(&|_, limit| limit),
    );
    Err(asked.forbid(object, why))
}

/// The quota with what is used now.
fn counted(mut quota: Tree, wanted: &Usage) -> Tree {
    let sums: Map<String, Tree> = wanted
        .iter()
        .map(|(name, more)| (name.clone(), json!((used(&quota, name) + *more).to_string())))
        .collect();
    let hard = quota["spec"]["hard"].clone();
    child(&mut quota, "status").entry("hard").or_insert(hard);
    child(&mut quota["status"], "used").extend(sums);
    quota
}

#[cfg(test)]
mod tests {
    use super::super::testing::change;
    use super::*;

    fn quota(hard: Tree, used: Tree) -> String {
        json!({"metadata": {"name": "q", "namespace": "d", "resourceVersion": "7"}, "spec": {"hard": hard}, "status": {"used": used}}).to_string()
    }

    /// How many quotas are counted up, or why not.
    fn create(gvr: &model::Gvr, quota: &str, mut object: Tree) -> Result<usize, String> {
        object["metadata"] = json!({"name": "x", "namespace": "d"});
        let world = [(&kinds::RESOURCE_QUOTA, quota)];
        let (_, extra) =
            change(&world, gvr, |asked, object, extra| judge(asked, object, extra), None, object)?;
        assert_eq!(extra.changes.len(), extra.expect.len());
        Ok(extra.changes.len())
    }

    #[test]
    fn nothing_is_made_beyond_a_quota() {
        let maps = |used: &str| quota(json!({"configmaps": "2"}), json!({"configmaps": used}));
        assert_eq!(create(&kinds::CONFIG_MAP, &maps("1"), json!({})), Ok(1));
        let refused = create(&kinds::CONFIG_MAP, &maps("2"), json!({})).expect_err("it is full");
        assert!(
            refused.ends_with(
                "exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2"
            ),
            "{refused}"
        );
        assert_eq!(create(&kinds::SECRET, &maps("2"), json!({})), Ok(0));
        let counts = quota(json!({"count/deployments.apps": "0"}), json!({}));
        assert!(create(&kinds::DEPLOYMENT, &counts, json!({})).is_err());
    }

    #[test]
    fn what_nobody_has_counted_is_counted() {
        let maps = quota(json!({"configmaps": "2"}), json!({}));
        let (a, b) = (
            r#"{"metadata": {"name": "a", "namespace": "d"}}"#,
            r#"{"metadata": {"name": "b", "namespace": "d"}}"#,
        );
        let check = |there: &[&str]| {
            let mut world = vec![(&kinds::RESOURCE_QUOTA, maps.as_str())];
            world.extend(there.iter().map(|object| (&kinds::CONFIG_MAP, *object)));
            let object = json!({"metadata": {"name": "x", "namespace": "d"}});
            change(
                &world,
                &kinds::CONFIG_MAP,
                |asked, object, extra| judge(asked, object, extra),
                None,
                object,
            )
            .is_ok()
        };
        assert!(check(&[a]));
        assert!(!check(&[a, b]));
    }

    #[test]
    fn pods_say_what_they_want_of_cpu() {
        let cpu = quota(json!({"requests.cpu": "1", "pods": "5"}), json!({"requests.cpu": "500m"}));
        let pod = |resources: Tree| json!({"spec": {"containers": [{"name": "c", "resources": resources}]}});
        assert_eq!(create(&kinds::POD, &cpu, pod(json!({"requests": {"cpu": "500m"}}))), Ok(1));
        assert!(create(&kinds::POD, &cpu, pod(json!({"requests": {"cpu": "501m"}}))).is_err());
        let silent = create(&kinds::POD, &cpu, pod(json!({}))).expect_err("it says nothing");
        assert!(silent.contains("failed quota: q: must specify requests.cpu for: c"), "{silent}");
    }
}
