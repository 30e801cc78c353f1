//! Functions of strings: the language's extension of version 2, and the regular expressions of Kubernetes.

use regex::{Regex, RegexBuilder};

use super::{Row, compare, row, times, walk};
use crate::budget::{Budget, Error};
use crate::value::Value;

type Done<'a> = Result<Value<'a>, Error>;

/// How large a compiled regular expression may be, in bytes: enough for any that validates a field, too little to hurt.
const REGEX_SIZE_MAX: usize = 1 << 20;
/// How long a string may become that a format makes, in bytes: as much as a request may be.
const FORMAT_LEN_MAX: usize = 3 << 20;

pub const ROWS: &[Row] = &[
    row("charAt", &["string.(int) string"], |args, budget| {
        let [Value::Text(text), Value::Int(at)] = args else { return Error::no_overload() };
        budget.pay(walk(text.as_str().len() as u64))?;
        let count = text.as_str().chars().count();
        match usize::try_from(*at).ok().filter(|at| *at <= count) {
            Some(at) => Ok(Value::text(text.as_str().chars().nth(at).map(String::from).unwrap_or_default())),
            None => Error::said(format!("index out of range: {at}")),
        }
    }),
    row(
        "indexOf",
        &["string.(string) int", "string.(string, int) int", "list<A>.(A) int"],
        |args, budget| index_of(args, budget, false),
    ),
    row(
        "lastIndexOf",
        &["string.(string) int", "string.(string, int) int", "list<A>.(A) int"],
        |args, budget| index_of(args, budget, true),
    ),
    row("join", &["list<string>.() string", "list<string>.(string) string"], |args, budget| {
        let Value::List(list) = &args[0] else { return Error::no_overload() };
        let between = match args.get(1) {
            Some(Value::Text(text)) => text.as_str(),
            None => "",
            _ => return Error::no_overload(),
        };
        let mut all = String::new();
        for (at, item) in list.iter().enumerate() {
            let Value::Text(text) = &item else { return Error::no_overload() };
            budget.pay(2 * walk((text.as_str().len() + between.len()) as u64))?;
            if at > 0 {
                all.push_str(between);
            }
            all.push_str(text.as_str());
        }
        Ok(Value::text(all))
    }),
    row("lowerAscii", &["string.() string"], |args, budget| {
        over(args, budget, |text| text.to_ascii_lowercase())
    }),
    row("upperAscii", &["string.() string"], |args, budget| {
        over(args, budget, |text| text.to_ascii_uppercase())
    }),
    row("trim", &["string.() string"], |args, budget| over(args, budget, |text| text.trim().to_owned())),
    row("strings.quote", &["(string) string"], |args, budget| over(args, budget, quote)),
    row(
        "replace",
        &["string.(string, string) string", "string.(string, string, int) string"],
        |args, budget| {
            let [Value::Text(text), Value::Text(from), Value::Text(to), rest @ ..] = args else {
                return Error::no_overload();
            };
            let (text, from, to) = (text.as_str(), from.as_str(), to.as_str());
            let count = match rest {
                [Value::Int(count)] => usize::try_from(*count).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            let found = text.matches(from).count().min(count) as u64;
            budget.pay(2 * walk(text.len() as u64 + found * to.len() as u64))?;
            Ok(Value::text(text.replacen(from, to, count)))
        },
    ),
    row("split", &["string.(string) list<string>", "string.(string, int) list<string>"], |args, budget| {
        let [Value::Text(text), Value::Text(by), rest @ ..] = args else { return Error::no_overload() };
        budget.pay(2 * walk(text.as_str().len() as u64))?;
        let limit = match rest {
            [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        Ok(Value::list(split(text.as_str(), by.as_str(), limit).into_iter().map(Value::text).collect()))
    }),
    row("substring", &["string.(int) string", "string.(int, int) string"], |args, budget| {
        let [Value::Text(text), Value::Int(start), rest @ ..] = args else { return Error::no_overload() };
        budget.pay(walk(text.as_str().len() as u64))?;
        let count = i64::try_from(text.as_str().chars().count()).unwrap_or(i64::MAX);
        let end = match rest {
            [Value::Int(end)] => *end,
            _ => count,
        };
        for at in [*start, end] {
            if !(0..=count).contains(&at) {
                return Error::said(format!("index out of range: {at}"));
            }
        }
        if *start > end {
            return Error::said(format!("invalid substring range. start: {start}, end: {end}"));
        }
        let (skip, take) = (usize::try_from(*start).unwrap_or(0), usize::try_from(end - start).unwrap_or(0));
        Ok(Value::text(text.as_str().chars().skip(skip).take(take).collect::<String>()))
    }),
    row("format", &["string.(list<dyn>) string"], |args, budget| {
        let [Value::Text(text), Value::List(list)] = args else { return Error::no_overload() };
        let mut made = String::new();
        let mut next = 0;
        let mut read = text.as_str().chars();
        while let Some(one) = read.next() {
            if one != '%' {
                made.push(one);
                continue;
            }
            let mut precision = None;
            let mut kind = read.next();
            if kind == Some('.') {
                let digits: String = read.clone().take_while(char::is_ascii_digit).collect();
                (0..digits.len()).for_each(|_| _ = read.next());
                precision = Some(digits.parse::<usize>().unwrap_or(usize::MAX).min(100));
                kind = read.next();
            }
            let Some(kind) = kind else { return Error::said("unexpected end of string") };
            if kind == '%' {
                made.push('%');
                continue;
            }
            let Some(value) = list.get(next) else {
                return Error::said(format!("index {next} out of range"));
            };
            next += 1;
            let piece = clause(kind, precision, &value)?;
            budget.pay(walk(piece.len() as u64) + 1)?;
            made += &piece;
            if made.len() > FORMAT_LEN_MAX {
                return Err(Error::TooCostly);
            }
        }
        Ok(Value::text(made))
    }),
    row("find", &["string.(string) string"], |args, budget| {
        let [Value::Text(text), Value::Text(pattern)] = args else { return Error::no_overload() };
        let found = regex(text.as_str(), pattern.as_str(), budget)?;
        Ok(Value::text(found.find(text.as_str()).map_or("", |found| found.as_str())))
    }),
    row("findAll", &["string.(string) list<string>", "string.(string, int) list<string>"], |args, budget| {
        let [Value::Text(text), Value::Text(pattern), rest @ ..] = args else { return Error::no_overload() };
        let limit = match rest {
            [Value::Int(limit)] => usize::try_from(*limit).unwrap_or(usize::MAX),
            _ => usize::MAX,
        };
        let regex = regex(text.as_str(), pattern.as_str(), budget)?;
        let found = regex.find_iter(text.as_str()).take(limit).map(|found| Value::text(found.as_str()));
        Ok(Value::list(found.collect()))
    }),
];

/// A regular expression that is to be held against a text.
pub fn regex(text: &str, pattern: &str, budget: &mut Budget) -> Result<Regex, Error> {
    budget.pay(walk(text.len() as u64 + 1).saturating_mul((pattern.len() as u64).div_ceil(4).max(1)))?;
    match compile(pattern) {
        Ok(regex) => Ok(regex),
        Err(why) => Error::said(why),
    }
}

/// Reads a regular expression.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(pattern).size_limit(REGEX_SIZE_MAX).dfa_size_limit(REGEX_SIZE_MAX).build();
    built.map_err(|_| format!("error parsing regexp: {pattern}"))
}

fn over<'a>(args: &[Value<'a>], budget: &mut Budget, make: fn(&str) -> String) -> Done<'a> {
    let Value::Text(text) = &args[0] else { return Error::no_overload() };
    budget.pay(walk(text.as_str().len() as u64))?;
    Ok(Value::text(make(text.as_str())))
}

