//! What values may be, as far as it is known before there are any.

use std::fmt;
use std::sync::Arc;

/// A type. Of what has a length, `Some` bound is the largest that may come, for estimates; equality does not ask for it.
#[derive(Debug, Clone)]
pub enum Type {
    /// Anything.
    Dyn,
    /// `null`
    Null,
    /// `true` or `false`
    Bool,
    /// A signed integer of 64 bits.
    Int,
    /// An unsigned one.
    Uint,
    /// A double.
    Double,
    /// A string, of so many characters at most.
    Text(u64),
    /// Bytes, so many at most.
    Bytes(u64),
    /// A point in time.
    Timestamp,
    /// A span of time.
    Duration,
    /// The type of a type.
    Type,
    /// A list, of so many items at most.
    List(Arc<Type>, u64),
    /// A list whose order and repetition do not count (`x-kubernetes-list-type: set`).
    Set(Arc<Type>, u64),
    /// A list whose items are told apart by keys (`x-kubernetes-list-type: map`).
    Keyed(Arc<Type>, u64, Arc<[String]>),
    /// A map from the first to the second, of so many entries at most.
    Map(Arc<(Type, Type)>, u64),
    /// A value or none.
    Optional(Arc<Type>),
    /// An object with fields.
    Object(Arc<dyn Shape>),
    /// A type of a library, such as `kubernetes.Quantity`.
    Opaque(&'static str),
    /// What a function leaves open, by number.
    Open(u32),
}

/// A length without a bound.
pub const ANY_LEN: u64 = u64::MAX;

/// An object type: what fields it has.
pub trait Shape: fmt::Debug + Send + Sync {
    /// Its name; two shapes of one name are one type.
    fn name(&self) -> &str;
    /// The type of a field as expressions name it, and its name in JSON.
    fn field(&self, name: &str) -> Option<(String, Type)>;
    /// Whether expressions may make one.
    fn can_be_made(&self) -> bool {
        false
    }
}

impl Type {
    /// A string of any length.
    pub const TEXT: Self = Self::Text(ANY_LEN);

    /// A list of any length.
    pub fn list(item: Self) -> Self {
        Self::List(Arc::new(item), ANY_LEN)
    }

    /// A map of any size.
    pub fn map(key: Self, value: Self) -> Self {
        Self::Map(Arc::new((key, value)), ANY_LEN)
    }

    /// A value or none.
    pub fn optional(value: Self) -> Self {
        Self::Optional(Arc::new(value))
    }

    /// The items of a list.
    pub fn item(&self) -> Option<&Self> {
        match self {
            Self::List(item, _) | Self::Set(item, _) | Self::Keyed(item, _, _) => Some(item),
            _ => None,
        }
    }

    /// The largest length that may come.
    pub fn len_max(&self) -> u64 {
        match self {
            Self::Text(len) | Self::Bytes(len) | Self::List(_, len) | Self::Set(_, len) => *len,
            Self::Keyed(_, len, _) | Self::Map(_, len) => *len,
            Self::Dyn | Self::Open(_) | Self::Opaque(_) | Self::Object(_) | Self::Optional(_) => ANY_LEN,
            _ => 1,
        }
    }

    /// Whether it is the other, or says less.
    fn is_as_general_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Dyn | Self::Open(_), _) => true,
            (_, Self::Dyn | Self::Open(_)) => false,
            (Self::Map(one, _), Self::Map(other, _)) => {
                one.0.is_as_general_as(&other.0) && one.1.is_as_general_as(&other.1)
            }
            (Self::Optional(one), Self::Optional(other)) => one.is_as_general_as(other),
            (Self::Object(one), Self::Object(other)) => one.name() == other.name(),
            (Self::Opaque(one), Self::Opaque(other)) => one == other,
            (one, other) => match (one.item(), other.item()) {
                (Some(one), Some(other)) => one.is_as_general_as(other),
                (None, None) => std::mem::discriminant(one) == std::mem::discriminant(other),
                _ => false,
            },
        }
    }

    /// Whether nothing is known of it.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Self::Dyn)
    }
}

/// As messages name it.
impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dyn => f.write_str("dyn"),
            Self::Null => f.write_str("null"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Uint => f.write_str("uint"),
            Self::Double => f.write_str("double"),
            Self::Text(_) => f.write_str("string"),
            Self::Bytes(_) => f.write_str("bytes"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Duration => f.write_str("duration"),
            Self::Type => f.write_str("type"),
            Self::List(item, _) | Self::Set(item, _) | Self::Keyed(item, _, _) => write!(f, "list({item})"),
            Self::Map(entry, _) => write!(f, "map({}, {})", entry.0, entry.1),
            Self::Optional(value) => write!(f, "optional_type({value})"),
            Self::Object(shape) => f.write_str(shape.name()),
            Self::Opaque(name) => f.write_str(name),
            Self::Open(number) => write!(f, "_var{number}"),
        }
    }
}

