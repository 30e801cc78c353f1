//! `/scale`: an object as its replicas alone (`autoscaling/v1` `Scale`).

use model::kinds::FaultReason;
use model::{Selector, Tree};
use serde_json::{Map, Value, json};

use super::{check_preconditions, child, meta};
use crate::refusal::Refusal;
use crate::registry::{Resource, Scale};

/// Shows an object as a `Scale`.
pub fn show(scale: &Scale, object: &Tree) -> Tree {
    let mut metadata = Map::new();
    for name in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        super::carry(object["metadata"].as_object().unwrap_or(&Map::new()), &mut metadata, name);
    }
    let selector = at(object, &scale.selector).map(selector_text).unwrap_or_default();
    let mut status = json!({"replicas": at(object, &scale.status).and_then(Value::as_i64).unwrap_or(0)});
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata,
        "spec": {"replicas": at(object, &scale.spec).and_then(Value::as_i64).unwrap_or(0)},
        "status": status,
    })
}

/// Makes the object that a new `Scale` asks for.
pub fn apply(resource: &Resource, scale: &Scale, old: &Tree, wanted: &Tree) -> Result<Tree, Refusal> {
    let about = resource.about(meta(old, "name"));
    check_preconditions(&about, old, &wanted["metadata"])?;
    let replicas = &wanted["spec"]["replicas"];
    let count = if replicas.is_null() { Some(0) } else { replicas.as_i64() };
    let Some(count) = count.filter(|count| (0..=i64::from(i32::MAX)).contains(count)) else {
        let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        return Err(Refusal::invalid_field(&about, "spec.replicas", FaultReason::Invalid, message));
    };
    let mut new = old.clone();
    let mut inner = &mut new;
    let mut names = scale.spec.split('.').peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            inner[name] = json!(count);
            break;
        }
        child(inner, name);
        inner = &mut inner[name];
    }
    Ok(new)
}

fn at<'a>(object: &'a Tree, path: &str) -> Option<&'a Value> {
    path.split('.').filter(|name| !name.is_empty()).try_fold(object, |at, name| at.get(name))
}

/// A selector as text: from a `LabelSelector`, a plain map of labels, or a text.
fn selector_text(value: &Value) -> String {
    if let Some(text) = value.as_str() {
        return text.to_owned();
    }
    let is_object = value.get("matchLabels").is_some() || value.get("matchExpressions").is_some();
    let selector = if is_object {
        Selector::of_tree(Some(value)).unwrap_or_default()
    } else {
        Selector::of_label_tree(value)
    };
    selector.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::resource;

    #[test]
    fn a_scale_shows_replicas_and_sets_them() {
        let resource = resource(&model::kinds::DEPLOYMENT);
        let scale = resource.scale.as_ref().expect("deployments scale");
        let old = json!({"metadata": {"name": "web", "uid": "u"}, "spec": {"replicas": 2,
            "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 1}});
        let shown = show(scale, &old);
        assert_eq!(
            (&shown["spec"]["replicas"], &shown["status"]),
            (&json!(2), &json!({"replicas": 1, "selector": "app=web"}))
        );
        let new = apply(&resource, scale, &old, &json!({"spec": {"replicas": 5}})).expect("a good request");
        assert_eq!(new["spec"]["replicas"], json!(5));
        assert!(apply(&resource, scale, &old, &json!({"spec": {"replicas": -1}})).is_err());
        assert!(apply(&resource, scale, &old, &json!({"metadata": {"uid": "v"}})).is_err());
    }
}
