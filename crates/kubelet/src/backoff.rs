//! How long to wait before trying again. Pure: times go in, times come out.
//!
//! Two ladders: one for containers that end, one for images that cannot be had. Neither ever gives up.

use std::time::Duration;

use host::Time;

/// How long a container must run before its restarts are forgotten.
///
/// As long as upstream's, so that a container failing every few minutes still counts as failing.
pub const QUIET: Duration = Duration::from_secs(600);

/// The first wait after an image could not be pulled; doubles up to [`IMAGE_WAIT_MAX`].
///
/// Shorter would load a registry that is already in trouble; upstream waits as long.
pub const IMAGE_WAIT_FIRST: Duration = Duration::from_secs(10);

/// The longest wait between two pulls of one image.
pub const IMAGE_WAIT_MAX: Duration = Duration::from_secs(300);

/// The first wait after the kernel, the network or a volume refused something.
///
/// Most such refusals are over at once (a name that is being removed, an object that is about to appear).
pub const TROUBLE_WAIT_FIRST: Duration = Duration::from_millis(250);

/// The longest wait after such refusals: a user who mends the cause should not wait long for us to see it.
pub const TROUBLE_WAIT_MAX: Duration = Duration::from_secs(10);

/// From when a wait counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// From the last start: starts are kept apart, and one that ran for long is replaced at once.
    Start,
    /// From the last end, as upstream does.
    End,
}

/// How restarts of one container are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Curve {
    /// Restarts that happen at once.
    pub free: u32,
    /// The first wait; each further one is twice as long.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
    /// From when a wait counts.
    pub since: Since,
    /// After how many failures in one sandbox the pod gets a fresh one, once; `None`: never.
    pub fresh_after: Option<u32>,
}

/// How many more failures say that a fresh sandbox does not help either: what is wrong is not in what it made anew.
pub const FRESH_FAILS_AFTER: u32 = 3;

impl Curve {
    /// Ours: three at once, then 0.5, 1, 2, 4 … at most 60 s apart. Six failures are past what a restart mends: the
    /// pauses between them have begun, and none of them helped.
    pub const HEALING: Curve = Curve {
        free: 3,
        first: Duration::from_millis(500),
        max: Duration::from_secs(60),
        since: Since::Start,
        fresh_after: Some(6),
    };
    /// Kubernetes' own: one at once, then 10, 20, 40 … at most 300 s after the last end; in the same sandbox for ever.
    pub const KUBERNETES: Curve = Curve {
        free: 1,
        first: Duration::from_secs(10),
        max: Duration::from_secs(300),
        since: Since::End,
        fresh_after: None,
    };

    /// The wait before restart number `restarts` (from 0).
    pub fn wait(&self, restarts: u32) -> Duration {
        match restarts.checked_sub(self.free) {
            None => Duration::ZERO,
            Some(step) => doubled(self.first, step, self.max),
        }
    }
}

/// The restarts of one container, since it was last quiet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restarts {
    /// How many there were.
    pub count: u32,
}

impl Restarts {
    /// When a container that ran from `started` to `ended` may start again, and the wait this comes from.
    pub fn due(&self, curve: &Curve, started: Time, ended: Time) -> (Time, Duration) {
        let wait = curve.wait(self.after(started, ended).count);
        let from = match curve.since {
            // The clock may have been set back meanwhile: no run began after its end.
            Since::Start => started.min(ended),
            Since::End => ended,
        };
        (from + wait, wait)
    }

    /// What is remembered after a run from `started` to `ended`: nothing when it was quiet for long.
    pub fn after(&self, started: Time, ended: Time) -> Restarts {
        if is_quiet(started, ended) { Restarts::default() } else { *self }
    }

    /// One more restart after a run from `started` to `ended`.
    pub fn counted(&self, started: Time, ended: Time) -> Restarts {
        Restarts { count: self.after(started, ended).count.saturating_add(1) }
    }
}

/// Whether a run was so long that what was before it is forgotten.
pub fn is_quiet(started: Time, ended: Time) -> bool {
    lasted(started, ended) >= QUIET
}

/// The wait after the `failures`-th failure in a row (from 1) to pull an image.
pub fn image_wait(failures: u32) -> Duration {
    doubled(IMAGE_WAIT_FIRST, failures.saturating_sub(1), IMAGE_WAIT_MAX)
}

/// The wait after the `failures`-th refusal in a row (from 1) by the kernel, the network or a volume.
pub fn trouble_wait(failures: u32) -> Duration {
    doubled(TROUBLE_WAIT_FIRST, failures.saturating_sub(1), TROUBLE_WAIT_MAX)
}

fn doubled(first: Duration, steps: u32, max: Duration) -> Duration {
    let factor = 2u32.checked_pow(steps).unwrap_or(u32::MAX);
    first.checked_mul(factor).map_or(max, |wait| wait.min(max))
}

fn lasted(from: Time, to: Time) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// A wait as upstream prints it: `10s`, `1m20s`, `500ms`.
pub fn spell(wait: Duration) -> String {
    let (minutes, seconds, millis) = (wait.as_secs() / 60, wait.as_secs() % 60, wait.subsec_millis());
    match (minutes, seconds, millis) {
        (0, 0, millis) => format!("{millis}ms"),
        (0, seconds, 0) => format!("{seconds}s"),
        (0, seconds, millis) => format!("{seconds}.{}s", format!("{millis:03}").trim_end_matches('0')),
        (minutes, seconds, _) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(curve: Curve, waits: &[&str]) {
        let seen: Vec<_> = (0..waits.len() as u32).map(|n| spell(curve.wait(n))).collect();
        assert_eq!(seen, waits);
    }

    fn at(seconds: i64) -> Time {
        Time::from_second(1_000_000 + seconds).expect("a small number is a time")
    }

    #[test]
    fn ours_restarts_three_times_at_once_and_then_spaces_out() {
        check(
            Curve::HEALING,
            &["0ms", "0ms", "0ms", "500ms", "1s", "2s", "4s", "8s", "16s", "32s", "1m0s", "1m0s"],
        );
    }

    #[test]
    fn kubernetes_own_curve_is_there_too() {
        check(Curve::KUBERNETES, &["0ms", "10s", "20s", "40s", "1m20s", "2m40s", "5m0s", "5m0s"]);
    }

    #[test]
    fn a_container_that_ran_longer_than_its_wait_restarts_at_once() {
        let restarts = Restarts { count: 5 };
        assert!(restarts.due(&Curve::HEALING, at(0), at(30)).0 < at(30));
        assert_eq!(restarts.due(&Curve::KUBERNETES, at(0), at(30)).0, at(30 + 160));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_up_no_restart() {
        let restarts = Restarts { count: 0 };
        assert_eq!(restarts.due(&Curve::HEALING, at(3600), at(5)).0, at(5));
    }

    #[test]
    fn ten_quiet_minutes_forget_everything() {
        let restarts = Restarts { count: 9 };
        assert_eq!(restarts.counted(at(0), at(600)).count, 1);
        assert_eq!(restarts.counted(at(0), at(599)).count, 10);
    }

    #[test]
    fn no_number_of_failures_overflows() {
        assert_eq!(image_wait(u32::MAX), IMAGE_WAIT_MAX);
        assert_eq!(trouble_wait(u32::MAX), TROUBLE_WAIT_MAX);
        assert_eq!(Curve::HEALING.wait(u32::MAX), Curve::HEALING.max);
    }
}
