//! What each subcommand does, for the user who typed it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the commands speak to a terminal")]

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use host::Host;
use kintsugi::cluster::{self, Running};
use kintsugi::place::Place;
use kintsugi::ranges::Ranges;
use kintsugi::server::{Reach, Server};
use kintsugi::settings::{self, Agent, Cli, Command, Demo, Down, DrillAct, ImageAct, Up, Why};
use kintsugi::{agent, demo, down, drill, images, join, leave, storing, systemd, token, why};
use kubelet::Stop;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Threads that serve requests and run loops: what the machine has, and no more than this; a cluster of one machine
/// waits for its disk and its containers.
const THREADS_MAX: usize = 4;

/// Does what was asked for.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Up(settings) => start(up(settings)),
        Command::Down(settings) => start(take_down(settings)),
        Command::Demo(settings) => start(play(settings)),
        Command::Image(settings) => start(image(settings.act)),
        Command::Preflight => Ok(preflight()),
        Command::Why(settings) => start(tell_why(settings)),
        Command::Drill(settings) => start(run_drills(settings.act)),
        Command::Server(settings) => start(serve(settings)),
        Command::Agent(settings) => run_agent(&settings),
        Command::Leave(settings) => start(say_farewell(settings)),
        Command::Token(settings) => start(token(settings.act)),
        Command::Store(settings) => start(keep_store(settings.act)),
    }
}

/// Tells why something failed, the causes on lines of their own.
pub fn complain(error: &anyhow::Error) {
    eprintln!("kintsugi: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
}

fn start(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    begin()?.block_on(work)
}

fn begin() -> Result<Runtime> {
    let filter = EnvFilter::try_from_env("KINTSUGI_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // There is one provider; a second installation could only come from a second call.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, THREADS_MAX);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(threads).enable_all().build().context("cannot start the async runtime")
}

/// Ends at Ctrl-C or SIGTERM.
async fn asked_to_stop() -> Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
        _ = term.recv() => Ok(()),
    }
}

async fn up(settings: Up) -> Result<ExitCode> {
    if let Some(file) = &settings.ready_file {
        remove(file)?;
    }
    let host = Host::real();
    let place = Place::open(&settings.data.data_dir)?;
    let stop = asked_to_stop();
    tokio::pin!(stop);
    let running = tokio::select! {
        biased;
        stopped = &mut stop => return stopped.map(|()| ExitCode::FAILURE),
        running = Running::start(&host, &place, &settings.cluster) => running?,
    };
    println!("Kintsugi is up: export KUBECONFIG={}", place.kubeconfig().display());
    if let Some(file) = &settings.ready_file {
        std::fs::write(file, format!("{}\n", place.kubeconfig().display()))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    host.give_back_memory().await;
    stop.await?;
    running.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn serve(settings: settings::Server) -> Result<ExitCode> {
    if let Some(file) = &settings.ready_file {
        remove(file)?;
    }
    let host = Host::real();
    let place = Place::open(&settings.data.data_dir)?;
    let advertised = settings.advertise.unwrap_or(settings.cluster.listen.ip());
    if advertised.is_unspecified() {
        bail!(
            "--listen {} says no address at which others reach it: give one with --advertise",
            settings.cluster.listen
        );
    }
    let _held = place.hold()?;
    let ranges = Ranges::read(&place, &settings.cluster)?;
    let reach = Reach::Outside(advertised);
    let server = Server::start(&host, &place, &settings.cluster, &ranges, reach).await?;
    println!("Kintsugi serves {}: export KUBECONFIG={}", server.inner_address, place.kubeconfig().display());
    if let Some(file) = &settings.ready_file {
        std::fs::write(file, format!("{}\n", place.kubeconfig().display()))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    host.give_back_memory().await;
    asked_to_stop().await?;
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

async fn token(act: settings::TokenAct) -> Result<ExitCode> {
    for line in token::run(&Host::real(), act).await? {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn keep_store(act: settings::StoreAct) -> Result<ExitCode> {
    let told = storing::run(&Host::real(), act).await?;
    for line in told.lines {
        println!("{line}");
    }
    Ok(if told.is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn remove(file: &Path) -> Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", file.display()))
        }
        _ => Ok(()),
    }
}

async fn take_down(settings: Down) -> Result<ExitCode> {
    let removed = down::run(&Host::real(), &settings.data.data_dir, settings.purge).await?;
    println!("removed: {removed}");
    Ok(ExitCode::SUCCESS)
}

async fn play(settings: Demo) -> Result<ExitCode> {
    demo::run(&settings, |line| println!("{line}"), asked_to_stop).await
}

async fn image(act: ImageAct) -> Result<ExitCode> {
    for line in images::run(&Host::real(), act).await? {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn tell_why(settings: Why) -> Result<ExitCode> {
    print!("{}", why::run(&Host::real(), &settings).await?);
    Ok(ExitCode::SUCCESS)
}

async fn run_drills(act: DrillAct) -> Result<ExitCode> {
    let (host, stop) = (Host::real(), asked_to_stop());
    tokio::pin!(stop);
    tokio::select! {
        biased;
        stopped = &mut stop => stopped.map(|()| ExitCode::FAILURE),
        ran = drill::run(&host, &act, |line| println!("{line}")) => ran,
    }
}

fn preflight() -> ExitCode {
    let lacks = cluster::missing();
    for lack in &lacks {
        println!("{} {}", if lack.fatal { "needed: " } else { "missing:" }, lack.said);
    }
    if lacks.iter().any(|lack| lack.fatal) {
        return ExitCode::FAILURE;
    }
    println!("a node can run on this machine");
    ExitCode::SUCCESS
}

fn run_agent(settings: &Agent) -> Result<ExitCode> {
    match &settings.settings {
        None => begin()?.block_on(async { join::run(&Host::real(), settings, agent_stop(true)?).await })?,
        Some(file) => {
            // Before any thread: a network namespace is entered thread by thread.
            let settings = agent::enter(file)?;
            begin()?.block_on(async { agent::run(&settings, agent_stop(false)?).await })?
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// How an agent is to stop, once it is: it leaves when it is told to; and when the machine goes down, if that is a machine
/// that joined: one that is a whole cluster has nobody who could take over.
fn agent_stop(has_joined: bool) -> Result<impl Future<Output = Stop>> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut told = signal(SignalKind::from_raw(leave::SIGNAL))?;
    Ok(async move {
        tokio::select! {
            biased;
            _ = told.recv() => return Stop::Leave,
            _ = interrupt.recv() => return Stop::Stay,
            _ = term.recv() => {}
        }
        match has_joined && systemd::is_stopping(&Host::real(), Path::new(systemd::SOCKET)).await {
            true => Stop::Leave,
            false => Stop::Stay,
        }
    })
}

async fn say_farewell(settings: settings::Leave) -> Result<ExitCode> {
    println!("{}", leave::run(&Host::real(), &settings).await?);
    Ok(ExitCode::SUCCESS)
}
