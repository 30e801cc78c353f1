//! NetworkPolicies as packet rules: decided in `decide`, said to the kernel in `table`, carried out here.
//!
//! Promises: a change is whole or not at all; what an earlier process wrote holds until the first call. Only packets
//! that pass through the node are held back: what a pod says to its own node, or the node to its pods, is not.

mod decide;
mod table;

pub use decide::{GuardedPod, NamespaceLabels, policies};

use crate::wire::Socket;
use crate::{NetworkError, PolicyRules, failed};

/// The packet rules that hold pods back, of one cluster on one node.
pub(crate) struct Guard {
    table: String,
    socket: Socket,
    /// What the kernel has; `None` when that is not known.
    applied: Option<PolicyRules>,
}

impl Guard {
    /// Opens it; what an earlier process wrote stays.
    pub fn open(table: String) -> Result<Self, NetworkError> {
        let socket = Socket::netfilter().map_err(failed("open a netlink socket"))?;
        Ok(Self { table, socket, applied: None })
    }

    /// Makes the rules be these.
    pub fn apply(&mut self, rules: PolicyRules) -> Result<(), NetworkError> {
        if self.applied.as_ref() == Some(&rules) {
            return Ok(());
        }
        self.applied = None;
        table::write(&self.table, &rules).commit(&self.socket)?;
        self.applied = Some(rules);
        Ok(())
    }
}
