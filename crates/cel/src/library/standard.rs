//! The language's own functions: sizes, conversions, regular expressions, sets.

use super::{Row, compare, row, strings, times, walk};
use crate::budget::{Budget, Error};
use crate::value::{Text, Value};

type Done<'a> = Result<Value<'a>, Error>;

pub const ROWS: &[Row] = &[
    row(
        "size",
        &[
            "(string) int",
            "(bytes) int",
            "(list<A>) int",
            "(map<A, B>) int",
            "string.() int",
            "bytes.() int",
            "list<A>.() int",
            "map<A, B>.() int",
        ],
        |args, _| {
            let size = match &args[0] {
                Value::Text(text) => text.as_str().chars().count(),
                Value::Bytes(bytes) => bytes.len(),
                Value::List(list) => list.len(),
                Value::Map(map) => map.len(),
                _ => return Error::no_overload(),
            };
            Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
        },
    ),
    row("type", &["(A) type"], |args, _| Ok(Value::Type(args[0].type_name().into()))),
    row("dyn", &["(A) dyn"], |args, _| Ok(args[0].clone())),
    row("int", &["(int) int", "(uint) int", "(double) int", "(string) int", "(timestamp) int"], to_int),
    row("uint", &["(uint) uint", "(int) uint", "(double) uint", "(string) uint"], to_uint),
    row("double", &["(double) double", "(int) double", "(uint) double", "(string) double"], |args, _| {
        match &args[0] {
            Value::Double(number) => Ok(Value::Double(*number)),
            Value::Int(number) => Ok(Value::Double(*number as f64)),
            Value::Uint(number) => Ok(Value::Double(*number as f64)),
            Value::Text(text) => match text.as_str().parse() {
                Ok(number) => Ok(Value::Double(number)),
                Err(_) => {
                    Error::said(format!("strconv.ParseFloat: parsing {:?}: invalid syntax", text.as_str()))
                }
            },
            _ => Error::no_overload(),
        }
    }),
    row("bool", &["(bool) bool", "(string) bool"], |args, _| match &args[0] {
        Value::Bool(flag) => Ok(Value::Bool(*flag)),
        Value::Text(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            other => Error::said(format!("strconv.ParseBool: parsing {other:?}: invalid syntax")),
        },
        _ => Error::no_overload(),
    }),
    row(
        "string",
        &[
            "(string) string",
            "(bool) string",
            "(int) string",
            "(uint) string",
            "(double) string",
            "(bytes) string",
            "(timestamp) string",
            "(duration) string",
            "(IP) string",
            "(CIDR) string",
        ],
        |args, budget| {
            let made = match &args[0] {
                Value::Text(text) => return Ok(Value::Text(text.clone())),
                Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                    Ok(text) => text.to_owned(),
                    Err(_) => return Error::said("invalid UTF-8 in bytes, cannot convert to string"),
                },
                other => match strings::shown(other) {
                    Some(text) => text,
                    None => return Error::no_overload(),
                },
            };
            budget.pay(walk(made.len() as u64))?;
            Ok(Value::text(made))
        },
    ),
    row("bytes", &["(bytes) bytes", "(string) bytes"], |args, budget| match &args[0] {
        Value::Bytes(bytes) => Ok(Value::Bytes(bytes.clone())),
        Value::Text(text) => {
            budget.pay(walk(text.as_str().len() as u64))?;
            Ok(Value::Bytes(text.as_str().as_bytes().into()))
        }
        _ => Error::no_overload(),
    }),
    row("timestamp", &["(timestamp) timestamp", "(string) timestamp", "(int) timestamp"], |args, _| {
        match &args[0] {
            Value::Timestamp(time) => Ok(Value::Timestamp(*time)),
            Value::Int(seconds) => match model::Time::from_second(*seconds) {
                Ok(time) => Ok(Value::Timestamp(time)),
                Err(_) => Error::said("timestamp overflow"),
            },
            Value::Text(text) => times::timestamp(text.as_str()),
            _ => Error::no_overload(),
        }
    }),
    row("duration", &["(duration) duration", "(string) duration"], |args, _| match &args[0] {
        Value::Duration(nanos) => Ok(Value::Duration(*nanos)),
        Value::Text(text) => match times::duration(text.as_str()) {
            Some(nanos) => Ok(Value::Duration(nanos)),
            None => Error::said(format!("time: invalid duration {:?}", text.as_str())),
        },
        _ => Error::no_overload(),
    }),
    row("matches", &["(string, string) bool", "string.(string) bool"], |args, budget| match args {
        [Value::Text(text), Value::Text(pattern)] => {
            let regex = strings::regex(text.as_str(), pattern.as_str(), budget)?;
            Ok(Value::Bool(regex.is_match(text.as_str())))
        }
        _ => Error::no_overload(),
    }),
    row("startsWith", &["string.(string) bool"], |args, budget| {
        two(args, budget, |text, part| (part.len(), text.starts_with(part)))
    }),
    row("endsWith", &["string.(string) bool"], |args, budget| {
        two(args, budget, |text, part| (part.len(), text.ends_with(part)))
    }),
    row("contains", &["string.(string) bool"], |args, budget| {
        two(args, budget, |text, part| (text.len(), text.contains(part)))
    }),
    row("sets.contains", &["(list<A>, list<A>) bool"], |args, budget| {
        Ok(Value::Bool(all_in(&args[1], &args[0], budget)?))
    }),
    row("sets.equivalent", &["(list<A>, list<A>) bool"], |args, budget| {
        Ok(Value::Bool(all_in(&args[1], &args[0], budget)? && all_in(&args[0], &args[1], budget)?))
    }),
    row("sets.intersects", &["(list<A>, list<A>) bool"], |args, budget| {
        let Value::List(list) = &args[0] else { return Error::no_overload() };
        for item in list.iter() {
            if compare::is_in(&item, &args[1], budget)? {
                return Ok(Value::Bool(true));
            }
        }
        Ok(Value::Bool(false))
    }),
    row("jsonpatch.escapeKey", &["(string) string"], |args, budget| match &args[0] {
        Value::Text(text) => {
            budget.pay(walk(text.as_str().len() as u64))?;
            Ok(Value::text(text.as_str().replace('~', "~0").replace('/', "~1")))
        }
        _ => Error::no_overload(),
    }),
];

