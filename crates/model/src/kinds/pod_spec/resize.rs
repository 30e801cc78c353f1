//! What a resize may change of a pod that exists: how much CPU and memory its containers ask for and get.

use super::super::Faults;
use crate::tree::{self, items, set};
use crate::{Tree, pod};

/// The resources that can change while a container runs.
const MUTABLE: [&str; 2] = ["cpu", "memory"];

/// May the first pod become the second by a resize?
pub fn resize(old: &Tree, new: &Tree, faults: &mut Faults) {
    let (before, after) = (&old["spec"], &new["spec"]);
    for list in ["containers", "initContainers"] {
        if items(before, list).len() != items(after, list).len() {
            return faults
                .forbidden(format!("spec.{list}"), "containers may not be added or removed on resize");
        }
    }
    if without_amounts(before) != without_amounts(after) {
        faults.forbidden("spec", "only cpu and memory resources are mutable");
    }
    let class = |object: &Tree| serde_json::from_value(object.clone()).ok().map(|pod| pod::qos_class(&pod));
    if let (Some(was), Some(is)) = (class(old), class(new))
        && was != is
    {
        faults.invalid("spec", is.as_str(), "Pod QOS Class may not change as a result of resizing");
    }
}

/// A spec without what may change.
fn without_amounts(spec: &Tree) -> Tree {
    let mut spec = spec.clone();
    for list in ["containers", "initContainers"] {
        for container in tree::items_mut(&mut spec, list) {
            let mut kept = container["resources"].clone();
            for part in ["requests", "limits"] {
                MUTABLE.iter().for_each(|name| {
                    if let Some(amounts) = kept[part].as_object_mut() {
                        amounts.remove(*name);
                    }
                });
                if kept[part].as_object().is_none_or(|amounts| amounts.is_empty()) {
                    tree::remove(&mut kept, part);
                }
            }
            set(container, "resources", kept);
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(before: Tree, after: Tree, expected: &[&str]) {
        let pod = |container: Tree| {
            let mut whole = json!({"name": "a", "image": "i:1"});
            if let (Some(all), Some(more)) = (whole.as_object_mut(), container.as_object()) {
                all.extend(more.clone());
            }
            json!({"metadata": {"name": "p"}, "spec": {"containers": [whole]}})
        };
        let mut faults = Faults::default();
        resize(&pod(before), &pod(after), &mut faults);
        let told: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), expected.len(), "{told:?}");
        for (told, expected) in told.iter().zip(expected) {
            assert!(told.contains(expected), "{told} is not {expected}");
        }
    }

    #[test]
    fn only_amounts_of_cpu_and_memory_change_and_none_goes() {
        let of = |requests: Tree| json!({"resources": {"requests": requests}});
        let cpu = of(json!({"cpu": "100m"}));
        check(cpu.clone(), of(json!({"cpu": "200m", "memory": "64Mi"})), &[]);
        check(
            cpu.clone(),
            json!({"resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}}}),
            &[],
        );
        check(cpu.clone(), of(json!({"memory": "64Mi"})), &[]);
        check(cpu.clone(), of(json!({"cpu": "100m", "a.b/c": "1"})), &["only cpu and memory"]);
        check(json!({}), cpu.clone(), &["QOS Class may not change"]);
        let mut other = cpu.clone();
        other["image"] = json!("i:2");
        check(cpu, other, &["only cpu and memory"]);
    }
}
