//! The project's own chores.

use anyhow::Result;
use clap::Parser;

mod table;

#[derive(Debug, Parser)]
#[command(about = "The project's own chores")]
enum Command {
    /// Make the schema table of built-in types from the published facts of Kubernetes.
    Table(table::Args),
}

fn main() -> Result<()> {
    match Command::parse() {
        Command::Table(args) => table::run(&args),
    }
}