fn quote(text: &str) -> String {
    let mut made = String::from('"');
    for read in text.chars() {
        match read {
            '\u{7}' => made += "\\a",
            '\u{8}' => made += "\\b",
            '\u{c}' => made += "\\f",
            '\n' => made += "\\n",
            '\r' => made += "\\r",
            '\t' => made += "\\t",
            '\u{b}' => made += "\\v",
            '\\' => made += "\\\\",
            '"' => made += "\\\"",
            other => made.push(other),
        }
    }
    made.push('"');
    made
}

fn split(text: &str, by: &str, limit: usize) -> Vec<String> {
    match (limit, by) {
        (0, _) => Vec::new(),
        (limit, "") => {
            let mut letters: Vec<String> = text.chars().map(String::from).collect();
            if letters.len() > limit {
                let rest = letters.split_off(limit - 1).concat();
                letters.push(rest);
            }
            letters
        }
        (limit, by) => text.splitn(limit, by).map(str::to_owned).collect(),
    }
}

fn index_of<'a>(args: &[Value<'a>], budget: &mut Budget, last: bool) -> Done<'a> {
    if let [Value::List(list), wanted] = args {
        let mut found = -1;
        for (at, item) in list.iter().enumerate() {
            budget.pay(1)?;
            if (last || found < 0) && compare::equal(&item, wanted, budget)? {
                found = i64::try_from(at).unwrap_or(i64::MAX);
            }
        }
        return Ok(Value::Int(found));
    }
    let [Value::Text(text), Value::Text(part), rest @ ..] = args else { return Error::no_overload() };
    let text: Vec<char> = text.as_str().chars().collect();
    let part: Vec<char> = part.as_str().chars().collect();
    budget.pay(walk(text.len() as u64).saturating_mul(walk(part.len() as u64).max(1)))?;
    let offset = match rest {
        [Value::Int(offset)] => match usize::try_from(*offset).ok().filter(|offset| *offset <= text.len()) {
            Some(offset) => Some(offset),
            None => return Error::said(format!("index out of range: {offset}")),
        },
        _ => None,
    };
    let places = 0..=text.len().saturating_sub(part.len());
    let fits = |at: &usize| text.len() >= part.len() && text[*at..*at + part.len()] == part[..];
    let found = if last {
        places.rev().filter(|at| offset.is_none_or(|most| *at <= most)).find(fits)
    } else {
        places.filter(|at| *at >= offset.unwrap_or(0)).find(fits)
    };
    Ok(Value::Int(found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)))
}

