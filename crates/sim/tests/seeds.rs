//! Random workloads under random faults: the laws hold, and the cluster gets there.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::seeds;

/// How many seeds each run of the tests tries, one after the other: about two minutes of a debug build. `cargo xtask sim
/// --seeds N` and `--endless` try more.
const SEEDS: u64 = 40;

#[test]
fn the_laws_hold_and_the_cluster_gets_there_whatever_the_seed() {
    let next = AtomicU64::new(0);
    let failed = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS {
                return;
            }
            let faults = match seeds::run(seed) {
                Ok(outcome) => outcome.faults,
                Err(error) => vec![format!("{error:#}")],
            };
            if !faults.is_empty() {
                let replay = format!("replay with `cargo xtask sim --seed {seed} --timeline`");
                failed
                    .lock()
                    .expect("no other seed panicked")
                    .push(format!("seed {seed}: {replay}\n  {}", faults.join("\n  ")));
            }
        }
    };
    work();
    let failed = failed.into_inner().expect("no seed panicked");
    assert!(failed.is_empty(), "{} of {SEEDS} seeds failed\n{}", failed.len(), failed.join("\n"));
}
