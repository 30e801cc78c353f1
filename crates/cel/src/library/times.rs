//! Points and spans of time.

use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Zoned};
use model::Time;

use super::{Row, row};
use crate::budget::Error;
use crate::value::Value;

type Done<'a> = Result<Value<'a>, Error>;

const PARTS: &[&str] = &["timestamp.() int", "timestamp.(string) int"];
const SPANS: &[&str] = &["timestamp.() int", "timestamp.(string) int", "duration.() int"];

pub const ROWS: &[Row] = &[
    row("getFullYear", PARTS, |args, _| part(args, |at| at.year().into())),
    row("getMonth", PARTS, |args, _| part(args, |at| i64::from(at.month()) - 1)),
    row("getDayOfYear", PARTS, |args, _| part(args, |at| i64::from(at.day_of_year()) - 1)),
    row("getDayOfMonth", PARTS, |args, _| part(args, |at| i64::from(at.day()) - 1)),
    row("getDate", PARTS, |args, _| part(args, |at| at.day().into())),
    row("getDayOfWeek", PARTS, |args, _| part(args, |at| at.weekday().to_sunday_zero_offset().into())),
    row("getHours", SPANS, |args, _| span(args, 3_600_000_000_000, |at| at.hour().into())),
    row("getMinutes", SPANS, |args, _| span(args, 60_000_000_000, |at| at.minute().into())),
    row("getSeconds", SPANS, |args, _| span(args, 1_000_000_000, |at| at.second().into())),
    row("getMilliseconds", SPANS, |args, _| match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / 1_000_000 % 1000)),
        _ => part(args, |at| at.millisecond().into()),
    }),
];

fn span<'a>(args: &[Value<'a>], unit: i64, of: fn(&Zoned) -> i64) -> Done<'a> {
    match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / unit)),
        _ => part(args, of),
    }
}

fn part<'a>(args: &[Value<'a>], of: fn(&Zoned) -> i64) -> Done<'a> {
    let Some(Value::Timestamp(time)) = args.first() else { return Error::no_overload() };
    let zone = match args.get(1) {
        None => TimeZone::UTC,
        Some(Value::Text(name)) => match zone(name.as_str()) {
            Some(zone) => zone,
            None => return Error::said(format!("unknown time zone {}", name.as_str())),
        },
        _ => return Error::no_overload(),
    };
    Ok(Value::Int(of(&time.to_zoned(zone))))
}

/// `UTC`, the name of a place such as `Europe/Berlin`, or an offset such as `+02:00`.
fn zone(name: &str) -> Option<TimeZone> {
    if matches!(name, "UTC" | "Z" | "") {
        return Some(TimeZone::UTC);
    }
    if !name.contains(':') {
        // The database is part of the binary.
        return TimeZone::get(name).ok();
    }
    let (sign, rest) = match name.as_bytes()[0] {
        b'-' => (-1, &name[1..]),
        b'+' => (1, &name[1..]),
        _ => (1, name),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    let valid = (0..24).contains(&hours) && (0..60).contains(&minutes);
    let seconds = sign * (hours * 3600 + minutes * 60);
    Offset::from_seconds(seconds).ok().filter(|_| valid).map(TimeZone::fixed)
}

/// Reads a time as RFC 3339 has it.
pub fn timestamp<'a>(text: &str) -> Done<'a> {
    // jiff would also take other forms of ISO 8601.
    let formed = text.len() >= 20 && text.as_bytes()[10] == b'T';
    match text.parse::<Time>() {
        Ok(time) if formed => Ok(Value::Timestamp(time)),
        _ => Error::said(format!("parsing time {text:?}: invalid timestamp")),
    }
}

/// A time so much later.
pub fn shift<'a>(time: Time, nanos: i64) -> Done<'a> {
    match time.checked_add(SignedDuration::from_nanos(nanos)) {
        Ok(time) => Ok(Value::Timestamp(time)),
        Err(_) => Error::said("timestamp overflow"),
    }
}

const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Reads a duration such as `1h30m` or `-1.5s`, in nanoseconds.
pub fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut nanos: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|read: char| !read.is_ascii_digit() && read != '.')?;
        let number = &rest[..digits];
        rest = &rest[digits..];
        let (unit, size) =
            UNITS.iter().filter(|(unit, _)| rest.starts_with(unit)).max_by_key(|(unit, _)| unit.len())?;
        rest = &rest[unit.len()..];
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && part.is_empty()) || part.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let part: f64 = if part.is_empty() { 0.0 } else { format!("0.{part}").parse().ok()? };
        nanos = nanos
            .checked_add(whole.checked_mul(*size as i128)?)?
            .checked_add((part * size).round() as i128)?;
    }
    i64::try_from(if negative { -nanos } else { nanos }).ok()
}

/// A duration in seconds, as strings have it.
pub fn show(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let (whole, part) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    match part {
        0 => format!("{sign}{whole}s"),
        _ => format!("{sign}{whole}.{}s", format!("{part:09}").trim_end_matches('0')),
    }
}
