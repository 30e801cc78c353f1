//! A node: what it may still do under its lease, and what it has to ask for.
//!
//! It counts from the moment a request was *sent*. An answer may come late, twice or never; what it allows has begun to
//! run out before it came.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Member, Question, Terms, VoterSet};

/// After how many lease times a node that is already fenced asks its voters again: one whom no answer reaches must not
/// hold their votes back for ever.
const FENCED_ASKS: u32 = 3;

/// After which part of a renewal's time voters are asked again while too few have promised: of a lossy line, some rounds in
/// a row are seldom lost. It ends with the node's right, so it holds nobody's vote back longer than one round does.
const ASK_PARTS: u32 = 4;

/// A lease as the store acknowledged it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Its revision.
    pub revision: u64,
    /// The revision at which the node began.
    pub epoch: u64,
    /// Who votes about it.
    pub set: VoterSet,
}

/// What of it outlives the agent, but not the boot: written before a request leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The last acknowledged lease.
    pub lease: Option<Grant>,
    /// The set that was asked for and not acknowledged.
    pub naming: Option<VoterSet>,
    /// No lease up to this revision is used again: the node's own word.
    pub given_up: u64,
}

/// A renewal to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    /// The revision that it replaces.
    pub replaces: u64,
    /// The epoch that goes on.
    pub epoch: u64,
    /// The set that it names.
    pub set: VoterSet,
}

/// One voter to be asked for a promise.
pub type Ask = Question;

/// What a node may do with its fenced pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Nothing.
    None,
    /// Run them until then.
    Until(Duration),
    /// Run them until it says itself that it does not.
    Endless,
}

impl Right {
    /// Whether it runs at that time.
    pub fn runs(self, now: Duration) -> bool {
        match self {
            Right::None => false,
            Right::Until(until) => now < until,
            Right::Endless => true,
        }
    }
}

/// The state of a node.
#[derive(Debug, Clone)]
pub struct Holder {
    me: Member,
    terms: Terms,
    kept: Kept,
    /// The node leaves: no right comes back before a new epoch.
    is_leaving: bool,
    granted: Option<Duration>,
    /// Promises held, each with when its request was sent.
    promises: BTreeMap<Member, Duration>,
    answered_at: Duration,
    asked_at: Option<Duration>,
}

impl Holder {
    /// A node whose agent starts now, with what an earlier agent of this boot kept.
    pub fn new(me: Member, terms: Terms, kept: Kept, now: Duration) -> Self {
        Self {
            me,
            terms,
            kept,
            is_leaving: false,
            granted: None,
            promises: BTreeMap::new(),
            answered_at: now,
            asked_at: None,
        }
    }

    /// Who it is.
    pub fn me(&self) -> &Member {
        &self.me
    }

    /// What is to be on the disk before a request leaves.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// The lease that is held, as far as is known.
    pub fn lease(&self) -> Option<&Grant> {
        self.kept.lease.as_ref()
    }

    /// Whether the lease of this epoch is still taken for ours.
    pub fn holds(&self, epoch: u64) -> bool {
        !self.is_leaving && self.kept.lease.as_ref().is_some_and(|lease| lease.epoch == epoch)
    }

    /// The epoch under which pods may run here, if any may.
    pub fn epoch(&self) -> Option<u64> {
        self.usable().map(|lease| lease.epoch)
    }

    /// The next renewal. Before it leaves, what is kept is to be written and the monitors are to be told.
    ///
    /// A set that was asked for is asked for until there is an answer: no third one is taken up meanwhile.
    pub fn renewal(&mut self, newest: Option<&VoterSet>, now: Duration) -> Option<Renewal> {
        let was_endless = self.right() == Right::Endless;
        let lease = self.kept.lease.clone()?;
        if self.kept.naming.is_none()
            && let Some(newest) = newest.filter(|newest| newest.number > lease.set.number)
        {
            self.kept.naming = Some(newest.clone());
        }
        if was_endless && self.right() != Right::Endless {
            self.grant(now);
        }
        let set = self.kept.naming.clone().unwrap_or(lease.set);
        Some(Renewal { replaces: lease.revision, epoch: lease.epoch, set })
    }

    /// A renewal that this agent sent at `sent` was committed as `revision`.
    pub fn acknowledged(&mut self, renewal: &Renewal, revision: u64, sent: Duration, now: Duration) {
        let is_same = |lease: &&Grant| lease.epoch == renewal.epoch && lease.revision < revision;
        if self.kept.lease.as_ref().filter(is_same).is_none() {
            return;
        }
        self.settle(Grant { revision, epoch: renewal.epoch, set: renewal.set.clone() });
        self.grant(sent);
        self.answered_at = self.answered_at.max(now);
    }

