//! Asks voters whether a node's lease may be taken from it, and knocks at nodes that are late.
//!
//! Promises: nobody is asked before this very server has seen the lease's revision unchanged for longer than the node
//! may run, on the boot-time clock: a step of the wall clock condemns nobody. A majority is of the set in the lease. It
//! decides nothing: the commit that follows names the revision, so late or repeated votes do no harm.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Caches, Peer, Peers, Wish};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use host::{Host, Moment};
use model::fence::{Member, Question, Terms, VoterSet};
use model::{Gvr, Key, Object, World};

/// The resource of leases.
pub const LEASE: Gvr = Gvr::new("coordination.k8s.io", "v1", "leases");

const NODES: Gvr = Gvr::new("", "v1", "nodes");

/// Where the leases of nodes are.
const LEASES: &str = "kube-node-lease";

/// How long to wait before voters are asked again: promises run for seconds, and each round costs a few questions.
const AGAIN: Duration = Duration::from_millis(500);

/// Asks voters, and counts the silence of nodes.
pub struct Ballot {
    host: Host,
    peers: Arc<dyn Peers>,
    terms: Terms,
    /// The revision of each node's lease, and since when it is seen. Guards them for one look.
    seen: Mutex<BTreeMap<String, (u64, Moment)>>,
}

impl Ballot {
    /// One that has seen nothing yet.
    pub fn new(host: Host, peers: Arc<dyn Peers>, terms: Terms) -> Self {
        Self { host, peers, terms, seen: Mutex::default() }
    }

    /// Sees the leases as they are when the heartbeat begins.
    pub fn look(&self, leases: &[Object]) {
        for lease in leases {
            self.note(&Key::new(&LEASE, lease.namespace(), lease.name()), Some(lease));
        }
    }

    /// Counts all silence anew.
    pub fn forget(&self) {
        self.seen().clear();
    }

    /// Sees a lease.
    pub fn note(&self, key: &Key, lease: Option<&Object>) {
        if key.namespace != LEASES {
            return;
        }
        let now = self.host.moment();
        let mut seen = self.seen();
        match lease {
            None => drop(seen.remove(&key.name)),
            Some(lease) => {
                let known = seen.entry(key.name.clone()).or_insert((0, now));
                if known.0 != lease.revision() {
                    *known = (lease.revision(), now);
                }
            }
        }
    }

    /// Whether a majority votes against the lease at this revision; else how long to wait before asking again.
    pub async fn hold(
        &self,
        caches: &Caches,
        lease: &Key,
        revision: u64,
        set: &VoterSet,
    ) -> Result<(), Duration> {
        let silence = self.terms.of_lease(set.lease()).silence();
        let seen = self.seen().get(&lease.name).copied().filter(|(known, _)| *known == revision);
        let Some((_, since)) = seen else { return Err(AGAIN) };
        let silent = self.host.moment().since(since);
        if silent < silence {
            return Err(silence - silent);
        }
        let asked = set.voters.iter().map(|voter| self.ask(caches, lease, revision, set, voter));
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut agree: Vec<&Member> = Vec::new();
        while let Some((voter, agrees)) = answers.next().await {
            if agrees {
                agree.push(voter);
            }
            if set.majority(|voter| agree.contains(&voter)) {
                return Ok(());
            }
        }
        tracing::info!(
            node = lease.name,
            votes = agree.len(),
            of = set.voters.len(),
            "no majority to take the lease"
        );
        Err(AGAIN)
    }

    /// Whether a node's machine does not say that its agent is gone, and its lease is still at this revision; else how long
    /// to wait before it is looked at again.
    pub async fn knock(
        &self,
        caches: &Caches,
        node: &Key,
        lease: &Key,
        revision: u64,
    ) -> Result<(), Duration> {
        let peer = caches.get(node).as_ref().and_then(Peer::of);
        if let Some(peer) = peer
            && self.peers.refuses(&peer).await
        {
            tracing::info!(
                node = node.name,
                "its agent is gone, its machine is not: it is not suspected yet"
            );
            return Err(AGAIN);
        }
        let is_late = caches.get(lease).is_some_and(|lease| lease.revision() == revision);
        if is_late { Ok(()) } else { Err(Duration::ZERO) }
    }

    async fn ask<'a>(
        &self,
        caches: &Caches,
        lease: &Key,
        revision: u64,
        set: &VoterSet,
        voter: &'a Member,
    ) -> (&'a Member, bool) {
        let asked = Question {
            node: lease.name.clone(),
            revision,
            voter: voter.clone(),
            lease_millis: set.lease_millis,
        };
        let node = caches.get(&Key::new(&NODES, "", voter.host.as_str()));
        let Some(peer) = node.as_ref().and_then(Peer::of) else { return (voter, false) };
        match self.peers.ask(&peer, Wish::Vote, &asked).await {
            Ok(None) => (voter, true),
            Ok(Some(no)) => {
                tracing::info!(node = lease.name, voter = voter.host, %no, "no vote");
                (voter, false)
            }
            Err(error) => {
                tracing::debug!(node = lease.name, voter = voter.host, %error, "no vote");
                (voter, false)
            }
        }
    }

    /// Guards what was seen for one look.
    fn seen(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Moment)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
