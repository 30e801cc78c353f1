//! Drills that break agents, nodes and the server.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use client::{Client, WatchKind};
use futures_util::StreamExt;
use host::Host;
use k8s_openapi::api::core::v1::Pod;
use model::tree::{items, text};
use model::{Object, kinds};
use network::links::Way;

use super::check::ready_nodes;
use crate::demo::database::Database;
use crate::demo::pods::{is_ready, name, ready, restarts};
use crate::demo::story::{Count, Row, Stage};
use crate::faults::{Faults, Paused};

/// How long an agent is stopped: well below the lease of 4 s, well above a renewal.
const AGENT_PAUSE: Duration = Duration::from_secs(2);
/// How long the server is stopped: more than two leases.
const SERVER_PAUSE: Duration = Duration::from_secs(10);
/// How long anything here may take before the drill gives up.
const PATIENCE: Duration = Duration::from_secs(90);
/// The pause between two looks at a process.
const GLANCE: Duration = Duration::from_millis(10);
/// How long a cluster is watched for what must not happen.
const WATCHED: Duration = Duration::from_secs(2);

/// A further node on which a pod of the stage runs: that of its database, where there is one.
async fn victim(stage: &mut Stage) -> Result<String> {
    if let Some(database) = &mut stage.database {
        return database.node().await;
    }
    let seen = stage.pods()?.until("a pod on a further node", |pods| {
        ready(pods)
            .into_iter()
            .map(node)
            .find(|node| *node != "node-1" && !node.is_empty())
            .map(str::to_owned)
    });
    seen.await
}

fn node(pod: &Pod) -> &str {
    model::pod::node(pod)
}

/// The names of the stage's pods that are Ready, with how often each was restarted: what must not change. Those on their
/// way out may be gone any moment.
pub async fn picture(stage: &mut Stage) -> Result<Vec<(String, i32)>> {
    let seen = stage.pods()?.until("the pods", |pods| {
        Some(ready(pods).into_iter().map(|pod| (name(pod).to_owned(), restarts(pod))).collect())
    });
    seen.await
}

/// An agent is killed; it is back by itself, and no pod notices.
pub async fn agent_killed(stage: &mut Stage, faults: &Faults) -> Result<Row> {
    let (node, before) = (victim(stage).await?, picture(stage).await?);
    let old = faults.agent(&node)?;
    let (count, began) = (stage.counts()?, Instant::now());
    faults.signal_agent(&node, libc::SIGKILL)?;
    let host = stage.host.clone();
    until(&host, "the agent to be back", || faults.agent(&node).is_ok_and(|new| new != old)).await?;
    let recovered = began.elapsed();
    host.sleep(WATCHED).await;
    anyhow::ensure!(picture(stage).await? == before, "pods were disturbed");
    Ok(stage.row(
        "an agent killed",
        format!("agent of {node} started again, pods adopted"),
        recovered,
        recovered,
        count,
    ))
}

/// An agent is stopped for less than its lease: nothing must move.
pub async fn agent_paused(stage: &mut Stage, faults: &Faults) -> Result<Row> {
    let (node, before) = (victim(stage).await?, picture(stage).await?);
    let (count, began) = (stage.counts()?, Instant::now());
    let paused = Paused::stop(faults.agent(&node)?)?;
    stage.host.sleep(AGENT_PAUSE).await;
    drop(paused);
    let recovered = began.elapsed();
    stage.host.sleep(WATCHED).await;
    anyhow::ensure!(picture(stage).await? == before, "pods were moved or restarted");
    Ok(stage.row(
        "an agent paused",
        format!("nothing: {node} was within its lease"),
        recovered,
        recovered,
        count,
    ))
}

/// The server is stopped for a while: no request fails, and nothing is moved when it comes back.
pub async fn server_paused(stage: &mut Stage, faults: &Faults) -> Result<Row> {
    let before = picture(stage).await?;
    let (count, began) = (stage.counts()?, Instant::now());
    let paused = Paused::stop(faults.server()?)?;
    stage.host.sleep(SERVER_PAUSE).await;
    drop(paused);
    let recovered = began.elapsed();
    stage.host.sleep(WATCHED).await;
    anyhow::ensure!(picture(stage).await? == before, "pods were moved or restarted");
    Ok(stage.row("the server paused", "nothing: the nodes served on".into(), recovered, recovered, count))
}

