//! Rules wired wrongly, one at a time.

/// A rule that is left out or wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The takeover asks nobody.
    NoVotes,
    /// Servers and voters count no longer than the node.
    NoMargin,
    /// They count a tenth of a second less than they must.
    ShortMargin,
    /// The node counts its lease from the answer.
    LeaseFromReceipt,
    /// The node counts a promise from the answer.
    PromiseFromReceipt,
    /// A voter's new agent votes at once.
    PromisesForgotten,
    /// A voter's new agent knows no votes.
    VotesForgotten,
    /// A vote does not bar later promises.
    VoteBarsNothing,
    /// The takeover names no revision.
    TakeoverNamesNothing,
    /// The server does not count, votes alone suffice.
    NoCounting,
    /// To be reachable by a majority suffices.
    Reachability,
    /// The server counts today's members.
    TodaysMembers,
    /// One set suffices while another is asked for.
    OneSetDuringChange,
    /// Renewals do not name the revision that they replace.
    RenewalsNameNothing,
    /// A voter is known by its name alone.
    VotersByName,
    /// Each side believes in another tie-breaker.
    OwnTieBreaker,
    /// A lone node keeps no deadline while it asks for a larger set.
    LoneKeepsNone,
    /// A lone node votes against itself while it runs.
    LoneVotesRunning,
    /// The server answers before the commit.
    AnswerBeforeCommit,
    /// A node asks with a revision that is not acknowledged.
    AskNamesUnacknowledged,
    /// A node forgets that it voted against itself.
    OwnVoteForgotten,
    /// A binding names no epoch.
    BindingNamesNoEpoch,
    /// An epoch is a counter that starts anew.
    EpochReused,
    /// The agent, not the monitor, looks at the deadline.
    AgentLooksAtDeadline,
    /// A new agent starts from whatever it sees.
    OldView,
    /// To delete the Node ends the lease.
    DeletionIsProof,
    /// "It has ended" names no uid.
    EndedNamesNoUid,
    /// A release names no revision.
    ReleaseNamesNothing,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 28] = [
        Mutation::NoVotes,
        Mutation::NoMargin,
        Mutation::ShortMargin,
        Mutation::LeaseFromReceipt,
        Mutation::PromiseFromReceipt,
        Mutation::PromisesForgotten,
        Mutation::VotesForgotten,
        Mutation::VoteBarsNothing,
        Mutation::TakeoverNamesNothing,
        Mutation::NoCounting,
        Mutation::Reachability,
        Mutation::TodaysMembers,
        Mutation::OneSetDuringChange,
        Mutation::RenewalsNameNothing,
        Mutation::VotersByName,
        Mutation::OwnTieBreaker,
        Mutation::LoneKeepsNone,
        Mutation::LoneVotesRunning,
        Mutation::AnswerBeforeCommit,
        Mutation::AskNamesUnacknowledged,
        Mutation::OwnVoteForgotten,
        Mutation::BindingNamesNoEpoch,
        Mutation::EpochReused,
        Mutation::AgentLooksAtDeadline,
        Mutation::OldView,
        Mutation::DeletionIsProof,
        Mutation::EndedNamesNoUid,
        Mutation::ReleaseNamesNothing,
    ];
}
