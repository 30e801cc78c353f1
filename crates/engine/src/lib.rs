//! The heartbeat: queue, barrier, apply, governor, ledger, lead.
//!
//! It runs the pure controllers: watches tell which keys to look at, passes decide, plans are carried out through the
//! client, and a key is not looked at again before the caches show what it wrote. It has no opinions of its own but
//! one: what rests on suspicion asks the [`governor`] first.

mod apply;
mod ballot;
mod barrier;
pub mod governor;
mod lead;
pub mod ledger;
pub mod metrics;
mod pulse;
pub mod queue;
mod run;
mod seen;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use apply::WRITES_AT_ONCE;
pub use barrier::Mark;
pub use lead::{Elector, LEASE_DURATION, RENEW_DEADLINE, RETRY_EVERY};
pub use run::{Clients, Member, NEWS_AT_ONCE, PASSES_AT_ONCE, Setup, run};

use std::sync::Arc;

use client::{Caches, Peers};
use host::Host;
use host::watch;
use model::fence::Terms;

/// The name by which the scheduler asks for its client; all others are controllers.
pub const SCHEDULER: &str = scheduler::NAME;

/// Controllers that act on the silence of nodes, or on what pods suffer there, by name.
const GOVERNED: &[&str] =
    &["node-lifecycle-controller", "taint-eviction-controller", "fence-controller", "relocation-controller"];

/// Everyone who decides: the controllers and the scheduler.
pub fn members() -> Vec<Member> {
    let all = controllers::ALL.iter().copied().chain([&scheduler::CONTROLLER]);
    all.map(|controller| Member { controller, governed: GOVERNED.contains(&controller.name) }).collect()
}

impl Setup {
    /// Everyone who decides, on a server that always leads: there is no other.
    pub fn new(clients: Clients, caches: Caches, host: Host, peers: Arc<dyn Peers>, terms: Terms) -> Self {
        let (_, lead) = watch::channel(true);
        let metrics = Arc::new(metrics::Metrics::default());
        Self { metrics, clients, caches, host, peers, members: members(), lead, terms }
    }
}
