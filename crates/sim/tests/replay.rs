//! A seed replays byte for byte. In a process of its own: a replay is one simulated cluster at a time.

use sim::seeds;

#[test]
fn the_same_seed_gives_the_same_timeline_byte_for_byte() {
    for seed in [3, 14, 15] {
        let run = || seeds::run(seed).expect("a run");
        let (first, second) = (run(), run());
        assert!(!first.timeline.is_empty());
        assert_eq!(first.timeline, second.timeline, "seed {seed}");
    }
}
