//! Runs scenarios and seeds from the command line, for whoever looks into one of them.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use clap::Parser;
use sim::flaw::Flaw;
use sim::mutation::Mutation;
use sim::scenario::{self, Outcome};
use sim::seeds;

/// Runs simulated clusters: all scenarios, unless told otherwise.
#[derive(Debug, Parser)]
struct Args {
    /// Run this scenario only.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Run this seed only.
    #[arg(long, conflicts_with = "scenario")]
    seed: Option<u64>,
    /// Run so many seeds, from `--seed` on, or from the first.
    #[arg(long, conflicts_with = "scenario")]
    seeds: Option<u64>,
    /// Run seeds until one fails.
    #[arg(long, conflicts_with_all = ["scenario", "seeds"])]
    endless: bool,
    /// Run seeds that try the fence: volumes and identities on nodes that lose each other, die and come back.
    #[arg(long)]
    fence: bool,
    /// Run a cluster in noise that is no fault, for so many minutes of its time; a day unless told otherwise.
    #[arg(long, value_name = "MINUTES", num_args = 0..=1, default_missing_value = "1440")]
    noise: Option<u64>,
    /// Say which seeds find a flaw of the world, or a rule of the fence that is wired wrongly, by its name.
    #[arg(long, value_name = "FLAW")]
    finds: Option<String>,
    /// Say what faults took place, and how often.
    #[arg(long)]
    happened: bool,
    /// Run seeds on so many threads instead of one a core.
    #[arg(long)]
    threads: Option<usize>,
    /// Make the timelines of the scenarios those of this run.
    #[arg(long)]
    accept: bool,
    /// Print timelines.
    #[arg(long)]
    timeline: bool,
    /// Print what the code says of itself, by a filter such as `kubelet=debug`.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if let Some(filter) = &args.log {
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    if let Some(minutes) = args.noise {
        let seed = args.seed.unwrap_or(0);
        let outcome = seeds::noise::run(seed, std::time::Duration::from_secs(minutes * 60))?;
        tell(&format!("{minutes} minutes of noise"), &outcome, &args);
        return Ok(if outcome.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if let Some(name) = &args.finds {
        return find(name, &args);
    }
    if args.seed.is_some() || args.seeds.is_some() || args.endless {
        return Ok(try_seeds(&args));
    }
    scenarios(&args)
}

fn try_seeds(args: &Args) -> ExitCode {
    let first = args.seed.unwrap_or(0);
    let count = if args.endless { u64::MAX - first } else { args.seeds.unwrap_or(1) };
    let threads = args.threads.unwrap_or_else(sim::crew::threads);
    let failed = AtomicUsize::new(0);
    let run = if args.fence { seeds::run_fence } else { seeds::run };
    seeds::run_all(first..first.saturating_add(count), threads, run, |seed, ran| {
        let outcome =
            ran.unwrap_or_else(|error| Outcome { faults: vec![format!("{error:#}")], ..Outcome::default() });
        if !outcome.faults.is_empty() {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        tell(&format!("seed {seed}"), &outcome, args);
        match args.endless && !outcome.faults.is_empty() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    if failed.into_inner() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Tells of the first seed that finds a flaw.
fn find(name: &str, args: &Args) -> Result<ExitCode> {
    let flaw = Flaw::ALL.into_iter().find(|(flaw, _)| format!("{flaw:?}") == name);
    let mutation = Mutation::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name);
    let first = args.seed.unwrap_or(0);
    let count = AtomicUsize::new(0);
    sim::crew::each(first..first + args.seeds.unwrap_or(1), args.threads.unwrap_or(1), |seed| {
        let found = match (flaw, mutation) {
            (Some((flaw, laws)), _) => seeds::finds(seed, flaw, laws),
            (_, Some(mutation)) => seeds::finds_in_fence(seed, mutation),
            _ => Err(anyhow::anyhow!("{name:?} is no flaw")),
        };
        let fault = match found {
            Ok(None) => return ControlFlow::Continue(()),
            Ok(Some(fault)) => fault,
            Err(error) => format!("{error:#}"),
        };
        count.fetch_add(1, Ordering::Relaxed);
        tell(&format!("{name} seed {seed}"), &Outcome { faults: vec![fault], ..Outcome::default() }, args);
        ControlFlow::Break(())
    });
    Ok(if count.into_inner() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn scenarios(args: &Args) -> Result<ExitCode> {
    let files = match &args.scenario {
        Some(file) => vec![file.clone()],
        None => scenario::files(&sim::scenarios_dir())?,
    };
    let mut is_well = true;
    for file in files {
        let outcome = scenario::run_file(&file, args.accept)?;
        is_well &= outcome.faults.is_empty();
        tell(&file.display().to_string(), &outcome, args);
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
fn tell(what: &str, outcome: &Outcome, args: &Args) {
    let mut text = format!("{} {what}\n", if outcome.faults.is_empty() { "ok    " } else { "FAILED" });
    if args.timeline {
        text.push_str(&outcome.timeline);
    }
    outcome.faults.iter().for_each(|fault| text.push_str(&format!("  {fault}\n")));
    if args.happened {
        outcome.happened.iter().for_each(|(what, count)| text.push_str(&format!("  {count:>6} × {what}\n")));
    }
    // In one piece: others may be telling theirs.
    print!("{text}");
}
