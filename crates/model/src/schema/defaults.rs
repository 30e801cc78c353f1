//! What the table says a field is when it is left out, and which empty lists and maps are left out. What depends on other fields is a kind's own `fill`.

use super::{Schema, Shape, TypeId};
use crate::Tree;

/// Fills in the table's defaults, also inside what was filled in, and takes out what is empty and need not be there. Doing it twice changes nothing.
pub fn fill(tree: &mut Tree, schema: &Schema, kind: TypeId) {
    let Some(object) = tree.as_object_mut() else { return };
    for field in &schema.get(kind).fields {
        match (object.get_mut(&*field.name), &field.default) {
            (Some(Tree::Null), Some(default)) if !field.nullable => {
                object.insert(field.name.to_string(), default.clone());
            }
            (Some(Tree::String(text)), Some(default))
                if text.is_empty() && !field.nullable && default.is_string() =>
            {
                *text = default.as_str().unwrap_or_default().to_owned();
            }
            (None, Some(default)) => {
                object.insert(field.name.to_string(), default.clone());
            }
            _ => {}
        }
        let Some(value) = object.get_mut(&*field.name) else { continue };
        match value {
            Tree::Array(items) if field.omits_empty && items.is_empty() => drop(object.remove(&*field.name)),
            Tree::Object(entries) if field.omits_empty && entries.is_empty() => {
                drop(object.remove(&*field.name));
            }
            value => fill_shape(value, schema, &field.shape),
        }
    }
}

fn fill_shape(value: &mut Tree, schema: &Schema, shape: &Shape) {
    match (shape, value) {
        (Shape::Object(kind), value) => fill(value, schema, *kind),
        (Shape::List { item, .. }, Tree::Array(items)) if has_types(item) => {
            items.iter_mut().for_each(|value| fill_shape(value, schema, item));
        }
        (Shape::Map { value: of, .. }, Tree::Object(entries)) if has_types(of) => {
            entries.values_mut().for_each(|value| fill_shape(value, schema, of));
        }
        _ => {}
    }
}

fn has_types(shape: &Shape) -> bool {
    matches!(shape, Shape::Object(_) | Shape::List { .. } | Shape::Map { .. })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::builtin;

    fn check(kind: &str, mut object: Tree, wanted: Tree) {
        let table = builtin();
        let id = table.type_named(kind).expect("the type is published");
        fill(&mut object, table, id);
        assert_eq!(object, wanted, "{kind}");
    }

    #[test]
    fn empty_lists_and_maps_are_left_out_where_none_is_the_same() {
        check(
            "io.k8s.api.core.v1.PodSpec",
            json!({"tolerations": [], "nodeSelector": {}, "affinity": {}, "containers": [],
                   "initContainers": [{"name": "a", "args": [], "securityContext": {}, "resources": {"limits": {}}}]}),
            json!({"affinity": {}, "containers": [],
                   "initContainers": [{"name": "a", "securityContext": {}, "resources": {}}]}),
        );
        check(
            "io.k8s.api.rbac.v1.ClusterRole",
            json!({"metadata": {"labels": {}, "name": "r"}, "rules": []}),
            json!({"metadata": {"name": "r"}, "rules": []}),
        );
        let selector = json!({"matchLabels": {}, "matchExpressions": []});
        check(
            "io.k8s.api.networking.v1.NetworkPolicySpec",
            json!({"podSelector": selector}),
            json!({"podSelector": {}}),
        );
    }
}
