//! What the table says a field is when it is left out. What depends on other fields is a kind's own `fill`.

use super::{Schema, Shape, TypeId};
use crate::Tree;

/// Fills in the table's defaults, also inside what was filled in. Doing it twice changes nothing.
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
        if let Some(value) = object.get_mut(&*field.name) {
            fill_shape(value, schema, &field.shape);
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