/// What is known of the types that functions left open.
#[derive(Debug, Default)]
pub struct Known {
    bound: Vec<Option<Type>>,
    /// Which were bound, in order, and what was known of them before, so that a try can be taken back.
    trail: Vec<(u32, Option<Type>)>,
}

/// A point to which what is known can be taken back.
#[derive(Debug, Clone, Copy)]
pub struct Mark(usize, usize);

impl Known {
    /// Where it stands.
    pub fn mark(&self) -> Mark {
        Mark(self.bound.len(), self.trail.len())
    }

    /// Forgets what became known since.
    pub fn forget(&mut self, mark: Mark) {
        for (open, before) in self.trail.drain(mark.1..).rev() {
            if let Some(slot) = self.bound.get_mut(open as usize) {
                *slot = before;
            }
        }
        self.bound.truncate(mark.0);
    }

    /// A new open type.
    pub fn fresh(&mut self) -> Type {
        self.bound.push(None);
        Type::Open(u32::try_from(self.bound.len() - 1).unwrap_or(u32::MAX))
    }

    /// A type with what is known of its open parts; what is still open may be anything when `closed`.
    pub fn resolve(&self, of: &Type, closed: bool) -> Type {
        match of {
            Type::Open(number) => match self.bound.get(*number as usize).and_then(Option::as_ref) {
                Some(bound) => self.resolve(bound, closed),
                None if closed => Type::Dyn,
                None => of.clone(),
            },
            Type::List(item, len) => Type::List(Arc::new(self.resolve(item, closed)), *len),
            Type::Map(entry, len) => {
                Type::Map(Arc::new((self.resolve(&entry.0, closed), self.resolve(&entry.1, closed))), *len)
            }
            Type::Optional(value) => Type::optional(self.resolve(value, closed)),
            other => other.clone(),
        }
    }

    /// Whether a value of one type may stand where the other is wanted; binds what is open.
    pub fn fits(&mut self, wanted: &Type, given: &Type) -> bool {
        let mark = self.mark();
        let fits = self.unify(wanted, given);
        if !fits {
            self.forget(mark);
        }
        fits
    }

    fn unify(&mut self, wanted: &Type, given: &Type) -> bool {
        let (wanted, given) = (self.head(wanted), self.head(given));
        match (&wanted, &given) {
            (Type::Open(one), Type::Open(other)) if one == other => return true,
            (Type::Open(open), other) | (other, Type::Open(open)) => {
                if let Some(so_far) = self.bound.get(*open as usize).cloned().flatten() {
                    return self.widen(*open, &so_far, other);
                }
            }
            _ => {}
        }
        match (&wanted, &given) {
            (Type::Open(open), other) | (other, Type::Open(open)) => self.bind(*open, other),
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            // Null stands for objects, times and what may be nothing.
            (Type::Null, other) | (other, Type::Null) => matches!(
                other,
                Type::Null
                    | Type::Object(_)
                    | Type::Timestamp
                    | Type::Duration
                    | Type::Opaque(_)
                    | Type::Optional(_)
            ),
            (Type::Map(one, _), Type::Map(other, _)) => {
                self.unify(&one.0, &other.0) && self.unify(&one.1, &other.1)
            }
            (Type::Optional(one), Type::Optional(other)) => self.unify(one, other),
            (Type::Object(one), Type::Object(other)) => one.name() == other.name(),
            (Type::Opaque(one), Type::Opaque(other)) => one == other,
            (one, other) => match (one.item(), other.item()) {
                (Some(one), Some(other)) => self.unify(one, other),
                (None, None) => std::mem::discriminant(one) == std::mem::discriminant(other),
                _ => false,
            },
        }
    }

    /// A type itself, or the last of the open ones that stand for each other.
    fn head(&self, of: &Type) -> Type {
        let mut head = of.clone();
        while let Type::Open(open) = head
            && let Some(Some(next @ Type::Open(_))) = self.bound.get(open as usize)
        {
            head = next.clone();
        }
        head
    }

    /// Whether another type may stand where an open one stands of which this much is known; the more general is known of it
    /// then: what may be anything stays so beside a null.
    fn widen(&mut self, open: u32, so_far: &Type, other: &Type) -> bool {
        if !self.unify(so_far, other) {
            return false;
        }
        let (so_far, other) = (self.resolve(so_far, false), self.resolve(other, false));
        if other.is_as_general_as(&so_far) && !so_far.is_as_general_as(&other) {
            return self.bind(open, &other);
        }
        true
    }

    fn bind(&mut self, open: u32, to: &Type) -> bool {
        if self.mentions(to, open) {
            return false;
        }
        if let Some(slot) = self.bound.get_mut(open as usize) {
            self.trail.push((open, slot.replace(to.clone())));
        }
        true
    }

    fn mentions(&self, of: &Type, open: u32) -> bool {
        match self.resolve(of, false) {
            Type::Open(number) => number == open,
            Type::Map(entry, _) => self.mentions(&entry.0, open) || self.mentions(&entry.1, open),
            Type::Optional(value) => self.mentions(&value, open),
            other => other.item().is_some_and(|item| self.mentions(item, open)),
        }
    }
}
