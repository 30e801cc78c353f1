//! Random workloads under random faults: the laws hold, and the cluster gets there.

use std::ops::ControlFlow;
use std::sync::Mutex;

use sim::{crew, seeds};

/// How many seeds each run of the tests tries. `cargo xtask sim --seeds N` and `--endless` try more.
const SEEDS: u64 = 200;

#[test]
fn the_laws_hold_and_the_cluster_gets_there_whatever_the_seed() {
    let failed = Mutex::new(Vec::new());
    seeds::run_all(0..SEEDS, crew::threads(), |seed, ran| {
        let faults = ran.map_or_else(|error| vec![format!("{error:#}")], |outcome| outcome.faults);
        if !faults.is_empty() {
            let replay = format!("replay with `cargo xtask sim --seed {seed} --timeline`");
            let told = format!("seed {seed}: {replay}\n  {}", faults.join("\n  "));
            failed.lock().expect("no other seed panicked").push(told);
        }
        ControlFlow::Continue(())
    });
    let failed = failed.into_inner().expect("no seed panicked");
    assert!(failed.is_empty(), "{} of {SEEDS} seeds failed\n{}", failed.len(), failed.join("\n"));
}
