//! The project's own chores.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;

mod bench;
mod checks;
mod table;
mod tidy;

#[derive(Debug, Parser)]
#[command(about = "The project's own chores")]
enum Command {
    /// Run every check and every test, the real ones included (as root).
    Test,
    /// Check the walls of the house: who uses whom, and what no file may hold.
    Tidy,
    /// Measure speed and size of the release binary (as root) and write docs/bench.md.
    Bench(bench::Args),
    /// Make the schema table of built-in types from the published facts of Kubernetes.
    Table(table::Args),
}

fn main() -> Result<()> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let root = root.parent().context("xtask lies in the project's folder")?;
    match Command::parse() {
        Command::Test => checks::test(root),
        Command::Tidy => tidy::run(root),
        Command::Bench(args) => bench::run(root, &args),
        Command::Table(args) => table::run(&args),
    }
}
