//! The ledger: every mend is an object.

use std::sync::{Arc, Mutex};

use client::{Caches, Changed, Client};
use host::Host;
use model::Gvr;

use crate::governor::Governor;

/// As whom the ledger writes.
pub const COMPONENT: &str = "repair-ledger";

/// What the ledger reads.
pub const READS: &[Gvr] = &[];

/// Keeps the ledger.
pub struct Keeper {}

impl Keeper {
    /// A keeper that writes with `client`.
    pub fn new(_client: Client, _governor: Arc<Mutex<Governor>>, _host: Host) -> Self {
        Self {}
    }

    /// Takes what changed.
    pub fn take_news(&mut self, _news: &[Changed], _caches: &Caches) {}
}
