//! Many simulations at once, each on a thread of its own.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The threads that simulations are best run on here: one a core.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Does the work of each number on so many threads, in order as far as threads go, until one says that it is enough.
pub fn each(numbers: Range<u64>, threads: usize, work: impl Fn(u64) -> ControlFlow<()> + Sync) {
    let (next, is_over) = (AtomicU64::new(numbers.start), AtomicBool::new(false));
    let member = || {
        while !is_over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return;
            }
            if work(number).is_break() {
                is_over.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(member))));
}
