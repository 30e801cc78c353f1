//! A node's lease as it is stored: annotations of its Lease in `kube-node-lease`.
//!
//! The Lease stays what other tools know. Its `resourceVersion` is the revision `r` that every write names; our
//! finalizer keeps it when its Node goes, and so makes *ending* what was a deletion.

use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::{Grant, VoterSet};
use crate::{Object, Tree};

/// The annotation that says which epoch a node's lease is in, and (on a pod or an attachment) under which it was bound.
pub const EPOCH: &str = "healing.kintsugi.dev/epoch";
/// The annotation of a Lease that says which life of the node's disk holds it.
pub const INCARNATION: &str = "healing.kintsugi.dev/incarnation";
/// The annotation of a Lease that says who votes about it.
pub const SET: &str = "healing.kintsugi.dev/voters";
/// The annotation of a Lease that says whether it is lost.
pub const STATE: &str = "healing.kintsugi.dev/lease-state";
/// The annotation of a Lease that says that a server runs on its node: such nodes vote first.
pub const SERVER: &str = "healing.kintsugi.dev/server";
/// The annotation that a fenced pod gets when it is bound: the epoch of its node's lease.
pub const FENCE: &str = "healing.kintsugi.dev/fence";
/// The annotation of a Node that is suspected: since when nothing was heard of it.
pub const SUSPECTED: &str = "healing.kintsugi.dev/suspected";
/// The finalizer of a Lease that is fenced by.
pub const FINALIZER: &str = "healing.kintsugi.dev/fence";

/// What a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// The node holds it.
    Held,
    /// Its Node was deleted: no renewals any more, and the node is to let go.
    Ending,
    /// Nothing fenced runs under it, and nothing will.
    Lost,
    /// The store was made from a backup: what runs under it is known to nobody but its node.
    Restored,
}

impl State {
    /// The word for it in a lease's annotation; *ending* has none, it is a deletion.
    pub fn word(self) -> &'static str {
        match self {
            State::Held | State::Ending => "Held",
            State::Lost => "Lost",
            State::Restored => "Restored",
        }
    }
}

/// A lease as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its revision: that of the Lease.
    pub revision: u64,
    /// The revision that its beginning replaced.
    pub epoch: u64,
    /// Which life of the node's disk.
    pub incarnation: String,
    /// Who votes about it.
    pub set: VoterSet,
    /// What it is.
    pub state: State,
}

impl Record {
    /// Reads it; `None`: a Lease by which nothing is fenced.
    pub fn read(lease: &Object) -> Option<Self> {
        let annotations = &lease.meta().annotations;
        let text = |name: &str| annotations.get(name);
        let state = match (text(STATE)?, lease.is_ending()) {
            ("Lost", _) => State::Lost,
            ("Restored", _) => State::Restored,
            (_, true) => State::Ending,
            _ => State::Held,
        };
        Some(Self {
            revision: lease.revision(),
            epoch: text(EPOCH)?.parse().ok()?,
            incarnation: text(INCARNATION)?.to_owned(),
            set: serde_json::from_str(text(SET)?).ok()?,
            state,
        })
    }

    /// The lease as its holder knows it.
    pub fn grant(&self) -> Grant {
        Grant { revision: self.revision, epoch: self.epoch, set: self.set.clone() }
    }

    /// Metadata by which a new epoch begins that replaces `revision`.
    pub fn beginning(revision: u64, incarnation: &str, set: &VoterSet) -> Tree {
        let mut annotations = Map::new();
        annotations.insert(EPOCH.into(), json!(revision.to_string()));
        annotations.insert(INCARNATION.into(), json!(incarnation));
        annotations.insert(SET.into(), json!(spelled(set)));
        annotations.insert(STATE.into(), json!("Held"));
        json!({"annotations": annotations, "finalizers": [FINALIZER]})
    }

    /// Metadata of a renewal that names this set.
    pub fn renewal(set: &VoterSet) -> Tree {
        json!({"annotations": {SET: spelled(set)}})
    }