    /// The store shows this lease of ours: an earlier renewal had been committed, or somebody else touched it.
    ///
    /// It extends nothing; but what replaces an older revision cannot be committed any more.
    pub fn shown(&mut self, grant: Grant) {
        let is_newer = |lease: &&Grant| lease.epoch == grant.epoch && lease.revision < grant.revision;
        if self.kept.lease.as_ref().filter(is_newer).is_some() {
            self.settle(grant);
        }
    }

    /// A new epoch began, asked for at `sent`.
    pub fn begun(&mut self, grant: Grant, sent: Duration, now: Duration) {
        if grant.revision <= self.kept.given_up {
            return;
        }
        self.kept = Kept { lease: Some(grant), naming: None, given_up: self.kept.given_up };
        self.is_leaving = false;
        self.granted = None;
        self.promises.clear();
        self.grant(sent);
        self.answered_at = self.answered_at.max(now);
        self.asked_at = None;
    }

    /// The lease is lost.
    pub fn lost(&mut self, epoch: u64) {
        if self.kept.lease.as_ref().is_some_and(|lease| lease.epoch == epoch) {
            self.kept.lease = None;
            self.kept.naming = None;
            self.granted = None;
            self.promises.clear();
        }
    }

    /// The node's own word, at once: whatever answers still arrive, it runs nothing fenced before a new epoch. The word is
    /// to be written down before it leaves, and names `revision`: a later agent must not take that lease up again, though
    /// its acknowledgement may come after all.
    pub fn leave(&mut self, revision: u64) {
        self.is_leaving = true;
        let known = self.kept.lease.as_ref().map_or(0, |lease| lease.revision);
        self.kept.given_up = self.kept.given_up.max(known).max(revision);
    }

    /// The node's vote against itself: only when its deadline has passed and nothing fenced runs. It sticks: no lease up
    /// to that revision is used again.
    pub fn vote(&mut self, revision: u64, now: Duration, runs_fenced: bool) -> bool {
        if runs_fenced || self.right().runs(now) {
            return false;
        }
        self.kept.given_up = self.kept.given_up.max(revision);
        true
    }

    /// When voters are to be asked next, if nothing is heard until then; `None`: not before a new epoch.
    ///
    /// Whatever is heard puts it off by the suspicion at least, counted from then.
    pub fn asks_at(&self, now: Duration) -> Option<Duration> {
        let lease = self.usable()?;
        let rest = match self.right().runs(now) {
            true if self.was_promised(lease) => self.terms.renewal(),
            true => self.terms.renewal() / ASK_PARTS,
            false => self.terms.lease * FENCED_ASKS,
        };
        let rested = self.asked_at.map_or(Duration::ZERO, |asked| asked + rest);
        Some(rested.max(self.answered_at + self.terms.suspicion))
    }

    /// Whom to ask for promises now; empty when the store answers, or it is not time.
    ///
    /// They name the last revision that was acknowledged, never one that was only sent.
    pub fn asks(&mut self, now: Duration) -> Vec<Ask> {
        if self.asks_at(now).is_none_or(|due| now < due) {
            return Vec::new();
        }
        let Some(lease) = self.usable().cloned() else { return Vec::new() };
        self.asked_at = Some(now);
        // It would promise itself: its own vote needs its deadline to have passed.
        self.promises.insert(self.me.clone(), now);
        let sets = std::iter::once(&lease.set).chain(&self.kept.naming);
        let mut voters: Vec<&Member> = sets.flat_map(|set| &set.voters).filter(|v| **v != self.me).collect();
        voters.sort();
        voters.dedup();
        let lease_millis = u64::try_from(self.terms.lease.as_millis()).unwrap_or(u64::MAX);
        let ask = |voter: &Member| Question {
            node: self.me.host.clone(),
            revision: lease.revision,
            voter: voter.clone(),
            lease_millis: lease_millis.max(lease.set.lease_millis),
        };
        voters.into_iter().map(ask).collect()
    }

    /// A voter promised what was asked of it at `sent`.
    pub fn promised(&mut self, voter: &Member, sent: Duration) {
        let known = self.promises.entry(voter.clone()).or_default();
        *known = (*known).max(sent);
    }

    /// What the node may do.
    pub fn right(&self) -> Right {
        let Some(lease) = self.usable() else { return Right::None };
        let mut sets = std::iter::once(&lease.set).chain(&self.kept.naming);
        if sets.all(|set| set.needs(&self.me)) {
            return Right::Endless;
        }
        match self.granted.max(self.extended(lease)) {
            Some(until) => Right::Until(until),
            None => Right::None,
        }
    }

