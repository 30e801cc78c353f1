//! Every scenario in the folder ends as it says, and always in the same way.

use std::path::PathBuf;

use sim::scenario;

fn files() -> Vec<PathBuf> {
    scenario::files(&sim::scenarios_dir()).expect("the folder of the scenarios is there")
}

#[test]
fn every_scenario_ends_as_it_says() {
    let mut failed = Vec::new();
    for file in files() {
        match scenario::run_file(&file, false) {
            Ok(outcome) if outcome.faults.is_empty() => {}
            Ok(outcome) => failed.push(format!("{}\n  {}", file.display(), outcome.faults.join("\n  "))),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    let how =
        "look at one with `cargo xtask sim --scenario FILE --timeline`, accept timelines with `--accept`";
    assert!(failed.is_empty(), "{} failed; {how}\n{}", failed.len(), failed.join("\n"));
}
