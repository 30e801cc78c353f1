//! Observers: what users would see, as a timeline, and the laws, held against everything that happens.
//!
//! The [`Book`] is where all of it is written down. It looks at the store's own history, at every container that
//! starts or ends, and at every answer that reaches a client; it never does anything to the cluster.

mod aliases;
mod book;
mod condition;
mod laws;
mod sight;
mod timeline;
mod watched;

pub use book::Book;
pub use condition::{Condition, kind_named};
pub use sight::{Load, Sight, at, condition, items, text};
pub use watched::Watched;
