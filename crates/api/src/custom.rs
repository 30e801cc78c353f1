//! Custom resources: what a CustomResourceDefinition says, in the form that the verbs use. Pure.

use std::sync::Arc;

use model::kinds::{self, Verbs};
use model::schema::{self, Field, ListMerge, Schema, Shape, Type, TypeId};
use model::tree::{entries, flag, is_set, items, text};
use model::{Gvr, Time, Tree, time};
use serde_json::json;

use crate::registry::{Meaning, Resource, Scale};

/// One version of a custom resource.
#[derive(Debug, Default)]
pub struct Custom {
    /// Its table of types, the first of which is the object itself; `None` keeps every field.
    pub schema: Option<Arc<Schema>>,
    /// Fields that selectors may ask for: the label and its path.
    pub fields: Vec<(String, String)>,
    /// Columns of `kubectl get` after the name.
    pub columns: Vec<CustomColumn>,
}

/// One printer column.
#[derive(Debug, Clone)]
pub struct CustomColumn {
    /// The heading.
    pub name: String,
    /// `string`, `integer`, `date` …
    pub kind: String,
    /// What it shows.
    pub description: String,
    /// Where it reads: a JSON path such as `.spec.replicas`.
    pub path: String,
    /// Whether it shows only with `-o wide`.
    pub wide: bool,
}

/// The resources that a definition serves; none until its names are accepted.
pub fn resources(definition: &Tree) -> Vec<Resource> {
    let accepted = items(definition, "status.conditions")
        .iter()
        .any(|condition| text(condition, "type") == "Established" && text(condition, "status") == "True");
    let versions = items(definition, "spec.versions");
    let Some(stored) = versions.iter().find(|version| flag(version, "storage")).filter(|_| accepted) else {
        return Vec::new();
    };
    let stored = gvr(definition, text(stored, "name"));
    versions
        .iter()
        .filter(|version| flag(version, "served"))
        .map(|version| resource(definition, version, &stored))
        .collect()
}

fn gvr(definition: &Tree, version: &str) -> Gvr {
    let own = |text: &str| text.to_owned().into();
    Gvr {
        group: own(text(definition, "spec.group")),
        version: own(version),
        plural: own(text(definition, "spec.names.plural")),
    }
}

fn resource(definition: &Tree, version: &Tree, stored: &Gvr) -> Resource {
    let names = &definition["spec"]["names"];
    let list = |field: &str| {
        items(names, field).iter().filter_map(Tree::as_str).map(|name| name.to_owned().into()).collect()
    };
    let parts = &version["subresources"];
    let path = |field: &str| text(&parts["scale"], field).trim_start_matches('.').to_owned().into();
    let scale = parts["scale"].is_object().then(|| Scale {
        spec: path("specReplicasPath"),
        status: path("statusReplicasPath"),
        selector: path("labelSelectorPath"),
    });
    let selectable = items(version, "selectableFields").iter().map(|field| {
        let path = text(field, "jsonPath").trim_start_matches('.').to_owned();
        (path.clone(), path)
    });
    let custom = Custom {
        schema: table(&version["schema"]["openAPIV3Schema"]).map(Arc::new),
        fields: selectable.collect(),
        columns: items(version, "additionalPrinterColumns").iter().map(column).collect(),
    };
    Resource {
        gvr: gvr(definition, text(version, "name")),
        kind: text(names, "kind").to_owned().into(),
        list_kind: text(names, "listKind").to_owned().into(),
        singular: text(names, "singular").to_owned().into(),
        short: list("shortNames"),
        categories: list("categories"),
        namespaced: text(definition, "spec.scope") == "Namespaced",
        verbs: Verbs::All,
        status: parts["status"].is_object(),
        scale,
        others: Vec::new(),
        prefix: format!("/{stored}/"),
        stored: stored.clone(),
        meaning: Meaning::Custom(Arc::new(custom)),
    }
}

fn column(column: &Tree) -> CustomColumn {
    let own = |field: &str| text(column, field).to_owned();
    CustomColumn {
        name: own("name"),
        kind: own("type"),
        description: own("description"),
        path: own("jsonPath"),
        wide: column["priority"].as_i64().unwrap_or(0) > 0,
    }
}

