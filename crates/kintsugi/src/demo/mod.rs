//! The demo: a cluster of its own, broken on purpose, and how it heals.

pub mod database;
pub mod load;
pub mod oracle;
pub mod pods;
mod served;
pub mod story;
pub mod tool;
pub mod web;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::{Access, Client, Https};
use host::Host;

use crate::down;
use crate::drill::{self, nodes};
use crate::faults::Faults;
use crate::images::{self, DEMO_IMAGE};
use crate::place::Place;
use crate::settings::{DataDir, Demo, ImageAct};
use database::Database;
use oracle::Verdict;
use served::Served;
use story::{Row, Stage};

/// The namespace of the demo.
const NAMESPACE: &str = "default";
/// What breaks on any cluster, in this order.
const FAULTS: [&str; 5] =
    ["container-killed", "pod-deleted", "readiness-failing", "crash-loop", "liveness-failing"];
/// What breaks beside that where there are nodes enough.
const NODE_FAULTS: [&str; 3] = ["agent-killed", "node-cut", "node-killed"];
/// From how many nodes on nodes are broken as well: two stay.
const NODES_MIN: u8 = 3;
/// For how long the server is away.
const SERVER_AWAY: Duration = Duration::from_secs(60);
/// For how long the cluster is watched when the server is back: two leases, after which whatever it held against the nodes
/// would show.
pub const RETURN_WATCHED: Duration = Duration::from_secs(8);

/// Plays the story, telling each row as it happens; success only if everything healed.
pub async fn run<F: Future<Output = Result<()>>>(
    settings: &Demo,
    tell: impl Fn(&str),
    stopped: impl Fn() -> F,
) -> Result<ExitCode> {
    let host = Host::real();
    let (dir, own) = match &settings.data_dir {
        Some(dir) => (dir.clone(), false),
        None => (std::env::temp_dir().join(format!("kintsugi-demo-{}", host.chance().suffix(6))), true),
    };
    let place = Place::open(&dir)?;
    let mut settings = settings.clone();
    if own {
        // A demo has to run beside anything.
        settings.cluster.listen.set_port(0);
    }
    if settings.cluster.nodes >= NODES_MIN && settings.cluster.shared_dir.is_none() {
        // The nodes are on one machine, so any folder is storage that all of them reach.
        let shared = place.dir().join("shared");
        std::fs::create_dir_all(&shared).with_context(|| format!("cannot make {}", shared.display()))?;
        settings.cluster.shared_dir = Some(shared);
    }
    let played = tokio::select! {
        biased;
        stopped = stopped() => stopped.and_then(|()| bail!("stopped before the story was over")),
        played = play(&host, &place, &settings, &tell) => played,
    };
    let ended = match played {
        Ok(served) => end(&place, served, &settings, &tell, stopped()).await,
        Err(error) => Err(error),
    };
    down::run(&host, place.dir(), own).await?;
    ended.map(|()| ExitCode::SUCCESS)
}

/// Ends the cluster, at once or when the user has seen enough of it.
async fn end(
    place: &Place,
    served: Served,
    settings: &Demo,
    tell: &impl Fn(&str),
    stopped: impl Future<Output = Result<()>>,
) -> Result<()> {
    if settings.keep {
        let kubeconfig = place.kubeconfig();
        tell(&format!("the cluster stays up until Ctrl-C: export KUBECONFIG={}", kubeconfig.display()));
        stopped.await?;
    }
    served.stop().await
}

