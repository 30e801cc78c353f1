//! Sets of voters: numbered, and never changed once written.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How many voters a set has at most: four answers of seven suffice, and more would only make asking slower.
pub const MEMBERS_MAX: usize = 7;

/// A host that votes. One whose disk was lost is another, though it has the same name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// The node's name.
    pub host: String,
    /// Which life of its disk.
    pub incarnation: String,
}

/// The voters of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VoterSet {
    /// Newer sets have larger numbers; 0: nobody but the node itself.
    pub number: u64,
    /// Who votes.
    pub voters: Vec<Member>,
    /// In an even set: the voter that counts one and a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tie_breaker: Option<String>,
    /// `T` of the leases that name this set, in milliseconds.
    pub lease_millis: u64,
}

/// What is stored of a set, under its number as a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBody {
    /// The set.
    pub spec: VoterSet,
}

impl VoterSet {
    /// The set of a node that nobody else has a say about.
    pub fn alone(member: Member, lease: Duration) -> Self {
        let lease_millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        Self { number: 0, voters: vec![member], tie_breaker: None, lease_millis }
    }

    /// `T`.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_millis)
    }

    /// Whether those who agree are a strict majority.
    pub fn majority(&self, mut agrees: impl FnMut(&Member) -> bool) -> bool {
        let all: u32 = self.voters.iter().map(|voter| self.weight(voter)).sum();
        let yes: u32 = self.voters.iter().filter(|voter| agrees(voter)).map(|voter| self.weight(voter)).sum();
        yes * 2 > all
    }

    /// Whether no majority can be had without this voter.
    pub fn needs(&self, member: &Member) -> bool {
        self.voters.contains(member) && !self.majority(|voter| voter != member)
    }

    /// The latest time such that the answers to what was asked then or later are a majority.
    pub fn majority_since(&self, since: &BTreeMap<Member, Duration>) -> Option<Duration> {
        let mut times: Vec<Duration> =
            self.voters.iter().filter_map(|voter| since.get(voter).copied()).collect();
        times.sort_unstable_by(|a, b| b.cmp(a));
        times.into_iter().find(|time| self.majority(|voter| since.get(voter).is_some_and(|at| at >= time)))
    }

    /// Whether the same hosts vote with the same weights.
    pub fn is_like(&self, other: &Self) -> bool {
        self.voters == other.voters
            && self.tie_breaker == other.tie_breaker
            && self.lease_millis == other.lease_millis
    }

    fn weight(&self, voter: &Member) -> u32 {
        let breaks = self.voters.len().is_multiple_of(2) && self.tie_breaker.as_ref() == Some(&voter.host);
        if breaks { 3 } else { 2 }
    }
}

/// Who should vote: the hosts of servers first, then other nodes that are heard of, spread over zones.
///
/// `others` are nodes with their zones. Nodes that are silent are to be left out, so that majorities do not wither.
pub fn choose(servers: &[Member], others: &[(Member, String)], number: u64, lease: Duration) -> VoterSet {
    let mut voters: Vec<Member> = servers.iter().take(MEMBERS_MAX).cloned().collect();
    voters.sort();
    let tie_breaker = voters.first().map(|first| first.host.clone());
    let mut left: Vec<&(Member, String)> =
        others.iter().filter(|(member, _)| !voters.iter().any(|voter| voter.host == member.host)).collect();
    left.sort();
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    while voters.len() < MEMBERS_MAX && !left.is_empty() {
        let fewest = |&(at, (_, zone)): &(usize, &&(Member, String))| {
            (taken.get(zone.as_str()).copied().unwrap_or(0), at)
        };
        let Some(at) = left.iter().enumerate().min_by_key(fewest).map(|(at, _)| at) else { break };
        let (member, zone) = left.remove(at);
        *taken.entry(zone).or_default() += 1;
        voters.push(member.clone());
    }
    voters.sort();
    let tie_breaker = voters
        .len()
        .is_multiple_of(2)
        .then(|| tie_breaker.or(voters.first().map(|v| v.host.clone())))
        .flatten();
    let lease_millis = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    VoterSet { number, voters, tie_breaker, lease_millis }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(host: &str) -> Member {
        Member { host: host.into(), incarnation: "1".into() }
    }

    fn set(hosts: &[&str], tie_breaker: Option<&str>) -> VoterSet {
        let voters = hosts.iter().map(|host| member(host)).collect();
        VoterSet { number: 1, voters, tie_breaker: tie_breaker.map(str::to_owned), lease_millis: 4000 }
    }

    #[test]
    fn a_majority_is_more_than_half_and_a_tie_breaker_counts_one_and_a_half() {
        let check = |set: &VoterSet, yes: &[&str], wanted: bool| {
            assert_eq!(set.majority(|voter| yes.contains(&voter.host.as_str())), wanted, "{set:?} {yes:?}");
        };
        check(&set(&["a"], None), &[], false);
        check(&set(&["a"], None), &["a"], true);
        let two = set(&["a", "b"], Some("a"));
        check(&two, &["a"], true);
        check(&two, &["b"], false);
        check(&set(&["a", "b"], None), &["a"], false);
        let three = set(&["a", "b", "c"], Some("a"));
        check(&three, &["a"], false);
        check(&three, &["b", "c"], true);
        let four = set(&["a", "b", "c", "d"], Some("a"));
        check(&four, &["a", "b"], true);
        check(&four, &["c", "d"], false);
        check(&four, &["b", "c", "d"], true);
        assert!(two.needs(&member("a")) && !two.needs(&member("b")));
        assert!(!three.needs(&member("a")) && set(&["a"], None).needs(&member("a")));
    }

    #[test]
    fn another_life_of_a_host_is_no_voter() {
        let wiped = Member { incarnation: "2".into(), ..member("a") };
        assert!(!set(&["a"], None).majority(|voter| *voter == wiped));
        assert!(!set(&["a"], None).needs(&wiped));
    }

    #[test]
    fn the_oldest_answer_of_the_newest_majority_counts() {
        let at = |host: &str, seconds| (member(host), Duration::from_secs(seconds));
        let three = set(&["a", "b", "c"], None);
        let check = |times: &[(&str, u64)], wanted: Option<u64>| {
            let times = times.iter().map(|(host, seconds)| at(host, *seconds)).collect();
            assert_eq!(three.majority_since(&times), wanted.map(Duration::from_secs));
        };
        check(&[("a", 5)], None);
        check(&[("a", 5), ("b", 3)], Some(3));
        check(&[("a", 5), ("b", 3), ("c", 4)], Some(4));
        check(&[("a", 5), ("d", 9)], None);
    }

    #[test]
    fn servers_vote_first_and_zones_are_spread() {
        let others: Vec<_> = (0..9).map(|n| (member(&format!("n{n}")), format!("z{}", n / 3))).collect();
        let chosen = choose(&[member("s")], &others, 3, Duration::from_secs(4));
        let hosts: Vec<&str> = chosen.voters.iter().map(|voter| voter.host.as_str()).collect();
        assert_eq!(hosts, ["n0", "n1", "n3", "n4", "n6", "n7", "s"]);
        assert_eq!(chosen.tie_breaker, None);
        let two = choose(&[member("s")], &others[..1], 4, Duration::from_secs(4));
        assert_eq!(two.tie_breaker.as_deref(), Some("s"));
    }
}