impl CustomColumn {
    /// What a row shows.
    pub fn cell(&self, object: &Tree, now: Time) -> Tree {
        let Some(value) = reach(object, &self.path) else { return Tree::Null };
        match self.kind.as_str() {
            "date" => match value.as_str().and_then(|text| time::parse(text).ok()) {
                Some(then) => json!(time::age(then, now)),
                None => json!("<unknown>"),
            },
            "string" if !value.is_string() => json!(value.to_string()),
            _ => value.clone(),
        }
    }
}

/// What a simple JSON path leads to: `.a.b`, `.a[0]`, `.a[?(@.type=="Ready")].status`.
fn reach<'a>(object: &'a Tree, path: &str) -> Option<&'a Tree> {
    let mut at = object;
    let mut rest = path.trim_matches(|c| c == '{' || c == '}');
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (step, after) = inner.split_once(']')?;
            at = pick(at, step)?;
            rest = after;
        } else {
            let name = rest.strip_prefix('.').unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            at = at.get(&name[..end])?;
            rest = &name[end..];
        }
    }
    Some(at)
}

fn pick<'a>(list: &'a Tree, step: &str) -> Option<&'a Tree> {
    if let Ok(index) = step.parse::<usize>() {
        return list.get(index);
    }
    let quoted = |text: &str| text.trim().trim_matches(|c| c == '"' || c == '\'').to_owned();
    if let Some(test) = step.strip_prefix("?(@.").and_then(|test| test.strip_suffix(')')) {
        let (field, wanted) = test.split_once("==")?;
        let (field, wanted) = (field.trim(), quoted(wanted));
        return list.as_array()?.iter().find(|item| text(item, field) == wanted);
    }
    list.get(quoted(step))
}

/// The table of a structural schema; `None` when there is none, or it keeps everything.
fn table(root: &Tree) -> Option<Schema> {
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

/// The columns of a custom resource as a table's: name first; the age unless it says its own columns.
pub fn headings(custom: &Custom) -> Vec<CustomColumn> {
    let of = |column: &kinds::Column, kind: &str, path: &str| CustomColumn {
        name: column.name.to_owned(),
        kind: kind.to_owned(),
        description: column.name.to_owned(),
        path: path.to_owned(),
        wide: false,
    };
    let mut all = vec![of(&kinds::NAME, "string", ".metadata.name")];
    all.extend(custom.columns.iter().cloned());
    if custom.columns.is_empty() {
        all.push(of(&kinds::AGE, "date", ".metadata.creationTimestamp"));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simple_paths_are_followed() {
        let object = json!({"a": {"b": [1, 2]}, "c": [{"type": "Ready", "status": "True"}]});
        assert_eq!(reach(&object, ".a.b[1]"), Some(&json!(2)));
        assert_eq!(reach(&object, ".c[?(@.type==\"Ready\")].status"), Some(&json!("True")));
        assert_eq!(reach(&object, "{.a.x}"), None);
        assert_eq!(reach(&object, ".a[\"b\"]"), Some(&json!([1, 2])));
    }

    #[test]
    fn a_structural_schema_prunes_and_fills_in() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "size": {"type": "integer", "default": 3}, "any": {"x-kubernetes-preserve-unknown-fields": true},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}}}}}});
        let table = table(&schema).expect("a schema");
        let text = br#"{"apiVersion": "g/v1", "kind": "Foo", "metadata": {"name": "a", "labels": {"x": "y"}},
            "spec": {"any": {"z": 1}, "labels": {"k": "v"}, "other": 1}}"#;
        let (mut object, problems) =
            schema::decode_json(text, &table, TypeId(0), schema::Mode::Report).expect("a good object");
        schema::defaults::fill(&mut object, &table, TypeId(0));
        assert_eq!(object["spec"], json!({"any": {"z": 1}, "labels": {"k": "v"}, "size": 3}));
        assert_eq!(problems.len(), 1);
        assert_eq!(object["metadata"]["labels"]["x"], "y");
    }
}
