//! The types of the schema table as OpenAPI definitions, version 2 and 3. Pure.

use std::collections::{BTreeMap, BTreeSet};

use model::schema::{Field, ListMerge, Schema, Shape, TypeId};
use serde_json::{Map, Value, json};

use super::prose;

const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// Which version of OpenAPI is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// 2.0 (`/openapi/v2`).
    Two,
    /// 3.0 (`/openapi/v3`).
    Three,
}

impl Dialect {
    /// Names a definition from within the document.
    pub fn reference(self, name: &str) -> String {
        match self {
            Dialect::Two => format!("#/definitions/{name}"),
            Dialect::Three => format!("#/components/schemas/{name}"),
        }
    }
}

/// Kinds by the published name of their type: group, version and kind.
pub type Kinds = BTreeMap<String, Vec<(String, String, String)>>;

/// The definitions of these types and of all that they lead to, by name.
pub fn definitions(
    schema: &Schema,
    roots: &BTreeSet<TypeId>,
    kinds: &Kinds,
    dialect: Dialect,
) -> Map<String, Value> {
    let mut open: Vec<TypeId> = roots.iter().copied().collect();
    let mut seen = roots.clone();
    let mut all = scalars();
    while let Some(id) = open.pop() {
        let kind = schema.get(id);
        let mut definition = definition(schema, id, dialect);
        if let Some(kinds) = kinds.get(&*kind.name) {
            let kinds: Vec<Value> =
                kinds.iter().map(|(g, v, k)| json!({"group": g, "version": v, "kind": k})).collect();
            definition["x-kubernetes-group-version-kind"] = json!(kinds);
        }
        all.insert(kind.name.to_string(), definition);
        for field in &kind.fields {
            for id in leads_to(&field.shape).into_iter().filter(|id| seen.insert(*id)) {
                open.push(id);
            }
        }
    }
    all
}

fn leads_to(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Object(id) => Some(*id),
        Shape::List { item, .. } => leads_to(item),
        Shape::Map { value, .. } => leads_to(value),
        _ => None,
    }
}

fn scalars() -> Map<String, Value> {
    let mut all = Map::new();
    let mut say = |name: &str, body: Value| {
        let mut body = body;
        if let Some(words) = prose::of(name).filter(|words| !words.own.is_empty()) {
            body["description"] = json!(words.own);
        }
        all.insert(name.to_owned(), body);
    };
    say(TIME, json!({"type": "string", "format": "date-time"}));
    say(MICRO_TIME, json!({"type": "string", "format": "date-time"}));
    say(QUANTITY, json!({"type": "string"}));
    say(INT_OR_STRING, json!({"type": "string", "format": "int-or-string"}));
    all
}

fn definition(schema: &Schema, id: TypeId, dialect: Dialect) -> Value {
    let kind = schema.get(id);
    let words = prose::of(&kind.name);
    let mut definition = json!({"type": "object"});
    if let Some(words) = words.filter(|words| !words.own.is_empty()) {
        definition["description"] = json!(words.own);
    }
    let mut properties = Map::new();
    for field in &kind.fields {
        let said = words.and_then(|words| words.fields.get(&*field.name));
        properties.insert(field.name.to_string(), property(schema, field, said, dialect));
    }
    if !properties.is_empty() {
        definition["properties"] = Value::Object(properties);
    }
    let required: Vec<&str> =
        kind.fields.iter().filter(|field| field.required).map(|field| &*field.name).collect();
    if !required.is_empty() {
        definition["required"] = json!(required);
    }
    if kind.atomic {
        definition["x-kubernetes-map-type"] = json!("atomic");
    }
    definition
}

