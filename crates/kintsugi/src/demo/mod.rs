//! The demo: a cluster of its own, broken in five ways, and how it heals.

pub mod load;
pub mod pods;
pub mod story;
pub mod tool;
pub mod web;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::{Access, Client, Https};
use host::Host;

use crate::cluster::Running;
use crate::down;
use crate::faults::Faults;
use crate::images::{DEMO_IMAGE, build_demo};
use crate::place::Place;
use crate::settings::Demo;
use story::{Row, Stage};

/// The namespace of the demo.
const NAMESPACE: &str = "default";

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
    let mut cluster = settings.cluster.clone();
    if own {
        // A demo has to run beside anything.
        cluster.listen.set_port(0);
    }
    tell("starting a cluster…");
    let began = host.moment();
    let running = Running::start(&host, &place, &cluster).await?;
    tell(&format!("one node Ready after {}", shown(host.moment().since(began))));
    let played = play(&host, &place, &running, &tell).await;
    if settings.keep && played.is_ok() {
        tell(&format!(
            "the cluster stays up until Ctrl-C: export KUBECONFIG={}",
            place.kubeconfig().display()
        ));
        stopped().await?;
    }
    running.stop().await;
    down::run(&host, place.dir(), own).await?;
    played.map(|()| ExitCode::SUCCESS)
}

async fn play(host: &Host, place: &Place, running: &Running, tell: &impl Fn(&str)) -> Result<()> {
    build_demo(running.node.runtime.store()).await?;
    let kubeconfig = std::fs::read(place.kubeconfig()).context("the kubeconfig")?;
    let transport = Arc::new(Https::new(&Access::from_kubeconfig(&kubeconfig)?)?);
    let client = Client::new(transport, "kintsugi-demo");
    let mut stage = Stage::new(
        client,
        host.clone(),
        Faults::new(host.clone(), place.clone()),
        DEMO_IMAGE.to_owned(),
        NAMESPACE,
    );
    let took = stage.set_up().await?;
    tell(&format!("a Deployment of 3 behind a Service, all Ready after {}; requests run", shown(took)));
    tell("");
    tell(&line(["what broke", "what was done", "detected in", "recovered in", "requests failed"]));
    for row in [
        stage.kill_container().await?,
        stage.delete_pod().await?,
        stage.fail_readiness().await?,
        stage.crash_loop().await?,
        stage.fail_liveness().await?,
    ] {
        tell(&row_line(&row));
    }
    tell("");
    tell("everything healed");
    Ok(())
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
