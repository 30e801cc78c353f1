//! Pods made from templates.

use std::collections::BTreeMap;

use model::Tree;
use serde_json::{Map, json};

/// A pod as the template describes it, with its name and the owner that manages it.
pub fn pod(template: &Tree, namespace: &str, name: &str, owner: Tree) -> Tree {
    let mut meta = Map::new();
    for field in ["labels", "annotations", "finalizers"] {
        match &template["metadata"][field] {
            Tree::Null => {}
            value => {
                meta.insert(field.to_owned(), value.clone());
            }
        }
    }
    meta.insert("name".into(), name.into());
    meta.insert("namespace".into(), namespace.into());
    meta.insert("ownerReferences".into(), json!([owner]));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
}

/// The labels of a template.
pub fn labels(template: &Tree) -> BTreeMap<String, String> {
    let labels = template["metadata"]["labels"].as_object().into_iter().flatten();
    labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
