//! When a volume may leave a node: the one place where that is decided.
//!
//! The proof is the node's own word, or that its lease is lost (then nothing fenced runs there any more), or an
//! operator's word. Silence is no proof, however long it lasts.

use model::fence::{EPOCH, STATE};
use model::storage;
use model::{Object, Tree};

use super::tree;

/// The taint by which an operator says that nothing of a node runs any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What is given to decide by.
pub struct Given<'a> {
    /// The attachment.
    pub attachment: &'a Object,
    /// Its node, where that is known.
    pub node: Option<&'a Object>,
    /// The node's lease.
    pub lease: Option<&'a Object>,
    /// The volume's name in a node's status.
    pub volume: &'a str,
}

impl Given<'_> {
    /// Why nobody on the node writes to the volume any more; `None`: somebody may.
    pub fn proof(&self) -> Option<&'static str> {
        let node = self.node.map(tree);
        let taints = node.as_deref().and_then(|node| node["spec"]["taints"].as_array());
        match () {
            () if taints.into_iter().flatten().any(|taint| taint["key"] == OUT_OF_SERVICE) => {
                Some("its node is out of service")
            }
            () if self.lease.is_some_and(is_lost) => Some("its node's lease is lost"),
            () if self.is_of_an_epoch_past() => Some("its node began a new epoch"),
            () if node.is_none() && self.lease.is_none() => Some("its node and the node's lease are gone"),
            () if self.has_word(node.as_deref()) => Some("no pod there uses the volume"),
            () => None,
        }
    }

    fn is_of_an_epoch_past(&self) -> bool {
        let number = |object: &Object| epoch_of(object).and_then(|epoch| epoch.parse::<u64>().ok());
        let (bound, now) = (number(self.attachment), self.lease.and_then(number));
        bound.zip(now).is_some_and(|(bound, now)| bound < now)
    }

    /// Whether a node that is heard of says that it does not use the volume. For a built-in driver the node says so by
    /// taking its finalizer.
    fn has_word(&self, node: Option<&Tree>) -> bool {
        let is_built_in =
            tree(self.attachment)["spec"]["attacher"].as_str().is_some_and(storage::is_built_in);
        let Some(node) = node.filter(|_| !is_built_in) else { return false };
        let conditions = node["status"]["conditions"].as_array();
        let is_silent =
            conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "Unknown");
        let used = node["status"]["volumesInUse"].as_array();
        !is_silent && !used.into_iter().flatten().any(|used| used == self.volume)
    }
}

/// Whether a lease is lost.
pub fn is_lost(lease: &Object) -> bool {
    lease.meta().annotations.get(STATE).is_some_and(|state| state == "Lost")
}

/// The epoch that a lease or an attachment names.
pub fn epoch_of(object: &Object) -> Option<&str> {
    object.meta().annotations.get(EPOCH)
}
