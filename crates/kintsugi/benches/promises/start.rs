//! How fast a cluster starts: on nothing, beside its running pods, and after a reboot.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client::Client;
use host::Host;
use k8s_openapi::api::core::v1::Pod;
use kintsugi::demo::pods::{Pods, container, is_ready, ready};
use model::kinds;

use crate::cluster::{Cluster, GLANCE, NAMESPACE, deployment, node_ready, pod};
use crate::figures::Figure;
use crate::heal;

/// How often each start is measured.
const RUNS: usize = 5;
/// Pods that are there at a start.
const PODS: usize = 30;
/// How long after a start nothing may change: what an agent finds, it has found by then.
const QUIET: Duration = Duration::from_secs(2);

/// `up` on an empty data directory.
pub async fn empty(binary: &Path) -> Result<Vec<Figure>> {
    let (mut api, mut node, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let mut cluster = Cluster::new(binary)?;
        let began = cluster.up()?;
        let client = cluster.answering(began).await?;
        api.push(began.elapsed());
        let (ready, pod) =
            tokio::join!(async { node_ready(&client).await.map(|()| began.elapsed()) }, async {
                first_pod(&client).await.map(|()| began.elapsed())
            });
        let log = || cluster.log();
        node.push(ready.with_context(log)?);
        first.push(pod.with_context(log)?);
    }
    Ok(vec![
        Figure::times("`up` on an empty data directory → API answers", &api).aim(500.0).stock(3600.0),
        Figure::times("… → node Ready", &node).aim(1000.0),
        Figure::times("… → first pod Ready", &first).aim(1500.0).stock(11_700.0),
    ])
}

async fn first_pod(client: &Client) -> Result<()> {
    let began = Instant::now();
    // Refused until the namespace has its service account.
    while let Err(error) = client.create(&kinds::POD, NAMESPACE, &pod("first")).await {
        ensure!(began.elapsed() < Duration::from_secs(20), "no pod can be created: {error}");
        tokio::time::sleep(GLANCE).await;
    }
    let mut pods = Pods::follow(client, &Host::real(), NAMESPACE, "app=first").await?;
    pods.until("the first pod to be Ready", |pods| (!ready(pods).is_empty()).then_some(())).await
}

/// 30 pods: containers killed, `up` again beside them, and after a reboot.
pub async fn thirty(binary: &Path) -> Result<Vec<Figure>> {
    let (mut cluster, client) = Cluster::started(binary).await?;
    let began = Instant::now();
    client.create(&kinds::DEPLOYMENT, NAMESPACE, &deployment("many", PODS, 10)).await?;
    let mut pods = follow(&client).await?;
    pods.until("30 Ready pods", |pods| (ready(pods).len() == PODS).then_some(())).await?;
    let all = Figure::times("Deployment of 30 → all Ready, image present", &[began.elapsed()]);
    let mut figures = vec![heal::killed(&cluster, &mut pods).await?];
    let (mut again, mut reboot) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        again.push(up_again(&mut cluster).await?);
    }
    for _ in 0..RUNS {
        reboot.push(after_reboot(&mut cluster).await?);
    }
    figures.push(all);
    figures.push(
        Figure::times("`up` again beside 30 running pods → all Ready, none restarted", &again)
            .aim(1500.0)
            .stock(4000.0),
    );
    figures.push(Figure::times("after a reboot with 30 pods stored → all Ready", &reboot).aim(4000.0));
    Ok(figures)
}

async fn follow(client: &Client) -> Result<Pods> {
    Pods::follow(client, &Host::real(), NAMESPACE, "app=many").await
}

/// Each pod's container, and how often it was restarted.
type Identities = BTreeMap<String, (Option<String>, i32)>;

/// What must not change when containers are adopted.
fn identities(pods: &BTreeMap<String, Pod>) -> Identities {
    let one = |pod: &Pod| {
        container(pod).map(|status| (status.container_id.clone(), status.restart_count)).unwrap_or_default()
    };
    pods.iter().map(|(name, pod)| (name.clone(), one(pod))).collect()
}

async fn current(client: &Client) -> Result<Identities> {
    let mut pods = follow(client).await?;
    pods.until("30 Ready pods", |pods| (ready(pods).len() == PODS).then(|| identities(pods))).await
}

/// Which pods are not what they were, for people.
fn difference(before: &Identities, after: &Identities) -> String {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let unlike = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    unlike
        .map(|name| format!("{name}: {:?} → {:?}", before.get(name), after.get(name)))
        .collect::<Vec<_>>()
        .join("; ")
}

async fn up_again(cluster: &mut Cluster) -> Result<Duration> {
    let began = Instant::now();
    let client = cluster.answering(began).await?;
    let before = current(&client).await?;
    drop(client);
    cluster.end_server(libc::SIGTERM)?;
    let began = cluster.up()?;
    let client = cluster.answering(began).await?;
    cluster.told_ready(began).await?;
    let after = current(&client).await?;
    let took = began.elapsed();
    ensure!(after == before, "containers are not those of before: {}", difference(&before, &after));
    let mut pods = follow(&client).await?;
    let flipped = pods.until("a flip", |pods| {
        let well = pods.len() < PODS || (pods.values().all(is_ready) && identities(pods) == before);
        (!well).then_some(())
    });
    ensure!(tokio::time::timeout(QUIET, flipped).await.is_err(), "a pod changed after the start");
    Ok(took)
}

async fn after_reboot(cluster: &mut Cluster) -> Result<Duration> {
    let began = Instant::now();
    let client = cluster.answering(began).await?;
    let before: Vec<Option<String>> = current(&client).await?.into_values().map(|(id, _)| id).collect();
    drop(client);
    cluster.reboot()?;
    let began = cluster.up()?;
    let client = cluster.answering(began).await?;
    let mut pods = follow(&client).await?;
    let anew = |pod: &&Pod| container(pod).is_some_and(|status| !before.contains(&status.container_id));
    pods.until("30 Ready pods with new containers", |pods| {
        (ready(pods).iter().filter(|pod| anew(pod)).count() == PODS).then_some(())
    })
    .await?;
    Ok(began.elapsed())
}
