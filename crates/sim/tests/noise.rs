//! Noise is no fault: lost and late messages and short pauses move nothing, end nothing, and empty no Service.

use std::time::Duration;

use sim::seeds;

/// How long each run of the tests is noisy; `cargo xtask sim --noise` is for a day.
const LASTS: Duration = Duration::from_secs(6 * 60);

#[test]
fn nothing_comes_of_noise() {
    let outcome = seeds::noise::run(0, LASTS).expect("a run");
    assert!(outcome.faults.is_empty(), "{}", outcome.faults.join("\n"));
    for what in
        ["request lost", "answer lost", "message delayed", "agent paused", "machine paused", "server paused"]
    {
        assert!(outcome.happened.contains_key(what), "no {what}: {:?}", outcome.happened);
    }
}
