//! JSON into trees, under the table: one pass, every unknown and duplicate field told with its path.
//!
//! What comes out is in the form in which it is stored: nulls and unknown fields are gone, quantities, times and
//! bytes are in their canonical text. Names match exactly. Nothing that is sent can panic or recurse deeply here.

use std::fmt;

use bytes::Bytes;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Schema, Shape, Type, TypeId, scalar};
use crate::Tree;

/// How large a document may be, in bytes: what upstream takes of a request.
pub const SIZE_MAX: usize = 3 * 1024 * 1024;

/// How deep a document may nest. Published types need less than 30; schemas within custom resource definitions
/// take two levels a level. The reader itself gives up at 128.
pub const DEPTH_MAX: usize = 120;

/// How many unknown and duplicate fields are told of one document; a client fixes the first ones first.
pub const PROBLEMS_LEN_MAX: usize = 100;

/// What becomes of fields that should not be there. They are left out either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Tell them (`fieldValidation` of `Strict` or `Warn`).
    Report,
    /// Say nothing (`fieldValidation=Ignore`).
    Ignore,
}

/// A field that should not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FieldProblem {
    /// The table does not know it.
    Unknown(String),
    /// It is there twice; the last one counts.
    Duplicate(String),
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(path) => write!(f, "unknown field \"{path}\""),
            Self::Duplicate(path) => write!(f, "duplicate field \"{path}\""),
        }
    }
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is not JSON.
    #[error("{0}")]
    Syntax(String),
    /// A value is of the wrong type.
    #[error("json: cannot unmarshal {found} into Go struct field {of}.{path} of type {expected}")]
    Type {
        /// The field's path.
        path: String,
        /// The short name of the type that the field belongs to.
        of: String,
        /// What the field holds: `string`, `int32` …
        expected: String,
        /// What was sent.
        found: String,
    },
    /// A value is of the right type and still makes no sense.
    #[error("{path}: {why}")]
    Value {
        /// The field's path.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// It is larger than [`SIZE_MAX`].
    #[error("the document is larger than {SIZE_MAX} bytes")]
    TooLarge,
    /// It nests deeper than [`DEPTH_MAX`].
    #[error("the document nests deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

/// Reads JSON as an object of a type.
pub fn decode_json(
    bytes: &[u8],
    schema: &Schema,
    kind: TypeId,
    mode: Mode,
) -> Result<(Tree, Vec<FieldProblem>), DecodeError> {
    if bytes.len() > SIZE_MAX {
        return Err(DecodeError::TooLarge);
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let mut context = Context::new(schema, mode);
    let read =
        Seed { shape: &Shape::Object(kind), context: &mut context, listed: false }.deserialize(&mut reader);
    let read = read.and_then(|tree| reader.end().map(|()| tree));
    context.finish(read)
}

/// Puts a tree that came from elsewhere through the same checks; only duplicate fields can no longer be seen.
pub fn decode_tree(
    tree: Tree,
    schema: &Schema,
    kind: TypeId,
    mode: Mode,
) -> Result<(Tree, Vec<FieldProblem>), DecodeError> {
    let mut context = Context::new(schema, mode);
    let read = Seed { shape: &Shape::Object(kind), context: &mut context, listed: false }.deserialize(tree);
    context.finish(read)
}

/// The canonical bytes of a tree: keys sorted, no spaces.
pub fn to_bytes(tree: &Tree) -> Bytes {
    // A tree's keys are strings and its numbers finite, so writing it cannot fail.
    Bytes::from(serde_json::to_vec(tree).unwrap_or_default())
}

/// What the whole pass shares.
struct Context<'a> {
    schema: &'a Schema,
    mode: Mode,
    path: Vec<Step<'a>>,
    problems: Vec<FieldProblem>,
    /// Why the reader was told to stop, where it was not its own doing.
    fault: Option<DecodeError>,
}

enum Step<'a> {
    Field(&'a Type, &'a str),
    Key(String),
    Item(usize),
}

impl<'a> Context<'a> {
    fn new(schema: &'a Schema, mode: Mode) -> Self {
        Self { schema, mode, path: Vec::new(), problems: Vec::new(), fault: None }
    }

