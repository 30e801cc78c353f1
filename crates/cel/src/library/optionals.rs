//! Values that may be none.

use super::{Row, row};
use crate::budget::Error;
use crate::value::Value;

pub const ROWS: &[Row] = &[
    row("optional.of", &["(A) optional<A>"], |args, _| Ok(Value::optional(Some(args[0].clone())))),
    row("optional.none", &["() optional<A>"], |_, _| Ok(Value::Optional(None))),
    row("optional.ofNonZeroValue", &["(A) optional<A>"], |args, _| {
        Ok(Value::optional(Some(args[0].clone()).filter(|value| !value.is_zero())))
    }),
    row("hasValue", &["optional<A>.() bool"], |args, _| match &args[0] {
        Value::Optional(value) => Ok(Value::Bool(value.is_some())),
        _ => Error::no_overload(),
    }),
    row("value", &["optional<A>.() A"], |args, _| match &args[0] {
        Value::Optional(Some(value)) => Ok((**value).clone()),
        Value::Optional(None) => Error::said("optional.none() dereference"),
        _ => Error::no_overload(),
    }),
    // Evaluated by the walk itself where the second is not needed; here for values that are there already.
    row("or", &["optional<A>.(optional<A>) optional<A>"], |args, _| match args {
        [Value::Optional(None), other @ Value::Optional(_)] => Ok(other.clone()),
        [one @ Value::Optional(Some(_)), _] => Ok(one.clone()),
        _ => Error::no_overload(),
    }),
    row("orValue", &["optional<A>.(A) A"], |args, _| match args {
        [Value::Optional(None), other] => Ok(other.clone()),
        [Value::Optional(Some(value)), _] => Ok((**value).clone()),
        _ => Error::no_overload(),
    }),
];
