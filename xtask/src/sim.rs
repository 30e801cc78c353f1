//! `sim`: runs simulated clusters for whoever looks into one of them; what is asked for is handed on.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args as Arguments;

/// What is handed on: `--seed N`, `--seeds N`, `--fence`, `--endless`, `--scenario FILE`, `--accept`, `--timeline`, `--log FILTER`.
#[derive(Debug, Arguments)]
pub struct Args {
    /// Arguments of the simulator; `--help` after `--` shows them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Builds the simulator and runs it.
pub fn run(root: &Path, args: &Args) -> Result<()> {
    let mut cargo = Command::new("cargo");
    // An optimised build is soon worth its while where there is much to run.
    let is_much = args.rest.iter().any(|word| word == "--endless" || word.starts_with("--seeds"));
    let profile = if is_much { "seeds" } else { "dev" };
    cargo
        .args(["run", "--quiet", "--profile", profile, "--package", "sim", "--bin", "sim", "--"])
        .args(&args.rest)
        .current_dir(root);
    if !cargo.status().context("cannot run cargo")?.success() {
        bail!("a simulated cluster did not do as it should");
    }
    Ok(())
}