/// The story itself; gives the server on which it ended well.
async fn play(host: &Host, place: &Place, settings: &Demo, tell: &impl Fn(&str)) -> Result<Served> {
    tell("starting a cluster…");
    let began = host.moment();
    let mut served = Served::start(host, place, &settings.cluster).await?;
    let count = settings.cluster.nodes;
    let nodes = if count == 1 { "one node".to_owned() } else { format!("{count} nodes") };
    tell(&format!("{nodes} Ready after {}", shown(host.moment().since(began))));
    let data = DataDir { data_dir: place.dir().to_owned() };
    images::run(host, ImageAct::Demo { data }).await?;
    let client = client(place)?;
    let faults = Faults::new(host.clone(), place.clone());
    let mut stage =
        Stage::new(client.clone(), host.clone(), faults.clone(), DEMO_IMAGE.to_owned(), NAMESPACE);
    let breaks_nodes = count >= NODES_MIN;
    let shared = settings.cluster.shared_dir.as_deref().filter(|_| breaks_nodes);
    let took = stage.set_up(shared).await?;
    let with = if breaks_nodes { ", each pod with a volume, and a database with a claim" } else { "" };
    tell(&format!("a Deployment of 3 behind a Service{with}, all Ready after {}; requests run", shown(took)));
    tell("");
    tell(&heading(breaks_nodes));
    let further: &[&str] = if breaks_nodes { &NODE_FAULTS } else { &[] };
    for fault in FAULTS.iter().chain(further) {
        tell(&row_line(&drill::play(fault, &mut stage, &faults, &client).await?));
    }
    if breaks_nodes {
        let row = server_away(host, place, settings, &mut served, &mut stage).await?;
        tell(&row_line(&row));
        row.failures.iter().for_each(|how| tell(&format!("  {how}")));
        anyhow::ensure!(row.failed.0 == 0, "{} requests failed while the server was away", row.failed.0);
    }
    tell("");
    tell(&ending(&stage)?);
    Ok(served)
}

/// The last line; an error if the database was written to by two at once.
fn ending(stage: &Stage) -> Result<String> {
    let (_, sent, failed) = stage.counts()?;
    let told = format!("everything healed; of {sent} requests {failed} failed");
    let Some(database) = &stage.database else { return Ok(told) };
    let Verdict { writes, writers, bindings, doubled, lost } = database.verdict();
    anyhow::ensure!(doubled == 0, "{doubled} of {writes} writes to the database were made by two at once");
    anyhow::ensure!(lost == 0, "{lost} of {writes} writes to the database are lost");
    Ok(format!(
        "{told}; {writes} writes by {writers} processes in turn, bound {bindings} times, none doubled, none lost"
    ))
}

/// The server is killed and stays away for a minute; the nodes serve on, and nothing is moved or restarted, then or when it
/// is back.
async fn server_away(
    host: &Host,
    place: &Place,
    settings: &Demo,
    served: &mut Served,
    stage: &mut Stage,
) -> Result<Row> {
    let (before, count, began) = (Picture::look(stage).await?, stage.counts()?, host.moment());
    served.kill().await?;
    host.sleep(SERVER_AWAY).await;
    *served = Served::start(host, place, &settings.cluster).await?;
    let recovered = host.moment().since(began);
    stage.begin_anew(client(place)?).await?;
    stage.all_ready().await?;
    host.sleep(RETURN_WATCHED).await;
    let after = Picture::look(stage).await?;
    anyhow::ensure!(after == before, "pods were moved or restarted: {before:?} became {after:?}");
    Ok(stage.row("the server killed for 60 s", "the nodes served on".into(), recovered, recovered, count))
}

/// What must stay as it is while the server is away.
#[derive(Debug, PartialEq, Eq)]
pub struct Picture {
    /// The web server's pods and their restarts.
    pods: Vec<(String, i32)>,
    /// Which process writes to the database.
    writer: Option<String>,
}

impl Picture {
    /// Looks.
    pub async fn look(stage: &mut Stage) -> Result<Self> {
        let writer = stage.database.as_ref().map(Database::writer);
        Ok(Self { pods: nodes::picture(stage).await?, writer })
    }
}

/// A client as the administrator. A server that is started again may listen elsewhere.
fn client(place: &Place) -> Result<Client> {
    let kubeconfig = std::fs::read(place.kubeconfig()).context("the kubeconfig")?;
    Ok(Client::new(Arc::new(Https::new(&Access::from_kubeconfig(&kubeconfig)?)?), "kintsugi-demo"))
}

fn row_line(row: &Row) -> String {
    let failed = format!("{} of {}", row.failed.0, row.failed.1);
    let doubled = row.doubled.map(|count| count.to_string());
    line([row.broke, &row.done, &shown(row.detected), &shown(row.recovered), &failed], doubled.as_deref())
}

fn heading(with_database: bool) -> String {
    let doubled = with_database.then_some("double writes");
    line(["what broke", "what was done", "detected in", "recovered in", "requests failed"], doubled)
}

fn line([broke, done, detected, recovered, failed]: [&str; 5], doubled: Option<&str>) -> String {
    let doubled = doubled.map_or_else(String::new, |doubled| format!(" {doubled:>14}"));
    format!("{broke:<29} {done:<53} {detected:>11} {recovered:>12} {failed:>16}{doubled}")
}

fn shown(duration: Duration) -> String {
    if duration < Duration::from_secs(10) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
