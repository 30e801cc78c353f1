//! The project's own chores.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

mod bench;
mod checks;
mod clients;
mod fuzz;
mod sim;
mod table;
mod tidy;

#[derive(Debug, Parser)]
#[command(about = "The project's own chores")]
enum Command {
    /// Run every check and every test, the real ones included (as root).
    Test,
    /// Bring the Python and JavaScript clients with which the real tests drive a cluster, into the target folder.
    Clients,
    /// Check the walls of the house: who uses whom, and what no file may hold.
    Tidy,
    /// Measure speed and size of the release binary (as root) and write docs/bench.md.
    Bench(bench::Args),
    /// Throw garbage at everything that reads bytes of strangers.
    Fuzz(fuzz::Args),
    /// Run simulated clusters: all scenarios, or what `--seed N`, `--seeds N`, `--endless`, `--scenario FILE` say;
    /// `--timeline` shows what happened, `--accept` makes it the timeline of the scenarios.
    Sim(sim::Args),
    /// Make the schema table of built-in types from the published facts of Kubernetes.
    Table(table::Args),
}

fn main() -> Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = root.parent().context("xtask lies in the project's folder")?;
    match Command::parse() {
        Command::Test => checks::test(root),
        Command::Clients => clients::run(root),
        Command::Tidy => tidy::run(root),
        Command::Bench(args) => bench::run(root, &args),
        Command::Fuzz(args) => fuzz::run(root, &args),
        Command::Sim(args) => sim::run(root, &args),
        Command::Table(args) => table::run(&args),
    }
}
