//! The pod's deadline: kept by its monitor, so that a hung or killed agent fences too.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use host::Clock;
use model::fence::Deadline;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

/// A deadline and the timer that watches it, on the boot-time clock: suspend does not stop it.
pub(crate) struct Fence {
    deadline: Deadline,
    clock: Clock,
    /// Readable once the deadline has passed.
    pub timer: OwnedFd,
}

impl Fence {
    /// Watches a deadline.
    pub(crate) fn new(deadline: Deadline) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Boottime, flags)?;
        let fence = Self { deadline, clock: Clock::real(), timer };
        fence.arm()?;
        Ok(fence)
    }

    /// Takes what the agent says.
    pub(crate) fn take(&mut self, told: Deadline) -> io::Result<()> {
        self.deadline.take(told);
        self.arm()
    }

    /// Whether nothing may run any more.
    pub(crate) fn has_passed(&self) -> bool {
        self.deadline.has_passed(self.clock.moment().0)
    }

    /// Takes the timer's news, so that it does not tell them again.
    pub(crate) fn silence(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(self.timer.as_fd(), &mut count);
    }

    fn arm(&self) -> io::Result<()> {
        // A timer of zero is none; what is past already is due at once.
        let at = self.deadline.until.map_or(Duration::ZERO, |until| until.max(Duration::from_nanos(1)));
        let seconds = i64::try_from(at.as_secs()).unwrap_or(i64::MAX);
        let value = Timespec { tv_sec: seconds, tv_nsec: at.subsec_nanos().into() };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let when = Itimerspec { it_interval: never, it_value: value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &when)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    fn rings(fence: &Fence, within_millis: i64) -> bool {
        let limit = Timespec { tv_sec: 0, tv_nsec: within_millis * 1_000_000 };
        let mut fds = [PollFd::new(&fence.timer, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&limit)), Ok(1))
    }

    #[test]
    fn the_timer_rings_when_the_deadline_passes_and_not_before() {
        let now = Clock::real().moment().0;
        let far = Deadline { epoch: 7, until: Some(now + Duration::from_secs(3600)) };
        let mut fence = Fence::new(far).expect("a timer");
        assert!(!fence.has_passed() && !rings(&fence, 0));
        fence.take(Deadline { epoch: 8, until: Some(now) }).expect("it is set");
        assert!(!rings(&fence, 0), "another epoch's word counts for nothing");
        let past = Fence::new(Deadline { epoch: 7, until: Some(now) }).expect("a timer");
        assert!(past.has_passed() && rings(&past, 900));
        past.silence();
        assert!(!rings(&past, 0));
        let endless = Fence::new(Deadline { epoch: 7, until: None }).expect("a timer");
        assert!(!endless.has_passed() && !rings(&endless, 0));
    }
}