fn all_in<'a>(items: &Value<'a>, among: &Value<'a>, budget: &mut Budget) -> Result<bool, Error> {
    let Value::List(list) = items else { return Error::no_overload() };
    for item in list.iter() {
        if !compare::is_in(&item, among, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Asks something of two texts; the answer comes with the length that was walked for it.
fn two<'a>(args: &[Value<'a>], budget: &mut Budget, ask: fn(&str, &str) -> (usize, bool)) -> Done<'a> {
    let [Value::Text(text), Value::Text(part)] = args else { return Error::no_overload() };
    let (length, answer) = ask(Text::as_str(text), part.as_str());
    budget.pay(walk(length as u64))?;
    Ok(Value::Bool(answer))
}

fn to_int<'a>(args: &[Value<'a>], _: &mut Budget) -> Done<'a> {
    match &args[0] {
        Value::Int(number) => Ok(Value::Int(*number)),
        Value::Uint(number) => {
            i64::try_from(*number).map_or_else(|_| Error::said("integer overflow"), |it| Ok(Value::Int(it)))
        }
        Value::Double(number) if number.abs() < 9.223_372_036_854_775e18 => Ok(Value::Int(*number as i64)),
        Value::Double(_) => Error::said("integer overflow"),
        Value::Text(text) => match text.as_str().parse() {
            Ok(number) => Ok(Value::Int(number)),
            Err(_) => Error::said(format!("strconv.ParseInt: parsing {:?}: invalid syntax", text.as_str())),
        },
        Value::Timestamp(time) => Ok(Value::Int(time.as_second())),
        _ => Error::no_overload(),
    }
}

fn to_uint<'a>(args: &[Value<'a>], _: &mut Budget) -> Done<'a> {
    match &args[0] {
        Value::Uint(number) => Ok(Value::Uint(*number)),
        Value::Int(number) => u64::try_from(*number)
            .map_or_else(|_| Error::said("unsigned integer overflow"), |it| Ok(Value::Uint(it))),
        Value::Double(number) if (0.0..1.844_674_407_370_955e19).contains(number) => {
            Ok(Value::Uint(*number as u64))
        }
        Value::Double(_) => Error::said("unsigned integer overflow"),
        Value::Text(text) => match text.as_str().parse() {
            Ok(number) => Ok(Value::Uint(number)),
            Err(_) => Error::said(format!("strconv.ParseUint: parsing {:?}: invalid syntax", text.as_str())),
        },
        _ => Error::no_overload(),
    }
}
