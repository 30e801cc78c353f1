//! The memory: bytes under keys, revisions, history and watch, over a crash-safe log with group commit.
//!
//! Promises: an acknowledged write is on disk; revisions only grow; a watcher sees each key's history without gap or
//! repeat; what a reader saw was durable. It knows no kinds, no JSON and no labels beyond the [`Tags`] it is handed.

mod face;

pub use face::*;
