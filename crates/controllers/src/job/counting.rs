//! Counting ends exactly once: first a uid stands in the status, then the pod is let go, then it becomes a number.

use std::collections::BTreeSet;

use model::Tree;
use serde_json::json;

use super::indexes::Indexes;
use super::{Seen, TRACKING, policy, start};
use crate::pods::Pod;

/// What is counted.
pub(super) struct Counts {
    /// How many succeeded, those not yet written down included.
    pub(super) succeeded: i64,
    /// How many failed, likewise.
    pub(super) failed: i64,
    /// The numbers that the status is to have.
    pub(super) succeeded_counted: i64,
    pub(super) failed_counted: i64,
    /// Indexes that are done, those not yet written down included.
    pub(super) completed: Indexes,
    /// Indexes that are done and written down.
    pub(super) completed_counted: Indexes,
    /// Indexes that will not be tried again.
    pub(super) failed_indexes: Indexes,
    /// The uids that stand in the status as it was seen: their pods may be let go.
    pub(super) counted_before: BTreeSet<String>,
    waiting: (BTreeSet<String>, BTreeSet<String>),
}

impl Counts {
    pub(super) fn of(seen: &Seen<'_>) -> Self {
        let status = &seen.body.status;
        let known = &status.uncounted_terminated_pods;
        let held: BTreeSet<&str> =
            seen.pods.iter().filter(|pod| is_held(pod)).map(|pod| pod.object.uid()).collect();
        let (mut succeeded, mut failed) = (BTreeSet::new(), BTreeSet::new());
        let (mut succeeded_counted, mut failed_counted) = (status.succeeded, status.failed);
        for (uids, waiting, counted) in [
            (&known.succeeded, &mut succeeded, &mut succeeded_counted),
            (&known.failed, &mut failed, &mut failed_counted),
        ] {
            for uid in uids {
                if held.contains(uid.as_str()) {
                    waiting.insert(uid.clone());
                } else {
                    *counted += 1;
                }
            }
        }
        let mut completed = Indexes::read(&status.completed_indexes);
        let mut failed_indexes = seen.failed_indexes();
        for pod in seen.pods.iter().filter(|pod| is_held(pod)) {
            let uid = pod.object.uid().to_owned();
            let is_new = !known.succeeded.contains(&uid) && !known.failed.contains(&uid);
            let index = start::index_of(pod);
            if pod.phase() == "Succeeded" {
                if seen.is_indexed() {
                    let Some(index) = index.filter(|index| (0..seen.indexes()).contains(index)) else {
                        continue;
                    };
                    if is_new && completed.contains(index) {
                        continue;
                    }
                    completed.insert(index);
                }
                if is_new {
                    succeeded.insert(uid);
                }
            } else if has_failed(seen, pod) && policy::counts(seen, pod) {
                if let Some(index) = index.filter(|_| policy::ends_index(seen, pod)) {
                    failed_indexes.insert(index);
                }
                if is_new {
                    failed.insert(uid);
                }
            }
        }
        let known: BTreeSet<String> = known.succeeded.union(&known.failed).cloned().collect();
        let as_count = |uids: &BTreeSet<String>| i64::try_from(uids.len()).unwrap_or(i64::MAX);
        let ignored = seen.pods.iter().filter(|pod| has_failed(seen, pod) && !policy::counts(seen, pod));
        let counted_before =
            known.into_iter().chain(ignored.map(|pod| pod.object.uid().to_owned())).collect();
        let is_indexed = seen.is_indexed();
        Self {
            succeeded: if is_indexed { completed.len() } else { succeeded_counted + as_count(&succeeded) },
            failed: failed_counted + as_count(&failed),
            succeeded_counted: if is_indexed { completed.len() } else { succeeded_counted },
            failed_counted,
            completed_counted: completed.clone(),
            completed,
            failed_indexes,
            counted_before,
            waiting: (succeeded, failed),
        }
    }

    pub(super) fn uncounted_len(&self) -> usize {
        self.waiting.0.len() + self.waiting.1.len()
    }

    /// The uids that the status is to have.
    pub(super) fn uncounted(&self) -> Tree {
        let list = |uids: &BTreeSet<String>| if uids.is_empty() { Tree::Null } else { json!(uids) };
        json!({"succeeded": list(&self.waiting.0), "failed": list(&self.waiting.1)})
    }
}

fn is_held(pod: &Pod) -> bool {
    pod.object.meta().finalizers.iter().any(|held| held == TRACKING)
}

/// A pod that is deleted while it runs has failed as well, unless the Job waits for it to say how it ended.
pub(super) fn has_failed(seen: &Seen<'_>, pod: &Pod) -> bool {
    let waits = seen.body.spec.pod_replacement_policy == "Failed"
        || !seen.body.spec.pod_failure_policy.rules.is_empty();
    pod.phase() == "Failed" || (pod.is_ending() && pod.phase() != "Succeeded" && !waits)
}
