//! Admission by programs outside: mutating and validating webhooks.
//!
//! `configured` reads who is to be asked, `matching` decides whether, `review` says how it is put and reads what was
//! answered; all three are pure. Only `ask` waits for somebody. What the answers mean for a write is the service's affair.

mod ask;
mod configured;
mod counts;
pub mod matching;
pub mod review;

use std::sync::{Arc, Mutex, PoisonError};

use store::{Store, StoreError};

use crate::refusal::Refusal;
use crate::registry::Registry;
use crate::view::View;

pub use ask::{Asking, Mutated};
pub use configured::{Hook, Introduced, Sort};
pub use matching::{Act, Operation};
pub use review::user_info;

use configured::Configured;
use counts::Counts;

/// The webhooks of the cluster.
pub struct Hooks {
    /// Guards which are configured, for as long as it takes to look for new configurations and clone the snapshot.
    configured: Mutex<Configured>,
    counts: Counts,
}

impl Hooks {
    /// Those that a store's configurations name.
    pub fn new(store: &Store, introduced: Introduced) -> Result<Self, StoreError> {
        Ok(Self { configured: Mutex::new(Configured::new(store, introduced)?), counts: Counts::default() })
    }

    /// Those of one sort, as they are configured at this moment.
    pub fn now(&self, sort: Sort, store: &Store) -> Arc<[Hook]> {
        self.configured.lock().unwrap_or_else(PoisonError::into_inner).now(sort, store)
    }

    /// Those of one sort that an act concerns.
    pub fn concerned(
        &self,
        sort: Sort,
        act: &Act<'_>,
        object: Option<&model::Tree>,
        registry: &Registry,
        store: &Store,
    ) -> Result<Vec<(Hook, matching::Target)>, Refusal> {
        if matching::is_exempt(act) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for hook in self.now(sort, store).iter() {
            if let Some(target) = matching::target(hook, act, object, registry, &View(store))? {
                found.push((hook.clone(), target));
            }
        }
        Ok(found)
    }

    /// What was counted of them, in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        self.counts.text()
    }
}
