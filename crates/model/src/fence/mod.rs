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

use serde::{Deserialize, Serialize};

pub use deadline::Deadline;
pub use holder::{Ask, Grant, Holder, Kept, Renewal, Right};
pub use record::{
    EPOCH, FENCE, FINALIZER, INCARNATION, Record, SERVER, SET, STATE, SUSPECTED, State, is_exclusive,
    is_renewed, pod_epoch,
};
pub use set::{MEMBERS_MAX, Member, SetBody, VoterSet, choose};
pub use voter::{No, Question, Voter, Votes};

/// How long a machine may take to answer a knock: a hundred times what a kernel on one network takes. It is part of the
/// time to suspicion, so not double; half would take a busy switch for a dead machine.
pub const KNOCK: Duration = Duration::from_millis(200);

/// The lengths that all roles count with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// `T`: what a lease lasts.
    pub lease: Duration,
    /// `K`: from a deadline to the last process gone and the last write out.
    pub kill: Duration,
    /// `ρ`, in thousandths: how far any two clocks may run apart.
    pub drift_per_mille: u32,
    /// After how long without a renewal a node is suspected, and after how long without an answer it asks its voters.
    pub suspicion: Duration,
}

impl Terms {
    /// For machines on one network: a lease of four seconds, half a second to kill, clocks within a hundredth; suspicion
    /// after one renewal and a half.
    pub const LAN: Terms = Terms {
        lease: Duration::from_secs(4),
        kill: Duration::from_millis(500),
        drift_per_mille: 10,
        suspicion: Duration::from_millis(1500),
    };

    /// The same for leases of another length: suspicion takes the same share of it.
    pub fn of_lease(self, lease: Duration) -> Terms {
        let share = self.suspicion.as_secs_f64() / self.lease.as_secs_f64().max(f64::MIN_POSITIVE);
        let suspicion =
            if lease == self.lease { self.suspicion } else { lease.mul_f64(share.clamp(0.0, 1.0)) };
        Terms { lease, suspicion, ..self }
    }

    /// Says what is wrong with these lengths, if anything is: a fence by them would not hold, or would hold up everything.
    ///
    /// `S ≥ (1+ρ)·(F+K)` needs no check: `F` and `S` are made of the others.
    pub fn check(self) -> Result<(), WrongTerms> {
        let Terms { lease, kill, suspicion, .. } = self;
        let renewal = self.renewal();
        if !(LEASE_SECONDS.contains(&lease.as_secs()) && lease.subsec_nanos() == 0) {
            return Err(WrongTerms::Lease(lease));
        }
        if kill.is_zero() || suspicion + kill >= lease {
            return Err(WrongTerms::Kill { kill, suspicion, lease });
        }
        if suspicion <= renewal {
            return Err(WrongTerms::Suspicion { suspicion, renewal });
        }
        if self.drift_per_mille > DRIFT_PER_MILLE_MAX {
            return Err(WrongTerms::Drift(self.drift_per_mille));
        }
        Ok(())
    }

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
}

/// Why lengths do not make a fence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongTerms {
    /// The lease.
    #[error("a lease of {0:?} is none: it takes whole seconds, from 2 to 600")]
    Lease(Duration),
    /// The time to kill.
    #[error(
        "a lease of {lease:?} is too short: a node asks its voters after {suspicion:?}, and its processes must be gone {kill:?} before the end"
    )]
    Kill {
        /// The time to kill.
        kill: Duration,
        /// When voters are asked.
        suspicion: Duration,
        /// The lease.
        lease: Duration,
    },
    /// The suspicion.
    #[error(
        "suspicion after {suspicion:?} would fall on every node: leases are renewed every {renewal:?}, a quarter of them"
    )]
    Suspicion {
        /// When a node is suspected.
        suspicion: Duration,
        /// How often leases are renewed.
        renewal: Duration,
    },
    /// The drift.
    #[error("clocks that run {0} thousandths apart are broken: at most 100 can be allowed for")]
    Drift(u32),
}

/// How long a lease may be, in seconds: below, a pause of a loaded machine would be a death; above, nobody waits for it.
const LEASE_SECONDS: std::ops::RangeInclusive<u64> = 2..=600;

/// How far apart clocks may be allowed to run: quartz is a hundred times better, a tenth is a broken one.
const DRIFT_PER_MILLE_MAX: u32 = 100;

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
        assert_eq!(Terms::LAN.check(), Ok(()));
        assert_eq!(Terms::LAN.silence(), Duration::from_millis(4040));
        assert_eq!(Terms::LAN.suspicion, Duration::from_millis(1500));
    }

    #[test]
    fn lengths_that_make_no_fence_are_refused_with_the_reason() {
        let ms = Duration::from_millis;
        let check = |terms: Terms, said: &str| {
            let why = terms.check().expect_err("these are wrong").to_string();
            assert!(why.contains(said), "{why}");
        };
        check(Terms { lease: ms(1000), ..Terms::LAN }, "from 2 to 600");
        check(Terms { lease: ms(2500), ..Terms::LAN }, "whole seconds");
        check(Terms { kill: ms(2500), ..Terms::LAN }, "too short");
        check(Terms { kill: ms(0), ..Terms::LAN }, "too short");
        check(Terms { suspicion: ms(1000), ..Terms::LAN }, "renewed every 1s");
        check(Terms { suspicion: ms(3500), ..Terms::LAN }, "too short");
        check(Terms { drift_per_mille: 101, ..Terms::LAN }, "at most 100");
        assert_eq!(Terms { lease: ms(40_000), suspicion: ms(15_000), ..Terms::LAN }.check(), Ok(()));
    }

    #[test]
    fn suspicion_takes_the_same_share_of_every_lease() {
        let long = Terms::LAN.of_lease(Duration::from_secs(40));
        assert_eq!((long.suspicion, long.kill), (Duration::from_secs(15), Terms::LAN.kill));
        assert_eq!(Terms::LAN.of_lease(Terms::LAN.lease), Terms::LAN);
    }
}
