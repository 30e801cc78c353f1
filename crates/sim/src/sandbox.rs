//! The one thread and the virtual clock that every simulation runs on.

use anyhow::{Context, Result};
use tokio::runtime::Builder;

/// Runs a simulation on this thread; its time passes as fast as it can.
pub fn run<T>(simulation: impl Future<Output = T>) -> Result<T> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    Ok(runtime.context("cannot make a runtime")?.block_on(simulation))
}