fn property(schema: &Schema, field: &Field, said: Option<&String>, dialect: Dialect) -> Value {
    let mut property = shape(schema, &field.shape, dialect);
    if let Shape::List { merge, .. } = &field.shape {
        let (list_type, keys) = match merge {
            ListMerge::Atomic => ("atomic", None),
            ListMerge::Set => ("set", None),
            ListMerge::Map(keys) => ("map", Some(keys)),
        };
        property["x-kubernetes-list-type"] = json!(list_type);
        if let Some(keys) = keys {
            property["x-kubernetes-list-map-keys"] = json!(keys.iter().map(|key| &**key).collect::<Vec<_>>());
        }
    }
    let strategy: Vec<&str> = [(field.patch.merge, "merge"), (field.patch.retain_keys, "retainKeys")]
        .into_iter()
        .filter_map(|(set, word)| set.then_some(word))
        .collect();
    if !strategy.is_empty() {
        property["x-kubernetes-patch-strategy"] = json!(strategy.join(","));
    }
    if let Some(key) = &field.merge_key {
        property["x-kubernetes-patch-merge-key"] = json!(&**key);
    }
    with_words(property, said, field.default.as_ref(), dialect)
}

/// OpenAPI 3 lets a reference stand beside nothing: its words and default go around it.
fn with_words(
    mut property: Value,
    said: Option<&String>,
    default: Option<&Value>,
    dialect: Dialect,
) -> Value {
    if dialect == Dialect::Three && property.get("$ref").is_some() && (said.is_some() || default.is_some()) {
        property = json!({"allOf": [property]});
    }
    if let Some(said) = said {
        property["description"] = json!(said);
    }
    if let Some(default) = default.filter(|_| dialect == Dialect::Three) {
        property["default"] = default.clone();
    }
    property
}

fn shape(schema: &Schema, shape_of: &Shape, dialect: Dialect) -> Value {
    let reference = |name: &str| json!({"$ref": dialect.reference(name)});
    match shape_of {
        Shape::Text => json!({"type": "string"}),
        Shape::Flag => json!({"type": "boolean"}),
        Shape::Int32 => json!({"type": "integer", "format": "int32"}),
        Shape::Int64 => json!({"type": "integer", "format": "int64"}),
        Shape::Double => json!({"type": "number", "format": "double"}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::Time => reference(TIME),
        Shape::MicroTime => reference(MICRO_TIME),
        Shape::Quantity => reference(QUANTITY),
        Shape::IntOrString => reference(INT_OR_STRING),
        Shape::Any => json!({"type": "object"}),
        Shape::Object(id) => reference(&schema.get(*id).name),
        Shape::List { item, .. } => json!({"type": "array", "items": shape(schema, item, dialect)}),
        Shape::Map { value, .. } => {
            json!({"type": "object", "additionalProperties": shape(schema, value, dialect)})
        }
    }
}

#[cfg(test)]
mod tests {
    use model::schema::builtin;

    use super::*;

    fn pod(dialect: Dialect) -> Map<String, Value> {
        let schema = builtin();
        let root = schema.type_named("io.k8s.api.core.v1.Pod").expect("a published type");
        let kinds = Kinds::from([(
            "io.k8s.api.core.v1.Pod".into(),
            vec![(String::new(), "v1".into(), "Pod".into())],
        )]);
        definitions(schema, &BTreeSet::from([root]), &kinds, dialect)
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for (dialect, prefix) in [(Dialect::Two, "#/definitions/"), (Dialect::Three, "#/components/schemas/")]
        {
            let all = pod(dialect);
            let text = Value::Object(all.clone()).to_string();
            let names = text.split("\"$ref\":\"").skip(1).filter_map(|rest| rest.split('"').next());
            for name in names {
                let name = name.strip_prefix(prefix).expect("a reference of its dialect");
                assert!(all.contains_key(name), "{name}");
            }
        }
    }

    #[test]
    fn merge_keys_and_kinds_are_told() {
        let all = pod(Dialect::Two);
        let containers = &all["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(all["io.k8s.api.core.v1.Pod"]["x-kubernetes-group-version-kind"][0]["kind"], "Pod");
    }
}
