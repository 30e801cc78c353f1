//! Counts what probes answer, and says when to ask next. Pure: the asking is in `ask`.
//!
//! Until a container has answered well for the first time, readiness and startup probes are asked again soon after a
//! failure, at growing distances, so that nobody waits a whole period for a container that was ready after 30 ms. Only
//! the asks of the regular rhythm count towards the failure threshold.

use std::time::Duration;

use host::Time;
use k8s_openapi::api::core::v1::{Container, Probe};

/// The first distance between asks of a container that has not answered well yet; it doubles.
///
/// Half would ask most containers in vain once more, double would show in how fast a Deployment is ready.
pub const EAGER_FIRST: Duration = Duration::from_millis(20);

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// Whether the container has come up; the others wait for it.
    Startup,
    /// Whether it must be restarted.
    Liveness,
    /// Whether it may be sent requests.
    Readiness,
}

impl ProbeKind {
    /// All kinds, the gate first.
    pub const ALL: [ProbeKind; 3] = [ProbeKind::Startup, ProbeKind::Liveness, ProbeKind::Readiness];

    /// The word of messages: `Readiness probe failed`.
    pub fn word(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Liveness => "Liveness",
            ProbeKind::Readiness => "Readiness",
        }
    }

    /// The container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            ProbeKind::Startup => container.startup_probe.as_ref(),
            ProbeKind::Liveness => container.liveness_probe.as_ref(),
            ProbeKind::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// The rhythm and thresholds of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Before the first ask.
    pub initial_delay: Duration,
    /// Between asks.
    pub period: Duration,
    /// For one answer.
    pub timeout: Duration,
    /// Good answers in a row that make it good.
    pub good_min: u32,
    /// Bad answers in a row that make it bad.
    pub bad_min: u32,
}

impl Pace {
    /// Reads a probe, with the API's defaults.
    pub fn of(probe: &Probe) -> Pace {
        let seconds = |value: Option<i32>, default: i32, min: i32| {
            Duration::from_secs(u64::try_from(value.unwrap_or(default).max(min)).unwrap_or(0))
        };
        let count =
            |value: Option<i32>, default: i32| u32::try_from(value.unwrap_or(default).max(1)).unwrap_or(1);
        Pace {
            initial_delay: seconds(probe.initial_delay_seconds, 0, 0),
            period: seconds(probe.period_seconds, 10, 1),
            timeout: seconds(probe.timeout_seconds, 1, 1),
            good_min: count(probe.success_threshold, 1),
            bad_min: count(probe.failure_threshold, 3),
        }
    }
}

/// What one probe of one run of a container has answered so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Tally {
    /// Good, bad, or nothing said yet.
    pub verdict: Option<bool>,
    /// Whether an ask is under way.
    pub is_asking: bool,
    /// When to ask next.
    pub next_at: Time,
    /// When the next ask of the regular rhythm is.
    regular_at: Time,
    /// Whether the ask under way is of the regular rhythm.
    is_regular: bool,
    /// How many answers of the same sort came in a row, and which sort.
    streak: (bool, u32),
    /// Early asks so far.
    eager: u32,
    /// Whether it was good once: from then on only the regular rhythm asks.
    is_proven: bool,
}

impl Tally {
    /// A probe that is first asked `pace.initial_delay` after `from`. Without such a delay a bad answer counts only
    /// after one period: whoever asks at once must not hold it against a program that has just begun.
    pub fn new(pace: &Pace, from: Time) -> Tally {
        let first = from + pace.initial_delay;
        let grace = if pace.initial_delay.is_zero() { pace.period } else { Duration::ZERO };
        Tally {
            verdict: None,
            is_asking: false,
            next_at: first,
            regular_at: first + grace,
            is_regular: true,
            streak: (true, 0),
            eager: 0,
            is_proven: false,
        }
    }

    /// A probe of an adopted container: its verdict stands until answers say otherwise.
    pub fn adopted(verdict: Option<bool>, now: Time) -> Tally {
        let pace = Pace {
            initial_delay: Duration::ZERO,
            period: Duration::ZERO,
            timeout: Duration::ZERO,
            good_min: 1,
            bad_min: 1,
        };
        Tally { verdict, is_proven: verdict == Some(true), ..Tally::new(&pace, now) }
    }

    /// Notes that the probe is being asked.
    pub fn asked(&mut self, now: Time) {
        self.is_asking = true;
        self.is_regular = now >= self.regular_at;
    }

