//! What a call may cost at most, by the largest its arguments may be.

use crate::types::Type;

/// What is expected of a call.
pub struct Estimate {
    /// What it may cost.
    pub cost: u64,
    /// How long what it gives may be, where that follows from the arguments.
    pub len: Option<u64>,
}

/// What a call of a function with arguments of these types may come to; `literal` says which of them are written out, so that
/// they are no shorter either. It counts as upstream does: a schema that is accepted there has to be accepted here.
pub fn call(function: &str, takes: &[Type], literal: &[bool]) -> Estimate {
    let len = |at: usize| takes.get(at).map_or(0, Type::len_max);
    let sum = |one: u64, other: u64| one.saturating_add(other);
    let (cost, made) = match function {
        "check" => (350_000, None),
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => (comparison(takes.first(), takes.get(1)), None),
        "@in" => (takes.get(1).and_then(Type::item).map_or(1, |_| len(1)), None),
        "_+_" => match takes.first() {
            Some(Type::Text(_) | Type::Bytes(_)) => (walk(sum(len(0), len(1))), Some(sum(len(0), len(1)))),
            Some(one) if one.item().is_some() => (1, Some(sum(len(0), len(1)))),
            _ => (1, None),
        },
        "matches" | "find" | "findAll" => {
            let pattern = len(1).div_ceil(4).max(1);
            (walk(len(0).saturating_add(1)).saturating_mul(pattern), Some(len(0)))
        }
        "contains" => (walk(len(0)).saturating_mul(walk(len(1)).max(1)), None),
        "startsWith" | "endsWith" => (walk(len(1)), None),
        "lowerAscii" | "upperAscii" | "trim" | "substring" | "url" | "isURL" | "string" | "bytes" | "ip"
        | "cidr" | "isIP" | "isCIDR" | "quantity" | "isQuantity" | "semver" | "isSemver" | "charAt" => {
            (walk(len(0)), Some(len(0)))
        }
        "jsonpatch.escapeKey" | "strings.quote" => (walk(len(0)), Some(len(0).saturating_mul(2))),
        "replace" => {
            let shortest = if literal.get(1) == Some(&true) { len(1) } else { 0 };
            (walk(len(0).saturating_mul(2)), Some(replaced(len(0), shortest, len(2))))
        }
        "split" => (walk(len(0).saturating_mul(2)), Some(len(0))),
        "join" => {
            let item = takes.first().and_then(Type::item).map_or(0, Type::len_max);
            let made = len(0).saturating_mul(item);
            let made = sum(made, len(1).saturating_mul(len(0).saturating_sub(1)));
            (walk(made), Some(made))
        }
        "isSorted" | "sum" | "min" | "max" | "indexOf" | "lastIndexOf" => {
            let each = takes.first().and_then(Type::item).map(|item| match item {
                Type::Text(len) | Type::Bytes(len) => sum(1, walk(*len)),
                _ => 1,
            });
            (each.map_or_else(|| walk(len(0)), |each| len(0).saturating_mul(each)), None)
        }
        "fieldSelector" | "labelSelector" => {
            // A selector is at most as many requirements as half of its characters, each a structure and a list.
            (sum(10 + walk(len(1)), len(1).div_ceil(2).saturating_mul(50)), None)
        }
        "sort" | "reverse" | "slice" => (len(0), Some(len(0))),
        "distinct" => (len(0).saturating_mul(len(0)), Some(len(0))),
        "validate" => (walk(len(1)).saturating_mul(32), None),
        _ => (1, None),
    };
    Estimate { cost: cost.max(1), len: made }
}

/// What it costs to go through a text.
const fn walk(len: u64) -> u64 {
    len.div_ceil(10)
}

/// How long a text of so many characters becomes at most, when what is at least `shortest` long is replaced by what is at most
/// `longest` long.
fn replaced(len: u64, shortest: u64, longest: u64) -> u64 {
    match shortest {
        0 => len.saturating_add(1).saturating_mul(longest).saturating_add(len),
        shortest if longest <= shortest => len,
        shortest => len.div_ceil(shortest).saturating_mul(longest),
    }
}

/// What it costs to compare two values: of lists and maps their length alone counts, whatever is in them.
fn comparison(one: Option<&Type>, other: Option<&Type>) -> u64 {
    let len = |of: &Type| match of {
        Type::Text(_) | Type::Bytes(_) | Type::Map(..) => Some(of.len_max()),
        of => of.item().map(|_| of.len_max()),
    };
    match (one.and_then(len), other.and_then(len)) {
        (Some(one), Some(other)) => walk(one.min(other)).max(1),
        _ => 1,
    }
}

/// A type with a bound on its length.
pub fn sized(of: Type, len: Option<u64>) -> Type {
    match (of, len) {
        (Type::Text(_), Some(len)) => Type::Text(len),
        (Type::Bytes(_), Some(len)) => Type::Bytes(len),
        (Type::List(item, _), Some(len)) => {
            let item = match &*item {
                // The parts of a text are no longer than the text.
                Type::Text(_) => Type::Text(len).into(),
                _ => item,
            };
            Type::List(item, len)
        }
        (of, _) => of,
    }
}
