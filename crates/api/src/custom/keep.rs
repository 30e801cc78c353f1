//! What of a custom object is kept, and what it gets: pruning and defaults by a structural schema. Pure.

use model::schema::{self, Mode};
use model::tree::flag;
use model::{Tree, schema::FieldProblem};
use serde_json::Map;

use super::Custom;

const UNKNOWN_KEPT: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
/// What every object has, whatever its schema says.
const OF_OBJECTS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Takes away the fields that the schema does not know; gives their paths.
pub fn prune(custom: &Custom, object: &mut Tree) -> Vec<String> {
    let mut gone = Vec::new();
    if custom.root.is_object() {
        prune_at(&custom.root, object, "", true, &mut gone);
    }
    gone
}

/// The same for a value that is no object of its own.
pub(super) fn prune_value(schema: &Tree, value: &mut Tree) -> Vec<String> {
    let mut gone = Vec::new();
    prune_at(schema, value, "", flag(schema, EMBEDDED), &mut gone);
    gone
}

fn prune_at(schema: &Tree, value: &mut Tree, path: &str, whole: bool, gone: &mut Vec<String>) {
    match value {
        Tree::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                // Items that nothing is said of are kept as their list is.
                let of = if schema["items"].is_object() { &schema["items"] } else { schema };
                prune_at(of, item, &format!("{path}[{index}]"), flag(of, EMBEDDED), gone);
            }
        }
        Tree::Object(map) => prune_map(schema, map, path, whole, gone),
        _ => {}
    }
}

fn prune_map(schema: &Tree, map: &mut Map<String, Tree>, path: &str, whole: bool, gone: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let more = &schema["additionalProperties"];
    let open = flag(schema, UNKNOWN_KEPT) || *more == Tree::Bool(true);
    map.retain(|name, value| {
        if whole && OF_OBJECTS.contains(&name.as_str()) {
            // The reader of bodies has seen to the metadata of the object itself.
            if name == "metadata" && !path.is_empty() {
                prune_metadata(value, &below(name), gone);
            }
            return true;
        }
        let of = match schema["properties"].get(name) {
            Some(property) => property,
            None if more.is_object() => more,
            None if open => return true,
            None => {
                gone.push(below(name));
                return false;
            }
        };
        prune_at(of, value, &below(name), flag(of, EMBEDDED), gone);
        true
    });
}

/// The metadata of an embedded object is what every object's is.
fn prune_metadata(value: &mut Tree, path: &str, gone: &mut Vec<String>) {
    let table = schema::builtin();
    let Some(kind) = table.type_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") else { return };
    // What cannot be read is left for validation to refuse.
    let Ok((kept, problems)) = schema::decode_tree(value.clone(), table, kind, Mode::Report) else { return };
    *value = kept;
    gone.extend(problems.into_iter().filter_map(|problem| match problem {
        FieldProblem::Unknown(name) => Some(format!("{path}.{name}")),
        FieldProblem::Duplicate(_) => None,
    }));
}

/// Fills in the schema's defaults, and takes away nulls where null is no value. Doing it twice changes nothing.
pub fn fill(custom: &Custom, object: &mut Tree) {
    fill_at(&custom.root, object);
}

pub(super) fn fill_at(schema: &Tree, value: &mut Tree) {
    match value {
        Tree::Array(items) if schema["items"].is_object() => {
            items.iter_mut().for_each(|item| fill_at(&schema["items"], item));
        }
        Tree::Object(map) => fill_map(schema, map),
        _ => {}
    }
}

fn fill_map(schema: &Tree, map: &mut Map<String, Tree>) {
    let properties = schema["properties"].as_object().into_iter().flatten();
    for (name, property) in properties.clone() {
        let Some(default) = property.get("default") else { continue };
        let missing = match map.get(name) {
            None => true,
            Some(Tree::Null) => !flag(property, "nullable"),
            Some(_) => false,
        };
        if missing {
            map.insert(name.clone(), default.clone());
        }
    }
    let known = schema["properties"].as_object();
    let of = |name: &str| {
        let property = known.and_then(|known| known.get(name));
        property.or(Some(&schema["additionalProperties"]).filter(|more| more.is_object()))
    };
    map.retain(|name, value| match of(name) {
        Some(property) => {
            let kept = !value.is_null() || flag(property, "nullable");
            fill_at(property, value);
            kept
        }
        None => true,
    });
}

/// Whether a schema has defaults anywhere.
pub(super) fn has_defaults(schema: &Tree) -> bool {
    schema.get("default").is_some()
        || schema["properties"].as_object().into_iter().flatten().any(|(_, property)| has_defaults(property))
        || ["items", "additionalProperties"]
            .iter()
            .any(|name| schema[*name].is_object() && has_defaults(&schema[*name]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Tree, object: Tree, kept: Tree, gone: &[&str]) {
        let custom = Custom { root: schema, ..Custom::default() };
        let mut made = object;
        let paths = prune(&custom, &mut made);
        fill(&custom, &mut made);
        assert_eq!((made, paths), (kept, gone.iter().map(|path| (*path).to_owned()).collect()));
    }

    fn spec(spec: Tree) -> Tree {
        json!({"type": "object", "properties": {"spec": spec}})
    }

    #[test]
    fn what_the_schema_does_not_know_goes_and_is_told() {
        let items = json!({"type": "object", "properties": {"name": {"type": "string"}}});
        let schema = spec(json!({"type": "object", "properties": {"bars": {"type": "array", "items": items},
            "free": {"type": "object", "additionalProperties": {"type": "string"}},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}));
        check(
            schema,
            json!({"kind": "Foo", "metadata": {"name": "a"}, "x": 1, "spec": {"foo": true, "free": {"k": "v"},
                "bars": [{"name": "a", "b": 1}], "any": {"z": {"y": null}}}}),
            json!({"kind": "Foo", "metadata": {"name": "a"}, "spec": {"free": {"k": "v"},
                "bars": [{"name": "a"}], "any": {"z": {"y": null}}}}),
            &["spec.bars[0].b", "spec.foo", "x"],
        );
    }

    #[test]
    fn an_embedded_object_keeps_what_objects_have() {
        let schema =
            spec(json!({"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}}));
        check(
            schema,
            json!({"spec": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "odd": 1}, "spec": {}}}),
            json!({"spec": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}}),
            &["spec.metadata.odd", "spec.spec"],
        );
    }

    #[test]
    fn defaults_fill_gaps_and_nulls_but_not_where_null_is_a_value() {
        let schema = spec(json!({"type": "object", "default": {}, "properties": {
            "a": {"type": "integer", "default": 1}, "b": {"type": "string", "nullable": true, "default": "x"},
            "c": {"type": "string"}}}));
        check(schema.clone(), json!({}), json!({"spec": {"a": 1, "b": "x"}}), &[]);
        check(
            schema,
            json!({"spec": {"a": null, "b": null, "c": null}}),
            json!({"spec": {"a": 1, "b": null}}),
            &[],
        );
    }
}
