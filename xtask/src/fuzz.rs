//! `fuzz`: throws garbage at everything that reads bytes of strangers, for longer than a run of the tests does.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// What to throw at, and for how long.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this target (json, yaml, protobuf, patch, selector, request, accept, x509, token, cel, spdy); all unless given
    target: Option<String>,
    /// How long each is tried, in seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Try this seed alone: one that failed
    #[arg(long)]
    seed: Option<u64>,
}

/// Builds optimized with overflow checks, and runs.
pub fn run(root: &Path, args: &Args) -> Result<()> {
    // Each run begins elsewhere.
    let first = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_nanos();
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--quiet", "--package", "kintsugi", "--test", "fuzz", "--"]);
    cargo.args(&args.target).arg("--nocapture").current_dir(root);
    cargo.env("CARGO_PROFILE_TEST_OPT_LEVEL", "2");
    cargo.env("KINTSUGI_FUZZ_SECONDS", args.seconds.to_string());
    cargo.env("KINTSUGI_FUZZ_FIRST", (first as u64 >> 8).to_string());
    if let Some(seed) = args.seed {
        cargo.env("KINTSUGI_FUZZ_SEED", seed.to_string());
    }
    if !cargo.status().context("cannot run cargo")?.success() {
        bail!("something fails: the seed that is told above shows it again with --seed");
    }
    Ok(())
}
