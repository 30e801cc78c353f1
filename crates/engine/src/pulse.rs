//! Notices that this process stood still: what was not seen meanwhile is no silence of others.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use host::{Host, Moment, Time};

/// How often the pulse is felt.
pub const BEAT: Duration = Duration::from_millis(500);

/// How late a beat may come: a quarter of a lease, so that a node which renews in time is not blamed for our own sleep.
const LATE_MAX: Duration = Duration::from_secs(1);

/// Feels its own pulse.
pub struct Pulse {
    host: Host,
    /// The last beat, and since when there was none too late. Guards them for one look.
    state: Mutex<(Moment, Time)>,
}

impl Pulse {
    /// One that begins now.
    pub fn new(host: Host) -> Self {
        let state = Mutex::new((host.moment(), host.now()));
        Self { host, state }
    }

    /// A beat; whether the one before is so long ago that this process must have stood still.
    pub fn beat(&self) -> bool {
        let now = self.host.moment();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let has_stood = now.since(state.0) > BEAT + LATE_MAX;
        state.0 = now;
        if has_stood {
            state.1 = self.host.now();
        }
        has_stood
    }

    /// Since when this process has been running without a gap.
    pub fn steady_since(&self) -> Time {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use host::SimDisk;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_late_beat_counts_all_silence_anew() {
        let host = Host::simulated(1, Time::UNIX_EPOCH, SimDisk::new());
        let pulse = Pulse::new(host.clone());
        host.sleep(BEAT + LATE_MAX).await;
        assert!(!pulse.beat());
        assert_eq!(pulse.steady_since(), Time::UNIX_EPOCH);
        host.sleep(BEAT + LATE_MAX * 2).await;
        assert!(pulse.beat());
        assert_eq!(pulse.steady_since(), host.now());
    }
}