    fn finish(self, read: Result<Tree, serde_json::Error>) -> Result<(Tree, Vec<FieldProblem>), DecodeError> {
        match (read, self.fault) {
            (Ok(tree), _) => Ok((tree, self.problems)),
            (Err(_), Some(fault)) => Err(fault),
            (Err(why), None) if why.to_string().starts_with("recursion limit") => Err(DecodeError::TooDeep),
            (Err(why), None) => Err(DecodeError::Syntax(why.to_string())),
        }
    }

    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            let name: &str = match step {
                Step::Field(_, name) => name,
                Step::Key(name) => name,
                Step::Item(at) => {
                    path.push_str(&format!("[{at}]"));
                    continue;
                }
            };
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
        }
        path
    }

    /// Notes a problem with a field of what is being read.
    fn problem(&mut self, name: &str, make: fn(String) -> FieldProblem) {
        if self.mode == Mode::Ignore || self.problems.len() >= PROBLEMS_LEN_MAX {
            return;
        }
        let path = self.path();
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        self.problems.push(make(path));
    }

    /// Stops: the value here is of another type.
    fn wrong_type<E: serde::de::Error>(&mut self, shape: &Shape, found: &str) -> E {
        let owner = self.path.iter().rev().find_map(|step| match step {
            Step::Field(kind, _) => Some(last_word(&kind.name).to_owned()),
            _ => None,
        });
        self.fault = Some(DecodeError::Type {
            path: self.path(),
            of: owner.unwrap_or_default(),
            expected: go_type(self.schema, shape),
            found: found.to_owned(),
        });
        E::custom("of another type")
    }

    /// Stops: the value here makes no sense.
    fn refuse<E: serde::de::Error>(&mut self, why: String) -> E {
        self.fault = Some(DecodeError::Value { path: self.path(), why });
        E::custom("makes no sense")
    }
}

