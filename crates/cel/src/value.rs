//! Values. What is read from objects is looked at where it lies; only what is made is copied.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use model::{Quantity, Time, Tree};

use crate::budget::{Budget, Error};
use crate::library::authorizer::Ask;
use crate::library::{formats::Format, network::Cidr, semver::Semver, urls::Url};
use crate::types::{Shape, Type};

/// A value; what it borrows lives for `'a`.
#[derive(Clone)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An unsigned integer.
    Uint(u64),
    /// A double.
    Double(f64),
    /// A string.
    Text(Text<'a>),
    /// Bytes.
    Bytes(Rc<[u8]>),
    /// A point in time.
    Timestamp(Time),
    /// A span of time, in nanoseconds.
    Duration(i64),
    /// A list.
    List(List<'a>),
    /// A map or an object.
    Map(Map<'a>),
    /// A value or none.
    Optional(Option<Rc<Value<'a>>>),
    /// The type of a value, by name.
    Type(Rc<str>),
    /// Fields that are made when they are asked for.
    Lazy(Rc<dyn Fields<'a> + 'a>),
    /// A value of a library.
    Quantity(Quantity),
    /// A URL.
    Url(Rc<Url>),
    /// An address.
    Ip(IpAddr),
    /// A range of addresses.
    Cidr(Cidr),
    /// A version.
    Semver(Rc<Semver>),
    /// A named format.
    Format(&'static Format),
    /// A question about what may be done, as far as it is asked, or its answer.
    Ask(Rc<Ask<'a>>),
}

/// Fields that are made when they are asked for, such as a policy's variables.
pub trait Fields<'a> {
    /// The value of a field.
    ///
    /// # Errors
    /// Why there is none.
    fn get(&self, name: &str, budget: &mut Budget) -> Result<Value<'a>, Error>;
    /// Whether there is such a field.
    fn has(&self, name: &str) -> bool;
}

/// A string.
#[derive(Clone)]
pub enum Text<'a> {
    /// Where it lies.
    Read(&'a str),
    /// Made.
    Made(Rc<str>),
    /// Of an expression.
    Said(Arc<str>),
}

/// A list.
#[derive(Clone)]
pub enum List<'a> {
    /// Where it lies, of this type.
    Read(&'a [Tree], Type),
    /// Made.
    Made(Rc<Vec<Value<'a>>>),
}

/// A map or an object.
#[derive(Clone)]
pub enum Map<'a> {
    /// Where it lies, with values of this type.
    Read(&'a serde_json::Map<String, Tree>, Type),
    /// An object where it lies.
    Object(&'a serde_json::Map<String, Tree>, Arc<dyn Shape>),
    /// Made.
    Made(Rc<BTreeMap<Key<'a>, Value<'a>>>),
    /// An object that was made, with its name.
    Struct(Arc<str>, Rc<BTreeMap<Key<'a>, Value<'a>>>),
}

/// The key of a map. Numbers that are equal are the same key, whatever their type.
#[derive(Clone)]
pub enum Key<'a> {
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A string.
    Text(Text<'a>),
}

impl Text<'_> {
    /// The string.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Read(text) => text,
            Self::Made(text) => text,
            Self::Said(text) => text,
        }
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(one), Self::Bool(other)) => one.cmp(other),
            (Self::Int(one), Self::Int(other)) => one.cmp(other),
            (Self::Text(one), Self::Text(other)) => one.as_str().cmp(other.as_str()),
            (one, other) => one.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Key<'_> {}

impl<'a> Key<'a> {
    fn rank(&self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Int(_) => 1,
            Self::Text(_) => 2,
        }
    }

    /// The key that a value is, when it can be one.
    pub fn of(value: &Value<'a>) -> Option<Self> {
        Some(match value {
            Value::Bool(flag) => Self::Bool(*flag),
            Value::Int(number) => Self::Int((*number).into()),
            Value::Uint(number) => Self::Int((*number).into()),
            Value::Double(number) if number.fract() == 0.0 && number.abs() < 1e19 => {
                Self::Int(*number as i128)
            }
            Value::Text(text) => Self::Text(text.clone()),
            _ => return None,
        })
    }

    /// The value that a key is.
    pub fn value(&self) -> Value<'a> {
        match self {
            Self::Bool(flag) => Value::Bool(*flag),
            Self::Int(number) => match i64::try_from(*number) {
                Ok(number) => Value::Int(number),
                Err(_) => Value::Uint(u64::try_from(*number).unwrap_or(u64::MAX)),
            },
            Self::Text(text) => Value::Text(text.clone()),
        }
    }
}

impl<'a> List<'a> {
    /// How many items.
    pub fn len(&self) -> usize {
        match self {
            Self::Read(items, _) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item at a place.
    pub fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            Self::Read(items, of) => {
                items.get(at).map(|item| Value::read(item, of.item().unwrap_or(&Type::Dyn)))
            }
            Self::Made(items) => items.get(at).cloned(),
        }
    }

    /// All items in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    /// What is known of its type, where it was read.
    pub fn kind(&self) -> Option<&Type> {
        match self {
            Self::Read(_, of) => Some(of),
            Self::Made(_) => None,
        }
    }
}

impl<'a> Map<'a> {
    /// How many entries.
    pub fn len(&self) -> usize {
        match self {
            Self::Read(map, _) | Self::Object(map, _) => map.len(),
            Self::Made(map) | Self::Struct(_, map) => map.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value under a key.
    pub fn get(&self, key: &Key<'a>) -> Option<Value<'a>> {
        match (self, key) {
            (Self::Read(map, of), Key::Text(name)) => {
                map.get(name.as_str()).map(|value| Value::read(value, of))
            }
            (Self::Object(..), Key::Text(name)) => self.field(name.as_str()),
            (Self::Made(map) | Self::Struct(_, map), key) => map.get(key).cloned(),
            _ => None,
        }
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Self::Read(map, of) => map.get(name).map(|value| Value::read(value, of)),
            Self::Object(map, shape) => {
                let (own, of) = shape.field(name)?;
                map.get(&own).map(|value| Value::read(value, &of))
            }
            Self::Made(map) | Self::Struct(_, map) => map.get(&Key::Text(Text::Made(name.into()))).cloned(),
        }
    }

    /// All keys in order.
    pub fn keys(&self) -> Vec<Key<'a>> {
        match self {
            Self::Read(map, _) | Self::Object(map, _) => {
                map.keys().map(|key| Key::Text(Text::Read(key))).collect()
            }
            Self::Made(map) | Self::Struct(_, map) => map.keys().cloned().collect(),
        }
    }
}

impl<'a> Value<'a> {
    /// A string that was made.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(Text::Made(text.as_ref().into()))
    }

    /// A list that was made.
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(List::Made(Rc::new(items)))
    }

    /// A value or none.
    pub fn optional(value: Option<Self>) -> Self {
        Self::Optional(value.map(Rc::new))
    }

    /// Any JSON.
    pub fn json(tree: &'a Tree) -> Self {
        Self::read(tree, &Type::Dyn)
    }

    /// A value of a type, as it lies in a tree.
    pub fn read(tree: &'a Tree, of: &Type) -> Self {
        match tree {
            Tree::Null => Self::Null,
            Tree::Bool(flag) => Self::Bool(*flag),
            Tree::Number(number) => match of {
                Type::Double => Self::Double(number.as_f64().unwrap_or_default()),
                Type::Int => Self::Int(
                    number.as_i64().or_else(|| number.as_f64().map(|it| it as i64)).unwrap_or_default(),
                ),
                _ => match (number.as_i64(), number.as_u64()) {
                    (Some(number), _) => Self::Int(number),
                    (_, Some(number)) => Self::Uint(number),
                    _ => Self::Double(number.as_f64().unwrap_or_default()),
                },
            },
            Tree::String(text) => match of {
                Type::Timestamp => point(text).map_or(Self::Text(Text::Read(text)), Self::Timestamp),
                Type::Duration => {
                    crate::library::times::duration(text).map_or(Self::Text(Text::Read(text)), Self::Duration)
                }
                Type::Bytes(_) => {
                    decode(text).map_or(Self::Text(Text::Read(text)), |bytes| Self::Bytes(bytes.into()))
                }
                _ => Self::Text(Text::Read(text)),
            },
            Tree::Array(items) => Self::List(List::Read(items, of.clone())),
            Tree::Object(map) => Self::Map(match of {
                Type::Object(shape) => Map::Object(map, shape.clone()),
                Type::Map(entry, _) => Map::Read(map, entry.1.clone()),
                _ => Map::Read(map, Type::Dyn),
            }),
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> String {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::List(_) => "list",
            Self::Map(Map::Struct(name, _)) => return name.to_string(),
            Self::Map(Map::Object(_, shape)) => return shape.name().to_owned(),
            Self::Map(_) | Self::Lazy(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Ask(ask) => ask.type_name(),
        }
        .to_owned()
    }

    /// Whether it is what an optional of nothing would be made of.
    pub fn is_zero(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Bool(flag) => !flag,
            Self::Int(number) => *number == 0,
            Self::Uint(number) => *number == 0,
            Self::Double(number) => *number == 0.0,
            Self::Text(text) => text.as_str().is_empty(),
            Self::Bytes(bytes) => bytes.is_empty(),
            Self::Duration(nanos) => *nanos == 0,
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            Self::Optional(value) => value.is_none(),
            _ => false,
        }
    }

    /// How large it is, as costs count it.
    pub fn size(&self) -> u64 {
        match self {
            Self::Text(text) => text.as_str().len() as u64,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::List(list) => list.len() as u64,
            Self::Map(map) => map.len() as u64,
            Self::Cidr(cidr) => {
                if cidr.address.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            Self::Ip(ip) => {
                if ip.is_ipv4() {
                    4
                } else {
                    16
                }
            }
            _ => 1,
        }
    }

    /// As JSON; an error names what cannot be written so.
    ///
    /// A value may hold another many times over without being large in memory; what is written out is bounded.
    pub fn to_tree(&self) -> Result<Tree, String> {
        self.tree_within(&mut NODES_MAX.clone())
    }

    fn tree_within(&self, left: &mut usize) -> Result<Tree, String> {
        spend(left, 1)?;
        Ok(match self {
            Self::Null => Tree::Null,
            Self::Bool(flag) => (*flag).into(),
            Self::Int(number) => (*number).into(),
            Self::Uint(number) => (*number).into(),
            Self::Double(number) => (*number).into(),
            Self::Text(text) => {
                spend(left, text.as_str().len() / TEXT_NODE_LEN)?;
                text.as_str().into()
            }
            Self::Bytes(bytes) => {
                spend(left, bytes.len() / TEXT_NODE_LEN)?;
                crate::library::encode(bytes).into()
            }
            Self::Timestamp(time) => time.to_string().into(),
            Self::Duration(nanos) => crate::library::times::show(*nanos).into(),
            Self::Quantity(quantity) => quantity.to_string().into(),
            Self::List(List::Read(items, _)) => {
                items.iter().try_for_each(|item| weigh(item, left))?;
                Tree::Array(items.to_vec())
            }
            Self::List(list) => {
                list.iter().map(|item| item.tree_within(left)).collect::<Result<Vec<Tree>, _>>()?.into()
            }
            Self::Map(Map::Read(map, _) | Map::Object(map, _)) => {
                map.values().try_for_each(|value| weigh(value, left))?;
                Tree::Object((*map).clone())
            }
            Self::Map(Map::Made(map) | Map::Struct(_, map)) => {
                let mut made = serde_json::Map::new();
                for (key, value) in map.iter() {
                    let key = match key {
                        Key::Text(text) => text.as_str().to_owned(),
                        other => other.value().tree_within(left)?.to_string(),
                    };
                    made.insert(key, value.tree_within(left)?);
                }
                Tree::Object(made)
            }
            Self::Optional(Some(value)) => value.tree_within(left)?,
            other => return Err(format!("a value of type {} is no JSON", other.type_name())),
        })
    }
}

/// How many parts a value has at most that is written out: more than any object that a request can bring.
const NODES_MAX: usize = 300_000;
/// So many bytes of a text count as a part.
const TEXT_NODE_LEN: usize = 64;

fn spend(left: &mut usize, parts: usize) -> Result<(), String> {
    *left = left.checked_sub(parts).ok_or("the value is too large to be written out")?;
    Ok(())
}

/// Counts the parts of what lies in a tree.
fn weigh(tree: &Tree, left: &mut usize) -> Result<(), String> {
    spend(left, 1)?;
    match tree {
        Tree::String(text) => spend(left, text.len() / TEXT_NODE_LEN),
        Tree::Array(items) => items.iter().try_for_each(|item| weigh(item, left)),
        Tree::Object(map) => map.values().try_for_each(|value| weigh(value, left)),
        _ => Ok(()),
    }
}

/// A time, or the beginning of a date in UTC.
fn point(text: &str) -> Option<Time> {
    let date = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    text.parse().ok().or_else(|| date().map(|date| date.timestamp()))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(name) => f.write_str(name),
            Self::Optional(None) => f.write_str("none"),
            Self::Uint(number) => write!(f, "{number}u"),
            Self::Double(number) => write!(f, "{number:?}"),
            Self::Cidr(cidr) => write!(f, "{cidr}"),
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Semver(semver) => write!(f, "{semver}"),
            other => match other.to_tree() {
                Ok(tree) => write!(f, "{tree}"),
                Err(_) => f.write_str(&other.type_name()),
            },
        }
    }
}
