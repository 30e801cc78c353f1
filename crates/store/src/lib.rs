//! The memory: bytes under keys, revisions, history and watch, over a crash-safe log with group commit.
//!
//! Promises: an acknowledged write is on disk; revisions only grow; a watcher sees each key's history without gap or
//! repeat; what a reader saw was durable. It knows no kinds, no JSON and no labels beyond the [`Tags`] it is handed.
//!
//! A write goes [`Store::commit`] → the writer's queue → `stage` (decides the batch) → `log` (one frame, one sync) →
//! `memory` (visible to readers) → [`Watch`]. Nothing is polled: an idle store does nothing. In the place of the writer and
//! its log there may be another [`Journal`], which feeds the memory by an [`Intake`].

mod check;
mod embedded;
mod entry;
mod face;
mod folder;
mod frame;
mod history;
mod journal;
mod keep;
mod limits;
mod load;
mod log;
mod memory;
mod snapshot;
mod stage;
mod store;
mod tags;
mod watch;
mod writer;

#[cfg(test)]
mod tests;

pub use check::{Finding, Harm, Report, check};
pub use face::*;
pub use journal::{Intake, Journal, Told, txn_bytes};
pub use keep::{Backup, Kept, RESTORE_AHEAD, backup, examine, seen_of, write_backup};
pub use limits::Limits;
pub use stage::join;
pub use store::Store;
pub use tags::Tags;
pub use watch::{Batch, Watch};
