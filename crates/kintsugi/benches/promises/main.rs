//! The promises in numbers: how fast the cluster heals and starts, how much it takes, how much it carries.
//!
//! Measures the release binary in a network namespace and a temporary folder of its own, prints a table, and writes it
//! to `docs/bench.md` when every row was measured. Run by `cargo xtask bench`; as root. It removes whatever it started,
//! also when it fails or is interrupted.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to a terminal")]

mod api;
mod cluster;
mod figures;
mod flood;
mod heal;
mod idle;
mod load;
mod nodes;
mod processes;
mod start;
mod watchers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use client::Access;
use tokio::signal::unix::{SignalKind, signal};

use figures::Table;

/// The parts of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The size of the binary.
    Size,
    /// `up` on an empty data directory.
    Start,
    /// 30 pods: killed containers, `up` again, a reboot.
    Thirty,
    /// A Deployment of three: start, deleted pods, failing readiness.
    Heal,
    /// Three nodes: killed ones, killed agents, the server away.
    Nodes,
    /// Memory and processor time at rest.
    Idle,
    /// Durable creates over https.
    Load,
    /// 200 watchers: events.
    Watch,
    /// 10,000 pods: creates, gets, lists, memory, and a start on all of it.
    Api,
}

/// Measures what the project promises.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 110)]
struct Args {
    /// Only these parts; all unless given
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Measure the API of the cluster of this kubeconfig instead (the parts `load`, `watch` and `api`)
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Measure this binary instead of the one just built
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// How often a node, and an agent, is killed
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// For how many seconds the server is away in the part `nodes`
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    away: u64,
    /// What `cargo bench` adds by itself
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<()> {
    // There is one provider; a second installation could only come from a second call.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // One thread: whatever it opens or starts is in the network namespace that it has entered last.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut told = signal(SignalKind::terminate())?;
        tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
            _ = told.recv() => bail!("told to end"),
            measured = rows(args) => measured,
        }
    })
}

async fn rows(args: &Args) -> Result<()> {
    let mut table = Table::default();
    let wanted = |part: Part| args.parts.is_empty() || args.parts.contains(&part);
    if let Some(file) = &args.kubeconfig {
        let text = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let access = Access::from_kubeconfig(&text)?;
        if wanted(Part::Load) {
            table.add(load::rows(&access).await);
        }
        if wanted(Part::Watch) {
            table.add(watchers::rows(&access).await);
        }
        if wanted(Part::Api) {
            table.add(api::rows(&access).await);
        }
        return Ok(());
    }
    let built = PathBuf::from(env!("CARGO_BIN_EXE_kintsugi"));
    let binary = args.binary.as_deref().unwrap_or(&built);
    if wanted(Part::Size) {
        table.add(idle::size(binary));
    }
    if wanted(Part::Start) {
        table.add(start::empty(binary).await);
    }
    if wanted(Part::Thirty) {
        table.add(start::thirty(binary).await);
    }
    if wanted(Part::Heal) {
        table.add(heal::rows(binary).await);
    }
    if wanted(Part::Nodes) {
        table.add(nodes::rows(binary, args.runs, Duration::from_secs(args.away)).await);
    }
    if wanted(Part::Idle) {
        table.add(idle::rows(binary).await);
        table.add(idle::control_plane(binary).await);
    }
    if wanted(Part::Load) {
        table.add(load::alone(binary).await);
    }
    if wanted(Part::Watch) {
        table.add(watchers::alone(binary).await);
    }
    if wanted(Part::Api) {
        table.add(api::alone(binary).await);
    }
    if args.parts.is_empty() && table.is_whole() {
        table.write(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bench.md"))?;
    }
    Ok(())
}
