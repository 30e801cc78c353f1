//! `kintsugi drill`: breaks a running cluster on purpose, in a namespace of its own, and says whether it kept its promise.
//!
//! Promises: refuses where the cluster does not look well, so that a drill never meets a real failure; gives up at a
//! deadline; what was broken is mended again and the namespace removed, also when the drill fails.

mod check;
pub mod nodes;
mod table;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use client::{Access, Client, Deletion, Https};
use host::Host;
use model::{Key, kinds};
use serde_json::json;

use crate::demo::story::{Row, Stage};
use crate::faults::Faults;
use crate::images::{self, DEMO_IMAGE};
use crate::place::Place;
use crate::settings::{DrillAct, ImageAct};

pub use table::{DRILLS, Drill, Verdict, judge};

/// The namespace of a drill's own pods.
pub const NAMESPACE: &str = "kintsugi-drill";

/// Lists the drills, or runs some of them; success only if each kept its promise.
pub async fn run(host: &Host, act: &DrillAct, tell: impl Fn(&str)) -> Result<ExitCode> {
    let (data, names) = match act {
        DrillAct::List => {
            table::list().iter().for_each(|line| tell(line));
            return Ok(ExitCode::SUCCESS);
        }
        DrillAct::Run { data, drills } => (data, drills),
    };
    let chosen: Vec<&Drill> = names.iter().map(|name| table::find(name)).collect::<Result<_>>()?;
    let place = Place::open(&data.data_dir)?;
    let kubeconfig =
        std::fs::read(place.kubeconfig()).context("no cluster has run on this data directory")?;
    let client = Client::new(Arc::new(Https::new(&Access::from_kubeconfig(&kubeconfig)?)?), "kintsugi-drill");
    let nodes = check::ready_nodes(&client).await?;
    for drill in &chosen {
        if nodes.len() < drill.nodes {
            bail!("{} needs {} nodes, there are {}", drill.name, drill.nodes, nodes.len());
        }
    }
    images::run(host, ImageAct::Demo { data: data.clone() }).await?;
    check::make_namespace(&client, NAMESPACE).await?;
    let ran = all(host, &client, &place, &chosen, &tell).await;
    client.delete(&Key::new(&kinds::NAMESPACE, "", NAMESPACE), &Deletion::default()).await?;
    Ok(if ran? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs drills one after the other; whether all kept their promises.
async fn all(
    host: &Host,
    client: &Client,
    place: &Place,
    drills: &[&Drill],
    tell: &impl Fn(&str),
) -> Result<bool> {
    let faults = Faults::new(host.clone(), place.clone());
    let mut stage =
        Stage::new(client.clone(), host.clone(), faults.clone(), DEMO_IMAGE.to_owned(), NAMESPACE);
    stage.set_up(None).await?;
    tell(&table::heading());
    let mut kept = true;
    for drill in drills {
        check::looks_well(client).await.with_context(|| format!("{} was not run", drill.name))?;
        let row = play(drill.name, &mut stage, &faults, client).await?;
        let verdict = judge(drill, &row);
        kept &= verdict == Verdict::Kept;
        tell(&table::line(drill, &row, &verdict));
    }
    Ok(kept)
}

/// Breaks what the drill of a name breaks, and measures what comes of it.
pub async fn play(name: &str, stage: &mut Stage, faults: &Faults, client: &Client) -> Result<Row> {
    match name {
        "container-killed" => stage.kill_container().await,
        "pod-deleted" => stage.delete_pod().await,
        "readiness-failing" => stage.fail_readiness().await,
        "liveness-failing" => stage.fail_liveness().await,
        "crash-loop" => stage.crash_loop().await,
        "agent-killed" => nodes::agent_killed(stage, faults).await,
        "agent-paused" => nodes::agent_paused(stage, faults).await,
        "node-cut" => nodes::node_cut(stage, faults, client).await,
        "node-killed" => nodes::node_killed(stage, faults, client).await,
        "server-paused" => nodes::server_paused(stage, faults).await,
        _ => bail!("nothing plays the drill {name}"),
    }
}

/// What every drill's namespace is made of.
fn namespace(name: &str) -> model::Tree {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}