    /// Whether a majority promised what was asked of it last.
    fn was_promised(&self, lease: &Grant) -> bool {
        let wanted = self.asked_at.map(|asked| asked + self.hold());
        self.extended(lease) >= wanted && wanted.is_some()
    }

    /// Until when promises carry: of a majority of every set that may be the lease's.
    fn extended(&self, lease: &Grant) -> Option<Duration> {
        let sets = std::iter::once(&lease.set).chain(&self.kept.naming);
        let since: Option<Vec<Duration>> = sets.map(|set| set.majority_since(&self.promises)).collect();
        Some(since?.into_iter().min()? + self.hold())
    }

    /// `F`, of the shortest lease that the store or a voter may count with: settings change while nodes run.
    fn hold(&self) -> Duration {
        let sets = self.kept.lease.iter().map(|lease| &lease.set).chain(&self.kept.naming);
        let lease = sets.map(VoterSet::lease).fold(self.terms.lease, Duration::min);
        Terms { lease, ..self.terms }.hold()
    }

    fn usable(&self) -> Option<&Grant> {
        let is_usable = |lease: &&Grant| !self.is_leaving && lease.revision > self.kept.given_up;
        self.kept.lease.as_ref().filter(is_usable)
    }

    fn settle(&mut self, grant: Grant) {
        if self.kept.naming.as_ref().is_some_and(|naming| naming.number <= grant.set.number) {
            self.kept.naming = None;
        }
        self.kept.lease = Some(grant);
    }

