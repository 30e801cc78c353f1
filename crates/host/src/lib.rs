//! The window of the house: clock, chance, disk and tasks come from here and from nowhere else.
//!
//! A [`Host`] is handed to whoever does things. The real one looks at the machine; the virtual one runs the
//! whole house on one thread and one seed, on tokio's paused clock. Both are the same type, so that no code
//! above can tell them apart.

mod chance;
mod clock;
mod disk;
mod process;
mod tasks;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

pub use chance::Chance;
pub use clock::{Clock, Moment};
pub use disk::{Disk, DiskFile, RealDisk, SimDisk};
pub use process::{Part, Process};
pub use tasks::{Task, Tasks};

/// A point in wall-clock time, as objects carry it.
pub type Time = jiff::Timestamp;

/// Everything that a component may take from outside: time, chance and disk.
#[derive(Clone)]
pub struct Host {
    clock: Clock,
    chance: Chance,
    disk: Arc<dyn Disk>,
    blocking_inline: bool,
}

impl Host {
    /// The machine's own clock, entropy and file system.
    pub fn real() -> Self {
        Self {
            clock: Clock::real(),
            chance: Chance::from_entropy(),
            disk: Arc::new(RealDisk),
            blocking_inline: false,
        }
    }

    /// A virtual machine: time starts at `start` and moves with tokio's paused clock, chance follows `seed`.
    ///
    /// To be called inside a current-thread runtime whose clock is paused.
    pub fn simulated(seed: u64, start: Time, disk: SimDisk) -> Self {
        Self {
            clock: Clock::simulated(start),
            chance: Chance::from_seed(seed),
            disk: Arc::new(disk),
            blocking_inline: true,
        }
    }

    /// Another virtual machine of the same simulation: its time, a disk and chance of its own, a wall clock that can be
    /// stepped by itself.
    pub fn another(&self, disk: SimDisk) -> Self {
        Self {
            clock: self.clock.of_another(),
            chance: self.chance.fork(),
            disk: Arc::new(disk),
            blocking_inline: self.blocking_inline,
        }
    }

    /// The same virtual machine with clocks that run fast by so many millionths; slow, where it is negative.
    pub fn drifting(mut self, millionths: i32) -> Self {
        self.clock = self.clock.drifting(millionths);
        self
    }

    /// Steps the wall clock of a virtual machine; a real one's is let be.
    pub fn step_wall_clock(&self, by: jiff::SignedDuration) {
        self.clock.step(by);
    }

    /// The wall-clock time.
    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// The boot-time clock: runs on through suspend, and no step of the wall clock moves it.
    pub fn moment(&self) -> Moment {
        self.clock.moment()
    }

    /// Waits for `duration`.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(self.clock.until_shown(duration)).await;
    }

    /// Waits until the wall clock shows `at`; returns at once when that is past.
    pub async fn sleep_until(&self, at: Time) {
        let left = at.duration_since(self.now());
        if let Ok(left) = Duration::try_from(left) {
            tokio::time::sleep(self.clock.until_shown(left)).await;
        }
    }

    /// Runs `future` for at most `limit`; `None` when it did not end in time.
    pub async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        tokio::time::timeout(self.clock.until_shown(limit), future).await.ok()
    }

    /// The source of chance.
    pub fn chance(&self) -> &Chance {
        &self.chance
    }

    /// The disk.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Starts a task that ends with the returned handle.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Task::spawn(future)
    }

    /// Gives memory that is not used any more back to the machine (in the simulator there is none to give).
    ///
    /// The allocator keeps what is freed between what is not. After a burst of work that can be a third of all memory.
    pub async fn give_back_memory(&self) {
        if !self.blocking_inline {
            self.blocking(trim).await;
        }
    }

    /// Runs blocking work off the async threads (in the simulator: at once, in place).
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        if self.blocking_inline {
            return work();
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(value) => value,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => std::future::pending().await,
        }
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and nothing else.
    unsafe {
        libc::malloc_trim(0);
    }
}
