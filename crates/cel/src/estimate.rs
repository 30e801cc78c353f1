//! What a call may cost at most, by the largest its arguments may be.

use crate::types::Type;

/// What is expected of a call.
pub struct Estimate {
    /// What it may cost.
    pub cost: u64,
    /// How long what it gives may be, where that follows from the arguments.
    pub len: Option<u64>,
}

/// What a call of a function with arguments of these types may come to.
pub fn call(function: &str, takes: &[Type]) -> Estimate {
    let len = |at: usize| takes.get(at).map_or(0, Type::len_max);
    let walk = |len: u64| len.div_ceil(10);
    let sum = |one: u64, other: u64| one.saturating_add(other);
    let (cost, made) = match function {
        "check" => (350_000, None),
        "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" => (equality(takes.first(), takes.get(1)), None),
        "@in" => {
            let item = takes.get(1).and_then(Type::item);
            let each = equality(takes.first(), item);
            (if item.is_some() { len(1).saturating_mul(each) } else { 1 }, None)
        }
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
            let made = len(0).saturating_mul(len(2).saturating_add(1));
            (walk(made).saturating_mul(2), Some(made))
        }
        "split" => (walk(len(0)).saturating_mul(2), Some(len(0))),
        "join" => {
            let item = takes.first().and_then(Type::item).map_or(0, Type::len_max);
            let made = len(0).saturating_mul(item.saturating_add(len(1)));
            (walk(made).saturating_mul(2), Some(made))
        }
        "isSorted" | "sum" | "min" | "max" | "indexOf" | "lastIndexOf" => {
            let item = takes.first().and_then(Type::item);
            (if item.is_some() { len(0).saturating_mul(equality(item, item)) } else { walk(len(0)) }, None)
        }
        "sort" | "reverse" | "slice" => (len(0), Some(len(0))),
        "distinct" => (len(0).saturating_mul(len(0)), Some(len(0))),
        "validate" => (walk(len(1)).saturating_mul(32), None),
        _ => (1, None),
    };
    Estimate { cost: cost.max(1), len: made }
}

/// What it costs to compare two values.
fn equality(one: Option<&Type>, other: Option<&Type>) -> u64 {
    let (Some(one), Some(other)) = (one, other) else { return 1 };
    match (one, other) {
        (Type::Text(one) | Type::Bytes(one), Type::Text(other) | Type::Bytes(other)) => {
            (*one).min(*other).div_ceil(10).max(1)
        }
        (one, other) => match (one.item(), other.item()) {
            (Some(item), Some(_)) => {
                one.len_max().min(other.len_max()).saturating_mul(equality(Some(item), Some(item)))
            }
            _ => 1,
        },
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
