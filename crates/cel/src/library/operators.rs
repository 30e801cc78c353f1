//! Operators.

use std::cmp::Ordering;
use std::rc::Rc;

use super::compare::{equal, is_in, order, partner};
use super::{Row, row, times, walk};
use crate::budget::{Budget, Error};
use crate::types::Type;
use crate::value::{Key, List, Value};

type Done<'a> = Result<Value<'a>, Error>;

const ORDERED: &[&str] = &[
    "(bool, bool) bool",
    "(int, int) bool",
    "(int, double) bool",
    "(int, uint) bool",
    "(uint, uint) bool",
    "(uint, double) bool",
    "(uint, int) bool",
    "(double, double) bool",
    "(double, int) bool",
    "(double, uint) bool",
    "(string, string) bool",
    "(bytes, bytes) bool",
    "(timestamp, timestamp) bool",
    "(duration, duration) bool",
];

pub const ROWS: &[Row] = &[
    row("_==_", &["(A, A) bool"], |args, budget| Ok(Value::Bool(equal(&args[0], &args[1], budget)?))),
    row("_!=_", &["(A, A) bool"], |args, budget| Ok(Value::Bool(!equal(&args[0], &args[1], budget)?))),
    row("_<_", ORDERED, |args, budget| ordered(args, budget, &[Ordering::Less])),
    row("_<=_", ORDERED, |args, budget| ordered(args, budget, &[Ordering::Less, Ordering::Equal])),
    row("_>_", ORDERED, |args, budget| ordered(args, budget, &[Ordering::Greater])),
    row("_>=_", ORDERED, |args, budget| ordered(args, budget, &[Ordering::Greater, Ordering::Equal])),
    row("@in", &["(A, list<A>) bool", "(A, map<A, B>) bool"], |args, budget| {
        Ok(Value::Bool(is_in(&args[0], &args[1], budget)?))
    }),
    row("!_", &["(bool) bool"], |args, _| match &args[0] {
        Value::Bool(flag) => Ok(Value::Bool(!flag)),
        _ => Error::no_overload(),
    }),
    row("-_", &["(int) int", "(double) double", "(duration) duration"], |args, _| match &args[0] {
        Value::Int(number) => checked(number.checked_neg(), Value::Int),
        Value::Double(number) => Ok(Value::Double(-number)),
        Value::Duration(nanos) => checked(nanos.checked_neg(), Value::Duration),
        _ => Error::no_overload(),
    }),
    row(
        "_+_",
        &[
            "(int, int) int",
            "(uint, uint) uint",
            "(double, double) double",
            "(string, string) string",
            "(bytes, bytes) bytes",
            "(list<A>, list<A>) list<A>",
            "(timestamp, duration) timestamp",
            "(duration, timestamp) timestamp",
            "(duration, duration) duration",
        ],
        add,
    ),
    row(
        "_-_",
        &[
            "(int, int) int",
            "(uint, uint) uint",
            "(double, double) double",
            "(timestamp, timestamp) duration",
            "(timestamp, duration) timestamp",
            "(duration, duration) duration",
        ],
        subtract,
    ),
    row("_*_", &["(int, int) int", "(uint, uint) uint", "(double, double) double"], |args, _| match args {
        [Value::Int(one), Value::Int(other)] => checked(one.checked_mul(*other), Value::Int),
        [Value::Uint(one), Value::Uint(other)] => checked(one.checked_mul(*other), Value::Uint),
        [Value::Double(one), Value::Double(other)] => Ok(Value::Double(one * other)),
        _ => Error::no_overload(),
    }),
    row("_/_", &["(int, int) int", "(uint, uint) uint", "(double, double) double"], |args, _| match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Error::said("division by zero"),
        [Value::Int(one), Value::Int(other)] => checked(one.checked_div(*other), Value::Int),
        [Value::Uint(one), Value::Uint(other)] => checked(one.checked_div(*other), Value::Uint),
        [Value::Double(one), Value::Double(other)] => Ok(Value::Double(one / other)),
        _ => Error::no_overload(),
    }),
    row("_%_", &["(int, int) int", "(uint, uint) uint"], |args, _| match args {
        [Value::Int(_), Value::Int(0)] | [Value::Uint(_), Value::Uint(0)] => Error::said("modulus by zero"),
        [Value::Int(one), Value::Int(other)] => checked(one.checked_rem(*other), Value::Int),
        [Value::Uint(one), Value::Uint(other)] => checked(one.checked_rem(*other), Value::Uint),
        _ => Error::no_overload(),
    }),
    row("_[_]", &["(list<A>, int) A", "(map<A, B>, A) B"], |args, _| index(&args[0], &args[1])),
    row(
        "_[?_]",
        &[
            "(list<A>, int) optional<A>",
            "(map<A, B>, A) optional<B>",
            "(optional<list<A>>, int) optional<A>",
            "(optional<map<A, B>>, A) optional<B>",
        ],
        |args, _| match &args[0] {
            Value::Optional(None) => Ok(Value::Optional(None)),
            Value::Optional(Some(of)) => Ok(Value::optional(index(of, &args[1]).ok())),
            of => Ok(Value::optional(index(of, &args[1]).ok())),
        },
    ),
    // Evaluated by the walk itself, for only one side is; here for its types.
    row("_?_:_", &["(bool, A, A) A"], |_, _| Error::no_overload()),
];

