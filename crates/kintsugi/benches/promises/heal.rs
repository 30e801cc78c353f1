//! How fast what broke is well again: containers killed, pods deleted, readiness failing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::{Client, Deletion};
use host::Host;
use k8s_openapi::api::core::v1::{Pod, Service};
use kintsugi::demo::load::{Answer, Load, get, parse, post};
use kintsugi::demo::pods::{Pods, address, is_ready, name, ready, restarts};
use model::{Key, kinds};
use serde_json::json;

use crate::cluster::{Cluster, NAMESPACE, PATIENCE, PORT, deployment};
use crate::figures::Figure;
use crate::processes;

/// How often each pod's container is killed: so many restarts come at once.
const KILLS: usize = 3;
/// How often a pod is deleted, a Deployment made, readiness fails.
const RUNS: usize = 20;
/// The pause between two mends, so that none pays for the one before.
const REST: Duration = Duration::from_millis(200);
/// The pause between two looks at what a pod answers.
const LOOK: Duration = Duration::from_millis(1);
/// Long enough for a request on its way to show up.
const SETTLE: Duration = Duration::from_millis(500);
/// Between two failures of readiness, beside [`SETTLE`]: no divisor of the probe's period, so that failures come at all of its phases.
const PHASE: Duration = Duration::from_millis(137);

/// A container killed → its replacement answers: each pod three times.
pub async fn killed(cluster: &Cluster, pods: &mut Pods) -> Result<Figure> {
    let all: Vec<Pod> =
        pods.until("Ready pods", |pods| Some(ready(pods).into_iter().cloned().collect())).await?;
    let mut times = Vec::new();
    for round in 1..=KILLS {
        for pod in &all {
            let target = target(pod)?;
            let uid = pod.metadata.uid.clone().unwrap_or_default();
            let before = answer(target).await.with_context(|| format!("{target} does not answer"))?;
            let process = processes::container_of(&cluster.data_dir(), &uid)?;
            let began = Instant::now();
            processes::signal(process, libc::SIGKILL);
            answer_unlike(target, &before).await?;
            times.push(began.elapsed());
            let restarted = |pods: &std::collections::BTreeMap<String, Pod>| {
                pods.get(name(pod)).filter(|pod| restarts(pod) as usize >= round && is_ready(pod)).map(|_| ())
            };
            pods.until("the restart in the pod's status", restarted).await?;
            tokio::time::sleep(REST).await;
        }
    }
    Ok(Figure::times("container killed → its replacement answers, first three times", &times)
        .aim(40.0)
        .tail_aim(150.0)
        .stock(610.0))
}

/// The rows of a Deployment of three.
pub async fn rows(binary: &Path) -> Result<Vec<Figure>> {
    let (_cluster, client) = Cluster::started(binary).await?;
    let made = three(&client).await?;
    client.create(&kinds::DEPLOYMENT, NAMESPACE, &deployment("web", 3, 1)).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": PORT}]},
    });
    let service: Service = client.create(&kinds::SERVICE, NAMESPACE, &service).await?.view()?;
    let ip = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
    let mut pods = Pods::follow(&client, &Host::real(), NAMESPACE, "app=web").await?;
    let deleted = deleted(&client, &mut pods).await?;
    let (unready, failed) = unready(&mut pods, SocketAddr::new(ip.parse()?, 80)).await?;
    println!("(while readiness failed, {} of {} requests to the Service failed)", failed.1, failed.0);
    Ok(vec![
        Figure::times("pod deleted → replacement Ready", &deleted).aim(120.0).tail().stock(560.0),
        Figure::times("readiness failing → last request reaches it (probe period 1 s)", &unready)
            .aim(520.0)
            .tail()
            .stock(550.0),
        Figure::times("Deployment of 3 → all Ready, image present", &made).aim(200.0).tail().stock(670.0),
    ])
}

async fn three_ready(pods: &mut Pods) -> Result<Vec<Pod>> {
    pods.until("three Ready pods", |pods| {
        let ready = ready(pods);
        (ready.len() == 3 && pods.len() == 3).then(|| ready.into_iter().cloned().collect())
    })
    .await
}

async fn three(client: &Client) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for run in 0..RUNS {
        let name = format!("three-{run}");
        let mut pods = Pods::follow(client, &Host::real(), NAMESPACE, &format!("app={name}")).await?;
        let began = Instant::now();
        client.create(&kinds::DEPLOYMENT, NAMESPACE, &deployment(&name, 3, 1)).await?;
        three_ready(&mut pods).await?;
        times.push(began.elapsed());
        client.delete(&Key::new(&kinds::DEPLOYMENT, NAMESPACE, &name), &Deletion::default()).await?;
        pods.until("no pods", |pods| pods.is_empty().then_some(())).await?;
        tokio::time::sleep(REST).await;
    }
    Ok(times)
}

async fn deleted(client: &Client, pods: &mut Pods) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let three = three_ready(pods).await?;
        tokio::time::sleep(REST).await;
        let known: Vec<&str> = three.iter().map(name).collect();
        let began = Instant::now();
        client.delete(&Key::new(&kinds::POD, NAMESPACE, known[0]), &Deletion::default()).await?;
        pods.until("a Ready replacement", |pods| {
            ready(pods).into_iter().find(|pod| !known.contains(&name(pod))).map(|_| ())
        })
        .await?;
        times.push(began.elapsed());
    }
    Ok(times)
}

/// The times, and how many requests were sent and failed meanwhile.
async fn unready(pods: &mut Pods, service: SocketAddr) -> Result<(Vec<Duration>, (u64, u64))> {
    three_ready(pods).await?;
    let load = Load::start(&Host::real(), service);
    let mut times = Vec::new();
    for run in 0..RUNS {
        let three = three_ready(pods).await?;
        tokio::time::sleep(SETTLE + PHASE * (run % 8) as u32).await;
        let sick = &three[run % 3];
        let began = Instant::now();
        ensure!(post(target(sick)?, "/unready").await, "the pod did not take the order to be unready");
        pods.until("the pod to be unready", |pods| {
            pods.get(name(sick)).filter(|pod| !is_ready(pod)).map(|_| ())
        })
        .await?;
        tokio::time::sleep(SETTLE).await;
        let last = load.last_answer_of(name(sick));
        times.push(last.map_or(Duration::ZERO, |at| at.saturating_duration_since(began)));
        ensure!(post(target(sick)?, "/ready").await, "the pod did not take the order to be ready");
    }
    Ok((times, load.counts()))
}

fn target(pod: &Pod) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address(pod).context("a Ready pod has an address")?, PORT))
}

async fn answer(target: SocketAddr) -> Option<Answer> {
    parse(&get(target, "/").await?)
}

async fn answer_unlike(target: SocketAddr, before: &Answer) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if answer(target).await.is_some_and(|answer| answer != *before) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
    anyhow::bail!("no other process answers at {target}")
}
