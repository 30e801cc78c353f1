//! Points in time as objects carry them: read in the forms that the API takes, written in the one it stores.

use jiff::{SignedDuration, Unit};

use crate::Time;

/// Text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time as in RFC 3339")]
pub struct NotATime;

/// Reads RFC 3339 text, with or without fractions, in any zone.
pub fn parse(text: &str) -> Result<Time, NotATime> {
    let shaped = text.len() >= 20 && text.as_bytes()[4] == b'-' && matches!(text.as_bytes()[10], b'T' | b't');
    if shaped { text.parse().map_err(|_| NotATime) } else { Err(NotATime) }
}

/// To the second, in UTC: `2026-01-02T03:04:05Z`.
pub fn seconds(time: Time) -> String {
    // Cut, not rounded: a time must not lie after the moment it names.
    to_whole_second(time).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// To the microsecond, in UTC: `2026-01-02T03:04:05.000006Z`.
pub fn micros(time: Time) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// So many seconds later, or the end of time.
pub fn after_seconds(time: Time, seconds: i64) -> Time {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(if seconds < 0 {
        Time::MIN
    } else {
        Time::MAX
    })
}

/// Whole seconds from one to the other; negative when `later` is earlier.
pub fn seconds_between(earlier: Time, later: Time) -> i64 {
    later.duration_since(earlier).as_secs()
}

/// An age as `kubectl get` shows it: `5s`, `3m20s`, `2h5m`, `3d4h`, `2y10d`.
pub fn age(since: Time, now: Time) -> String {
    short(seconds_between(since, now))
}

/// A length of time as `kubectl get` shows it.
pub fn short(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let seconds = seconds.max(0);
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / 24 / 365);
    let pair = |whole: i64, unit: &str, rest: i64, small: &str| match rest {
        0 => format!("{whole}{unit}"),
        _ => format!("{whole}{unit}{rest}{small}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => pair(days, "d", hours % 24, "h"),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => pair(years, "y", days % 365, "d"),
        () => format!("{years}y"),
    }
}

/// The time without its fraction of a second.
pub fn to_whole_second(time: Time) -> Time {
    time.round(jiff::TimestampRound::new().smallest(Unit::Second).mode(jiff::RoundMode::Floor))
        .unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_stored_in_utc() {
        let time = parse("2026-01-02T03:04:05.678901234+01:00").expect("a time");
        assert_eq!(seconds(time), "2026-01-02T02:04:05Z");
        assert_eq!(micros(time), "2026-01-02T02:04:05.678901Z");
        assert_eq!(to_whole_second(time), parse("2026-01-02T02:04:05Z").expect("a time"));
        for bad in
            ["", "2026-01-02", "12", "2026-01-02 03:04:05Z", "2026-13-02T03:04:05Z", "2026-01-02T03:04:05"]
        {
            assert_eq!(parse(bad), Err(NotATime), "{bad}");
        }
    }

    #[test]
    fn ages_are_short() {
        let cases = [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ];
        for (seconds, text) in cases {
            assert_eq!(short(seconds), text, "{seconds}");
        }
    }
}