fn ordered<'a>(args: &[Value<'a>], budget: &mut Budget, wanted: &[Ordering]) -> Done<'a> {
    let found = order(&args[0], &args[1], budget)?;
    Ok(Value::Bool(found.is_some_and(|found| wanted.contains(&found))))
}

fn checked<'a, T>(number: Option<T>, make: fn(T) -> Value<'a>) -> Done<'a> {
    number.map_or_else(|| Error::said("integer overflow"), |number| Ok(make(number)))
}

fn add<'a>(args: &[Value<'a>], budget: &mut Budget) -> Done<'a> {
    match args {
        [Value::Int(one), Value::Int(other)] => checked(one.checked_add(*other), Value::Int),
        [Value::Uint(one), Value::Uint(other)] => checked(one.checked_add(*other), Value::Uint),
        [Value::Double(one), Value::Double(other)] => Ok(Value::Double(one + other)),
        [Value::Text(one), Value::Text(other)] => {
            budget.pay(walk((one.as_str().len() + other.as_str().len()) as u64))?;
            Ok(Value::text([one.as_str(), other.as_str()].concat()))
        }
        [Value::Bytes(one), Value::Bytes(other)] => {
            budget.pay(walk((one.len() + other.len()) as u64))?;
            Ok(Value::Bytes([&**one, &**other].concat().into()))
        }
        [Value::List(one), Value::List(other)] => join(one, other, budget),
        [Value::Timestamp(time), Value::Duration(nanos)]
        | [Value::Duration(nanos), Value::Timestamp(time)] => times::shift(*time, *nanos),
        [Value::Duration(one), Value::Duration(other)] => checked(one.checked_add(*other), Value::Duration),
        _ => Error::no_overload(),
    }
}

/// One list after the other; of a set, and of items with keys, what is there already is replaced where it stands.
fn join<'a>(one: &List<'a>, other: &List<'a>, budget: &mut Budget) -> Done<'a> {
    budget.pay((one.len() + other.len()) as u64)?;
    let mut all: Vec<Value<'a>> = one.iter().collect();
    let Some(of) = one.kind().filter(|of| matches!(of, Type::Set(..) | Type::Keyed(..))) else {
        all.extend(other.iter());
        return Ok(Value::list(all));
    };
    for item in all.iter_mut() {
        if let Some(newer) = partner(of, item, other, budget)? {
            *item = newer;
        }
    }
    for item in other.iter() {
        if partner(of, &item, one, budget)?.is_none() {
            all.push(item);
        }
    }
    Ok(Value::List(List::Made(Rc::new(all))))
}

fn subtract<'a>(args: &[Value<'a>], _: &mut Budget) -> Done<'a> {
    match args {
        [Value::Int(one), Value::Int(other)] => checked(one.checked_sub(*other), Value::Int),
        [Value::Uint(one), Value::Uint(other)] => checked(one.checked_sub(*other), Value::Uint),
        [Value::Double(one), Value::Double(other)] => Ok(Value::Double(one - other)),
        [Value::Timestamp(one), Value::Timestamp(other)] => {
            let nanos = one.as_nanosecond() - other.as_nanosecond();
            checked(i64::try_from(nanos).ok(), Value::Duration)
        }
        [Value::Timestamp(time), Value::Duration(nanos)] => match nanos.checked_neg() {
            Some(nanos) => times::shift(*time, nanos),
            None => Error::said("integer overflow"),
        },
        [Value::Duration(one), Value::Duration(other)] => checked(one.checked_sub(*other), Value::Duration),
        _ => Error::no_overload(),
    }
}

/// An item or an entry.
pub fn index<'a>(of: &Value<'a>, at: &Value<'a>) -> Done<'a> {
    match of {
        Value::List(list) => {
            let place = match at {
                Value::Int(number) => i128::from(*number),
                Value::Uint(number) => i128::from(*number),
                Value::Double(number) if number.fract() == 0.0 => *number as i128,
                _ => return Error::said(format!("unsupported index type '{}' in list", at.type_name())),
            };
            match usize::try_from(place).ok().and_then(|place| list.get(place)) {
                Some(item) => Ok(item),
                None => Error::said(format!("index out of bounds: {place}")),
            }
        }
        Value::Map(map) => match Key::of(at).and_then(|key| map.get(&key)) {
            Some(value) => Ok(value),
            None => no_such_key(at),
        },
        _ => Error::no_overload(),
    }
}

fn no_such_key<'a>(key: &Value<'a>) -> Done<'a> {
    match key {
        Value::Text(text) => Error::said(format!("no such key: {}", text.as_str())),
        other => Error::said(format!("no such key: {other:?}")),
    }
}
