//! A pod's priority is what its class says; there is at most one default class.

use std::sync::Arc;

use model::tree::{flag, text, whole};
use model::{Key, Object, Tree, kinds, tree};

use super::{Asked, Extra, Operation};
use crate::refusal::Refusal;
use crate::verbs::meta;

/// Resolves a new pod's class, and keeps default classes to one.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if asked.creates(&kinds::POD) {
        return resolve(asked, object);
    }
    if asked.writes(&kinds::PRIORITY_CLASS) && flag(object, "globalDefault") {
        return one_default(asked, object);
    }
    Ok(())
}

fn resolve(asked: &Asked<'_>, pod: &mut Tree) -> Result<(), Refusal> {
    let name = text(pod, "spec.priorityClassName").to_owned();
    let class =
        match name.as_str() {
            "" => default_class(asked),
            name => {
                let found = asked.world.get(&Key::new(&kinds::PRIORITY_CLASS, "", name));
                let class = found.and_then(|class| class.seen::<Tree>());
                Some(class.ok_or_else(|| {
                    asked.forbid(pod, format!("no PriorityClass with name {name} was found"))
                })?)
            }
        };
    let value = class.as_ref().and_then(|class| whole(class, "value")).unwrap_or(0);
    if whole(pod, "spec.priority").is_some_and(|said| said != value) {
        let said = whole(pod, "spec.priority").unwrap_or(0);
        let why = format!(
            "the integer value of priority ({said}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(asked.forbid(pod, why));
    }
    let policy =
        class.as_ref().map(|class| text(class, "preemptionPolicy")).filter(|policy| !policy.is_empty());
    let policy = policy.unwrap_or("PreemptLowerPriority");
    let said = text(pod, "spec.preemptionPolicy");
    if !said.is_empty() && said != policy {
        let why = format!(
            "the string value of PreemptionPolicy ({said}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(asked.forbid(pod, why));
    }
    let Some(spec) = tree::object(pod, "spec") else { return Ok(()) };
    if let Some(class) = &class {
        tree::set(spec, "priorityClassName", meta(class, "name"));
    }
    tree::set(spec, "priority", value);
    tree::set(spec, "preemptionPolicy", policy);
    Ok(())
}

/// The default class; of several the lowest, as upstream takes it.
fn default_class(asked: &Asked<'_>) -> Option<Arc<Tree>> {
    let classes = asked.world.list(&kinds::PRIORITY_CLASS, "");
    let defaults =
        classes.iter().filter_map(Object::seen::<Tree>).filter(|class| flag(class, "globalDefault"));
    defaults.min_by_key(|class| whole(class, "value").unwrap_or(0))
}

fn one_default(asked: &Asked<'_>, class: &Tree) -> Result<(), Refusal> {
    let others = asked.world.list(&kinds::PRIORITY_CLASS, "");
    let other = others
        .iter()
        .filter(|other| other.name() != meta(class, "name"))
        .find(|other| other.tree().is_ok_and(|other| flag(&other, "globalDefault")));
    match other {
        Some(other)
            if asked.operation == Operation::Create
                || asked.old.is_some_and(|old| !flag(old, "globalDefault")) =>
        {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name()
            );
            Err(asked.forbid(class, why))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;
    use serde_json::json;

    const HIGH: &str = r#"{"metadata": {"name": "high"}, "value": 1000, "preemptionPolicy": "Never"}"#;
    const USUAL: &str = r#"{"metadata": {"name": "usual"}, "value": 5, "globalDefault": true}"#;

    fn pod(spec: Tree, world: &[(&model::Gvr, &str)]) -> Result<(i64, String), String> {
        let pod = json!({"metadata": {"name": "p", "namespace": "d"}, "spec": spec});
        let made = check(world, &kinds::POD, admit, pod)?;
        Ok((whole(&made, "spec.priority").unwrap_or(-1), text(&made, "spec.preemptionPolicy").to_owned()))
    }

    #[test]
    fn a_pod_has_the_priority_of_its_class() {
        let world = [(&kinds::PRIORITY_CLASS, HIGH), (&kinds::PRIORITY_CLASS, USUAL)];
        assert_eq!(pod(json!({"priorityClassName": "high"}), &world), Ok((1000, "Never".into())));
        assert_eq!(pod(json!({}), &world), Ok((5, "PreemptLowerPriority".into())));
        assert_eq!(pod(json!({}), &[]), Ok((0, "PreemptLowerPriority".into())));
        assert!(pod(json!({"priorityClassName": "x"}), &world).is_err());
        assert!(pod(json!({"priority": 9}), &world).is_err());
    }

    #[test]
    fn there_is_one_default_class() {
        let world = [(&kinds::PRIORITY_CLASS, USUAL)];
        let class = |name: &str| json!({"metadata": {"name": name}, "value": 1, "globalDefault": true});
        assert!(check(&world, &kinds::PRIORITY_CLASS, admit, class("other")).is_err());
        assert!(check(&world, &kinds::PRIORITY_CLASS, admit, class("usual")).is_ok());
    }
}
