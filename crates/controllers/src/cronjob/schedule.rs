//! Schedules as cron writes them, and when they come round.

use jiff::civil::{Date, DateTime, Time as Clock};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// How far ahead a schedule is looked for, in days: February 29th comes round within eight years at least.
const AHEAD_DAYS_MAX: i32 = 8 * 366;

/// When something is to happen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Schedule {
    /// At these minutes.
    At(Fields),
    /// So many seconds apart.
    Every(i64),
}

/// The five fields, each a set of numbers as bits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether days of the month and of the week are both named: then one of them is enough.
    is_either_day: bool,
}

/// Text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotASchedule(pub(crate) String);

impl Schedule {
    /// Reads `*/5 * * * *`, `@hourly`, `@every 1h30m`.
    pub(crate) fn parse(text: &str) -> Result<Self, NotASchedule> {
        let text = text.trim();
        if let Some(length) = text.strip_prefix("@every ") {
            return every(length)
                .map(Self::Every)
                .ok_or_else(|| NotASchedule(format!("failed to parse duration {text}")));
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            fields => fields,
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(NotASchedule(format!("expected exactly 5 fields, found {}: [{text}]", fields.len())));
        };
        Ok(Self::At(Fields {
            minutes: set(minutes, 0, 59, &[])?,
            hours: set(hours, 0, 23, &[])?,
            days: set(days, 1, 31, &[])?,
            months: set(months, 1, 12, &MONTHS)?,
            weekdays: set(weekdays, 0, 6, &WEEKDAYS)?,
            is_either_day: !is_star(days) && !is_star(weekdays),
        }))
    }

