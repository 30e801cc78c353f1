//! `pods/binding`: a pod gets its node, once.

use model::kinds::FaultReason;
use model::{Time, Tree};
use serde_json::{Value, json};

use super::{check_preconditions, child, is_ending, meta, stamp};
use crate::refusal::Refusal;
use crate::registry::Resource;

/// Makes the pod that a `Binding` asks for.
pub fn bind(resource: &Resource, old: &Tree, binding: &Tree, now: Time) -> Result<Tree, Refusal> {
    let about = resource.about(meta(old, "name"));
    check_preconditions(&about, old, &binding["metadata"])?;
    let target = &binding["target"];
    let node = target["name"].as_str().unwrap_or_default();
    if !matches!(target["kind"].as_str(), None | Some("" | "Node")) || node.is_empty() {
        let message = "Required value: must name a node";
        return Err(Refusal::invalid_field(&about, "target.name", FaultReason::Required, message));
    }
    let refuse = |why: String| Err(Refusal::conflict(&about, why));
    if is_ending(old) {
        return refuse(format!("pod {} is being deleted, cannot be assigned to a host", about.name));
    }
    if let Some(known) = old["spec"]["nodeName"].as_str().filter(|known| !known.is_empty()) {
        return refuse(format!("pod {} is already assigned to node \"{known}\"", about.name));
    }
    if old["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        return refuse(format!("pod {} has non-empty .spec.schedulingGates", about.name));
    }
    let mut new = old.clone();
    child(&mut new, "spec").insert("nodeName".into(), json!(node));
    for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
        child(&mut new["metadata"], "annotations").insert(key.clone(), value.clone());
    }
    set_scheduled(&mut new, now);
    Ok(new)
}

fn set_scheduled(pod: &mut Tree, now: Time) {
    let status = child(pod, "status");
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Value::Array(conditions) = conditions else { return };
    conditions.retain(|condition| condition["type"] != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": stamp(now),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{drawn, resource};

    fn check(pod: Tree, binding: Tree, wanted: Result<&str, &str>) {
        let made = bind(&resource(&model::kinds::POD), &pod, &binding, drawn().now);
        match (made, wanted) {
            (Ok(pod), Ok(node)) => {
                assert_eq!(pod["spec"]["nodeName"], json!(node));
                assert_eq!(pod["status"]["conditions"][0]["status"], json!("True"));
            }
            (Err(refusal), Err(wanted)) => assert!(refusal.message.contains(wanted), "{}", refusal.message),
            (made, wanted) => panic!("{made:?} is not {wanted:?}"),
        }
    }

    #[test]
    fn a_pod_is_bound_once() {
        let pod = |more: Tree| json!({"metadata": {"name": "p", "uid": "u"}, "spec": more});
        let to = |node: &str| json!({"target": {"kind": "Node", "name": node}});
        check(pod(json!({})), to("n1"), Ok("n1"));
        check(pod(json!({"nodeName": "n1"})), to("n2"), Err("already assigned to node \"n1\""));
        check(pod(json!({"schedulingGates": [{"name": "g"}]})), to("n2"), Err("schedulingGates"));
        check(pod(json!({})), json!({"metadata": {"uid": "v"}, "target": {"name": "n"}}), Err("UID"));
        check(pod(json!({})), json!({}), Err("must name a node"));
    }
}
