//! The demo: a cluster of its own, broken on purpose, and how it heals.

pub mod load;
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
    let took = stage.set_up().await?;
    tell(&format!("a Deployment of 3 behind a Service, all Ready after {}; requests run", shown(took)));
    tell("");
    tell(&line(["what broke", "what was done", "detected in", "recovered in", "requests failed"]));
    let breaks_nodes = count >= NODES_MIN;
    let further: &[&str] = if breaks_nodes { &NODE_FAULTS } else { &[] };
    for fault in FAULTS.iter().chain(further) {
        tell(&row_line(&drill::play(fault, &mut stage, &faults, &client).await?));
    }
    if breaks_nodes {
        tell(&row_line(&server_away(host, place, settings, &mut served, &mut stage).await?));
    }
    tell("");
    tell("everything healed");
    Ok(served)
}

/// The server is killed and stays away for a minute; the nodes serve on, and nothing is moved when it is back.
async fn server_away(
    host: &Host,
    place: &Place,
    settings: &Demo,
    served: &mut Served,
    stage: &mut Stage,
) -> Result<Row> {
    let (before, count, began) = (nodes::picture(stage).await?, stage.counts()?, host.moment());
    served.kill().await?;
    host.sleep(SERVER_AWAY).await;
    *served = Served::start(host, place, &settings.cluster).await?;
    let recovered = host.moment().since(began);
    stage.begin_anew(client(place)?).await?;
    stage.all_ready().await?;
    anyhow::ensure!(nodes::picture(stage).await? == before, "pods were moved or restarted");
    Ok(stage.row("the server killed for 60 s", "the nodes served on".into(), recovered, recovered, count))
}

/// A client as the administrator. A server that is started again may listen elsewhere.
fn client(place: &Place) -> Result<Client> {
    let kubeconfig = std::fs::read(place.kubeconfig()).context("the kubeconfig")?;
    Ok(Client::new(Arc::new(Https::new(&Access::from_kubeconfig(&kubeconfig)?)?), "kintsugi-demo"))
}

fn row_line(row: &Row) -> String {
    let failed = format!("{} of {}", row.failed.0, row.failed.1);
    line([row.broke, &row.done, &shown(row.detected), &shown(row.recovered), &failed])
}

fn line([broke, done, detected, recovered, failed]: [&str; 5]) -> String {
    format!("{broke:<29} {done:<53} {detected:>11} {recovered:>12} {failed:>16}")
}

fn shown(duration: Duration) -> String {
    if duration < Duration::from_secs(10) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