    /// The first time after `after`; `None` when it never comes round.
    pub(crate) fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(seconds) => Timestamp::from_second(after.as_second().checked_add(*seconds)?).ok(),
            Self::At(fields) => fields.next(after, zone),
        }
    }

    /// The last time after `from` and not after `until`, and whether there were others between.
    pub(crate) fn last(
        &self,
        from: Timestamp,
        until: Timestamp,
        zone: &TimeZone,
    ) -> Option<(Timestamp, bool)> {
        if let Self::Every(seconds) = self {
            let rounds = (until.as_second() - from.as_second()).div_euclid((*seconds).max(1));
            let last = Timestamp::from_second(from.as_second() + rounds * seconds).ok()?;
            return (rounds > 0).then_some((last, rounds > 1));
        }
        // Windows that end at `until`, each larger than the one before: the last time is found without walking all.
        let windows = [60, 3_600, 86_400, 31 * 86_400, 366 * 86_400, i64::MAX];
        for window in windows {
            let start = until.as_second().saturating_sub(window).max(from.as_second());
            let mut at = Timestamp::from_second(start).ok().and_then(|start| self.next(start, zone));
            let mut found = None;
            while let Some(time) = at.filter(|time| *time <= until) {
                found = Some(time);
                at = self.next(time, zone);
            }
            if let Some(last) = found {
                let first = self.next(from, zone);
                return Some((last, first != Some(last)));
            }
            if start == from.as_second() {
                break;
            }
        }
        None
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let start = after.to_zoned(zone.clone()).datetime();
        let mut date = start.date();
        for _ in 0..AHEAD_DAYS_MAX {
            if self.has_day(date) {
                let found = self.minutes_of(date).find_map(|at| {
                    let time = zone.to_ambiguous_timestamp(at).compatible().ok()?;
                    (time > after).then_some(time)
                });
                if found.is_some() {
                    return found;
                }
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn has_day(&self, date: Date) -> bool {
        let has = |set: u64, number: i8| u32::try_from(number).is_ok_and(|number| set & (1 << number) != 0);
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let is_right = if self.is_either_day { day || weekday } else { day && weekday };
        has(self.months, date.month()) && is_right
    }

    fn minutes_of(&self, date: Date) -> impl Iterator<Item = DateTime> + '_ {
        let hours = (0..24).filter(|hour| self.hours & (1 << hour) != 0);
        hours.flat_map(move |hour| {
            let minutes = (0..60).filter(|minute| self.minutes & (1 << minute) != 0);
            minutes.map(move |minute| date.to_datetime(Clock::constant(hour, minute, 0, 0)))
        })
    }
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A field that restricts nothing.
fn is_star(field: &str) -> bool {
    field.split(',').any(|part| matches!(part, "*" | "?" | "*/1" | "?/1"))
}

/// One field as bits.
fn set(field: &str, low: u32, high: u32, names: &[&str]) -> Result<u64, NotASchedule> {
    let parts = field.split(',').filter(|part| !part.is_empty());
    let mut bits = 0;
    for part in parts {
        bits |= run(part, low, high, names).ok_or_else(|| {
            NotASchedule(format!("failed to parse {part} in {field}: not within {low}-{high}"))
        })?;
    }
    if bits == 0 { Err(NotASchedule(format!("empty field {field}"))) } else { Ok(bits) }
}

/// `*`, `4`, `1-5`, `*/10`, `3-30/3`, `MON-FRI`.
fn run(part: &str, low: u32, high: u32, names: &[&str]) -> Option<u64> {
    let (range, step) = match part.split_once('/') {
        None => (part, None),
        Some((range, step)) => (range, Some(step.parse::<u32>().ok().filter(|step| *step > 0)?)),
    };
    let number = |text: &str| {
        let named = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let named = named.and_then(|at| u32::try_from(at).ok()).map(|at| at + low);
        named.or_else(|| text.parse().ok())
    };
    let (first, last) = match (range, range.split_once('-')) {
        ("*" | "?", _) => (low, high),
        (_, Some((first, last))) => (number(first)?, number(last)?),
        (one, None) => {
            let one = number(one)?;
            (one, if step.is_some() { high } else { one })
        }
    };
    // Sunday is 0, and 7 in the mouths of many.
    let is_valid = first >= low && last <= high && first <= last;
    let numbers = || (first..=last).step_by(usize::try_from(step.unwrap_or(1)).unwrap_or(1));
    is_valid.then(|| numbers().fold(0, |bits, number| bits | 1 << number))
}

/// `1h30m`, `90s`: at least one second.
fn every(text: &str) -> Option<i64> {
    let mut seconds = 0_i64;
    let mut digits = String::new();
    for letter in text.trim().chars() {
        if letter.is_ascii_digit() {
            digits.push(letter);
            continue;
        }
        let unit = match letter {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(digits.parse::<i64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    (digits.is_empty() && seconds > 0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, after: &str, zone: &str) -> String {
        let zone = TimeZone::get(zone).expect("a zone");
        let schedule = Schedule::parse(schedule).expect("a schedule");
        let next = schedule.next(after.parse().expect("a time"), &zone);
        next.map_or("never".into(), |next| next.to_string())
    }

    #[test]
    fn schedules_come_round() {
        let cases = [
            ("*/5 * * * ?", "2026-01-01T00:03:30Z", "2026-01-01T00:05:00Z"),
            ("0 0 1 1 *", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("30 4 1,15 * 5", "2026-01-01T05:00:00Z", "2026-01-02T04:30:00Z"),
            ("0 22 * * MON-FRI", "2026-01-02T23:00:00Z", "2026-01-05T22:00:00Z"),
            ("15 10-12/2 * feb *", "2026-02-01T10:15:00Z", "2026-02-01T12:15:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 31 2 *", "2026-01-01T00:00:00Z", "never"),
            ("@hourly", "2026-01-01T00:00:01Z", "2026-01-01T01:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:00Z", "2026-01-01T01:30:00Z"),
        ];
        for (schedule, after, expected) in cases {
            assert_eq!(next(schedule, after, "UTC"), expected, "{schedule}");
        }
        assert_eq!(next("0 9 * * *", "2026-07-01T00:00:00Z", "Europe/Berlin"), "2026-07-01T07:00:00Z");
        // The night in which 2:30 does not exist: it comes an hour later by the sun.
        assert_eq!(next("30 2 * * *", "2026-03-28T12:00:00Z", "Europe/Berlin"), "2026-03-29T01:30:00Z");
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "* * * * 8",
            "@every x",
            "@never",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_time_is_found_however_long_ago_the_first_was() {
        let minutely = Schedule::parse("* * * * *").expect("a schedule");
        let (from, until): (Timestamp, Timestamp) = (
            "2016-01-01T00:00:00Z".parse().expect("a time"),
            "2026-01-01T00:00:30Z".parse().expect("a time"),
        );
        let last = minutely.last(from, until, &TimeZone::UTC).map(|(last, more)| (last.to_string(), more));
        assert_eq!(last, Some(("2026-01-01T00:00:00Z".into(), true)));
        let yearly = Schedule::parse("@yearly").expect("a schedule");
        assert_eq!(yearly.last(until, until, &TimeZone::UTC), None);
        let late = "2025-02-01T00:00:00Z".parse().expect("a time");
        assert_eq!(yearly.last(late, until, &TimeZone::UTC).map(|(_, more)| more), Some(false));
    }
}