    /// Metadata by which it is lost.
    pub fn losing() -> Tree {
        json!({"annotations": {STATE: "Lost"}})
    }
}

/// What the holder of a Lease writes with each renewal.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Renewed {
    spec: RenewedSpec,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RenewedSpec {
    holder_identity: String,
    renew_time: String,
}

/// Whether a Lease shows a renewal by its holder that it did not show before. Others write it too: whoever takes it from
/// its holder, an operator, the garbage collector; that says nothing of the holder.
pub fn is_renewed(old: &Object, new: &Object) -> bool {
    let life = |lease: &Object| {
        let said = |name| lease.meta().annotations.get(name).map(str::to_owned);
        (lease.uid().to_owned(), said(EPOCH), said(INCARNATION))
    };
    old.seen::<Renewed>() != new.seen::<Renewed>() || life(old) != life(new)
}

fn spelled(set: &VoterSet) -> String {
    serde_json::to_string(set).unwrap_or_default()
}

/// The epoch under which a fenced pod was bound; `None`: it is not fenced.
pub fn pod_epoch(pod: &Object) -> Option<u64> {
    pod.meta().annotations.get(FENCE).and_then(|epoch| epoch.parse().ok())
}

/// Whether a pod has an identity that must not run twice, or a claim that one node at a time may use.
pub fn is_exclusive(pod: &Tree, is_exclusive_claim: impl Fn(&str) -> bool) -> bool {
    let owners = pod["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let is_member = owners.into_iter().any(|owner| {
        owner["controller"] == true
            && owner["kind"] == "StatefulSet"
            && owner["apiVersion"].as_str().is_some_and(|version| version.starts_with("apps/"))
    });
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let has_claim = volumes.into_iter().any(|volume| {
        let named = volume["persistentVolumeClaim"]["claimName"].as_str().map(str::to_owned);
        let own = || {
            volume["ephemeral"]
                .is_object()
                .then(|| format!("{name}-{}", volume["name"].as_str().unwrap_or_default()))
        };
        named.or_else(own).is_some_and(|claim| is_exclusive_claim(&claim))
    });
    is_member || has_claim
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_renewed_by_what_its_holder_writes_and_by_nothing_else() {
        let lease = |epoch: &str, more: &str, renewed: &str| {
            let text = format!(
                r#"{{"metadata":{{"name":"n","uid":"1","annotations":{{"{EPOCH}":"{epoch}"{more}}}}},
                "spec":{{"holderIdentity":"n","renewTime":"{renewed}"}}}}"#
            );
            Object::read(text.into()).expect("a lease")
        };
        let before = lease("7", "", "1970-01-01T00:00:10.000000Z");
        assert!(is_renewed(&before, &lease("7", "", "1970-01-01T00:00:11.000000Z")));
        assert!(is_renewed(&before, &lease("9", "", "1970-01-01T00:00:10.000000Z")), "a new epoch");
        let lost = format!(r#","{STATE}":"Lost""#);
        assert!(!is_renewed(&before, &lease("7", &lost, "1970-01-01T00:00:10.000000Z")), "it was taken");
    }

    #[test]
    fn members_of_stateful_sets_and_users_of_exclusive_claims_are_fenced() {
        let check = |pod: Tree, wanted: bool| {
            assert_eq!(is_exclusive(&pod, |claim| claim == "mine" || claim == "p-scratch"), wanted, "{pod}");
        };
        let owned = |kind: &str, api: &str| json!({"metadata": {"ownerReferences": [{"controller": true, "kind": kind, "apiVersion": api}]}});
        check(owned("StatefulSet", "apps/v1"), true);
        check(owned("ReplicaSet", "apps/v1"), false);
        check(owned("StatefulSet", "other.dev/v1"), false);
        let uses = |claim: &str| json!({"spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": claim}}]}});
        check(uses("mine"), true);
        check(uses("shared"), false);
        check(
            json!({"metadata": {"name": "p"}, "spec": {"volumes": [{"name": "scratch", "ephemeral": {}}]}}),
            true,
        );
        check(json!({}), false);
    }
}
