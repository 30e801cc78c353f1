//! JSON bytes of ours as protobuf, in one pass under the schema table and without a tree between. Pure.
//!
//! What JSON inlines and protobuf nests is written as one nested message a field: readers of protobuf merge them.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use model::schema::{Field, Schema, Shape, TypeId, builtin};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{DEPTH_MAX, MAGIC, NotProtobuf, PROPS, type_of};

/// An object, a list or a status that is written as JSON, in the envelope of protobuf.
///
/// # Errors
/// When its type has no protobuf form, as those of custom resources.
pub fn from_json(json: &[u8]) -> Result<Bytes, NotProtobuf> {
    let (api_version, kind) = type_meta(json)?;
    let schema = builtin();
    let id =
        type_of(schema, &api_version, &kind).ok_or(NotProtobuf("a type that has no protobuf form here"))?;
    // The length of the message stands before it and is known after it: room is left, and what is too much cut off.
    let room = MAGIC.len() + api_version.len() + kind.len() + 32;
    let mut writer = Writer { schema, out: Vec::with_capacity(room + json.len()), depth: DEPTH_MAX };
    writer.out.resize(room, 0);
    let mut reader = serde_json::Deserializer::from_slice(json);
    Message { writer: &mut writer, id }
        .deserialize(&mut reader)
        .map_err(|_| NotProtobuf("JSON that is not of its type"))?;
    let mut out = writer.out;
    let head = envelope(&api_version, &kind, out.len() - room);
    let begin = room - head.len();
    out[begin..room].copy_from_slice(&head);
    // `Unknown` says last how its message is encoded: not at all.
    out.extend_from_slice(&[3 << 3 | 2, 0, 4 << 3 | 2, 0]);
    Ok(Bytes::from(out).slice(begin..))
}

/// One event of a watch in its frame: its length in four bytes, then a `WatchEvent` around an enveloped object.
pub fn frame(kind: &str, object: &[u8]) -> Bytes {
    let wrapped = 1 + varint_len(object.len()) + object.len();
    let len = 2 + kind.len() + 1 + varint_len(wrapped) + wrapped;
    let mut out = Vec::with_capacity(4 + len);
    out.extend_from_slice(&(len as u32).to_be_bytes());
    bytes(&mut out, 1, kind.as_bytes());
    tag(&mut out, 2, 2);
    varint(&mut out, wrapped as u64);
    bytes(&mut out, 1, object);
    Bytes::from(out)
}

/// The type that JSON of ours says to be of. Nearly always it says so first.
fn type_meta(json: &[u8]) -> Result<(Cow<'_, str>, Cow<'_, str>), NotProtobuf> {
    #[derive(Deserialize)]
    struct TypeMeta<'a> {
        #[serde(borrow, rename = "apiVersion")]
        api_version: Cow<'a, str>,
        #[serde(borrow)]
        kind: Cow<'a, str>,
    }
    let text = |rest: &'_ [u8]| rest.iter().position(|byte| *byte == b'"');
    let first = |one: &str, other: &str| {
        let rest = json.strip_prefix(b"{\"")?.strip_prefix(one.as_bytes())?.strip_prefix(b"\":\"")?;
        let end = text(rest)?;
        let (value, rest) = (&rest[..end], &rest[end + 1..]);
        let rest = rest.strip_prefix(b",\"")?.strip_prefix(other.as_bytes())?.strip_prefix(b"\":\"")?;
        let second = &rest[..text(rest)?];
        Some((std::str::from_utf8(value).ok()?, std::str::from_utf8(second).ok()?))
    };
    if let Some((api_version, kind)) = first("apiVersion", "kind") {
        return Ok((api_version.into(), kind.into()));
    }
    if let Some((kind, api_version)) = first("kind", "apiVersion") {
        return Ok((api_version.into(), kind.into()));
    }
    let meta: TypeMeta<'_> =
        serde_json::from_slice(json).map_err(|_| NotProtobuf("JSON that does not say its type"))?;
    Ok((meta.api_version, meta.kind))
}

/// What stands before the message: the magic number, the type, and how long the message is.
fn envelope(api_version: &str, kind: &str, len: usize) -> Vec<u8> {
    let mut types = Vec::with_capacity(api_version.len() + kind.len() + 8);
    bytes(&mut types, 1, api_version.as_bytes());
    bytes(&mut types, 2, kind.as_bytes());
    let mut head = MAGIC.to_vec();
    bytes(&mut head, 1, &types);
    tag(&mut head, 2, 2);
    varint(&mut head, len as u64);
    head
}

