//! The schemas of custom resources as OpenAPI definitions. Pure.

use model::Tree;
use model::tree::flag;
use serde_json::{Map, Value, json};

use super::prose;
use super::schemas::Dialect;
use crate::custom::Custom;
use crate::registry::Resource;

const UNKNOWN_KEPT: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
/// The built-in types that the definitions refer to.
pub const USED: [&str; 2] = [OBJECT_META, LIST_META];
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The definitions of a resource's objects and lists, by name.
pub fn definitions(resource: &Resource, custom: &Custom, dialect: Dialect) -> [(String, Value); 2] {
    let (object, list) = (name(resource, &resource.kind), name(resource, &resource.list_kind));
    let items = json!({"$ref": dialect.reference(&object)});
    [(object, whole(resource, custom, dialect)), (list, list_of(resource, items, dialect))]
}

/// `example.com`, `v1` and `Foo` make `com.example.v1.Foo`.
fn name(resource: &Resource, kind: &str) -> String {
    let group: Vec<&str> = resource.gvr.group.rsplit('.').collect();
    format!("{}.{}.{kind}", group.join("."), resource.gvr.version)
}

fn whole(resource: &Resource, custom: &Custom, dialect: Dialect) -> Value {
    let open = !custom.root.is_object() || flag(&custom.root, UNKNOWN_KEPT);
    let mut schema = if open && (dialect == Dialect::Two || custom.root.is_null()) {
        // In the second version, a schema that names fields would be taken as naming them all.
        json!({"type": "object"})
    } else {
        let mut schema = published(&custom.root, dialect);
        of_objects(&mut schema, dialect);
        schema
    };
    schema["x-kubernetes-group-version-kind"] = of_kind(resource, &resource.kind);
    if !custom.fields.is_empty() {
        let fields: Vec<Value> = custom.fields.iter().map(|(_, path)| json!({"fieldPath": path})).collect();
        schema["x-kubernetes-selectable-fields"] = json!(fields);
    }
    schema
}

fn list_of(resource: &Resource, item: Value, dialect: Dialect) -> Value {
    let words = prose::of("io.k8s.api.core.v1.ConfigMapList");
    let said = |field: &str| words.and_then(|words| words.fields.get(field)).cloned().unwrap_or_default();
    let items = format!(
        "List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md",
        resource.gvr.plural
    );
    json!({
        "type": "object",
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": said("apiVersion")},
            "kind": {"type": "string", "description": said("kind")},
            "items": {"type": "array", "description": items, "items": item},
            "metadata": reference(LIST_META, &said("metadata"), dialect),
        },
        "x-kubernetes-group-version-kind": of_kind(resource, &resource.list_kind),
    })
}

fn of_kind(resource: &Resource, kind: &str) -> Value {
    json!([{"group": resource.gvr.group, "version": resource.gvr.version, "kind": kind}])
}

/// A reference with words of its own: in OpenAPI 3 nothing may stand beside a reference.
fn reference(name: &str, said: &str, dialect: Dialect) -> Value {
    let reference = dialect.reference(name);
    match dialect {
        Dialect::Two => json!({"$ref": reference, "description": said}),
        Dialect::Three => json!({"allOf": [{"$ref": reference}], "description": said}),
    }
}

/// Adds what every object has, in the words of those that are built in.
fn of_objects(schema: &mut Value, dialect: Dialect) {
    let words = prose::of("io.k8s.api.core.v1.ConfigMap");
    let said = |field: &str| words.and_then(|words| words.fields.get(field)).cloned().unwrap_or_default();
    let own = [
        ("apiVersion", json!({"type": "string", "description": said("apiVersion")})),
        ("kind", json!({"type": "string", "description": said("kind")})),
        ("metadata", reference(OBJECT_META, &said("metadata"), dialect)),
    ];
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    for (name, property) in own {
        schema["properties"][name] = property;
    }
}

