//! How fast what was on a dead node is elsewhere, and what a dead agent or server disturbs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::{Client, Https};
use host::Host;
use kintsugi::demo::story::Stage;
use kintsugi::drill::nodes::{agent_killed, times_of_a_killed_node};
use kintsugi::faults::Faults;
use kintsugi::images::DEMO_IMAGE;
use kintsugi::place::Place;
use tokio::sync::oneshot;

use crate::cluster::{Cluster, NAMESPACE};
use crate::figures::{Figure, Unit};

/// How many nodes there are.
const NODES: u8 = 3;
/// Between two faults: no divisor of a renewal's second, so that they come at all of its phases.
const PHASE: Duration = Duration::from_millis(137);

/// Measures on a thread of its own: threads that do its blocking work are then in its network namespace as well, and not
/// in that of another part.
pub async fn rows(binary: &Path, runs: u32, away: Duration) -> Result<Vec<Figure>> {
    let binary: PathBuf = binary.to_owned();
    let (told, done) = oneshot::channel();
    let (wanted, mut unwanted) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let measured = runtime.map_err(anyhow::Error::new).and_then(|runtime| {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = &mut unwanted => bail!("interrupted"),
                    measured = measure(&binary, runs, away) => measured,
                }
            })
        });
        // Nobody who listens any more needs it.
        let _ = told.send(measured);
    });
    let _measuring = Measuring { wanted: Some(wanted), thread: Some(thread) };
    done.await.context("the measuring panicked")?
}

/// The thread; when this is dropped early it is told to stop, and waited for, so that its cluster is removed.
struct Measuring {
    wanted: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Measuring {
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take() {
            // Why it panicked was said.
            let _ = thread.join();
        }
    }
}

async fn measure(binary: &Path, runs: u32, away: Duration) -> Result<Vec<Figure>> {
    let (mut cluster, client) = Cluster::of_nodes(binary, NODES).await?;
    let host = Host::real();
    let faults = Faults::new(host.clone(), Place::open(&cluster.data_dir())?);
    let mut stage =
        Stage::new(client.clone(), host.clone(), faults.clone(), DEMO_IMAGE.to_owned(), NAMESPACE);
    stage.set_up(Some(&cluster.shared_dir())).await?;
    let [mut unserved, mut replaced, mut moved, mut back] = [const { Vec::new() }; 4];
    for run in 0..runs {
        tokio::time::sleep(PHASE * (1 + run % 8)).await;
        back.push(agent_killed(&mut stage, &faults).await?.recovered);
        tokio::time::sleep(PHASE * (1 + run % 8)).await;
        let lost = times_of_a_killed_node(&mut stage, &faults, &client).await?;
        unserved.push(lost.unserved);
        replaced.push(lost.replaced);
        moved.extend(lost.moved);
    }
    let failed = server_away(&mut cluster, &mut stage, away).await?;
    let doubled = stage.database.as_ref().context("there is a database")?.verdict().doubled;
    let count = |what: &str, count: u64| Figure::new(what, Unit::Count, vec![count as f64]).aim(0.0);
    Ok(vec![
        Figure::times("node killed → its addresses out of the Service", &unserved)
            .tail_aim(1_500.0)
            .stock(46_700.0),
        Figure::times("node killed → stateless replacements Ready", &replaced)
            .tail_aim(5_500.0)
            .stock(352_000.0),
        Figure::times("node killed → StatefulSet pod with its volume Ready elsewhere", &moved)
            .tail_aim(6_000.0),
        count("the same: writes by two at once", doubled),
        Figure::times("agent killed → back by itself, no pod disturbed", &back).tail_aim(1_000.0),
        count(&format!("server away for {} s → requests failed", away.as_secs()), failed),
    ])
}

/// How many requests failed while the server was away and came back; an error if anything was moved or restarted.
async fn server_away(cluster: &mut Cluster, stage: &mut Stage, away: Duration) -> Result<u64> {
    let before = kintsugi::demo::Picture::look(stage).await?;
    let (_, _, failed) = stage.counts()?;
    cluster.end_server(libc::SIGKILL)?;
    tokio::time::sleep(away).await;
    cluster.begin().await.context("the server comes back")?;
    // Over a connection of its own: those of before led to the server that is gone.
    let client = Client::new(Arc::new(Https::new(&cluster.access()?)?), "bench");
    stage.begin_anew(client).await.context("after the server came back")?;
    stage.all_ready().await?;
    tokio::time::sleep(kintsugi::demo::RETURN_WATCHED).await;
    let after = kintsugi::demo::Picture::look(stage).await?;
    anyhow::ensure!(after == before, "pods were moved or restarted: {before:?} became {after:?}");
    Ok(stage.counts()?.2 - failed)
}
