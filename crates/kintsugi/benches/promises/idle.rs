//! What a cluster takes at rest: memory, processor time, and the size of its program.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use host::Host;
use kintsugi::demo::pods::{Pods, ready};
use model::kinds;

use crate::cluster::{Cluster, NAMESPACE, deployment};
use crate::figures::{Figure, Unit};
use crate::processes;

/// Pods that are there.
const PODS: usize = 10;
/// How long the cluster rests before it is looked at.
const REST: Duration = Duration::from_secs(15);
/// How long it is looked at, and how often.
const LOOK: Duration = Duration::from_secs(30);
const RUNS: usize = 3;

/// The size of the program's file.
pub fn size(binary: &Path) -> Result<Vec<Figure>> {
    let bytes = std::fs::metadata(binary).context("the binary")?.len() as f64;
    Ok(vec![Figure::new("binary, stripped", Unit::Mebibytes, vec![bytes / f64::from(1 << 20)]).aim(40.0)])
}

/// Processor time of a server without a node, and nothing to do.
pub async fn control_plane(binary: &Path) -> Result<Vec<Figure>> {
    let mut cluster = Cluster::new(binary)?;
    drop(cluster.begin_server_alone().await?);
    tokio::time::sleep(REST).await;
    let server = cluster.server_pid()?;
    let busy = busy(|| processes::time_used(server)).await;
    let what = "processor time of the control plane alone when idle, of a core";
    Ok(vec![Figure::new(what, Unit::Percent, busy).aim(0.2).stock(5.1)])
}

/// What part of a core was used in each look, in percent.
async fn busy(used: impl Fn() -> Duration) -> Vec<f64> {
    let mut parts = Vec::new();
    for _ in 0..RUNS {
        let (before, began) = (used(), Instant::now());
        tokio::time::sleep(LOOK).await;
        parts.push((used() - before).as_secs_f64() / began.elapsed().as_secs_f64() * 100.0);
    }
    parts
}

/// Memory and processor time with ten pods.
pub async fn rows(binary: &Path) -> Result<Vec<Figure>> {
    let (cluster, client) = Cluster::started(binary).await?;
    client.create(&kinds::DEPLOYMENT, NAMESPACE, &deployment("ten", PODS, 10)).await?;
    let mut pods = Pods::follow(&client, &Host::real(), NAMESPACE, "app=ten").await?;
    pods.until("ten Ready pods", |pods| (ready(pods).len() == PODS).then_some(())).await?;
    drop((pods, client));
    tokio::time::sleep(REST).await;
    let server = cluster.server_pid()?;
    let monitors = processes::monitors(&cluster.data_dir());
    ensure!(monitors.len() == PODS, "{} monitors for {PODS} pods", monitors.len());
    let private = monitors.keys().map(|pid| processes::private(*pid)).collect::<Result<Vec<f64>>>()?;
    let whole = |(pid, monitor): (&u32, &processes::Monitor)| -> Result<f64> {
        std::iter::once(pid).chain(&monitor.waiting).map(|pid| processes::private(*pid)).sum()
    };
    let with_waiting = monitors.iter().map(whole).collect::<Result<Vec<f64>>>()?;
    let busy = busy(|| {
        let monitors: Duration = monitors.keys().map(|pid| processes::time_used(*pid)).sum();
        processes::time_used(server) + monitors
    });
    let (busy, memory) = (busy.await, vec![processes::resident(server)?]);
    Ok(vec![
        Figure::new("resident memory of control plane and agent, idle, 10 pods", Unit::Mebibytes, memory)
            .aim(80.0)
            .stock(724.0),
        Figure::new("each pod's monitor, private memory", Unit::Mebibytes, private).aim(1.0).tail(),
        Figure::new(
            "… with the process that waits to become its next container",
            Unit::Mebibytes,
            with_waiting,
        )
        .aim(1.0)
        .tail(),
        Figure::new("processor time when idle, 10 pods, of a core", Unit::Percent, busy).aim(0.5).stock(6.6),
    ])
}
