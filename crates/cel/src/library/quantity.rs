//! Resource quantities.

use std::cmp::Ordering;

use model::Quantity;

use super::{Row, row, walk};
use crate::budget::{Budget, Error};
use crate::value::Value;

type Done<'a> = Result<Value<'a>, Error>;

pub const ROWS: &[Row] = &[
    row("quantity", &["(string) Quantity"], |args, budget| {
        let Value::Text(text) = &args[0] else { return Error::no_overload() };
        budget.pay(walk(text.as_str().len() as u64))?;
        match text.as_str().parse() {
            Ok(quantity) => Ok(Value::Quantity(quantity)),
            Err(_) => Error::said(
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
        }
    }),
    row("isQuantity", &["(string) bool"], |args, budget| {
        let Value::Text(text) = &args[0] else { return Error::no_overload() };
        budget.pay(walk(text.as_str().len() as u64))?;
        Ok(Value::Bool(text.as_str().parse::<Quantity>().is_ok()))
    }),
    row("sign", &["Quantity.() int"], |args, _| {
        one(args, |quantity| {
            Value::Int(if quantity.is_zero() {
                0
            } else if quantity.is_negative() {
                -1
            } else {
                1
            })
        })
    }),
    row("isInteger", &["Quantity.() bool"], |args, _| one(args, |quantity| Value::Bool(quantity.is_whole()))),
    row("asInteger", &["Quantity.() int"], |args, _| match &args[0] {
        Value::Quantity(quantity) if quantity.is_whole() => Ok(Value::Int(quantity.value())),
        Value::Quantity(_) => Error::said("cannot convert value to integer"),
        _ => Error::no_overload(),
    }),
    row("asApproximateFloat", &["Quantity.() double"], |args, _| {
        one(args, |quantity| Value::Double(quantity.as_f64()))
    }),
    row("add", &["Quantity.(Quantity) Quantity", "Quantity.(int) Quantity"], |args, _| {
        both(args, |one, other| Value::Quantity(one + other))
    }),
    row("sub", &["Quantity.(Quantity) Quantity", "Quantity.(int) Quantity"], |args, _| {
        both(args, |one, other| Value::Quantity(one - other))
    }),
    row("compareTo", &["Quantity.(Quantity) int", "Semver.(Semver) int"], |args, budget| {
        Ok(Value::Int(compared(args, budget)? as i64))
    }),
    row("isGreaterThan", &["Quantity.(Quantity) bool", "Semver.(Semver) bool"], |args, budget| {
        Ok(Value::Bool(compared(args, budget)? == Ordering::Greater))
    }),
    row("isLessThan", &["Quantity.(Quantity) bool", "Semver.(Semver) bool"], |args, budget| {
        Ok(Value::Bool(compared(args, budget)? == Ordering::Less))
    }),
];

fn one<'a>(args: &[Value<'a>], of: fn(Quantity) -> Value<'a>) -> Done<'a> {
    match &args[0] {
        Value::Quantity(quantity) => Ok(of(*quantity)),
        _ => Error::no_overload(),
    }
}

fn both<'a>(args: &[Value<'a>], of: fn(Quantity, Quantity) -> Value<'a>) -> Done<'a> {
    match args {
        [Value::Quantity(one), Value::Quantity(other)] => Ok(of(*one, *other)),
        [Value::Quantity(one), Value::Int(other)] => Ok(of(*one, Quantity::units(*other))),
        _ => Error::no_overload(),
    }
}

fn compared(args: &[Value<'_>], _: &mut Budget) -> Result<Ordering, Error> {
    match args {
        [Value::Quantity(one), Value::Quantity(other)] => Ok(one.cmp(other)),
        [Value::Semver(one), Value::Semver(other)] => Ok(one.order(other)),
        _ => Error::no_overload(),
    }
}