/// One value to read, of a shape.
struct Seed<'c, 'a> {
    shape: &'c Shape,
    context: &'c mut Context<'a>,
    /// Whether it is an amount in a list of resources, which are kept to thousandths.
    listed: bool,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Value, D::Error> {
        if self.context.path.len() > DEPTH_MAX {
            self.context.fault = Some(DecodeError::TooDeep);
            return Err(D::Error::custom("too deep"));
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&go_type(self.context.schema, self.shape))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Value, E> {
        match self.shape {
            Shape::Flag | Shape::Any => Ok(Value::Bool(value)),
            shape => Err(self.context.wrong_type(shape, "bool")),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value, E> {
        let small = i32::try_from(value).is_ok();
        match self.shape {
            Shape::Int64 | Shape::Any => Ok(value.into()),
            Shape::Int32 | Shape::IntOrString if small => Ok(value.into()),
            Shape::Double => Ok(value.into()),
            Shape::Quantity => self.quantity(&value.to_string()),
            shape => Err(self.context.wrong_type(shape, &number(shape, value))),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => match self.shape {
                Shape::Any | Shape::Double => Ok(value.into()),
                Shape::Quantity => self.quantity(&value.to_string()),
                shape => Err(self.context.wrong_type(shape, &number(shape, value))),
            },
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        match self.shape {
            Shape::Double | Shape::Any => Ok(value.into()),
            Shape::Quantity => self.quantity(&value.to_string()),
            shape => Err(self.context.wrong_type(shape, &number(shape, value))),
        }
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: serde::de::Error>(self, value: String) -> Result<Value, E> {
        match self.shape {
            Shape::Text | Shape::Any | Shape::IntOrString => Ok(Value::String(value)),
            Shape::Quantity => self.quantity(value.trim()),
            shape @ (Shape::Time | Shape::MicroTime | Shape::Bytes) => {
                match scalar::canonical(shape, value) {
                    Ok(text) => Ok(Value::String(text)),
                    Err(why) => Err(self.context.refuse(why)),
                }
            }
            shape => Err(self.context.wrong_type(shape, "string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let shape = match self.shape {
            Shape::List { item, .. } => item,
            Shape::Any => self.shape,
            shape => return Err(self.context.wrong_type(shape, "array")),
        };
        let mut list = Vec::new();
        loop {
            self.context.path.push(Step::Item(list.len()));
            let item = items.next_element_seed(Seed { shape, context: self.context, listed: false })?;
            self.context.path.pop();
            match item {
                Some(Value::Null) => list.push(scalar::zero(shape)),
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Value, A::Error> {
        match self.shape {
            Shape::Object(id) => self.object(*id, entries),
            Shape::Map { value, .. } => {
                let listed = matches!(**value, Shape::Quantity);
                self.map(value, listed, entries)
            }
            Shape::Any => self.map(&Shape::Any, false, entries),
            shape => Err(self.context.wrong_type(shape, "object")),
        }
    }
}

impl<'c, 'a> Seed<'c, 'a> {
    fn quantity<E: serde::de::Error>(self, text: &str) -> Result<Value, E> {
        scalar::quantity(text, self.listed).map(Value::String).map_err(|why| self.context.refuse(why))
    }

    fn object<'de, A: MapAccess<'de>>(self, id: TypeId, mut entries: A) -> Result<Value, A::Error> {
        let context = self.context;
        let kind: &'a Type = context.schema.get(id);
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let Some(field) = kind.field(&name) else {
                unknown(context, kind, &mut object, name, &mut entries)?;
                continue;
            };
            context.path.push(Step::Field(kind, &field.name));
            let seed = Seed { shape: &field.shape, context: &mut *context, listed: false };
            let value = entries.next_value_seed(seed)?;
            context.path.pop();
            if value.is_null() && !field.nullable {
                continue;
            }
            if object.insert(name, value).is_some() {
                context.problem(&field.name, FieldProblem::Duplicate);
            }
        }
        Ok(Value::Object(object))
    }

    fn map<'de, A: MapAccess<'de>>(
        self,
        shape: &Shape,
        listed: bool,
        mut entries: A,
    ) -> Result<Value, A::Error> {
        let context = self.context;
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            context.path.push(Step::Key(name.clone()));
            let value = entries.next_value_seed(Seed { shape, context: &mut *context, listed })?;
            context.path.pop();
            let value = if value.is_null() { scalar::zero(shape) } else { value };
            if object.contains_key(&name) {
                context.problem(&name, FieldProblem::Duplicate);
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

/// Reads a field that the table does not know: kept where its type is open, else skipped and told.
fn unknown<'de, A: MapAccess<'de>>(
    context: &mut Context<'_>,
    kind: &Type,
    object: &mut Map<String, Value>,
    name: String,
    entries: &mut A,
) -> Result<(), A::Error> {
    if !kind.open {
        entries.next_value::<IgnoredAny>()?;
        context.problem(&name, FieldProblem::Unknown);
        return Ok(());
    }
    context.path.push(Step::Key(name.clone()));
    let value =
        entries.next_value_seed(Seed { shape: &Shape::Any, context: &mut *context, listed: false })?;
    context.path.pop();
    if object.contains_key(&name) {
        context.problem(&name, FieldProblem::Duplicate);
    }
    object.insert(name, value);
    Ok(())
}

fn number(shape: &Shape, value: impl fmt::Display) -> String {
    match shape {
        Shape::Int32 | Shape::Int64 | Shape::IntOrString => format!("number {value}"),
        _ => "number".to_owned(),
    }
}

fn last_word(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

fn go_type(schema: &Schema, shape: &Shape) -> String {
    match shape {
        Shape::Text | Shape::IntOrString => "string".to_owned(),
        Shape::Flag => "bool".to_owned(),
        Shape::Int32 => "int32".to_owned(),
        Shape::Int64 => "int64".to_owned(),
        Shape::Double => "float64".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Time => "v1.Time".to_owned(),
        Shape::MicroTime => "v1.MicroTime".to_owned(),
        Shape::Quantity => "resource.Quantity".to_owned(),
        Shape::Any => "any".to_owned(),
        Shape::Object(id) => {
            let mut words = schema.get(*id).name.rsplit('.');
            let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            format!("{before}.{last}")
        }
        Shape::List { item, .. } => format!("[]{}", go_type(schema, item)),
        Shape::Map { value, .. } => format!("map[string]{}", go_type(schema, value)),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
