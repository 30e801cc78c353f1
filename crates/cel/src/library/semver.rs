//! Versions as semver.org has them.

use std::cmp::Ordering;
use std::fmt;
use std::rc::Rc;

use super::{Row, row, walk};
use crate::budget::Error;
use crate::value::Value;

/// A version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Semver {
    /// Major, minor, patch.
    numbers: [u64; 3],
    /// What stands after a dash, in parts.
    before: Vec<String>,
    /// What stands after a plus; it does not count.
    build: String,
}

impl Semver {
    /// Reads a version; a lax one may have a `v` in front, leading zeros and fewer than three numbers.
    pub fn read(text: &str, lax: bool) -> Option<Self> {
        let text = if lax { text.strip_prefix('v').unwrap_or(text) } else { text };
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (core, before) = text.split_once('-').map_or((text, None), |(core, before)| (core, Some(before)));
        let mut numbers = [0; 3];
        let parts: Vec<&str> = core.split('.').collect();
        if parts.len() > 3 || (parts.len() < 3 && (!lax || before.is_some() || build.is_some())) {
            return None;
        }
        for (slot, part) in numbers.iter_mut().zip(parts) {
            *slot = number(part, lax)?;
        }
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|read| read.is_ascii_alphanumeric() || read == b'-')
        };
        let before: Vec<String> =
            before.map(|text| text.split('.').map(str::to_owned).collect()).unwrap_or_default();
        let is_number = |part: &str| part.bytes().all(|read| read.is_ascii_digit());
        let good =
            before.iter().all(|part| word(part) && (!is_number(part) || number(part, false).is_some()));
        let built = build.is_none_or(|build| build.split('.').all(word));
        (good && built).then(|| Self { numbers, before, build: build.unwrap_or_default().to_owned() })
    }

    /// Which comes first.
    pub fn order(&self, other: &Self) -> Ordering {
        let first = self.numbers.cmp(&other.numbers);
        let released = other.before.is_empty().cmp(&self.before.is_empty()).reverse();
        first.then(released).then_with(|| {
            let pairs = self.before.iter().zip(&other.before);
            let mut orders = pairs.map(|(one, other)| match (one.parse::<u64>(), other.parse::<u64>()) {
                (Ok(one), Ok(other)) => one.cmp(&other),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                _ => one.cmp(other),
            });
            let found = orders.find(|order| *order != Ordering::Equal);
            found.unwrap_or_else(|| self.before.len().cmp(&other.before.len()))
        })
    }
}

fn number(text: &str, lax: bool) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|read| read.is_ascii_digit());
    let leading = text.len() > 1 && text.starts_with('0');
    text.parse().ok().filter(|_| digits && (lax || !leading))
}

impl fmt::Display for Semver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if !self.before.is_empty() {
            write!(f, "-{}", self.before.join("."))?;
        }
        if !self.build.is_empty() {
            write!(f, "+{}", self.build)?;
        }
        Ok(())
    }
}

pub const ROWS: &[Row] = &[
    row("semver", &["(string) Semver", "(string, bool) Semver"], |args, budget| match read(args) {
        Some((text, found)) => {
            budget.pay(walk(text.len() as u64))?;
            match found {
                Some(semver) => Ok(Value::Semver(Rc::new(semver))),
                None => Error::said(format!("invalid semver: {text}")),
            }
        }
        None => Error::no_overload(),
    }),
    row("isSemver", &["(string) bool", "(string, bool) bool"], |args, budget| match read(args) {
        Some((text, found)) => {
            budget.pay(walk(text.len() as u64))?;
            Ok(Value::Bool(found.is_some()))
        }
        None => Error::no_overload(),
    }),
    row("major", &["Semver.() int"], |args, _| part(args, 0)),
    row("minor", &["Semver.() int"], |args, _| part(args, 1)),
    row("patch", &["Semver.() int"], |args, _| part(args, 2)),
];

fn read<'b>(args: &'b [Value<'_>]) -> Option<(&'b str, Option<Semver>)> {
    let Some(Value::Text(text)) = args.first() else { return None };
    let lax = match args.get(1) {
        None => false,
        Some(Value::Bool(lax)) => *lax,
        _ => return None,
    };
    Some((text.as_str(), Semver::read(text.as_str(), lax)))
}

fn part<'a>(args: &[Value<'a>], at: usize) -> Result<Value<'a>, Error> {
    match &args[0] {
        Value::Semver(semver) => Ok(Value::Int(i64::try_from(semver.numbers[at]).unwrap_or(i64::MAX))),
        _ => Error::no_overload(),
    }
}
