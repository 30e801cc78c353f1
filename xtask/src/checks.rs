//! `test` and `ci`: everything that a change has to pass, in the order in which it fails fastest.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tidy;

/// Runs all of it: format, walls, lints, then every test; the real ones need root and `kubectl`.
pub fn test(root: &Path) -> Result<()> {
    step(root, "format", &["fmt", "--all", "--check"])?;
    tidy::run(root).context("tidy")?;
    step(root, "lints", &["clippy", "--workspace", "--quiet", "--", "-D", "warnings"])?;
    step(root, "tests", &["test", "--workspace", "--no-fail-fast"])
}

fn step(root: &Path, name: &str, args: &[&str]) -> Result<()> {
    let status = Command::new("cargo").args(args).current_dir(root).status();
    let status = status.with_context(|| format!("{name}: cannot run cargo"))?;
    if !status.success() {
        bail!("{name}: cargo {} failed", args.join(" "));
    }
    Ok(())
}
