//! The lease and the fence: who may let a node run its fenced pods, and when each of them has let go.
//!
//! A pod with an identity or an exclusive volume is *fenced*. Two kinds of grantor let a node run its fenced pods: the
//! store, by the node's lease, and voters, by promises. Each lets go only after it has waited longer than the node may
//! still run; a takeover needs both to have let go. Here is one plain state machine a role: [`Holder`] (a node),
//! [`Voter`] (a node, asked about another), [`Deadline`] (a monitor), and [`Record`] (the lease as it is stored).
//!
//! All times are points on the boot-time clock of whoever keeps them; no two clocks are ever compared.

mod deadline;
mod holder;
mod record;
mod set;
mod voter;

use std::time::Duration;

pub use deadline::Deadline;
pub use holder::{Ask, Grant, Holder, Kept, Renewal, Right};
pub use record::{
    EPOCH, FENCE, FINALIZER, INCARNATION, Record, SERVER, SET, STATE, State, is_exclusive, pod_epoch,
};
pub use set::{MEMBERS_MAX, Member, SetBody, VoterSet, choose};
pub use voter::{No, Question, Voter, Votes};

/// The lengths that all roles count with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// `T`: what a lease lasts.
    pub lease: Duration,
    /// `K`: from a deadline to the last process gone and the last write out.
    pub kill: Duration,
    /// `ρ`, in thousandths: how far any two clocks may run apart.
    pub drift_per_mille: u32,
}

impl Terms {
    /// For machines on one network: a lease of four seconds, half a second to kill, clocks within a hundredth.
    pub const LAN: Terms =
        Terms { lease: Duration::from_secs(4), kill: Duration::from_millis(500), drift_per_mille: 10 };

    /// `F`: what the holder counts, from the moment it *sent*.
    pub fn hold(self) -> Duration {
        self.lease.saturating_sub(self.kill)
    }

    /// `S`: what a grantor counts, from the moment it *saw*. Never less than `(1+ρ)·(F+K)`.
    pub fn silence(self) -> Duration {
        self.lease * (1000 + self.drift_per_mille) / 1000
    }

    /// How often a lease is renewed: three renewals may be lost before it is overdue.
    pub fn renewal(self) -> Duration {
        self.lease / 4
    }

    /// After how long without an answer a node is suspected, and asks its voters: one renewal and a half.
    pub fn suspicion(self) -> Duration {
        self.lease * 3 / 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grantor_waits_longer_than_the_holder_may_run_whatever_their_clocks() {
        for lease in [1, 4, 40] {
            let terms = Terms { lease: Duration::from_secs(lease), ..Terms::LAN };
            let runs = (terms.hold() + terms.kill) * (1000 + terms.drift_per_mille) / 1000;
            assert!(terms.silence() >= runs, "{terms:?}");
        }
        assert_eq!(Terms::LAN.silence(), Duration::from_millis(4040));
        assert_eq!(Terms::LAN.suspicion(), Duration::from_millis(1500));
    }
}
