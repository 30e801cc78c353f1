//! A pod of a RuntimeClass gets the class's overhead and its rules of where to run.

use model::tree::{entries, is_set, items, text};
use model::{Key, Tree, kinds};

use super::service_account::push;
use super::{Asked, Extra};
use crate::refusal::Refusal;
use crate::verbs::child;

/// Applies the class that a new pod names.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if !asked.creates(&kinds::POD) {
        return Ok(());
    }
    let name = text(object, "spec.runtimeClassName").to_owned();
    if name.is_empty() {
        return match is_set(object, "spec.overhead") {
            true => Err(asked.forbid(
                object,
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
            )),
            false => Ok(()),
        };
    }
    let found =
        asked.world.get(&Key::new(&kinds::RUNTIME_CLASS, "", &name)).and_then(|class| class.seen::<Tree>());
    let class = found
        .ok_or_else(|| asked.forbid(object, format!("pod rejected: RuntimeClass \"{name}\" not found")))?;
    let overhead = &class["overhead"]["podFixed"];
    if is_set(object, "spec.overhead") && object["spec"]["overhead"] != *overhead {
        let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        return Err(asked.forbid(object, why));
    }
    if overhead.is_object() {
        object["spec"]["overhead"] = overhead.clone();
    }
    select_nodes(asked, object, &class)?;
    for toleration in items(&class, "scheduling.tolerations") {
        if !items(object, "spec.tolerations").contains(toleration) {
            push(&mut object["spec"], "tolerations", toleration.clone());
        }
    }
    Ok(())
}

fn select_nodes(asked: &Asked<'_>, object: &mut Tree, class: &Tree) -> Result<(), Refusal> {
    let wanted: Vec<(String, Tree)> = entries(class, "scheduling.nodeSelector")
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect();
    for (key, value) in wanted {
        let own = child(&mut object["spec"], "nodeSelector");
        if own.get(&key).is_some_and(|own| *own != value) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] differs"
            );
            return Err(asked.forbid(object, why));
        }
        own.insert(key, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_class_gives_overhead_and_a_place() {
        let class = r#"{"metadata": {"name": "c"}, "handler": "h", "overhead": {"podFixed": {"cpu": "10m"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]}}"#;
        let world = [(&kinds::RUNTIME_CLASS, class)];
        let pod =
            |spec: Tree| check(&world, &kinds::POD, admit, json!({"metadata": {"name": "p"}, "spec": spec}));
        let made = pod(json!({"runtimeClassName": "c"})).expect("the class is there");
        assert_eq!(
            made["spec"],
            json!({"runtimeClassName": "c", "overhead": {"cpu": "10m"}, "nodeSelector": {"a": "b"}, "tolerations": [{"key": "k"}]})
        );
        assert!(
            pod(json!({"runtimeClassName": "x"}))
                .is_err_and(|why| why.contains("RuntimeClass \"x\" not found"))
        );
        assert!(pod(json!({"runtimeClassName": "c", "nodeSelector": {"a": "z"}})).is_err());
        assert!(pod(json!({"overhead": {"cpu": "1"}})).is_err());
    }
}
