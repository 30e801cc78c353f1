//! Laws of the two directions: what is written is read again, for every kind.

use model::kinds::KINDS;
use model::schema::{Schema, Shape, TypeId, builtin};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{from_json, to_tree};

/// Draws numbers from one, so that a failing case is told by it.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// An object of a type with some or all of its fields. Zeros are left out: of plain Go fields they say nothing.
fn sample(schema: &Schema, id: TypeId, draw: &mut Draw, path: &[TypeId], all: bool) -> Value {
    let path = [path, &[id]].concat();
    let kind = schema.get(id);
    let mut object = Map::new();
    for field in &kind.fields {
        let is_wanted = all || draw.below(4) == 0;
        if field.proto != 0 && is_wanted {
            let any = match &*field.name {
                "items" if kind.name.ends_with("JSONSchemaProps") => {
                    [json!({"type": "string"}), json!([{"type": "string"}, {"format": "x"}])]
                        [draw.below(2) as usize]
                        .clone()
                }
                "additionalProperties" | "additionalItems" => {
                    [json!({"type": "string"}), json!(true), json!(false)][draw.below(3) as usize].clone()
                }
                "dependencies" if kind.name.ends_with("JSONSchemaProps") => {
                    json!({"a": {"type": "string"}, "b": ["c", "d"]})
                }
                _ => json!({"any": [1, "two", {"three": true}]}),
            };
            let value = match (&field.shape, &*field.name) {
                (Shape::Map { .. }, "dependencies") => Some(any),
                (shape, _) => value(schema, shape, draw, &path, all, any),
            };
            if let Some(value) = value {
                object.insert(field.name.to_string(), value);
            }
        }
    }
    Value::Object(object)
}

fn value(
    schema: &Schema,
    shape: &Shape,
    draw: &mut Draw,
    path: &[TypeId],
    all: bool,
    any: Value,
) -> Option<Value> {
    let long = ["x", "ä€😀\"\\\n", &"long ".repeat(60)][draw.below(3) as usize].to_owned();
    Some(match shape {
        Shape::Text => json!(long),
        Shape::Flag => json!(true),
        Shape::Int32 => json!([1, -1, i32::MAX, i32::MIN][draw.below(4) as usize]),
        Shape::Int64 => json!([1, -1, i64::MAX, i64::MIN][draw.below(4) as usize]),
        Shape::Double => json!([0.5, -1e300][draw.below(2) as usize]),
        Shape::Bytes => json!(["aGVsbG8=", "/+8="][draw.below(2) as usize]),
        Shape::Time => json!(["2026-01-02T03:04:05Z", "1969-12-31T23:59:59Z"][draw.below(2) as usize]),
        Shape::MicroTime => json!("2026-01-02T03:04:05.000006Z"),
        Shape::Quantity => json!("1500m"),
        Shape::IntOrString => [json!(80), json!(-1), json!("50%")][draw.below(3) as usize].clone(),
        Shape::Any => any,
        // Schemas hold schemas: once is enough.
        Shape::Object(id) if path.contains(id) => return None,
        Shape::Object(id) => sample(schema, *id, draw, path, all),
        Shape::List { item, .. } => {
            let items = (0..=draw.below(2))
                .map(|_| value(schema, item, draw, path, all, any.clone()))
                .collect::<Option<Vec<_>>>()?;
            json!(items)
        }
        Shape::Map { value: of, .. } => json!({
            "a/b": value(schema, of, draw, path, all, any.clone())?,
            "c": value(schema, of, draw, path, all, any)?,
        }),
    })
}

fn typed(kind: &model::kinds::Kind, mut object: Value) -> Value {
    object["apiVersion"] = json!(kind.gvr.api_version());
    object["kind"] = json!(kind.kind);
    object
}

fn check(object: &Value) {
    let bytes = from_json(&model::schema::to_bytes(object)).expect("every kind has a protobuf form");
    let back = to_tree(&bytes).expect("what was written can be read");
    assert_eq!(&back, object);
}

#[test]
fn every_field_of_every_kind_and_of_its_list_travels() {
    let schema = builtin();
    let mut draw = Draw(1);
    for kind in KINDS {
        let id = schema.type_named(kind.schema).expect("kinds have types");
        let object = typed(kind, sample(schema, id, &mut draw, &[], true));
        check(&object);
        if schema.type_named(&format!("{}List", kind.schema)).is_none() {
            continue;
        }
        let mut item = object.clone();
        item.as_object_mut().expect("an object").retain(|key, _| !matches!(&**key, "apiVersion" | "kind"));
        check(&json!({
            "apiVersion": kind.gvr.api_version(), "kind": format!("{}List", kind.kind), "items": [item.clone(), item],
            "metadata": {"resourceVersion": "7", "continue": "x", "remainingItemCount": 3},
        }));
    }
}

#[test]
fn metadata_alone_and_statuses_travel() {
    let metadata = json!({"name": "a", "labels": {"b": ""}, "resourceVersion": "3"});
    check(&json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}));
    check(&json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
        "metadata": {"resourceVersion": "3"}, "items": [{"metadata": metadata}]}));
    check(
        &json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": "Invalid",
        "code": 422, "message": "no", "details": {"name": "x", "causes": [{"reason": "a", "field": "b"}]}}),
    );
}

#[test]
fn what_has_no_protobuf_form_is_refused() {
    let check = |object: Value| assert!(from_json(object.to_string().as_bytes()).is_err(), "{object}");
    check(json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "x"}}));
    check(json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table", "rows": []}));
    check(json!({"apiVersion": "v1", "kind": "Pod", "metadata": []}));
    check(json!({"metadata": {}}));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn some_fields_of_any_kind_travel(seed in any::<u64>(), at in 0..KINDS.len()) {
        let schema = builtin();
        let kind = KINDS[at];
        let id = schema.type_named(kind.schema).expect("kinds have types");
        check(&typed(kind, sample(schema, id, &mut Draw(seed), &[], false)));
    }
}
