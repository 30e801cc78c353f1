//! A voter: a node that is asked whether another node's lease may be taken from it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Member, Terms};

/// The highest revision of each node's lease that was voted against. Outlives everything: synced before a vote leaves.
pub type Votes = BTreeMap<String, u64>;

/// What a voter is asked, for a promise and for a vote alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// Whose lease.
    pub node: String,
    /// Its revision.
    pub revision: u64,
    /// Who is meant: another life of the host must not answer.
    pub voter: Member,
    /// `T` of the lease, in milliseconds.
    pub lease_millis: u64,
}

/// Why a voter does not agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum No {
    /// It is another life of that host.
    #[error("the host's disk is not the one that is meant")]
    Another,
    /// It has voted against this lease.
    #[error("it has voted against this lease")]
    Voted,
    /// It has promised not to, for a while.
    #[error("a promise to the node still runs")]
    Promised,
    /// It may have promised before it started anew.
    #[error("it has not been up for long enough to know its promises")]
    Young,
    /// It is asked about itself, and may still run.
    #[error("it still runs")]
    Runs,
    /// It could not write its vote down.
    #[error("it cannot write its vote down")]
    Disk,
}

/// The state of a voter.
#[derive(Debug, Clone)]
pub struct Voter {
    me: Member,
    terms: Terms,
    started: Duration,
    votes: Votes,
    promises: BTreeMap<String, Duration>,
}

impl Voter {
    /// A voter whose agent starts now, with the votes its disk kept.
    pub fn new(me: Member, terms: Terms, votes: Votes, now: Duration) -> Self {
        Self { me, terms, started: now, votes, promises: BTreeMap::new() }
    }

    /// Whose voice it is.
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// What is to be on the disk.
    pub fn votes(&self) -> &Votes {
        &self.votes
    }

    /// Promises not to vote against the node for `S` from now.
    pub fn promise(&mut self, asked: &Question, now: Duration) -> Result<(), No> {
        if asked.voter != self.me {
            return Err(No::Another);
        }
        if self.votes.get(&asked.node).is_some_and(|voted| *voted >= asked.revision) {
            return Err(No::Voted);
        }
        let until = now + self.silence(asked);
        let known = self.promises.entry(asked.node.clone()).or_default();
        *known = (*known).max(until);
        Ok(())
    }

    /// Votes against a lease. A yes is to be written down before it is told.
    ///
    /// About the voter's own node the caller asks the node ([`super::Holder::vote`]) before.
    pub fn vote(&mut self, asked: &Question, now: Duration) -> Result<(), No> {
        if asked.voter != self.me {
            return Err(No::Another);
        }
        if self.votes.get(&asked.node).is_some_and(|voted| *voted >= asked.revision) {
            return Ok(());
        }
        if self.promises.get(&asked.node).is_some_and(|until| now < *until) {
            return Err(No::Promised);
        }
        if asked.node != self.me.host && now < self.started + self.silence(asked) {
            return Err(No::Young);
        }
        self.votes.insert(asked.node.clone(), asked.revision);
        Ok(())
    }

    /// The longest silence in use.
    fn silence(&self, asked: &Question) -> Duration {
        let told = Terms { lease: Duration::from_millis(asked.lease_millis), ..self.terms };
        told.silence().max(self.terms.silence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn me() -> Member {
        Member { host: "b".into(), incarnation: "1".into() }
    }

    fn about(revision: u64) -> Question {
        Question { node: "a".into(), revision, voter: me(), lease_millis: 4000 }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn voter(votes: Votes) -> Voter {
        Voter::new(me(), Terms::LAN, votes, at(0))
    }

    #[test]
    fn a_promise_holds_a_vote_back_and_a_vote_bars_later_promises() {
        let mut voter = voter(Votes::new());
        assert_eq!(voter.promise(&about(5), at(10_000)), Ok(()));
        assert_eq!(voter.vote(&about(5), at(14_039)), Err(No::Promised));
        assert_eq!(voter.vote(&about(5), at(14_040)), Ok(()));
        assert_eq!(voter.vote(&about(5), at(14_041)), Ok(()), "a repeat gets the same answer");
        assert_eq!(voter.promise(&about(5), at(14_050)), Err(No::Voted));
        assert_eq!(voter.promise(&about(4), at(14_050)), Err(No::Voted));
        assert_eq!(voter.promise(&about(6), at(14_050)), Ok(()), "a newer lease frees it");
    }

    #[test]
    fn a_new_agent_knows_its_votes_and_is_silent_until_its_promises_have_run_out() {
        let mut young = voter(Votes::new());
        assert_eq!(young.vote(&about(5), at(4_039)), Err(No::Young));
        assert_eq!(young.vote(&about(5), at(4_040)), Ok(()));
        let mut again = voter(young.votes().clone());
        assert_eq!(again.promise(&about(5), at(1)), Err(No::Voted));
    }

    #[test]
    fn another_life_of_the_host_answers_nothing() {
        let mut voter = voter(Votes::new());
        let other = Question { voter: Member { incarnation: "0".into(), ..me() }, ..about(5) };
        assert_eq!(voter.promise(&other, at(9_000)), Err(No::Another));
        assert_eq!(voter.vote(&other, at(9_000)), Err(No::Another));
    }

    #[test]
    fn a_longer_lease_is_waited_for_longer() {
        let mut voter = voter(Votes::new());
        let long = Question { lease_millis: 8000, ..about(5) };
        assert_eq!(voter.vote(&long, at(8_079)), Err(No::Young));
        assert_eq!(voter.vote(&long, at(8_080)), Ok(()));
    }
}
