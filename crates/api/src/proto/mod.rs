//! Kubernetes' protobuf: the envelope, messages read by the schema table into trees, and JSON bytes of ours written as
//! messages. Typed Go clients speak so by default.

#[cfg(test)]
mod laws;
mod wire;
mod write;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use model::schema::{Field, Schema, Shape, TypeId, builtin};
use serde_json::{Map, Value, json};
use wire::{Reader, Wire};

pub use wire::NotProtobuf;
pub use write::{frame, from_json};

/// The media type.
pub const MEDIA: &str = "application/vnd.kubernetes.protobuf";
/// The first bytes of every body.
const MAGIC: &[u8] = b"k8s\0";
/// The type of schemas within definitions, whose members may be one thing or another.
const PROPS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
/// How deep messages may nest: what JSON bodies may as well.
const DEPTH_MAX: u32 = model::schema::DEPTH_MAX as u32;

/// Reads a body into the tree that its JSON would be.
pub fn to_tree(body: &[u8]) -> Result<Value, NotProtobuf> {
    let body = body.strip_prefix(MAGIC).ok_or(NotProtobuf("no envelope"))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut envelope = Reader::new(body);
    while let Some((number, wire)) = envelope.next_field()? {
        match number {
            1 => (api_version, kind) = type_meta(wire.bytes()?)?,
            2 => raw = wire.bytes()?,
            _ => {}
        }
    }
    let schema = builtin();
    let id =
        type_of(schema, &api_version, &kind).ok_or(NotProtobuf("a type that has no protobuf form here"))?;
    let mut tree = message(schema, id, &[], raw, DEPTH_MAX)?;
    tree.insert("apiVersion".into(), json!(api_version));
    tree.insert("kind".into(), json!(kind));
    Ok(Value::Object(tree))
}

fn type_meta(bytes: &[u8]) -> Result<(String, String), NotProtobuf> {
    let (mut api_version, mut kind) = (String::new(), String::new());
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        match number {
            1 => api_version = wire.text()?,
            2 => kind = wire.text()?,
            _ => {}
        }
    }
    Ok((api_version, kind))
}

/// Kinds that are sent in the version of another group: options of every request, and what subresources take.
const SHARED: &[(&str, &str)] = &[
    ("DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
    ("PartialObjectMetadata", "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata"),
    ("PartialObjectMetadataList", "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadataList"),
    ("Status", "io.k8s.apimachinery.pkg.apis.meta.v1.Status"),
    ("TokenRequest", "io.k8s.api.authentication.v1.TokenRequest"),
    ("Eviction", "io.k8s.api.policy.v1.Eviction"),
];

fn type_of(schema: &Schema, api_version: &str, kind: &str) -> Option<TypeId> {
    if let Some((_, name)) = SHARED.iter().find(|(shared, _)| *shared == kind) {
        return schema.type_named(name);
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let known = |kind: &str| {
        model::kinds::KINDS
            .iter()
            .find(|known| known.kind == kind && known.gvr.group == group && known.gvr.version == version)
    };
    match (known(kind), kind.strip_suffix("List").and_then(known)) {
        (Some(known), _) => schema.type_named(known.schema),
        (None, Some(of)) => schema.type_named(&format!("{}List", of.schema)),
        (None, None) => {
            let short = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or_default() };
            schema.type_named(&format!("io.k8s.api.{short}.{version}.{kind}"))
        }
    }
}

/// Reads a message of a type; `within` are the numbers of messages that JSON inlines.
fn message(
    schema: &Schema,
    id: TypeId,
    within: &[u32],
    bytes: &[u8],
    depth: u32,
) -> Result<Map<String, Value>, NotProtobuf> {
    let depth = depth.checked_sub(1).ok_or(NotProtobuf("nested too deeply"))?;
    let kind = schema.get(id);
    let mut tree = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        if kind.proto_nests(within, number) {
            let mut deeper = within.to_vec();
            deeper.push(number);
            tree.append(&mut message(schema, id, &deeper, wire.bytes()?, depth)?);
        } else if let Some(field) = kind.proto_field_within(within, number) {
            take(schema, &kind.name, field, wire, depth, &mut tree)?;
        }
    }
    Ok(tree)
}

