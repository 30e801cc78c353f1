//! The one thread and the virtual clock that every simulation runs on.

use std::cell::RefCell;
use std::sync::Once;

use anyhow::{Context, Result};
use tokio::runtime::Builder;

thread_local! {
    /// What panicked in the simulation of this thread: in a task of the house, a panic would pass without a word.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Runs a simulation on this thread; its time passes as fast as it can.
pub fn run<T>(simulation: impl Future<Output = T>) -> Result<T> {
    hear_panics();
    take_panics();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    Ok(runtime.context("cannot make a runtime")?.block_on(simulation))
}

/// What has panicked on this thread since this was asked last.
pub fn take_panics() -> Vec<String> {
    PANICS.take()
}

/// Notes every panic beside what is usually done about it.
fn hear_panics() {
    static HEARS: Once = Once::new();
    HEARS.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            usual(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn falls() {
        panic!("the roof came down");
    }

    #[test]
    fn a_panic_of_a_task_is_heard() {
        let ran = run(async { tokio::task::spawn(falls()).await.is_err() });
        assert!(ran.expect("a runtime"));
        let heard = take_panics();
        assert!(heard.len() == 1 && heard[0].contains("the roof came down"), "{heard:?}");
    }
}