    /// Counts an answer; says whether it counts as one of the regular rhythm.
    pub fn answered(&mut self, kind: ProbeKind, pace: &Pace, good: bool, now: Time) -> bool {
        self.is_asking = false;
        let regular = self.is_regular;
        if regular {
            self.regular_at = now.max(self.regular_at + pace.period);
        }
        if good || regular {
            let count = if self.streak.0 == good { self.streak.1 } else { 0 };
            self.streak = (good, count.saturating_add(1));
        }
        let enough = if good { pace.good_min } else { pace.bad_min };
        if self.streak == (good, self.streak.1) && self.streak.1 >= enough && (good || regular) {
            self.verdict = Some(good);
            self.is_proven |= good;
        }
        self.next_at = self.next_ask(kind, good, now);
        regular
    }

    fn next_ask(&mut self, kind: ProbeKind, good: bool, now: Time) -> Time {
        if good || self.is_proven || kind == ProbeKind::Liveness {
            return self.regular_at;
        }
        let wait = EAGER_FIRST.checked_mul(1 << self.eager.min(20)).unwrap_or(EAGER_FIRST);
        self.eager = self.eager.saturating_add(1);
        (now + wait).min(self.regular_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds answers (`+` good, `-` bad), each at the moment it is asked for; tells `verdict@milliseconds` after each.
    fn check(kind: ProbeKind, pace: Pace, answers: &str, expected: &str) {
        let start = Time::from_second(1_000).expect("a small number is a time");
        let mut tally = Tally::new(&pace, start);
        let mut told = Vec::new();
        for answer in answers.chars() {
            let now = tally.next_at;
            tally.asked(now);
            tally.answered(kind, &pace, answer == '+', now);
            let verdict = tally.verdict.map_or('?', |good| if good { '+' } else { '-' });
            told.push(format!("{verdict}@{}", now.duration_since(start).as_millis()));
        }
        assert_eq!(told.join(" "), expected);
    }

    fn pace(period: u64, good_min: u32, bad_min: u32) -> Pace {
        Pace {
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(period),
            timeout: Duration::from_secs(1),
            good_min,
            bad_min,
        }
    }

    #[test]
    fn liveness_is_asked_in_its_rhythm_and_fails_at_its_threshold() {
        check(
            ProbeKind::Liveness,
            pace(10, 1, 3),
            "+--+---",
            "+@0 +@10000 +@20000 +@30000 +@40000 +@50000 -@60000",
        );
    }

    #[test]
    fn a_program_that_has_just_begun_is_not_ended_for_its_first_silence() {
        check(ProbeKind::Liveness, pace(1, 1, 1), "-+-", "?@0 +@1000 -@2000");
        check(ProbeKind::Liveness, pace(1, 1, 1), "--", "?@0 -@1000");
    }

    #[test]
    fn readiness_is_asked_again_soon_until_it_is_good_once() {
        check(ProbeKind::Readiness, pace(1, 1, 3), "----+-", "?@0 ?@20 ?@60 ?@140 +@300 +@1000");
    }

    #[test]
    fn early_asks_find_a_program_ready_before_its_first_period_is_over() {
        check(ProbeKind::Readiness, pace(1, 1, 1), "--+--", "?@0 ?@20 +@60 -@1000 -@2000");
    }

    #[test]
    fn early_asks_do_not_count_as_startup_failures() {
        check(ProbeKind::Startup, pace(1, 1, 2), "--------", "?@0 ?@20 ?@60 ?@140 ?@300 ?@620 ?@1000 -@2000");
    }

    #[test]
    fn a_success_threshold_asks_for_several_in_a_row() {
        check(ProbeKind::Readiness, pace(5, 2, 1), "++-++", "?@0 +@5000 -@10000 -@15000 +@20000");
    }

    #[test]
    fn the_initial_delay_is_kept() {
        let late = Pace { initial_delay: Duration::from_secs(30), ..pace(10, 1, 3) };
        check(ProbeKind::Readiness, late, "+", "+@30000");
    }

    #[test]
    fn an_adopted_verdict_stands_until_enough_answers_say_otherwise() {
        let now = Time::from_second(1_000).expect("a small number is a time");
        let mut tally = Tally::adopted(Some(true), now);
        let three = pace(1, 1, 3);
        for expected in [Some(true), Some(true), Some(false)] {
            let at = tally.next_at;
            tally.asked(at);
            tally.answered(ProbeKind::Readiness, &three, false, at);
            assert_eq!(tally.verdict, expected);
        }
    }
}