/// A schema as a dialect can say it.
fn published(schema: &Tree, dialect: Dialect) -> Value {
    let mut made: Map<String, Value> = schema.as_object().cloned().unwrap_or_default();
    let map = |value: &Value| -> Value {
        let entries = value.as_object().into_iter().flatten();
        entries.map(|(name, one)| (name.clone(), published(one, dialect))).collect()
    };
    for (name, value) in &mut made {
        match name.as_str() {
            "properties" => *value = map(value),
            "items" | "additionalProperties" if value.is_object() => *value = published(value, dialect),
            _ => {}
        }
    }
    match dialect {
        Dialect::Two => narrow(&mut made, schema),
        Dialect::Three => widen(&mut made),
    }
    let mut made = Value::Object(made);
    if flag(schema, EMBEDDED) && !(dialect == Dialect::Two && flag(schema, UNKNOWN_KEPT)) {
        of_objects(&mut made, dialect);
        let mut required: Vec<Value> = made["required"].as_array().cloned().unwrap_or_default();
        for name in ["kind", "apiVersion"].map(Value::from) {
            if !required.contains(&name) {
                required.push(name);
            }
        }
        made["required"] = json!(required);
    }
    made
}

/// What is either an integer or a string says so in the way of OpenAPI 3 too.
fn widen(made: &mut Map<String, Value>) {
    if made.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) && !made.contains_key("anyOf") {
        made.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
    }
}

/// Leaves out what version 2 has no words for; what is not said allows more, never less.
fn narrow(made: &mut Map<String, Value>, schema: &Tree) {
    for name in ["allOf", "anyOf", "oneOf", "not", "nullable"] {
        made.remove(name);
    }
    let (nullable, open) = (flag(schema, "nullable"), flag(schema, UNKNOWN_KEPT));
    if nullable || open {
        made.remove("items");
        made.remove("properties");
    }
    let kind = made.get("type").and_then(Value::as_str).unwrap_or_default();
    if nullable || (kind == "array" && !made.contains_key("items")) || (open && kind == "object") {
        made.remove("type");
    }
    let may_be_null =
        |name: &Value| flag(&schema["properties"][name.as_str().unwrap_or_default()], "nullable");
    if let Some(Value::Array(required)) = made.get_mut("required") {
        required.retain(|name| !may_be_null(name));
    }
    if made.get("required").is_some_and(|required| *required == json!([])) {
        made.remove("required");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::custom;

    fn check(root: Value, dialect: Dialect, wanted: Value) {
        let definition = json!({
            "spec": {"group": "a.example.com", "scope": "Namespaced",
                "names": {"plural": "foos", "kind": "Foo", "listKind": "FooList"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": root}}]},
            "status": {"conditions": [{"type": "Established", "status": "True"}]},
        });
        let resource = custom::resources(&definition).pop().expect("a served version");
        let crate::registry::Meaning::Custom(own) = &resource.meaning else { panic!("custom") };
        let [(name, mut made), (list, _)] = definitions(&resource, own, dialect);
        assert_eq!((name.as_str(), list.as_str()), ("com.example.a.v1.Foo", "com.example.a.v1.FooList"));
        assert_eq!(made["x-kubernetes-group-version-kind"][0]["kind"], "Foo");
        let map = made.as_object_mut().expect("an object");
        map.remove("x-kubernetes-group-version-kind");
        if let Some(Value::Object(properties)) = map.get_mut("properties") {
            for name in ["apiVersion", "kind", "metadata"] {
                let said = properties.remove(name).expect("what every object has");
                assert!(!said["description"].as_str().unwrap_or_default().is_empty(), "{name}");
            }
        }
        assert_eq!(made, wanted);
    }

    #[test]
    fn a_schema_is_published_as_it_is() {
        let schema =
            json!({"type": "object", "description": "words", "properties": {"a": {"type": "string"}}});
        check(schema.clone(), Dialect::Two, schema.clone());
        check(schema.clone(), Dialect::Three, schema);
    }

    #[test]
    fn version_2_says_less() {
        let open = json!({"type": "object", UNKNOWN_KEPT: true, "properties": {"a": {"type": "string"}}});
        check(open.clone(), Dialect::Two, json!({"type": "object"}));
        check(open.clone(), Dialect::Three, open.clone());
        let nested = json!({"type": "object", "properties": {"spec": open, "n": {"type": "string", "nullable": true}},
            "required": ["n"]});
        check(
            nested,
            Dialect::Two,
            json!({"type": "object", "properties": {"spec": {UNKNOWN_KEPT: true}, "n": {}}}),
        );
    }
}
