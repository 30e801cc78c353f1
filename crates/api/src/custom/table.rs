//! The schema of a custom resource as a table of types: what merging and field ownership go by. Pure.

use std::sync::OnceLock;

use model::Tree;
use model::schema::{self, Field, ListMerge, Schema, Shape, Type, TypeId};
use model::tree::{entries, flag, is_set, items, text};

/// The table of a structural schema; `None` when there is none, or it keeps everything.
pub(super) fn table(root: &Tree) -> Option<Schema> {
    if !root.is_object() {
        return None;
    }
    let mut maker = Maker { types: vec![blank("object")] };
    let made = maker.object_type("object", root);
    maker.types[0] = made;
    let metadata = maker.borrow("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let own = [("apiVersion", Shape::Text), ("kind", Shape::Text), ("metadata", metadata)];
    for (name, shape) in own {
        let fields = &mut maker.types[0].fields;
        fields.retain(|field| &*field.name != name);
        fields.push(Field::new(name, shape));
    }
    maker.types[0].fields.sort_by(|a, b| a.name.cmp(&b.name));
    Some(Schema { types: maker.types })
}

/// What every custom object has, and nothing said of the rest: the table that its bodies are read by.
pub fn envelope() -> &'static Schema {
    static ENVELOPE: OnceLock<Schema> = OnceLock::new();
    ENVELOPE.get_or_init(|| {
        let open = serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        table(&open).unwrap_or_default()
    })
}

fn blank(name: &str) -> Type {
    Type { name: name.into(), fields: Vec::new(), open: false, atomic: false }
}

/// Makes types, one after the other.
struct Maker {
    types: Vec<Type>,
}

impl Maker {
    fn object_type(&mut self, name: &str, schema: &Tree) -> Type {
        let mut made = blank(name);
        made.open = flag(schema, "x-kubernetes-preserve-unknown-fields");
        made.atomic = text(schema, "x-kubernetes-map-type") == "atomic";
        let required: Vec<&str> = items(schema, "required").iter().filter_map(Tree::as_str).collect();
        for (name, property) in entries(schema, "properties") {
            let mut field = Field::new(name, self.shape(name, property));
            field.required = required.contains(&name);
            field.nullable = flag(property, "nullable");
            field.default = property.get("default").cloned();
            made.fields.push(field);
        }
        made.fields.sort_by(|a, b| a.name.cmp(&b.name));
        made
    }

    fn shape(&mut self, name: &str, schema: &Tree) -> Shape {
        if flag(schema, "x-kubernetes-int-or-string") {
            return Shape::IntOrString;
        }
        match text(schema, "type") {
            "string" => Shape::Text,
            "boolean" => Shape::Flag,
            "integer" if text(schema, "format") == "int32" => Shape::Int32,
            "integer" => Shape::Int64,
            "number" => Shape::Double,
            "array" => {
                let merge = match text(schema, "x-kubernetes-list-type") {
                    "set" => ListMerge::Set,
                    "map" => {
                        let keys = items(schema, "x-kubernetes-list-map-keys").iter();
                        ListMerge::Map(keys.filter_map(Tree::as_str).map(Into::into).collect())
                    }
                    _ => ListMerge::Atomic,
                };
                Shape::List { item: Box::new(self.shape(name, &schema["items"])), merge }
            }
            "object" => self.object_shape(name, schema),
            _ => Shape::Any,
        }
    }

    fn object_shape(&mut self, name: &str, schema: &Tree) -> Shape {
        let atomic = text(schema, "x-kubernetes-map-type") == "atomic";
        if schema["additionalProperties"].is_object() {
            let value = Box::new(self.shape(name, &schema["additionalProperties"]));
            return Shape::Map { value, atomic };
        }
        if flag(schema, "x-kubernetes-embedded-resource")
            || schema["additionalProperties"] == Tree::Bool(true)
        {
            return Shape::Any;
        }
        if flag(schema, "x-kubernetes-preserve-unknown-fields") && !is_set(schema, "properties") {
            return Shape::Any;
        }
        let id = self.reserve();
        let made = self.object_type(name, schema);
        self.types[id.0 as usize] = made;
        Shape::Object(id)
    }

    fn reserve(&mut self) -> TypeId {
        self.types.push(blank(""));
        // A definition is at most 3 MiB, so there are far fewer types than numbers.
        TypeId(u32::try_from(self.types.len() - 1).unwrap_or(u32::MAX))
    }

    /// A type of the built-in table, with all that it is made of.
    fn borrow(&mut self, name: &str) -> Shape {
        let from = schema::builtin();
        match from.type_named(name) {
            Some(id) => self.copy(from, &Shape::Object(id)),
            None => Shape::Any,
        }
    }

    fn copy(&mut self, from: &Schema, shape: &Shape) -> Shape {
        match shape {
            Shape::Object(id) => {
                let kind = from.get(*id);
                // What was copied before is known by its published name.
                if let Some(at) = self.types.iter().position(|known| known.name == kind.name) {
                    return Shape::Object(TypeId(u32::try_from(at).unwrap_or(u32::MAX)));
                }
                let own = self.reserve();
                self.types[own.0 as usize].name = kind.name.clone();
                let mut made = kind.clone();
                for field in &mut made.fields {
                    field.shape = self.copy(from, &field.shape);
                }
                self.types[own.0 as usize] = made;
                Shape::Object(own)
            }
            Shape::List { item, merge } => {
                Shape::List { item: Box::new(self.copy(from, item)), merge: merge.clone() }
            }
            Shape::Map { value, atomic } => {
                Shape::Map { value: Box::new(self.copy(from, value)), atomic: *atomic }
            }
            other => other.clone(),
        }
    }
}
