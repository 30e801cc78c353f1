//! Nodes that the pods of one owner keep away from for a while, because one of them kept failing there and the others,
//! elsewhere, did not. Kept as an annotation of the Node; a preference, never a prohibition.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::diagnosis::REVISION_LABELS;
use crate::{Object, Time};

/// The annotation of a Node that says whose pods keep away from it.
pub const AVOIDED_BY: &str = "healing.kintsugi.dev/avoided-by";

/// How long they do: long enough for a person to look at the node; then it gets its chance again.
pub const AVOIDED_FOR: Duration = Duration::from_secs(3600);

/// How many entries a Node carries at most; the oldest go first. Some 250 bytes each.
pub const ENTRIES_MAX: usize = 16;

/// Who keeps away, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Avoided {
    /// The uid of the pods' controller.
    pub owner: String,
    /// Its kind and name, for people.
    pub name: String,
    /// The revision of its pods, if they have one.
    pub revision: String,
    /// The uid of the pod that was moved.
    pub pod: String,
    /// Since when.
    pub since: Time,
    /// What that pod said.
    pub why: String,
}

/// The entries of a Node that count now.
pub fn of(node: &Object, now: Time) -> Vec<Avoided> {
    let mut all = read(node.meta().annotations.get(AVOIDED_BY));
    all.retain(|one| one.counts(now));
    all
}

/// The entries that an annotation holds, over or not.
pub fn read(annotation: Option<&str>) -> Vec<Avoided> {
    annotation.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// The revision that a pod's labels name; empty when they name none.
pub fn revision(pod: &Object) -> &str {
    let labels = &pod.meta().labels;
    REVISION_LABELS.iter().find_map(|label| labels.get(label)).unwrap_or_default()
}

impl Avoided {
    /// Whether it is not over.
    pub fn counts(&self, now: Time) -> bool {
        now < self.since.checked_add(AVOIDED_FOR).unwrap_or(Time::MAX)
    }

    /// Whether the pod is of those that keep away.
    pub fn concerns(&self, pod: &Object) -> bool {
        pod.controller().is_some_and(|owner| owner.uid == self.owner) && revision(pod) == self.revision
    }
}
