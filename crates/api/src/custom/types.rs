//! What the rules of a structural schema may know of values: its types, as expressions have them. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{ANY_LEN, Shape, Type};
use model::Tree;
use model::tree::{entries, flag, items, text};

/// The longest request, in bytes: by it lengths are bounded that a schema leaves open.
const REQUEST_LEN_MAX: u64 = 3 << 20;
/// The longest date, time or duration, in bytes.
const TIME_LEN_MAX: u64 = 32;
/// Words of the language, which fields are named with underscores around.
const RESERVED: [&str; 20] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
];

/// An object of a structural schema.
#[derive(Debug)]
struct Structure {
    name: String,
    fields: BTreeMap<String, (String, Type)>,
}

impl Shape for Structure {
    fn name(&self) -> &str {
        &self.name
    }

    fn field(&self, name: &str) -> Option<(String, Type)> {
        self.fields.get(name).cloned()
    }
}

/// The type of the values of a schema; `None` for what expressions cannot look into.
pub fn of(schema: &Tree, name: &str, root: bool) -> Option<Type> {
    if flag(schema, "x-kubernetes-int-or-string") {
        return Some(Type::Dyn);
    }
    Some(match text(schema, "type") {
        "object" => return object(schema, name, root),
        "array" => {
            let item = Arc::new(of(&schema["items"], &format!("{name}.@items"), false)?);
            let most =
                schema["maxItems"].as_u64().unwrap_or((REQUEST_LEN_MAX - 2) / (least(&schema["items"]) + 1));
            match text(schema, "x-kubernetes-list-type") {
                "set" => Type::Set(item, most),
                "map" => {
                    let keys = items(schema, "x-kubernetes-list-map-keys").iter().filter_map(Tree::as_str);
                    Type::Keyed(item, most, keys.map(str::to_owned).collect())
                }
                _ => Type::List(item, most),
            }
        }
        "boolean" => Type::Bool,
        "number" => Type::Double,
        "integer" => Type::Int,
        "string" => string(schema),
        _ => return None,
    })
}

fn object(schema: &Tree, name: &str, root: bool) -> Option<Type> {
    let more = &schema["additionalProperties"];
    if more.is_object() {
        let value = of(more, &format!("{name}.@values"), false)?;
        let most = most(schema);
        // Upstream counts keys as if they had no length, and rules rely on it.
        return Some(Type::Map(Arc::new((Type::Text(0), value)), most));
    }
    let mut fields = BTreeMap::new();
    for (property, schema) in entries(schema, "properties") {
        if let (Some(own), Some(of)) = (escape(property), of(schema, &format!("{name}.{property}"), false)) {
            fields.insert(own, (property.to_owned(), of));
        }
    }
    if root || flag(schema, "x-kubernetes-embedded-resource") {
        for text in ["apiVersion", "kind"] {
            fields.insert(text.into(), (text.into(), Type::Text(REQUEST_LEN_MAX)));
        }
        let known = |field: &str| (field.to_owned(), (field.to_owned(), Type::Text(REQUEST_LEN_MAX)));
        let meta = Structure {
            name: format!("{name}.metadata"),
            fields: ["name", "generateName"].into_iter().map(known).collect(),
        };
        fields.insert("metadata".into(), ("metadata".into(), Type::Object(Arc::new(meta))));
    }
    Some(Type::Object(Arc::new(Structure { name: name.to_owned(), fields })))
}

fn string(schema: &Tree) -> Type {
    match text(schema, "format") {
        "byte" => Type::Bytes(schema["maxLength"].as_u64().unwrap_or(REQUEST_LEN_MAX - 2)),
        "duration" => Type::Duration,
        "date" | "date-time" => Type::Timestamp,
        _ => Type::Text(match (schema["maxLength"].as_u64(), items(schema, "enum")) {
            // A character has four bytes at most.
            (Some(most), _) => most.saturating_mul(4),
            (None, []) => REQUEST_LEN_MAX - 2,
            (None, all) => {
                all.iter().filter_map(Tree::as_str).map(|one| one.len() as u64).max().unwrap_or(ANY_LEN)
            }
        }),
    }
}

/// How many items or entries a list or a map of a schema has at most: as many as fit into a request where it does not say.
pub fn most(schema: &Tree) -> u64 {
    let (items, more) = (&schema["items"], &schema["additionalProperties"]);
    if items.is_object() {
        return schema["maxItems"].as_u64().unwrap_or((REQUEST_LEN_MAX - 2) / (least(items) + 1));
    }
    if more.is_object() {
        return schema["maxProperties"].as_u64().unwrap_or((REQUEST_LEN_MAX - 2) / (least(more) + 6));
    }
    1
}

/// How many bytes a value of a schema has at least.
pub fn least(schema: &Tree) -> u64 {
    match text(schema, "type") {
        "boolean" => 4,
        "integer" | "number" => 1,
        "string" => match text(schema, "format") {
            "date" => 12,
            "date-time" => 21,
            "duration" => 3,
            _ => 2,
        },
        "object" => {
            let required: Vec<&str> = items(schema, "required").iter().filter_map(Tree::as_str).collect();
            let of = |(name, property): (&str, &Tree)| {
                let counts = required.contains(&name) && property.get("default").is_none();
                if counts { name.len() as u64 + 4 + least(property) } else { 0 }
            };
            (2 + entries(schema, "properties").map(of).sum::<u64>()).min(TIME_LEN_MAX * 1024)
        }
        _ => 2,
    }
}

/// How expressions name a field; `None` when they cannot.
fn escape(name: &str) -> Option<String> {
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let first = name.chars().next()?;
    if !(first.is_ascii_alphabetic() || first == '_') {
        return None;
    }
    let made = name.replace("__", "__underscores__").replace('.', "__dot__");
    let made = made.replace('-', "__dash__").replace('/', "__slash__");
    made.chars().all(|read| read.is_ascii_alphanumeric() || read == '_').then_some(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_so_that_expressions_can() {
        let check = |name: &str, wanted: Option<&str>| assert_eq!(escape(name).as_deref(), wanted);
        check("plain", Some("plain"));
        check("namespace", Some("__namespace__"));
        check("a-b.c/d", Some("a__dash__b__dot__c__slash__d"));
        check("a__b", Some("a__underscores__b"));
        check("1a", None);
        check("a b", None);
    }

    #[test]
    fn schemas_become_types() {
        let check = |schema: Tree, wanted: &str, len: u64| {
            let of = of(&schema, "self", false).expect("a type");
            assert_eq!((of.to_string(), of.len_max()), (wanted.to_owned(), len));
        };
        check(json!({"type": "string", "maxLength": 10}), "string", 40);
        check(json!({"type": "string", "enum": ["a", "abc"]}), "string", 3);
        check(json!({"type": "string", "format": "date-time"}), "timestamp", 1);
        check(json!({"type": "array", "maxItems": 3, "items": {"type": "integer"}}), "list(int)", 3);
        check(json!({"type": "array", "items": {"type": "integer"}}), "list(int)", 1_572_863);
        let map = json!({"type": "object", "additionalProperties": {"type": "boolean"}, "maxProperties": 2});
        check(map, "map(string, bool)", 2);
        check(json!({"x-kubernetes-int-or-string": true}), "dyn", ANY_LEN);
        assert!(of(&json!({"x-kubernetes-preserve-unknown-fields": true}), "self", false).is_none());
    }
}