/// One place of a format.
fn clause(kind: char, precision: Option<usize>, value: &Value<'_>) -> Result<String, Error> {
    let digits = precision.unwrap_or(6);
    Ok(match (kind, value) {
        ('s', value) => match shown(value) {
            Some(text) => text,
            None => spread(value, &mut SPREAD_MAX.clone()).ok_or(Error::TooCostly)?,
        },
        ('d', Value::Int(number)) => number.to_string(),
        ('d', Value::Uint(number)) => number.to_string(),
        ('d' | 'f' | 'e', Value::Double(number)) if !number.is_finite() => {
            shown(value).unwrap_or_else(|| number.to_string())
        }
        ('f', Value::Double(number)) => format!("{number:.digits$}"),
        ('f', Value::Int(number)) => format!("{:.digits$}", *number as f64),
        ('e', Value::Double(number)) => scientific(*number, digits),
        ('e', Value::Int(number)) => scientific(*number as f64, digits),
        ('b', Value::Int(number)) if *number < 0 => format!("-{:b}", number.unsigned_abs()),
        ('b', Value::Int(number)) => format!("{number:b}"),
        ('b', Value::Uint(number)) => format!("{number:b}"),
        ('b', Value::Bool(flag)) => u8::from(*flag).to_string(),
        ('o', Value::Int(number)) if *number < 0 => format!("-{:o}", number.unsigned_abs()),
        ('o', Value::Int(number)) => format!("{number:o}"),
        ('o', Value::Uint(number)) => format!("{number:o}"),
        ('x' | 'X', value) => {
            let hex = match value {
                Value::Int(number) if *number < 0 => format!("-{:x}", number.unsigned_abs()),
                Value::Int(number) => format!("{number:x}"),
                Value::Uint(number) => format!("{number:x}"),
                Value::Text(text) => text.as_str().bytes().map(|byte| format!("{byte:02x}")).collect(),
                Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                _ => {
                    return Error::said(format!(
                        "error during formatting: hexadecimal clause can only be used on integers, byte buffers, and strings, was given {}",
                        value.type_name()
                    ));
                }
            };
            if kind == 'X' { hex.to_uppercase() } else { hex }
        }
        (kind @ ('d' | 'f' | 'e' | 'b' | 'o'), value) => {
            let word = match kind {
                'd' => "decimal clause can only be used on integers",
                'f' => "fixed-point clause can only be used on doubles",
                'e' => "scientific clause can only be used on doubles",
                'b' => "binary clause can only be used on integers and bools",
                _ => "octal clause can only be used on integers",
            };
            return Error::said(format!("error during formatting: {word}, was given {}", value.type_name()));
        }
        (other, _) => {
            return Error::said(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{other}\""
            ));
        }
    })
}

fn scientific(number: f64, digits: usize) -> String {
    let plain = format!("{number:.digits$e}");
    let (mantissa, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
    let (sign, size) = match exponent.strip_prefix('-') {
        Some(size) => ('-', size),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{size:0>2}")
}

/// A value as a string, where there is one way to write it.
pub fn shown(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Null => "null".into(),
        Value::Bool(flag) => flag.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) if number.is_nan() => "NaN".into(),
        Value::Double(number) if number.is_infinite() => if *number > 0.0 { "+Inf" } else { "-Inf" }.into(),
        Value::Double(number) if number.abs() >= 1e21 || (*number != 0.0 && number.abs() < 1e-4) => {
            let shortest = format!("{number:e}");
            let (mantissa, exponent) = shortest.split_once('e')?;
            let (sign, size) = exponent.strip_prefix('-').map_or(('+', exponent), |size| ('-', size));
            format!("{mantissa}e{sign}{size:0>2}")
        }
        Value::Double(number) => number.to_string(),
        Value::Text(text) => text.as_str().to_owned(),
        Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(nanos) => times::show(*nanos),
        Value::Type(name) => name.to_string(),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(cidr) => cidr.to_string(),
        _ => return None,
    })
}

/// How many parts of a list or a map are shown in a text.
const SPREAD_MAX: usize = 10_000;

/// A list or a map as a string; `None` when it is too large.
fn spread(value: &Value<'_>, left: &mut usize) -> Option<String> {
    *left = left.checked_sub(1)?;
    match value {
        Value::List(list) => {
            let items: Option<Vec<String>> = list.iter().map(|item| spread(&item, left)).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        Value::Map(map) => {
            let mut entries = Vec::new();
            for key in map.keys() {
                let value = map.get(&key).map_or(Some(String::new()), |value| spread(&value, left));
                entries.push(format!("{}: {}", shown(&key.value())?, value?));
            }
            Some(format!("{{{}}}", entries.join(", ")))
        }
        other => Some(shown(other).unwrap_or_else(|| other.type_name())),
    }
}
