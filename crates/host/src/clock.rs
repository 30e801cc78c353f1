//! Two clocks: the wall's, which objects carry, and the boot's, which deadlines count on.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A point on the boot-time clock: the time since boot, suspend included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub Duration);

impl Moment {
    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `duration` later.
    pub fn plus(self, duration: Duration) -> Moment {
        Moment(self.0 + duration)
    }
}

/// Where time comes from.
#[derive(Clone)]
pub enum Clock {
    /// The machine's.
    Real,
    /// Tokio's paused clock, which shows `start` at `origin`.
    Simulated {
        /// The wall-clock time at the origin.
        start: Timestamp,
        /// The instant at which the simulation began.
        origin: tokio::time::Instant,
        /// Milliseconds by which this machine's wall clock was stepped.
        stepped: Arc<AtomicI64>,
        /// By how many millionths this machine's clocks run fast; slow, where it is negative.
        drift: i32,
    },
}

impl Clock {
    /// The machine's clock.
    pub fn real() -> Self {
        Clock::Real
    }

    /// A clock that begins at `start` and moves with tokio's.
    pub fn simulated(start: Timestamp) -> Self {
        Clock::Simulated { start, origin: tokio::time::Instant::now(), stepped: Arc::default(), drift: 0 }
    }

    /// The clock of another machine: the same time, until one of the two is stepped.
    pub fn of_another(&self) -> Self {
        match self {
            Clock::Real => Clock::Real,
            Clock::Simulated { start, origin, .. } => {
                Clock::Simulated { start: *start, origin: *origin, stepped: Arc::default(), drift: 0 }
            }
        }
    }

    /// The same clock, running fast by so many millionths; the machine's own is let be.
    pub fn drifting(mut self, millionths: i32) -> Self {
        if let Clock::Simulated { drift, .. } = &mut self {
            *drift = millionths;
        }
        self
    }

    /// How long it takes in truth until this clock has moved by so much.
    pub fn until_shown(&self, shown: Duration) -> Duration {
        match self {
            Clock::Simulated { drift, .. } if *drift != 0 => shown.div_f64(rate(*drift)),
            _ => shown,
        }
    }

    /// Steps a simulated wall clock, as an operator or a time server would; the machine's own is let be.
    pub fn step(&self, by: SignedDuration) {
        if let Clock::Simulated { stepped, .. } = self {
            let millis = i64::try_from(by.as_millis()).unwrap_or(0);
            stepped.fetch_add(millis, Ordering::Relaxed);
        }
    }

    /// The wall-clock time.
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::Real => Timestamp::now(),
            Clock::Simulated { start, origin, stepped, drift } => {
                let stepped = SignedDuration::from_millis(stepped.load(Ordering::Relaxed));
                *start + shown(origin.elapsed(), *drift) + stepped
            }
        }
    }

    /// The boot-time clock.
    pub fn moment(&self) -> Moment {
        match self {
            Clock::Real => {
                let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
                let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
                let nanos = u32::try_from(at.tv_nsec).unwrap_or(0);
                Moment(Duration::new(seconds, nanos))
            }
            Clock::Simulated { origin, drift, .. } => {
                Moment(Duration::from_secs(1000) + shown(origin.elapsed(), *drift))
            }
        }
    }
}

/// What a clock shows after so long.
fn shown(elapsed: Duration, drift: i32) -> Duration {
    if drift == 0 { elapsed } else { elapsed.mul_f64(rate(drift)) }
}

fn rate(drift: i32) -> f64 {
    1.0 + f64::from(drift) / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_moves_the_wall_clock_of_one_machine_and_no_deadline() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let clock = Clock::simulated(start);
        let other = clock.of_another();
        let before = clock.moment();
        clock.step(SignedDuration::from_hours(-1));
        assert_eq!((clock.now(), other.now()), (start - SignedDuration::from_hours(1), start));
        assert_eq!(clock.moment(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_drifts_shows_another_time_and_waits_by_it() {
        let clock = Clock::simulated(Timestamp::UNIX_EPOCH).drifting(5000);
        let before = clock.moment();
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(clock.moment().since(before).as_millis(), 100_500);
        assert_eq!(clock.until_shown(Duration::from_millis(100_500)).as_millis(), 100_000);
    }
}
