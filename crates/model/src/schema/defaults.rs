//! What the table says a field is when it is left out, and which empty lists and maps are left out. What depends on other fields is a kind's own `fill`.

use super::{Schema, Shape, TypeId};
use crate::Tree;

/// Fills in the table's defaults, also inside what was filled in, and takes out what is empty and need not be there. Doing it twice changes nothing.
pub fn fill(tree: &mut Tree, schema: &Schema, kind: TypeId) {
    let Some(object) = tree.as_object_mut() else { return };
    let of = schema.get(kind);
    for field in &of.fields {
        let Some(default) = &field.default else { continue };
        match object.get_mut(&*field.name) {
            None => drop(object.insert(field.name.to_string(), default.clone())),
            Some(value) if !field.nullable && stands_for_nothing(value, default) => *value = default.clone(),
            Some(_) => {}
        }
    }
    // Most fields of a type are left out: what is there is looked up, not every field.
    object.retain(|name, value| {
        let Some(field) = of.field(name) else { return true };
        if field.omits_empty && is_empty(value) {
            return false;
        }
        fill_shape(value, schema, &field.shape);
        true
    });
}

/// Whether a value is what clients send for a field that they leave out, where that has a default.
fn stands_for_nothing(value: &Tree, default: &Tree) -> bool {
    match value {
        Tree::Null => true,
        Tree::String(text) => text.is_empty() && default.is_string(),
        _ => false,
    }
}

fn is_empty(value: &Tree) -> bool {
    match value {
        Tree::Array(items) => items.is_empty(),
        Tree::Object(entries) => entries.is_empty(),
        _ => false,
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
