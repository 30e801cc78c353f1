//! The leader's side of the fence: who votes, when a lease is taken from a node, and what is let go then.
//!
//! Time alone condemns nobody: a takeover asks the voters of the set *in the lease*, and its commit names the revision
//! that was seen. What is irreversible comes after that commit only.

mod takeover;
mod voters;

use model::fence::Record;
use model::{Key, Object, Time, World};

pub use takeover::CONTROLLER as TAKEOVER;
pub use voters::CONTROLLER as VOTERS;

/// When a lease will have been seen unchanged for too long. Silence before this world began proves nothing.
fn overdue_at(key: &Key, lease: &Object, record: &Record, world: &dyn World) -> Time {
    let seen = world.held_since(key).or(lease.meta().creation_timestamp).unwrap_or(Time::MIN);
    let seen = world.began().map_or(seen, |began| seen.max(began));
    let terms = world.terms().of_lease(record.set.lease());
    seen.checked_add(terms.silence()).unwrap_or(Time::MAX)
}
