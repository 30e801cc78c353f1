//! One table of what objects look like: names, numbers, types, merge keys, defaults.
//!
//! The built-in table is generated from the published facts of Kubernetes v1.36 (`cargo xtask table`); a
//! CustomResourceDefinition becomes one more table at run time. Strict decoding, pruning, defaulting, strategic
//! merge, server-side apply, protobuf and OpenAPI are all driven by it, and by nothing else.

use std::sync::Arc;

mod builtin;
mod decode;
pub mod defaults;
mod scalar;

pub use builtin::builtin;
pub use decode::{
    DEPTH_MAX, DecodeError, FieldProblem, Mode, PROBLEMS_LEN_MAX, SIZE_MAX, decode_json, decode_tree,
    to_bytes,
};
pub use scalar::zero;

/// A table of types.
#[derive(Debug, Default)]
pub struct Schema {
    /// The types; a [`TypeId`] is an index.
    pub types: Vec<Type>,
}

/// Names a type within its [`Schema`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// An object type: its fields, ordered by JSON name.
#[derive(Debug, Clone)]
pub struct Type {
    /// Its published name, such as `io.k8s.api.core.v1.Pod`.
    pub name: Arc<str>,
    /// Its fields, ordered by JSON name.
    pub fields: Vec<Field>,
    /// Whether fields that the table does not know are kept (`x-kubernetes-preserve-unknown-fields`).
    pub open: bool,
    /// Whether server-side apply treats the whole as one value (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
}

/// One field of a type.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its JSON name.
    pub name: Arc<str>,
    /// Its protobuf field number; 0 when it has none.
    pub proto: u32,
    /// The numbers of the messages it stands in, outermost first, where JSON inlines what protobuf nests
    /// (a `Volume`'s `configMap` is number 19 within the message at 2). Almost always empty.
    pub proto_within: Vec<u32>,
    /// What it holds.
    pub shape: Shape,
    /// Whether the published schema requires it.
    pub required: bool,
    /// Whether `null` is a value of it (custom resources only).
    pub nullable: bool,
    /// Whether a list or map without entries is the same as none, and left out.
    pub omits_empty: bool,
    /// How strategic merge patches treat it (`x-kubernetes-patch-strategy`).
    pub patch: PatchStrategy,
    /// The key by which strategic merge matches list items (`x-kubernetes-patch-merge-key`).
    pub merge_key: Option<Arc<str>>,
    /// What it is when left out.
    pub default: Option<crate::Tree>,
    /// How its name begins, so that it is found by comparing numbers.
    begin: u64,
}

/// What a field, item or value holds.
#[derive(Debug, Clone)]
pub enum Shape {
    /// A string.
    Text,
    /// `true` or `false`.
    Flag,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A double.
    Double,
    /// Bytes, base64 in JSON.
    Bytes,
    /// A time to the second, RFC 3339.
    Time,
    /// A time to the microsecond.
    MicroTime,
    /// A resource quantity (string or number in JSON, string when stored).
    Quantity,
    /// An integer or a string.
    IntOrString,
    /// Any JSON.
    Any,
    /// An object of a type in the same table.
    Object(TypeId),
    /// A list.
    List {
        /// What the items are.
        item: Box<Shape>,
        /// How server-side apply merges it.
        merge: ListMerge,
    },
    /// A map from strings.
    Map {
        /// What the values are.
        value: Box<Shape>,
        /// Whether server-side apply treats the whole as one value.
        atomic: bool,
    },
}

/// How server-side apply merges a list (`x-kubernetes-list-type`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListMerge {
    /// The whole list is one value.
    Atomic,
    /// Scalars, each owned by itself.
    Set,
    /// Objects, told apart by these keys.
    Map(Vec<Arc<str>>),
}

/// How a strategic merge patch treats a field (`x-kubernetes-patch-strategy`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PatchStrategy {
    /// `merge`: lists are merged (by the merge key, or as a set of scalars), not replaced.
    pub merge: bool,
    /// `retainKeys`: only the keys that the patch names stay.
    pub retain_keys: bool,
}

impl Schema {
    /// The type of an id.
    ///
    /// # Panics
    /// When the id is of another table.
    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// The type of a published name, such as `io.k8s.api.core.v1.Pod`.
    pub fn type_named(&self, name: &str) -> Option<TypeId> {
        let sorted = self.types.binary_search_by(|kind| (*kind.name).cmp(name)).ok();
        let found = sorted.or_else(|| self.types.iter().position(|kind| &*kind.name == name))?;
        u32::try_from(found).ok().map(TypeId)
    }
}

impl Type {
    /// The field of a JSON name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let begin = begin_of(name);
        let first = self.fields.partition_point(|field| field.begin < begin);
        self.fields[first..]
            .iter()
            .take_while(|field| field.begin == begin)
            .find(|field| *field.name == *name)
    }

    /// The field of a protobuf number (never 0), not looking into messages that JSON inlines.
    pub fn proto_field(&self, number: u32) -> Option<&Field> {
        self.proto_field_within(&[], number)
    }

    /// The field of a protobuf number within the inlined messages of these numbers.
    pub fn proto_field_within(&self, within: &[u32], number: u32) -> Option<&Field> {
        self.fields.iter().find(|field| field.proto == number && number != 0 && field.proto_within == within)
    }

    /// Whether the number, within these, is an inlined message.
    pub fn proto_nests(&self, within: &[u32], number: u32) -> bool {
        self.fields.iter().any(|field| {
            field.proto_within.strip_prefix(within).is_some_and(|rest| rest.first() == Some(&number))
        })
    }
}

/// The first bytes of a name as a number: smaller numbers begin names that come first.
fn begin_of(name: &str) -> u64 {
    let mut begin = [0; 8];
    let len = name.len().min(begin.len());
    begin[..len].copy_from_slice(&name.as_bytes()[..len]);
    u64::from_be_bytes(begin)
}

impl Field {
    /// An optional field with no number, no default and no merge rules.
    pub fn new(name: impl Into<Arc<str>>, shape: Shape) -> Self {
        let name = name.into();
        Self {
            begin: begin_of(&name),
            name,
            proto: 0,
            proto_within: Vec::new(),
            shape,
            required: false,
            nullable: false,
            omits_empty: false,
            patch: PatchStrategy::default(),
            merge_key: None,
            default: None,
        }
    }
}