/// Puts one field into the tree; repeated ones are appended to.
fn take(
    schema: &Schema,
    kind: &str,
    field: &Field,
    wire: Wire<'_>,
    depth: u32,
    tree: &mut Map<String, Value>,
) -> Result<(), NotProtobuf> {
    match &field.shape {
        Shape::List { item, .. } => {
            let slot = tree.entry(&*field.name).or_insert_with(|| json!([]));
            if let Value::Array(list) = slot {
                list.push(value(schema, item, wire, depth)?.unwrap_or(Value::Null));
            }
        }
        Shape::Map { value: of, .. } => {
            let (key, item) = match &**of {
                Shape::Any if kind.ends_with(".JSONSchemaProps") => dependency(schema, wire.bytes()?, depth)?,
                of => entry(schema, of, wire.bytes()?, depth)?,
            };
            let slot = tree.entry(&*field.name).or_insert_with(|| json!({}));
            if let Value::Object(map) = slot {
                map.insert(key, item);
            }
        }
        Shape::Any if kind.ends_with(".JSONSchemaProps") => {
            if let Some(value) = schema_choice(schema, &field.name, wire.bytes()?, depth)? {
                tree.insert(field.name.to_string(), value);
            }
        }
        shape => {
            // A message that comes twice would be merged; nobody sends one so.
            let value = value(schema, shape, wire, depth)?;
            if let Some(value) = value.filter(|value| is_said(kind, field, value)) {
                tree.insert(field.name.to_string(), value);
            }
        }
    }
    Ok(())
}

/// Whether a value is one that JSON would carry: Go writes every zero of a plain field, and JSON leaves those out.
fn is_said(kind: &str, field: &Field, value: &Value) -> bool {
    let zero = match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        _ => false,
    };
    !zero || field.required || said_zeros().contains(&(kind, &*field.name))
}

/// Fields of which a zero is as good as any other value: pointers in Go's types, so that a zero was put there.
fn said_zeros() -> &'static BTreeSet<(&'static str, &'static str)> {
    static SAID: OnceLock<BTreeSet<(&str, &str)>> = OnceLock::new();
    SAID.get_or_init(|| {
        let lines = include_str!("said_zeros.tsv").lines().filter_map(|line| line.split_once('\t'));
        lines.flat_map(|(kind, fields)| fields.split(' ').map(move |field| (kind, field))).collect()
    })
}

fn value(schema: &Schema, shape: &Shape, wire: Wire<'_>, depth: u32) -> Result<Option<Value>, NotProtobuf> {
    Ok(match shape {
        Shape::Text => Some(json!(wire.text()?)),
        Shape::Flag => Some(json!(wire.number()? != 0)),
        Shape::Int32 => Some(json!(wire.number()? as i32)),
        Shape::Int64 => Some(json!(wire.number()?)),
        Shape::Double => Some(json!(wire.double()?)),
        Shape::Bytes => Some(json!(STANDARD.encode(wire.bytes()?))),
        Shape::Time => time(wire.bytes()?, 0)?,
        Shape::MicroTime => time(wire.bytes()?, 6)?,
        Shape::Quantity => {
            Some(json!(only(wire.bytes()?, 1)?.map_or(Ok(String::new()), |wire| wire.text())?))
        }
        Shape::IntOrString => Some(int_or_string(wire.bytes()?)?),
        Shape::Any => any(wire.bytes()?)?,
        Shape::Object(id) => Some(Value::Object(message(schema, *id, &[], wire.bytes()?, depth)?)),
        Shape::List { item, .. } => Some(items(schema, item, wire.bytes()?, depth)?),
        Shape::Map { value, .. } => {
            let (key, item) = entry(schema, value, wire.bytes()?, depth)?;
            Some(json!({key: item}))
        }
    })
}

/// A list in a place where protobuf has no lists: a message of its items (`ExtraValue`).
fn items(schema: &Schema, item: &Shape, bytes: &[u8], depth: u32) -> Result<Value, NotProtobuf> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        if number == 1 {
            list.extend(value(schema, item, wire, depth)?);
        }
    }
    Ok(Value::Array(list))
}

/// An entry of a map: its key and value, either of which may be left out for a zero.
fn entry(schema: &Schema, of: &Shape, bytes: &[u8], depth: u32) -> Result<(String, Value), NotProtobuf> {
    let depth = depth.checked_sub(1).ok_or(NotProtobuf("nested too deeply"))?;
    let (mut key, mut item) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        match number {
            1 => key = wire.text()?,
            2 => item = value(schema, of, wire, depth)?,
            _ => {}
        }
    }
    Ok((key, item.unwrap_or_else(|| model::schema::zero(of))))
}

/// An entry of a JSON schema's `dependencies`: a schema, or names of properties.
fn dependency(schema: &Schema, bytes: &[u8], depth: u32) -> Result<(String, Value), NotProtobuf> {
    let key = only(bytes, 1)?.map_or(Ok(String::new()), Wire::text)?;
    let value = only(bytes, 2)?.map_or(Ok(&[][..]), Wire::bytes)?;
    if let Some(props) = only(value, 1)? {
        let id = schema.type_named(PROPS).ok_or(NotProtobuf("no such type"))?;
        return Ok((key, Value::Object(message(schema, id, &[], props.bytes()?, depth)?)));
    }
    Ok((key, items_at(value, 2)?))
}

/// The texts of a repeated field.
fn items_at(bytes: &[u8], wanted: u32) -> Result<Value, NotProtobuf> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        if number == wanted {
            list.push(json!(wire.text()?));
        }
    }
    Ok(Value::Array(list))
}

