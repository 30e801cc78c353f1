//! A simulated process: tasks that can be stopped all at once and go on later, as by SIGSTOP and SIGCONT, or never do.
//!
//! Time goes on while it is stopped: its timers are found to have run out when it resumes. The real house has no use for
//! it; there the machine stops processes.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::watch;

thread_local! {
    /// The process whose task is being polled on this thread: what it starts belongs to it.
    static CURRENT: RefCell<Option<Process>> = const { RefCell::new(None) };
}

/// A simulated process; clones are the same one.
#[derive(Clone, Default)]
pub struct Process(Arc<Inner>);

struct Inner {
    /// Guards whether it is stopped, for a few lines.
    stop: Mutex<Stop>,
    /// Tells of it.
    told: watch::Sender<bool>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { stop: Mutex::default(), told: watch::Sender::new(false) }
    }
}

#[derive(Default)]
struct Stop {
    is_stopped: bool,
    is_dead: bool,
    /// Whose turn came while it was stopped.
    waiting: Vec<Waker>,
}

impl Process {
    /// A process that runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process whose task runs here; `None` outside of all.
    pub(crate) fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Stops all its tasks where they are.
    pub fn stop(&self) {
        self.guard().is_stopped = true;
        self.0.told.send_replace(true);
    }

    /// Returns when it is stopped.
    pub async fn stopped(&self) {
        // The sender is in this very process: it cannot be gone.
        let _ = self.0.told.subscribe().wait_for(|is_stopped| *is_stopped).await;
    }

    /// Lets them go on.
    pub fn resume(&self) {
        self.0.told.send_replace(false);
        self.turn(|stop| stop.is_stopped = false);
    }

    /// Ends it: what is left of it goes, and never goes on.
    pub fn kill(&self) {
        self.turn(|stop| stop.is_dead = true);
    }

    fn turn(&self, turn: impl FnOnce(&mut Stop)) {
        let waiting = {
            let mut stop = self.guard();
            turn(&mut stop);
            std::mem::take(&mut stop.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether it is stopped.
    pub fn is_stopped(&self) -> bool {
        self.guard().is_stopped
    }

    /// A part of this process: it goes on only while the process does, and what it starts belongs to the process, too.
    pub fn part<F: Future>(&self, future: F) -> Part<F> {
        Part { process: self.clone(), future: Some(Box::pin(future)) }
    }

    /// What is started here belongs to this process, whoever starts it.
    pub fn own<T>(&self, start: impl FnOnce() -> T) -> T {
        let _before = Before::enter(Some(self.clone()));
        start()
    }

    /// What is started here belongs to no process, whoever starts it: nothing stops it.
    pub fn outside<T>(start: impl FnOnce() -> T) -> T {
        let _before = Before::enter(None);
        start()
    }

    /// Guards whether it is stopped, for a few lines.
    fn guard(&self) -> MutexGuard<'_, Stop> {
        self.0.stop.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A future that goes on only while its process does.
pub struct Part<F> {
    process: Process,
    /// `None` once the process is dead.
    future: Option<Pin<Box<F>>>,
}

/// Puts the process back that was current before, whatever happens meanwhile.
struct Before(Option<Process>);

impl Before {
    fn enter(process: Option<Process>) -> Self {
        Self(CURRENT.with_borrow_mut(|current| std::mem::replace(current, process)))
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| *current = self.0.take());
    }
}

impl<F: Future> Future for Part<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let process = self.process.clone();
        let mut stop = process.guard();
        let is_dead = stop.is_dead;
        if stop.is_stopped && !is_dead {
            stop.waiting.push(context.waker().clone());
            return Poll::Pending;
        }
        drop(stop);
        let _before = Before::enter(Some(process));
        if is_dead {
            self.future = None;
        }
        self.future.as_mut().map_or(Poll::Pending, |future| future.as_mut().poll(context))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::Task;

    async fn ticks(count: Arc<AtomicU32>) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_process_and_all_that_it_started_stand_still() {
        let (process, count) = (Process::new(), Arc::new(AtomicU32::new(0)));
        let (told, outer) = (count.clone(), count.clone());
        let others = Arc::new(AtomicU32::new(0));
        let untouched = others.clone();
        let started = process.part(async move {
            // Started within: it belongs to the process.
            let _inner = Task::spawn(ticks(told));
            let _outside = Process::outside(|| Task::spawn(ticks(others)));
            std::future::pending::<()>().await;
        });
        let _task = Task::spawn(started);
        tokio::time::sleep(Duration::from_millis(3500)).await;
        assert_eq!(outer.load(Ordering::Relaxed), 3);
        process.stop();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!((outer.load(Ordering::Relaxed), process.is_stopped()), (3, true));
        assert_eq!(untouched.load(Ordering::Relaxed), 13);
        process.resume();
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(outer.load(Ordering::Relaxed), 4, "its timer had run out long ago");
        process.kill();
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(outer.load(Ordering::Relaxed), 4);
        assert!(Process::current().is_none());
    }
}
