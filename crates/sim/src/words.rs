//! Small readers of the words that scenarios are written in: lengths of time, and times as a timeline shows them.

use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Reads a length of time: `250ms`, `3s`, `1.5s`, `2m`, `1h`.
pub fn duration(text: &str) -> Result<Duration> {
    let split =
        text.find(|c: char| c.is_ascii_alphabetic()).with_context(|| format!("{text:?} has no unit"))?;
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().with_context(|| format!("{text:?} is no length of time"))?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => bail!("{text:?}: the unit must be ms, s, m or h"),
    };
    Duration::try_from_secs_f64(seconds).with_context(|| format!("{text:?} is no length of time"))
}

/// A time since the beginning as a timeline shows it: minutes, seconds and tenths.
pub fn stamp(since: Duration) -> String {
    let tenths = since.as_millis() / 100;
    format!("{}:{:02}.{}", tenths / 600, tenths / 10 % 60, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_in_four_units() {
        let check = |text: &str, millis: Option<u128>| {
            assert_eq!(duration(text).ok().map(|read| read.as_millis()), millis, "{text}");
        };
        check("250ms", Some(250));
        check("1.5s", Some(1500));
        check("2m", Some(120_000));
        check("1h", Some(3_600_000));
        check("5", None);
        check("5d", None);
        check("-5s", None);
    }

    #[test]
    fn a_stamp_is_cut_not_rounded() {
        assert_eq!(stamp(Duration::from_millis(59_999)), "0:59.9");
        assert_eq!(stamp(Duration::from_millis(3_600_050)), "60:00.0");
    }
}
