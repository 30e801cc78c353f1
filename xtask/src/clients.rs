//! `clients`: brings the client libraries of other languages with which the real tests drive a cluster.
//!
//! They come from the languages' own registries into `target/clients`; nothing of them is kept in the project.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The Python client, at least that of the API's version.
const PYTHON: &str = "kubernetes>=36";
/// The JavaScript client; the first version that also runs on Debian 12's Node.js.
const JAVASCRIPT: &str = "@kubernetes/client-node@1";

/// Brings both; needs `python3` with its `venv`, and `node` with `npm`.
pub fn run(root: &Path) -> Result<()> {
    let folder = root.join("target/clients");
    std::fs::create_dir_all(folder.join("bin")).context("target/clients")?;
    if !folder.join("venv/bin/python").exists() {
        tool(&folder, "python3", &["-m", "venv", "venv"])?;
    }
    tool(&folder, "venv/bin/python", &["-m", "pip", "install", "--quiet", PYTHON])?;
    tool(&folder, "npm", &["install", "--silent", "--no-save", "--prefix", ".", JAVASCRIPT])?;
    link_node(&folder)
}

/// Marks that JavaScript is ready: the tests look for its interpreter in the folder.
fn link_node(folder: &Path) -> Result<()> {
    let path = std::env::var_os("PATH").context("no PATH")?;
    let node = std::env::split_paths(&path).map(|dir| dir.join("node")).find(|node| node.exists());
    let link = folder.join("bin/node");
    if link.symlink_metadata().is_err() {
        std::os::unix::fs::symlink(node.context("node is not installed")?, &link)
            .context("target/clients/bin/node")?;
    }
    Ok(())
}

fn tool(folder: &Path, program: &str, args: &[&str]) -> Result<()> {
    let program = if program.contains('/') { folder.join(program) } else { program.into() };
    let status = Command::new(&program).args(args).current_dir(folder).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    if !status.success() {
        bail!("{} {} failed", program.display(), args.join(" "));
    }
    Ok(())
}
