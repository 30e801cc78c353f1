//! `bench`: builds the release binary and measures what the project promises; the measuring itself is the bench
//! `promises` of the binary's crate, so that it runs optimized.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What to measure.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these parts (size, start, thirty, heal, nodes, idle, load, watch, api); all unless given, and then docs/bench.md is written
    parts: Vec<String>,
    /// Measure the API of the cluster of this kubeconfig instead (the parts `load`, `watch` and `api`)
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// How often a node, and an agent, is killed (the part `nodes`); 30 unless given
    #[arg(long, value_name = "N")]
    runs: Option<u32>,
    /// For how many seconds the server is away (the part `nodes`); 60 unless given
    #[arg(long, value_name = "SECONDS")]
    away: Option<u64>,
}

/// Builds and measures.
pub fn run(root: &Path, args: &Args) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args(["bench", "--quiet", "--package", "kintsugi", "--bench", "promises", "--"]);
    command.args(&args.parts).current_dir(root);
    if let Some(file) = &args.kubeconfig {
        // The bench runs in a folder of its own.
        let file = file.canonicalize().with_context(|| format!("cannot find {}", file.display()))?;
        command.arg("--kubeconfig").arg(file);
    }
    if let Some(runs) = args.runs {
        command.arg("--runs").arg(runs.to_string());
    }
    if let Some(away) = args.away {
        command.arg("--away").arg(away.to_string());
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("the bench failed");
    }
    Ok(())
}
