//! Two clocks: the wall's, which objects carry, and the boot's, which deadlines count on.

use std::time::Duration;

use jiff::Timestamp;

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
    },
}

impl Clock {
    /// The machine's clock.
    pub fn real() -> Self {
        Clock::Real
    }

    /// A clock that begins at `start` and moves with tokio's.
    pub fn simulated(start: Timestamp) -> Self {
        Clock::Simulated { start, origin: tokio::time::Instant::now() }
    }

    /// The wall-clock time.
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::Real => Timestamp::now(),
            Clock::Simulated { start, origin } => *start + origin.elapsed(),
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
            Clock::Simulated { origin, .. } => Moment(Duration::from_secs(1000) + origin.elapsed()),
        }
    }
}
