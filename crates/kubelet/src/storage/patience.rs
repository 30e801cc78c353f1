//! Asks storage that may never answer, such as a network file system whose server is gone, with a deadline.
//!
//! A call into the kernel cannot be taken back: its thread waits until the kernel lets it go. So each place has at most
//! [`WAITING_MAX`] such threads; whoever asks beyond that is told at once that the place is silent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::{Host, Time};

/// How many threads may wait for one place: enough for all pods of a node at once, and far from all there are.
pub const WAITING_MAX: usize = 16;

/// Storage that does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the storage behind {} has not answered for {seconds} s: the pods that use it wait for it, no others do. Look at it \
     with `mount | grep {}` and `dmesg | tail` on the node; once its server is back it goes on by itself, and `umount -f -l {}` \
     gives it up", place.display(), place.display(), place.display()
)]
pub struct Silent {
    /// Where it is mounted.
    pub place: PathBuf,
    /// For how long.
    pub seconds: u64,
}

/// Counts who waits for what.
#[derive(Debug, Clone, Default)]
pub struct Patience(Arc<Mutex<BTreeMap<PathBuf, BTreeMap<u64, Time>>>>);

/// One question that is under way; ends with the thread that asks it.
struct Asked {
    all: Patience,
    place: PathBuf,
    number: u64,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let mut waiting = self.all.waiting();
        if let Some(here) = waiting.get_mut(&self.place) {
            here.remove(&self.number);
            if here.is_empty() {
                waiting.remove(&self.place);
            }
        }
    }
}

impl Patience {
    /// Has `work` done by a thread of its own, and waits for it no longer than `limit`.
    pub async fn ask<T: Send + 'static>(
        &self,
        host: &Host,
        place: &Path,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Silent> {
        let now = host.now();
        let Some(asked) = self.begin(place, host.chance().u64(), now) else {
            return Err(self.silence(place, now));
        };
        let thread = host.blocking(move || {
            let answer = work();
            drop(asked);
            answer
        });
        match host.within(limit, thread).await {
            Some(answer) => Ok(answer),
            None => Err(self.silence(place, host.now())),
        }
    }

    /// How long the oldest question to a place has gone without an answer.
    fn silence(&self, place: &Path, now: Time) -> Silent {
        let oldest = self.waiting().get(place).and_then(|here| here.values().min().copied()).unwrap_or(now);
        let seconds = u64::try_from(now.duration_since(oldest).as_secs()).unwrap_or(0);
        Silent { place: place.to_path_buf(), seconds }
    }

    /// Whether somebody waits for a place.
    pub fn is_waiting(&self, place: &Path) -> bool {
        self.waiting().contains_key(place)
    }

    /// Whether somebody has waited for a place this long.
    pub fn silent(&self, place: &Path, limit: Duration, now: Time) -> Option<Silent> {
        let oldest = self.waiting().get(place).and_then(|here| here.values().min().copied())?;
        (Duration::try_from(now.duration_since(oldest)).is_ok_and(|age| age >= limit))
            .then(|| self.silence(place, now))
    }

    fn begin(&self, place: &Path, number: u64, now: Time) -> Option<Asked> {
        let mut waiting = self.waiting();
        let here = waiting.entry(place.to_path_buf()).or_default();
        if here.len() >= WAITING_MAX {
            return None;
        }
        here.insert(number, now);
        Some(Asked { all: self.clone(), place: place.to_path_buf(), number })
    }

    /// Guards the counts for the length of one change.
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<PathBuf, BTreeMap<u64, Time>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