/// A node is cut off: its pods are replaced elsewhere. Then it returns.
pub async fn node_cut(stage: &mut Stage, faults: &Faults, client: &Client) -> Result<Row> {
    let node = victim(stage).await?;
    let before = Before::look(stage)?;
    faults.cut(&node, Way::Both).await?;
    let lost = replaced(stage, client, &node, before, "a node cut off, and back").await;
    faults.join(&node).await?;
    back(stage, client, &node).await?;
    lost
}

/// A node dies with all its pods. Then it returns, empty.
pub async fn node_killed(stage: &mut Stage, faults: &Faults, client: &Client) -> Result<Row> {
    let node = victim(stage).await?;
    let before = Before::look(stage)?;
    // An agent that is started again reaches nobody either: so it stays as dead as a machine without power.
    faults.cut(&node, Way::Both).await?;
    faults.kill_node(&node)?;
    let lost = replaced(stage, client, &node, before, "a node killed").await;
    faults.join(&node).await?;
    back(stage, client, &node).await?;
    lost
}

/// How long it took from a node's death until what was on it was elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Lost {
    /// Until the Service led there no more, as the API tells it.
    pub unserved: Duration,
    /// Until the API said that the node is silent.
    pub silent: Duration,
    /// Until as many pods of the Deployment were Ready elsewhere.
    pub replaced: Duration,
    /// Until the database was Ready elsewhere and wrote.
    pub moved: Option<Duration>,
}

/// The same as [`node_killed`], told part by part: for the bench.
pub async fn times_of_a_killed_node(stage: &mut Stage, faults: &Faults, client: &Client) -> Result<Lost> {
    let node = victim(stage).await?;
    let before = Before::look(stage)?;
    faults.cut(&node, Way::Both).await?;
    faults.kill_node(&node)?;
    let lost = lost(stage, client, &node, &before).await;
    faults.join(&node).await?;
    back(stage, client, &node).await?;
    Ok(lost?.0)
}

/// How things were before something broke.
struct Before {
    count: Count,
    began: Instant,
    /// Who wrote to the database.
    writer: String,
}

impl Before {
    fn look(stage: &Stage) -> Result<Self> {
        let writer = stage.database.as_ref().map(Database::writer).unwrap_or_default();
        Ok(Self { count: stage.counts()?, began: Instant::now(), writer })
    }
}

/// Waits until everything is elsewhere, and tells it as a row.
async fn replaced(
    stage: &mut Stage,
    client: &Client,
    node: &str,
    before: Before,
    broke: &'static str,
) -> Result<Row> {
    let (lost, to) = lost(stage, client, node, &before).await?;
    let done = match &to {
        None => format!("pods of {node} replaced elsewhere"),
        Some(to) => format!("pods of {node} replaced, database moved to {to}"),
    };
    let recovered = lost.moved.unwrap_or_default().max(lost.replaced);
    Ok(stage.row(broke, done, lost.silent, recovered, before.count))
}

/// Waits until as many pods as before are Ready on other nodes than the lost one, and the database is and writes; also
/// where it is then.
async fn lost(
    stage: &mut Stage,
    client: &Client,
    lost: &str,
    before: &Before,
) -> Result<(Lost, Option<String>)> {
    let (host, began) = (stage.host.clone(), before.began);
    let mut database = stage.database.take();
    let unserved = async {
        unserved(client, &host, lost).await?;
        anyhow::Ok(began.elapsed())
    };
    let silent = async {
        silent(client, &host, lost).await?;
        anyhow::Ok(began.elapsed())
    };
    let replaced = async {
        let found = stage.pods()?.until("replacements on other nodes", |pods| {
            let elsewhere = pods.values().filter(|pod| is_ready(pod) && node(pod) != lost);
            let well = elsewhere.filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
            (well >= 3).then_some(())
        });
        found.await?;
        anyhow::Ok(began.elapsed())
    };
    let moved = async {
        let Some(database) = &mut database else { return Ok(None) };
        let to = database.moved(lost, &before.writer).await?;
        anyhow::Ok(Some((to, began.elapsed())))
    };
    let (unserved, silent, replaced, moved) = tokio::join!(unserved, silent, replaced, moved);
    stage.database = database;
    let (to, moved) = moved?.unzip();
    Ok((Lost { unserved: unserved?, silent: silent?, replaced: replaced?, moved }, to))
}

