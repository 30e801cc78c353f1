//! The walls of the house, checked: who may use whom, and what no file may hold.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Which crates of ours each crate may use. A new edge is an architectural decision: change it here on purpose.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("host", &[]),
    ("cel", &["model"]),
    ("store", &["host"]),
    ("client", &["host", "model"]),
    ("controllers", &["model"]),
    ("scheduler", &["model"]),
    ("runtime", &["host", "model"]),
    ("network", &["host", "model"]),
    ("api", &["cel", "host", "model", "store"]),
    ("etcd", &["client", "host", "store"]),
    ("engine", &["client", "controllers", "host", "model", "scheduler"]),
    ("kubelet", &["client", "host", "model", "network", "runtime"]),
];

/// The crates that wire the others together and may use them all.
const WIRING: &[&str] = &["kintsugi", "sim", "xtask"];

/// Clocks, chance, spawning and the environment: words that only `host` and the wiring may say in code.
const FORBIDDEN: &[&str] = &[
    "SystemTime::now",
    "Instant::now",
    "Timestamp::now",
    "thread::sleep",
    "tokio::spawn",
    "env::var",
    "rand::rng",
    "todo!(",
    "unimplemented!(",
    "dbg!(",
];

/// Files that may say a forbidden word, and why.
const EXCUSED: &[(&str, &str)] = &[
    ("crates/host/", "the window itself"),
    ("crates/kintsugi/", "wiring"),
    ("xtask/", "chores"),
    (
        "crates/runtime/src/kernel/spawn.rs",
        "waits for the kernel to let go of a group, off the async threads",
    ),
    ("crates/runtime/src/monitor/", "a process of its own, without tokio or a host"),
];

/// Lines beyond which a file has to say why it is long.
const FILE_LINES_MAX: usize = 800;

/// Checks all of it and tells every fault.
pub fn run(root: &Path) -> Result<()> {
    let mut faults = edges(root)?;
    for file in sources(root)? {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file).display().to_string();
        faults.extend(file_faults(&name, &text));
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!("{} faults:\n{}", faults.len(), faults.join("\n"))
}

fn edges(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root)
        .output()
        .context("cannot run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata gave no JSON")?;
    let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
    let ours: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut faults = Vec::new();
    for package in &packages {
        let name = package["name"].as_str().unwrap_or_default();
        if WIRING.contains(&name) {
            continue;
        }
        let Some(may) = allowed.get(name) else {
            faults.push(format!("{name}: a crate that the list of edges does not know"));
            continue;
        };
        let uses = package["dependencies"].as_array().into_iter().flatten();
        let uses = uses.filter(|used| used["kind"].is_null()).filter_map(|used| used["name"].as_str());
        for used in uses.filter(|used| ours.contains(used) && !may.contains(used)) {
            faults.push(format!("{name} uses {used}: not an edge of the house"));
        }
    }
    Ok(faults)
}

fn file_faults(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    // A file of tests is about the file that it stands beside.
    let is_tests = name.ends_with("tests.rs");
    if !is_tests && !text.trim_start().starts_with("//!") && !text.starts_with("// Generated") {
        faults.push(format!("{name}: no module header"));
    }
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX && !text.contains("// Long because") {
        faults.push(format!("{name}: {lines} lines and no `// Long because`"));
    }
    if is_tests || EXCUSED.iter().any(|(prefix, _)| name.starts_with(prefix)) {
        return faults;
    }
    // Tests follow the code in a file; they are not held to the window.
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    for (at, line) in code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
        for word in FORBIDDEN.iter().filter(|word| line.contains(**word)) {
            faults.push(format!("{name}:{}: {word} belongs to host", at + 1));
        }
    }
    faults
}

fn sources(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("xtask/src")];
    for entry in fs::read_dir(root.join("crates"))? {
        folders.push(entry?.path().join("src"));
    }
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, faults: usize) {
        assert_eq!(file_faults("crates/x/src/a.rs", text).len(), faults, "{text}");
    }

    #[test]
    fn a_file_says_what_it_is_for_and_takes_time_from_its_arguments() {
        check("//! For x.\nfn a() {}\n", 0);
        check("fn a() {}\n", 1);
        check("//! For x.\nfn a() { Instant::now(); }\n", 1);
        check("//! For x.\n// Instant::now\n#[cfg(test)]\nmod tests { fn a() { Instant::now(); } }\n", 0);
        check(&format!("//! For x.\n{}", "\n".repeat(900)), 1);
    }
}
