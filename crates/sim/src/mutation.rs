//! Rules of the fence wired wrongly, one at a time, for tests of the tests: some seed must find each of them out.
//!
//! The product is as it is: what is between its parts lies, or forgets. What can be wired wrongly inside of one part only is
//! tried on the part alone (`model/tests/fence`).

use bytes::Bytes;
use client::Wish;
use host::{Disk, Moment};
use http::{Method, Request, Response};
use model::Tree;
use model::fence::{Deadline, EPOCH, No, STATE, Terms};
use serde_json::json;
use std::path::Path;
use std::time::Duration;

/// Where leases of nodes are, in the API.
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/";

/// The laws of which a wrong rule breaks one.
pub const LAWS: &[&str] = &[
    "an identity never runs twice",
    "an exclusive volume never has two writers",
    "no lease is lost while its deadline runs",
    "no epoch comes twice",
    "a pod outlives its containers",
];

/// A rule that is left out or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The takeover asks nobody.
    NoVotes,
    /// Servers and voters count no longer than the node.
    NoMargin,
    /// They count a tenth of a second less than they must.
    ShortMargin,
    /// Monitors count from when they were told.
    CountsFromReceipt,
    /// A voter's new agent votes at once.
    PromisesForgotten,
    /// A voter's new agent knows no votes.
    VotesForgotten,
    /// A vote does not bar later promises.
    VoteBarsNothing,
    /// The server does not count as long as it must: votes alone suffice.
    NoCounting,
    /// To be reachable by a majority suffices.
    Reachability,
    /// Renewals do not name the revision that they replace.
    RenewalsNameNothing,
    /// A voter is known by its name alone.
    VotersByName,
    /// A node keeps no deadline while it asks for a set that can do without it.
    LoneKeepsNone,
    /// A node votes against itself while it runs.
    LoneVotesRunning,
    /// The server answers before the commit.
    AnswerBeforeCommit,
    /// An epoch is a counter that starts anew.
    EpochReused,
    /// The agent, not the monitor, looks at the deadline.
    AgentLooksAtDeadline,
    /// To delete the Node ends the lease.
    DeletionIsProof,
    /// "It has ended" names no uid.
    EndedNamesNoUid,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 18] = [
        Mutation::NoVotes,
        Mutation::NoMargin,
        Mutation::ShortMargin,
        Mutation::CountsFromReceipt,
        Mutation::PromisesForgotten,
        Mutation::VotesForgotten,
        Mutation::VoteBarsNothing,
        Mutation::NoCounting,
        Mutation::Reachability,
        Mutation::RenewalsNameNothing,
        Mutation::VotersByName,
        Mutation::LoneKeepsNone,
        Mutation::LoneVotesRunning,
        Mutation::AnswerBeforeCommit,
        Mutation::EpochReused,
        Mutation::AgentLooksAtDeadline,
        Mutation::DeletionIsProof,
        Mutation::EndedNamesNoUid,
    ];

    /// The lengths by which a node counts.
    pub fn terms(self, terms: Terms) -> Terms {
        let kill = match self {
            Mutation::NoMargin => Duration::ZERO,
            Mutation::ShortMargin => terms.kill.saturating_sub(Duration::from_millis(100)),
            _ => terms.kill,
        };
        Terms { kill, ..terms }
    }

    /// By how many millionths more the server's clock runs fast.
    pub fn server_drift(self) -> i32 {
        if self == Mutation::NoCounting { 2_000_000 } else { 0 }
    }

    /// What a monitor takes a deadline for that it is told now.
    pub fn told(self, had: Deadline, told: Deadline, now: Moment) -> Deadline {
        let until = match (self, told.until) {
            (Mutation::CountsFromReceipt, Some(until)) if until > now.0 => {
                Some(until.max(now.0 + Terms::LAN.hold()))
            }
            (Mutation::LoneKeepsNone, Some(_)) if had.until.is_none() => None,
            (_, until) => until,
        };
        Deadline { until, ..told }
    }

    /// What becomes of a voter's answer.
    pub fn answers(self, wish: Wish, no: Option<No>) -> Option<No> {
        match (self, wish, no) {
            (Mutation::PromisesForgotten, Wish::Vote, Some(No::Young))
            | (Mutation::VoteBarsNothing, Wish::Promise, Some(No::Voted))
            | (Mutation::LoneVotesRunning, Wish::Vote, Some(No::Runs)) => None,
            (_, _, no) => no,
        }
    }

    /// What an agent's disk has lost when a new agent begins.
    pub fn forgets(self, disk: &dyn Disk, data_dir: &Path) {
        if self == Mutation::VotesForgotten {
            // There may be none.
            let _ = disk.remove(&data_dir.join("fence/votes.json"));
        }
    }

    /// A request as it arrives.
    pub fn arrives(self, request: Request<Bytes>) -> Request<Bytes> {
        let path = request.uri().path();
        let is_lease = *request.method() == Method::PATCH && path.starts_with(LEASES);
        let is_end = *request.method() == Method::DELETE && path.contains("/pods/");
        match self {
            Mutation::RenewalsNameNothing if is_lease => changed(request, |body| {
                if body["metadata"]["annotations"][STATE].is_null() {
                    body["metadata"]["resourceVersion"] = Tree::Null;
                }
            }),
            Mutation::EpochReused if is_lease => changed(request, |body| {
                let epoch = &mut body["metadata"]["annotations"][EPOCH];
                if epoch.is_string() {
                    *epoch = json!("1");
                }
            }),
            Mutation::EndedNamesNoUid if is_end => {
                changed(request, |body| body["preconditions"] = Tree::Null)
            }
            _ => request,
        }
    }

    /// What the server says to a renewal that it has not committed: that it has, where it knows an earlier answer.
    pub fn acknowledges(self, request: &Request<Bytes>, earlier: &Bytes) -> Option<Response<Bytes>> {
        let body: Tree = serde_json::from_slice(request.body()).ok()?;
        let is_renewal = request.uri().path().starts_with(LEASES)
            && body["metadata"]["annotations"][STATE].is_null()
            && body["metadata"]["annotations"][EPOCH].is_null();
        if self != Mutation::AnswerBeforeCommit || !is_renewal {
            return None;
        }
        let mut answer: Tree = serde_json::from_slice(earlier).ok()?;
        let revision: u64 = answer["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
        answer["metadata"]["resourceVersion"] = json!((revision + 1).to_string());
        Some(Response::new(Bytes::from(answer.to_string())))
    }
}

/// Whether an answer is one to a lease's renewal.
pub fn is_of_lease(method: &Method, path: &str) -> bool {
    *method == Method::PATCH && path.starts_with(LEASES)
}

/// The same request with another body. What is set to nothing is left out.
fn changed(request: Request<Bytes>, change: impl FnOnce(&mut Tree)) -> Request<Bytes> {
    let (head, body) = request.into_parts();
    let Ok(mut tree) = serde_json::from_slice::<Tree>(&body) else { return Request::from_parts(head, body) };
    change(&mut tree);
    for (part, name) in [("metadata", "resourceVersion"), ("metadata", "annotations")] {
        if tree[part][name].is_null()
            && let Some(part) = tree[part].as_object_mut()
        {
            part.remove(name);
        }
    }
    if let Some(whole) = tree.as_object_mut() {
        whole.retain(|_, value| !value.is_null());
    }
    Request::from_parts(head, Bytes::from(tree.to_string()))
}
