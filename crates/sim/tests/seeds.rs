//! Random workloads under random faults: the laws hold, and the cluster gets there.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Mutex;

use sim::scenario::Outcome;
use sim::{crew, seeds};

/// How many seeds each run of the tests tries. `cargo xtask sim --seeds N` and `--endless` try more.
const SEEDS: u64 = 200;

/// Seeds beyond those that each run tries, and that have once found a flaw: a volume that waited for itself, a node that
/// nobody could write off, a pod moved late, restarts forgotten.
const ONCE_FAILED: [u64; 8] = [1104, 2332, 2335, 6155, 6965, 7499, 8135, 8665];

/// How many that try the fence alone.
const FENCE_SEEDS: u64 = 40;

/// Those beyond them that have once failed: a container that was removed as it started again was told of for ever.
const FENCE_ONCE_FAILED: [u64; 2] = [149, 516];

/// The faults of the world, as they are counted where they take place.
const FAULTS: [&str; 28] = [
    "Node deleted",
    "agent killed",
    "agent paused",
    "answer lost",
    "clocks drift",
    "container ended",
    "container unready",
    "disk full",
    "disk lost",
    "kernel out of sorts",
    "line cut both ways",
    "line cut inwards",
    "line cut outwards",
    "machine came",
    "machine left",
    "machine paused",
    "message delayed",
    "message held up by a cut inwards",
    "message held up by a cut outwards",
    "message late",
    "message repeated",
    "monitor lost",
    "power cut",
    "request lost",
    "server crashed",
    "server paused",
    "server restarted",
    "two leaders",
];

#[test]
fn the_laws_hold_and_the_cluster_gets_there_whatever_the_seed() {
    let happened = Mutex::new(BTreeSet::new());
    let seeds: Vec<u64> = (0..SEEDS).chain(ONCE_FAILED).collect();
    let failed = failures(&seeds, "", seeds::run, |outcome| {
        happened.lock().expect("no other seed panicked").extend(outcome.happened.into_keys());
    });
    assert!(failed.is_empty(), "{} of {} seeds failed\n{}", failed.len(), seeds.len(), failed.join("\n"));
    let happened = happened.into_inner().expect("no seed panicked");
    let unseen: Vec<&str> = FAULTS.into_iter().filter(|fault| !happened.contains(fault)).collect();
    assert!(unseen.is_empty(), "no seed had a {unseen:?}");
}

#[test]
fn the_fence_holds_on_nodes_that_lose_each_other_die_and_come_back() {
    let seeds: Vec<u64> = (0..FENCE_SEEDS).chain(FENCE_ONCE_FAILED).collect();
    let failed = failures(&seeds, " --fence", seeds::run_fence, drop);
    assert!(failed.is_empty(), "{} of {} seeds failed\n{}", failed.len(), seeds.len(), failed.join("\n"));
}

/// What these seeds break, each with how to look at it; `heed` has the outcomes.
fn failures(
    of: &[u64],
    how: &str,
    run: fn(u64) -> anyhow::Result<Outcome>,
    heed: impl Fn(Outcome) + Sync,
) -> Vec<String> {
    let failed = Mutex::new(Vec::new());
    crew::each(0..of.len() as u64, crew::threads(), |at| {
        let seed = of[at as usize];
        let ran = run(seed);
        let faults = match ran {
            Ok(mut outcome) => {
                let faults = std::mem::take(&mut outcome.faults);
                heed(outcome);
                faults
            }
            Err(error) => vec![format!("{error:#}")],
        };
        if !faults.is_empty() {
            let replay = format!("replay with `cargo xtask sim{how} --seed {seed} --timeline`");
            let told = format!("seed {seed}: {replay}\n  {}", faults.join("\n  "));
            failed.lock().expect("no other seed panicked").push(told);
        }
        ControlFlow::Continue(())
    });
    failed.into_inner().expect("no seed panicked")
}