    fn grant(&mut self, sent: Duration) {
        self.granted = self.granted.max(Some(sent + self.hold()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(host: &str) -> Member {
        Member { host: host.into(), incarnation: "1".into() }
    }

    fn set(number: u64, hosts: &[&str]) -> VoterSet {
        let voters = hosts.iter().map(|host| member(host)).collect();
        VoterSet { number, voters, tie_breaker: None, lease_millis: 4000 }
    }

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Node `a` in an epoch that began at revision 10 and was asked for at 0 ms.
    fn begun(set: VoterSet) -> Holder {
        let mut holder = Holder::new(member("a"), Terms::LAN, Kept::default(), at(0));
        holder.begun(Grant { revision: 11, epoch: 10, set }, at(0), at(5));
        holder
    }

    fn renewed(holder: &mut Holder, revision: u64, sent: u64, answered: u64) {
        let renewal = holder.renewal(None, at(sent)).expect("it holds a lease");
        holder.acknowledged(&renewal, revision, at(sent), at(answered));
    }

    #[test]
    fn an_answer_counts_from_when_its_request_was_sent() {
        let mut holder = begun(set(1, &["a", "b", "c"]));
        assert_eq!(holder.right(), Right::Until(at(3500)));
        renewed(&mut holder, 12, 1000, 2900);
        assert_eq!(holder.right(), Right::Until(at(4500)));
    }

    #[test]
    fn the_promises_of_a_majority_extend_it_and_the_oldest_that_is_needed_counts() {
        let mut holder = begun(set(1, &["a", "b", "c"]));
        assert_eq!(holder.asks_at(at(1400)), Some(at(1505)), "the store answered at 5 ms");
        assert!(holder.asks(at(1504)).is_empty());
        let asks = holder.asks(at(1600));
        assert_eq!(
            asks.iter().map(|ask| (ask.voter.host.as_str(), ask.revision)).collect::<Vec<_>>(),
            [("b", 11), ("c", 11)]
        );
        assert_eq!(holder.right(), Right::Until(at(3500)));
        assert_eq!(holder.asks_at(at(1700)), Some(at(1850)), "nobody has promised yet");
        assert_eq!(holder.asks(at(1850)).len(), 2);
        holder.promised(&member("b"), at(1600));
        assert_eq!(holder.asks_at(at(1900)), Some(at(2100)), "the promise was asked for before");
        holder.promised(&member("b"), at(1600));
        assert_eq!(holder.right(), Right::Until(at(5100)));
        holder.promised(&member("c"), at(1850));
        assert_eq!(holder.asks_at(at(2000)), Some(at(2850)));
        assert!(holder.asks(at(2000)).is_empty());
        assert_eq!(holder.asks(at(2850)).len(), 2);
        assert_eq!(holder.right(), Right::Until(at(5350)), "asking is not having");
    }

    #[test]
    fn between_naming_a_set_and_the_answer_a_majority_of_both_is_needed() {
        let mut holder = begun(set(1, &["a", "b", "c"]));
        let renewal = holder.renewal(Some(&set(2, &["c", "d", "e"])), at(1000)).expect("it holds a lease");
        assert_eq!(renewal.set.number, 2);
        assert_eq!(holder.asks(at(1600)).len(), 4);
        holder.promised(&member("b"), at(1600));
        assert_eq!(holder.right(), Right::Until(at(3500)));
        holder.promised(&member("d"), at(1600));
        holder.promised(&member("e"), at(1600));
        assert_eq!(holder.right(), Right::Until(at(5100)));
        let again = holder.renewal(Some(&set(3, &["a"])), at(2000)).expect("it holds a lease");
        assert_eq!(again.set.number, 2, "no third set meanwhile");
    }

    #[test]
    fn a_node_that_is_needed_has_no_deadline_until_it_names_a_set_that_can_do_without_it() {
        let mut holder = begun(set(1, &["a"]));
        assert_eq!(holder.right(), Right::Endless);
        let renewal = holder.renewal(Some(&set(2, &["a", "b", "c"])), at(20_000)).expect("it holds a lease");
        assert_eq!(holder.right(), Right::Until(at(23_500)), "before the request leaves");
        assert_eq!(renewal.set.number, 2);
        let mut shrinking = begun(set(1, &["a", "b", "c"]));
        let renewal = shrinking.renewal(Some(&set(2, &["a"])), at(1000)).expect("it holds a lease");
        assert_eq!(shrinking.right(), Right::Until(at(3500)), "not before the answer");
        shrinking.acknowledged(&renewal, 12, at(1000), at(1001));
        assert_eq!(shrinking.right(), Right::Endless);
    }

    #[test]
    fn its_own_vote_sticks_whatever_answers_still_arrive() {
        let mut holder = begun(set(1, &["a"]));
        assert!(!holder.vote(11, at(99_000), false), "a node that is needed still runs");
        let mut holder = begun(set(1, &["a", "b", "c"]));
        assert!(!holder.vote(12, at(3400), false));
        assert!(!holder.vote(12, at(3600), true));
        let sent = holder.renewal(None, at(3000)).expect("it holds a lease");
        assert!(holder.vote(12, at(3600), false));
        holder.acknowledged(&sent, 12, at(3000), at(3700));
        assert_eq!(holder.right(), Right::None);
        renewed(&mut holder, 13, 3800, 3900);
        assert_eq!(holder.right(), Right::Until(at(7300)), "a newer lease is another matter");
    }

    #[test]
    fn a_node_that_leaves_runs_nothing_before_a_new_epoch() {
        let mut holder = begun(set(1, &["a"]));
        let sent = holder.renewal(None, at(1000)).expect("it holds a lease");
        holder.leave(12);
        holder.acknowledged(&sent, 12, at(1000), at(1100));
        assert_eq!((holder.right(), holder.epoch(), holder.asks_at(at(1100))), (Right::None, None, None));
        let later = Holder::new(member("a"), Terms::LAN, holder.kept().clone(), at(1200));
        assert_eq!(later.right(), Right::None, "its next agent does not either");
        holder.lost(10);
        holder.begun(Grant { revision: 20, epoch: 19, set: set(1, &["a"]) }, at(5000), at(5001));
        assert_eq!((holder.right(), holder.epoch()), (Right::Endless, Some(19)));
    }

    #[test]
    fn a_fenced_node_asks_once_in_three_leases() {
        let mut holder = begun(set(1, &["a", "b", "c"]));
        assert_eq!(holder.asks(at(3600)).len(), 2);
        assert!(holder.asks(at(15_000)).is_empty());
        assert_eq!(holder.asks(at(15_600)).len(), 2);
    }

    #[test]
    fn a_new_agent_goes_on_with_what_was_kept_and_no_more() {
        let mut earlier = begun(set(1, &["a", "b", "c"]));
        let sent = earlier.renewal(Some(&set(2, &["c", "d", "e"])), at(1000)).expect("it holds a lease");
        let mut holder = Holder::new(member("a"), Terms::LAN, earlier.kept().clone(), at(2000));
        assert_eq!(holder.right(), Right::None, "the monitors keep their deadline");
        assert_eq!(holder.renewal(None, at(2000)), Some(sent), "it cannot know whether that was committed");
        holder.shown(Grant { revision: 12, epoch: 10, set: set(2, &["c", "d", "e"]) });
        assert_eq!(holder.renewal(None, at(2100)).map(|renewal| renewal.replaces), Some(12));
        assert_eq!(holder.right(), Right::None, "to see it is no answer");
        renewed(&mut holder, 13, 2200, 2210);
        assert_eq!(holder.right(), Right::Until(at(5700)));
    }
}
