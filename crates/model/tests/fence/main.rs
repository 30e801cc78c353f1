//! The lease and the fence under faults: the real role machines in a world of late, lost and repeated messages, drifting
//! clocks, restarts, wiped disks and changing sets.
//!
//! A walk draws what happens next, step by step. The laws: what is lost runs no more, and a pod never runs on two nodes.
//! Every rule is needed: each mutation, a rule wired wrongly, breaks a law in some walk.

mod mutation;
mod world;

use mutation::Mutation;
use world::World;

/// Steps of a walk: a lease is lost and begun anew several times.
const STEPS: usize = 400;
/// Walks of the rules as they are in each run of the tests.
const WALKS: u64 = 3_000;
/// Walks until a mutation counts as not caught.
const WALKS_MAX: u64 = 40_000;

fn walk(seed: u64, mutation: Option<Mutation>) -> Result<u64, String> {
    let mut world = World::new(seed, mutation, false);
    for _ in 0..STEPS {
        world.step();
        world.check()?;
    }
    Ok(world.takeovers)
}

/// What happened in a walk until a law was broken.
fn story(seed: u64) -> String {
    let mut world = World::new(seed, None, true);
    for _ in 0..STEPS {
        world.step();
        if world.check().is_err() {
            break;
        }
    }
    world.story()
}

#[test]
fn what_is_lost_runs_no_more_and_nothing_runs_twice() {
    let mut takeovers = 0;
    for seed in 0..WALKS {
        match walk(seed, None) {
            Ok(count) => takeovers += count,
            Err(fault) => panic!("walk {seed}: {fault}\n{}", story(seed)),
        }
    }
    assert!(takeovers > WALKS / 4, "only {takeovers} takeovers in {WALKS} walks: the walks try nothing");
}

#[test]
fn every_rule_is_needed() {
    let missed: Vec<String> = Mutation::ALL
        .iter()
        .filter_map(|mutation| {
            let caught = (0..WALKS_MAX).find(|seed| walk(*seed, Some(*mutation)).is_err());
            if let Some(seed) = caught {
                eprintln!("{mutation:?}: caught by walk {seed}");
            }
            caught.is_none().then(|| format!("{mutation:?}"))
        })
        .collect();
    assert!(missed.is_empty(), "not caught: {}", missed.join(", "));
}
