//! Tests of the tests: a world that is broken on purpose breaks the law that is meant for it, in some seed.

use std::ops::ControlFlow;
use std::sync::Mutex;

use sim::flaw::Flaw;
use sim::mutation::Mutation;
use sim::{crew, seeds};

/// How many seeds may pass until a flaw is found.
const SEEDS_MAX: u64 = 8;

#[test]
fn every_flaw_of_the_world_breaks_its_law() {
    let unseen = Mutex::new(Vec::new());
    crew::each(0..Flaw::ALL.len() as u64, crew::threads(), |at| {
        let (flaw, law) = Flaw::ALL[at as usize];
        let first = promising(flaw);
        let is_found = |seed| matches!(seeds::finds(seed, flaw, law), Ok(Some(_)));
        if !(first..first + SEEDS_MAX).any(is_found) {
            unseen.lock().expect("no other flaw panicked").push((flaw, law));
        }
        ControlFlow::Continue(())
    });
    let unseen = unseen.into_inner().expect("no flaw panicked");
    assert!(unseen.is_empty(), "not found within {SEEDS_MAX} seeds: {unseen:?}");
}

/// Rules of the fence without which whole clusters break its laws, and a seed that has shown it. The walks of `model/tests/fence`
/// find every rule out, these and the others.
const FENCE: [(Mutation, u64); 11] = [
    (Mutation::NoVotes, 1),
    (Mutation::NoMargin, 1),
    (Mutation::ShortMargin, 120),
    (Mutation::PromisesForgotten, 289),
    (Mutation::NoCounting, 9),
    (Mutation::LoneKeepsNone, 1),
    (Mutation::LoneVotesRunning, 15),
    (Mutation::AnswerBeforeCommit, 3),
    (Mutation::EpochReused, 0),
    (Mutation::AgentLooksAtDeadline, 0),
    (Mutation::DeletionIsProof, 9),
];

#[test]
fn whole_clusters_with_a_wrong_rule_of_the_fence_break_its_laws() {
    let unseen = Mutex::new(Vec::new());
    crew::each(0..FENCE.len() as u64, crew::threads(), |at| {
        let (mutation, first) = FENCE[at as usize];
        let is_found = |seed| matches!(seeds::finds_in_fence(seed, mutation), Ok(Some(_)));
        if !(first..first + SEEDS_MAX).any(is_found) {
            unseen.lock().expect("no other rule panicked").push(mutation);
        }
        ControlFlow::Continue(())
    });
    let unseen = unseen.into_inner().expect("no rule panicked");
    assert!(unseen.is_empty(), "not found within {SEEDS_MAX} seeds: {unseen:?}");
}

/// A seed that has found the flaw. Should what seeds do change, those after it are tried, too.
fn promising(flaw: Flaw) -> u64 {
    match flaw {
        Flaw::ProcessesStay => 1,
        Flaw::Revives => 2,
        Flaw::RulesStale | Flaw::Fidgets => 3,
        Flaw::Undeletes => 8,
        _ => 0,
    }
}
