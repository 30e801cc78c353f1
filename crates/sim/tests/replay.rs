//! A seed replays byte for byte, whatever else runs in the process.

use std::ops::ControlFlow;
use std::sync::Mutex;

use sim::seeds;

/// The seeds that are replayed.
const SEEDS: std::ops::Range<u64> = 0..8;

/// Threads that simulate at once: more than cores, so that they stop each other in odd places.
const THREADS: usize = 4;

#[test]
fn the_same_seed_gives_the_same_timeline_byte_for_byte_alone_and_among_others() {
    let among_others = Mutex::new(Vec::new());
    seeds::run_all(SEEDS, THREADS, seeds::run, |seed, ran| {
        let timeline = ran.expect("a run").timeline;
        among_others.lock().expect("no other seed panicked").push((seed, timeline));
        ControlFlow::Continue(())
    });
    for (seed, timeline) in among_others.into_inner().expect("no seed panicked") {
        let alone = seeds::run(seed).expect("a run").timeline;
        assert!(!alone.is_empty());
        let parts = alone.lines().zip(timeline.lines()).find(|(alone, among)| alone != among);
        assert_eq!(alone, timeline, "seed {seed} parts at {parts:?}");
    }
}