fn tag(out: &mut Vec<u8>, number: u32, form: u64) {
    varint(out, u64::from(number) << 3 | form);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn varint_len(number: usize) -> usize {
    (64 - (number as u64 | 1).leading_zeros() as usize).div_ceil(7)
}

fn bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    tag(out, number, 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Writer<'a> {
    schema: &'a Schema,
    out: Vec<u8>,
    /// How many messages may still nest.
    depth: u32,
}

impl Writer<'_> {
    /// Begins a message of a length that is not known yet; says where it begins.
    fn open(&mut self, number: u32) -> usize {
        tag(&mut self.out, number, 2);
        self.out.push(0);
        self.out.len()
    }

    /// Ends the message that begins there. Most are shorter than 128 bytes, and their length fits where room was left.
    fn close(&mut self, begin: usize) {
        let len = self.out.len() - begin;
        if len < 0x80 {
            self.out[begin - 1] = len as u8;
            return;
        }
        let mut said = Vec::with_capacity(5);
        varint(&mut said, len as u64);
        self.out.splice(begin - 1..begin, said);
    }
}

/// A message, from a JSON object.
struct Message<'w, 'a> {
    writer: &'w mut Writer<'a>,
    id: TypeId,
}

/// The name of a field, looked up where it is read.
struct Name<'a>(&'a [Field]);

impl<'de, 'a> DeserializeSeed<'de> for Name<'a> {
    type Value = Option<&'a Field>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de, 'a> Visitor<'de> for Name<'a> {
    type Value = Option<&'a Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        let found = self.0.binary_search_by(|field| (*field.name).cmp(name));
        Ok(found.ok().map(|at| &self.0[at]).filter(|field| field.proto != 0))
    }
}

impl<'de> DeserializeSeed<'de> for Message<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Message<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { writer, id } = self;
        writer.depth = writer.depth.checked_sub(1).ok_or_else(|| A::Error::custom("nested too deeply"))?;
        let schema = writer.schema;
        let kind = schema.get(id);
        let is_props = *kind.name == *PROPS;
        while let Some(field) = map.next_key_seed(Name(&kind.fields))? {
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if is_props && holds_any(&field.shape) {
                choice(writer, field, map.next_value::<&RawValue>()?).map_err(A::Error::custom)?;
                continue;
            }
            let empty = writer.out.len();
            let begins: Vec<usize> = field.proto_within.iter().map(|number| writer.open(*number)).collect();
            let begun = writer.out.len();
            map.next_value_seed(Put { writer, number: field.proto, shape: &field.shape })?;
            if begun == writer.out.len() {
                writer.out.truncate(empty);
            } else {
                begins.into_iter().rev().for_each(|begin| writer.close(begin));
            }
        }
        writer.depth += 1;
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

fn holds_any(shape: &Shape) -> bool {
    match shape {
        Shape::Any => true,
        Shape::List { item, .. } => holds_any(item),
        Shape::Map { value, .. } => holds_any(value),
        _ => false,
    }
}

/// The members of a JSON schema that are any JSON, or one of several things.
fn choice(writer: &mut Writer<'_>, field: &Field, raw: &RawValue) -> Result<(), serde_json::Error> {
    if raw.get() == "null" {
        return Ok(());
    }
    match &*field.name {
        "enum" => {
            for item in serde_json::from_str::<Vec<&RawValue>>(raw.get())? {
                let begin = writer.open(field.proto);
                bytes(&mut writer.out, 1, item.get().as_bytes());
                writer.close(begin);
            }
        }
        "dependencies" => {
            let map: std::collections::BTreeMap<String, &RawValue> = serde_json::from_str(raw.get())?;
            for (key, value) in map {
                let begin = writer.open(field.proto);
                bytes(&mut writer.out, 1, key.as_bytes());
                let inner = writer.open(2);
                match value.get().as_bytes().first() {
                    Some(b'[') => {
                        let names: Vec<Cow<'_, str>> = serde_json::from_str(value.get())?;
                        names.iter().for_each(|name| bytes(&mut writer.out, 2, name.as_bytes()));
                    }
                    _ => props(writer, 1, value)?,
                }
                writer.close(inner);
                writer.close(begin);
            }
        }
        name => {
            let begin = writer.open(field.proto);
            match (name, raw.get().as_bytes().first()) {
                ("items", Some(b'[')) => {
                    for item in serde_json::from_str::<Vec<&RawValue>>(raw.get())? {
                        props(writer, 2, item)?;
                    }
                }
                ("items", _) => props(writer, 1, raw)?,
                ("additionalProperties" | "additionalItems", Some(b'{')) => {
                    writer.out.extend_from_slice(&[1 << 3, 1]);
                    props(writer, 2, raw)?;
                }
                ("additionalProperties" | "additionalItems", _) => {
                    writer.out.extend_from_slice(&[1 << 3, u8::from(raw.get() == "true")]);
                }
                _ => bytes(&mut writer.out, 1, raw.get().as_bytes()),
            }
            writer.close(begin);
        }
    }
    Ok(())
}

fn props(writer: &mut Writer<'_>, number: u32, raw: &RawValue) -> Result<(), serde_json::Error> {
    let id = writer.schema.type_named(PROPS).ok_or_else(|| serde_json::Error::custom("no such type"))?;
    let begin = writer.open(number);
    Message { writer, id }.deserialize(&mut serde_json::Deserializer::from_str(raw.get()))?;
    writer.close(begin);
    Ok(())
}