fn only(bytes: &[u8], wanted: u32) -> Result<Option<Wire<'_>>, NotProtobuf> {
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next_field()? {
        if number == wanted {
            return Ok(Some(wire));
        }
    }
    Ok(None)
}

/// A time: seconds and nanoseconds since 1970; an empty message is none.
fn time(bytes: &[u8], digits: u8) -> Result<Option<Value>, NotProtobuf> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let seconds = only(bytes, 1)?.map_or(Ok(0), |wire| wire.number())?;
    let nanos = only(bytes, 2)?.map_or(Ok(0), |wire| wire.number())?;
    let nanos = i32::try_from(nanos).map_err(|_| NotProtobuf("a time that is none"))?;
    let time = Timestamp::new(seconds, nanos).map_err(|_| NotProtobuf("a time that is none"))?;
    let zoned = time.to_zoned(jiff::tz::TimeZone::UTC);
    let form = if digits == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
    Ok(Some(json!(zoned.strftime(form).to_string())))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, NotProtobuf> {
    let is_text = only(bytes, 1)?.map_or(Ok(0), |wire| wire.number())? == 1;
    if is_text {
        return Ok(json!(only(bytes, 3)?.map_or(Ok(String::new()), |wire| wire.text())?));
    }
    Ok(json!(only(bytes, 2)?.map_or(Ok(0), |wire| wire.number())?))
}

/// Raw JSON in a message (`RawExtension`, `FieldsV1`, `JSON`).
fn any(bytes: &[u8]) -> Result<Option<Value>, NotProtobuf> {
    let Some(raw) = only(bytes, 1)? else { return Ok(None) };
    serde_json::from_slice(raw.bytes()?).map(Some).map_err(|_| NotProtobuf("raw bytes that are not JSON"))
}

/// The members of a JSON schema that may be one thing or another: a schema, a list, a flag.
fn schema_choice(
    schema: &Schema,
    name: &str,
    bytes: &[u8],
    depth: u32,
) -> Result<Option<Value>, NotProtobuf> {
    let Some(id) = schema.type_named(PROPS) else { return Ok(None) };
    let props = |bytes| message(schema, id, &[], bytes, depth).map(Value::Object);
    match name {
        "items" => {
            if let Some(one) = only(bytes, 1)? {
                return props(one.bytes()?).map(Some);
            }
            let mut list = Vec::new();
            let mut reader = Reader::new(bytes);
            while let Some((number, wire)) = reader.next_field()? {
                if number == 2 {
                    list.push(props(wire.bytes()?)?);
                }
            }
            Ok(Some(Value::Array(list)))
        }
        "additionalProperties" | "additionalItems" => match only(bytes, 2)? {
            Some(one) => props(one.bytes()?).map(Some),
            None => Ok(Some(json!(only(bytes, 1)?.map_or(Ok(0), |wire| wire.number())? != 0))),
        },
        _ => any(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a field of bytes.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let type_meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), field(1, &type_meta), field(2, raw)].concat()
    }

    #[test]
    fn a_configmap_is_read_with_its_metadata_and_data() {
        let entry = [field(1, b"a"), field(2, b"1")].concat();
        let raw = [field(1, &field(1, b"web")), field(2, &entry)].concat();
        let tree = to_tree(&body("v1", "ConfigMap", &raw)).expect("well formed");
        assert_eq!(
            tree,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web"}, "data": {"a": "1"}})
        );
    }

    #[test]
    fn zeros_count_only_where_they_were_put_on_purpose() {
        // Deployment spec: replicas (1) is a pointer in Go, minReadySeconds (5) is not.
        let spec = [vec![1 << 3, 0], vec![5 << 3, 0]].concat();
        let tree = to_tree(&body("apps/v1", "Deployment", &field(2, &spec))).expect("well formed");
        assert_eq!(tree["spec"], json!({"replicas": 0}));
    }

    #[test]
    fn what_protobuf_nests_and_json_inlines_is_found() {
        // A pod's volume "v" (name 1, source 2) with an emptyDir (2) of medium Memory (1).
        let source = field(2, &field(1, b"Memory"));
        let volume = [field(1, b"v"), field(2, &source)].concat();
        let tree = to_tree(&body("v1", "Pod", &field(2, &field(1, &volume)))).expect("well formed");
        assert_eq!(tree["spec"]["volumes"], json!([{"name": "v", "emptyDir": {"medium": "Memory"}}]));
    }

    #[test]
    fn garbage_is_refused_and_never_more_than_that() {
        assert!(to_tree(b"{}").is_err());
        let mut state = 7u64;
        for _ in 0..5000 {
            let raw: Vec<u8> = (0..40)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 33) as u8 & if state & 4 == 0 { 0x1f } else { 0xff }
                })
                .collect();
            drop(to_tree(&body("v1", "Pod", &raw)));
        }
    }
}
