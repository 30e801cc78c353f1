//! The ledger: every mend is an object of kind `Repair`, because a repair that nobody sees cannot be trusted.
//!
//! Promises: writing it never slows a mend: what is too much is dropped; repairs are coalesced by subject and fault,
//! and bounded in number and age. Never decides about the mends themselves.

mod cases;

use std::sync::Arc;
use std::time::Duration;

use client::{Backoff, Caches, Changed, Client, ClientError, Follow};
use controllers::suspicion::Nodes;
use host::{Host, Task};
use model::fence::{Record, State};
use model::repair::REPAIRS;
use model::{Gvr, Object, Precondition, World, Write};
use tokio::sync::mpsc;

pub use cases::{Cases, Entry, OPEN_MAX, Passed, REPLACED_WITHIN};

use crate::ballot::LEASE;
use crate::metrics::Metrics;

/// As whom the ledger writes.
pub const COMPONENT: &str = "repair-ledger";

/// What the ledger reads.
pub const READS: &[Gvr] =
    &[Gvr::new("", "v1", "pods"), Gvr::new("", "v1", "nodes"), Gvr::new("apps", "v1", "deployments")];

/// How many repairs are kept; the oldest go first. Some 10 MB; a busy cluster fills it in weeks.
pub const REPAIRS_MAX: usize = 10_000;

/// How long a repair is kept: long enough for the review of a bad month.
pub const KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many repairs may wait to be written. A burst beyond that is one cause, and the first thousand tell of it.
pub const WAITING_MAX: usize = 1024;

/// How often writing one repair is tried.
const TRIES_MAX: u32 = 6;

/// How many repairs that are too old or too many are removed for each that is written.
const REMOVED_AT_ONCE: usize = 4;

/// Sees the news, and has the mends in it written down.
pub struct Keeper {
    cases: Cases,
    metrics: Arc<Metrics>,
    entries: mpsc::Sender<Entry>,
    host: Host,
    _writer: Task<()>,
}

impl Keeper {
    /// A keeper that writes with `client`.
    pub fn new(client: Client, metrics: Arc<Metrics>, caches: Caches, host: Host) -> Self {
        let (entries, waiting) = mpsc::channel(WAITING_MAX);
        let writer = host.spawn(write(client, waiting, caches, host.clone()));
        Self { cases: Cases::default(), metrics, entries, host, _writer: writer }
    }

    /// Takes what changed.
    pub fn take_news(&mut self, news: &[Changed], caches: &Caches) {
        let now = self.host.now();
        let entries = caches.read(|world| {
            let mut entries: Vec<Entry> =
                news.iter().flat_map(|changed| self.cases.take(changed, world, now)).collect();
            if news.iter().any(is_of_nodes) {
                let nodes = Nodes::look(world);
                self.metrics.silent(nodes.suspects.len() + nodes.proven.len());
                entries.extend(self.cases.alarm(nodes.looks_wrong().as_deref(), now));
            }
            entries
        });
        self.cases
            .passed()
            .into_iter()
            .for_each(|(fault, phase, took)| self.metrics.took(fault, phase, took));
        for entry in entries {
            if let Err(error) = self.entries.try_send(entry) {
                tracing::debug!(%error, "a repair was not written down");
            }
        }
    }
}

/// Whether the world may look otherwise now: a Node changed, or a lease is lost.
fn is_of_nodes(changed: &Changed) -> bool {
    let is_lost = |lease: &Object| Record::read(lease).is_some_and(|record| record.state == State::Lost);
    changed.key.gvr == READS[1] || (changed.key.gvr == LEASE && changed.new.as_ref().is_some_and(is_lost))
}

async fn write(client: Client, mut entries: mpsc::Receiver<Entry>, caches: Caches, host: Host) {
    while let Some(entry) = entries.recv().await {
        // Followed from the first repair on: a cluster in which nothing breaks holds no ledger.
        caches.follow(Follow::all(&REPAIRS));
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        while let Err(error) = record(&client, &entry).await {
            if !error.is_passing() || backoff.failures() + 1 >= TRIES_MAX {
                tracing::debug!(%error, repair = %entry.repair.key(), "a repair could not be written down");
                break;
            }
            host.sleep(backoff.next(host.chance())).await;
        }
        for old in too_many(caches.list(&REPAIRS, ""), &host) {
            if let Err(error) = client.carry_out(&old).await {
                tracing::debug!(%error, "an old repair could not be removed");
            }
        }
    }
}

/// Makes the object, or has the one that is there tell of this mend and count it.
async fn record(client: &Client, entry: &Entry) -> Result<(), ClientError> {
    let key = entry.repair.key();
    let object = entry.repair.object(1);
    let create = Write::Create { gvr: REPAIRS, namespace: key.namespace.clone(), object };
    let outcome = client.carry_out(&create).await?;
    let Some(known) = outcome.object.filter(|_| outcome.already) else {
        return Ok(());
    };
    let counted = known.tree().ok().and_then(|tree| tree["status"]["count"].as_u64()).unwrap_or(1);
    let patch = entry.repair.patch(counted + u64::from(entry.is_new));
    let patch = Write::Patch { key, part: "", patch, when: Precondition::default() };
    client.carry_out(&patch).await.map(|_| ())
}

/// The deletions that bring the ledger back within its bounds, a few at a time.
fn too_many(mut all: Vec<Object>, host: &Host) -> Vec<Write> {
    let oldest_kept = host.now() - KEPT_FOR;
    all.sort_by_key(|repair| repair.meta().creation_timestamp);
    let surplus = all.len().saturating_sub(REPAIRS_MAX);
    let old =
        all.iter().take_while(|one| one.meta().creation_timestamp.is_some_and(|at| at < oldest_kept)).count();
    all.truncate(surplus.max(old).min(REMOVED_AT_ONCE));
    let deletion = |repair: &Object| Write::Delete {
        key: model::Key::new(&REPAIRS, repair.namespace(), repair.name()),
        when: Precondition::same(repair),
        grace_seconds: None,
        propagation: model::Propagation::Background,
    };
    all.iter().map(deletion).collect()
}