/// A value, under the number of its field; `null` is nothing.
struct Put<'w, 'a, 's> {
    writer: &'w mut Writer<'a>,
    number: u32,
    shape: &'s Shape,
}

impl<'de> DeserializeSeed<'de> for Put<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        match self.shape {
            Shape::Any => {
                let raw = <&RawValue>::deserialize(reader)?;
                if raw.get() != "null" {
                    let begin = self.writer.open(self.number);
                    bytes(&mut self.writer.out, 1, raw.get().as_bytes());
                    self.writer.close(begin);
                }
                Ok(())
            }
            _ => reader.deserialize_any(self),
        }
    }
}

impl Put<'_, '_, '_> {
    fn wrong<E: Error>(&self) -> E {
        E::custom("a value of another type")
    }

    fn whole<E: Error>(self, number: u64) -> Result<(), E> {
        let out = &mut self.writer.out;
        match self.shape {
            Shape::Int32 | Shape::Int64 | Shape::Flag => {
                tag(out, self.number, 0);
                varint(out, number);
            }
            Shape::IntOrString => {
                let begin = self.writer.open(self.number);
                let out = &mut self.writer.out;
                out.extend_from_slice(&[1 << 3, 0, 2 << 3]);
                varint(out, number);
                self.writer.close(begin);
            }
            _ => return Err(self.wrong()),
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Put<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the field's type")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<(), E> {
        self.whole(u64::from(flag))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        match self.shape {
            Shape::Double => self.visit_f64(number as f64),
            Shape::Quantity => self.visit_str(&number.to_string()),
            _ => self.whole(number),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        match self.shape {
            Shape::Double => self.visit_f64(number as f64),
            Shape::Quantity => self.visit_str(&number.to_string()),
            // Negative numbers are written as those of 64 bits, ten bytes long.
            _ => self.whole(number as u64),
        }
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        match self.shape {
            Shape::Double => {
                tag(&mut self.writer.out, self.number, 1);
                self.writer.out.extend_from_slice(&number.to_le_bytes());
                Ok(())
            }
            Shape::Quantity => self.visit_str(&number.to_string()),
            _ => Err(self.wrong()),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let (writer, number) = (self.writer, self.number);
        match self.shape {
            Shape::Text => bytes(&mut writer.out, number, text.as_bytes()),
            Shape::Bytes => {
                let raw = STANDARD.decode(text).map_err(|_| E::custom("bytes that are not base64"))?;
                bytes(&mut writer.out, number, &raw);
            }
            Shape::Time | Shape::MicroTime => {
                let time: Timestamp = text.parse().map_err(|_| E::custom("a time that is none"))?;
                let begin = writer.open(number);
                writer.out.push(1 << 3);
                varint(&mut writer.out, time.as_second() as u64);
                writer.out.push(2 << 3);
                varint(&mut writer.out, time.subsec_nanosecond() as u64);
                writer.close(begin);
            }
            Shape::Quantity => {
                let begin = writer.open(number);
                bytes(&mut writer.out, 1, text.as_bytes());
                writer.close(begin);
            }
            Shape::IntOrString => {
                let begin = writer.open(number);
                writer.out.extend_from_slice(&[1 << 3, 1, 2 << 3, 0]);
                bytes(&mut writer.out, 3, text.as_bytes());
                writer.close(begin);
            }
            _ => return Err(E::custom("a value of another type")),
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Shape::List { item, .. } = self.shape else { return Err(self.wrong()) };
        let Self { writer, number, .. } = self;
        loop {
            // A list within a list or map is a message of its items (`ExtraValue`); in a field it is the field, repeated.
            let put = Item { writer, number, shape: item };
            if list.next_element_seed(put)?.is_none() {
                return Ok(());
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { writer, number, shape } = self;
        match shape {
            Shape::Object(id) => {
                let begin = writer.open(number);
                Message { writer, id: *id }.visit_map(map)?;
                writer.close(begin);
            }
            Shape::Map { value, .. } => {
                while let Some(key) = map.next_key::<Cow<'de, str>>()? {
                    let begin = writer.open(number);
                    bytes(&mut writer.out, 1, key.as_bytes());
                    map.next_value_seed(Item { writer, number: 2, shape: value })?;
                    writer.close(begin);
                }
            }
            _ => return Err(A::Error::custom("a value of another type")),
        }
        Ok(())
    }
}

/// An item of a list or a value of a map: the same as a field, but for lists, which have no place here of their own.
struct Item<'w, 'a, 's> {
    writer: &'w mut Writer<'a>,
    number: u32,
    shape: &'s Shape,
}

impl<'de> DeserializeSeed<'de> for Item<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        let Self { writer, number, shape } = self;
        if !matches!(shape, Shape::List { .. }) {
            return Put { writer, number, shape }.deserialize(reader);
        }
        let begin = writer.open(number);
        Put { writer, number: 1, shape }.deserialize(reader)?;
        writer.close(begin);
        Ok(())
    }
}