/// Waits until the stage's Service leads to no pod of a node any more. One whose only pod was there keeps it until the pod is
/// gone: silence alone empties no Service.
async fn unserved(client: &Client, host: &Host, node: &str) -> Result<()> {
    let of_stage = client::Select::labels("kubernetes.io/service-name=web");
    let leads = |slice: &Object| {
        let tree = slice.tree().unwrap_or_default();
        items(&tree, "endpoints")
            .iter()
            .any(|endpoint| text(endpoint, "nodeName") == node && endpoint["conditions"]["ready"] == true)
    };
    let waiting = async {
        loop {
            let (slices, _) = client.list(&kinds::ENDPOINT_SLICE, "", &of_stage).await?;
            if !slices.iter().any(leads) {
                return anyhow::Ok(());
            }
            host.sleep(GLANCE).await;
        }
    };
    host.within(PATIENCE, waiting).await.context("the Service leads to the node still")?
}

/// Waits until the API says that a node is silent.
async fn silent(client: &Client, host: &Host, node: &str) -> Result<()> {
    let fields = client::Select::fields(format!("metadata.name={node}"));
    let mut events = client.watch(&kinds::NODE, "", &fields, &[]).await?;
    let waiting = async {
        loop {
            let event = events.next().await.context("the watch of the node ended")??;
            if matches!(event.kind, WatchKind::Bookmark | WatchKind::Error) {
                continue;
            }
            let tree = Object::read(event.object)?.tree()?;
            let conditions = items(&tree, "status.conditions");
            if conditions.iter().any(|one| text(one, "type") == "Ready" && text(one, "status") == "Unknown") {
                return anyhow::Ok(());
            }
        }
    };
    host.within(PATIENCE, waiting).await.context("the node is not said to be silent")?
}

/// Waits until a node is Ready again, and the stage's three pods are.
async fn back(stage: &mut Stage, client: &Client, node: &str) -> Result<()> {
    let host = stage.host.clone();
    let returning = async {
        while !ready_nodes(client).await?.iter().any(|name| name == node) {
            host.sleep(GLANCE * 10).await;
        }
        anyhow::Ok(())
    };
    host.within(PATIENCE, returning).await.with_context(|| format!("{node} does not come back"))??;
    host.within(PATIENCE, voting(client, &host)).await.context("not every node votes again")??;
    stage.all_ready().await
}

/// Waits until every node's lease goes by the votes of all nodes that are Ready: before, one more loss may be one too many.
async fn voting(client: &Client, host: &Host) -> Result<()> {
    loop {
        let nodes = ready_nodes(client).await?;
        let (leases, _) = client.list(&kinds::LEASE, "kube-node-lease", &client::Select::all()).await?;
        let votes = |lease: &Object| {
            let voters = lease.meta().annotations.get(model::fence::SET);
            voters.is_some_and(|voters| nodes.iter().all(|node| voters.contains(node.as_str())))
        };
        if leases.len() >= nodes.len() && leases.iter().all(votes) {
            return Ok(());
        }
        host.sleep(GLANCE * 10).await;
    }
}

async fn until(host: &Host, what: &str, seen: impl Fn() -> bool) -> Result<()> {
    let waiting = async {
        while !seen() {
            host.sleep(GLANCE).await;
        }
    };
    host.within(PATIENCE, waiting).await.with_context(|| format!("waited in vain for {what}"))
}
