//! Whether a cluster is well enough to be broken on purpose.

use std::time::Duration;

use anyhow::{Result, bail};
use client::{Client, ClientError, Select};
use model::kinds;
use model::kinds::of;
use model::repair::{CLUSTER_NAMESPACE, REPAIRS};
use model::tree::{items, text};

/// How often a namespace that is still being removed is tried again, and how far apart: half a minute in all.
const TRIES: usize = 150;
const PAUSE: Duration = Duration::from_millis(200);

/// The names of the nodes that are Ready.
pub async fn ready_nodes(client: &Client) -> Result<Vec<String>> {
    let (nodes, _) = client.list(&of::NODE, "", &Select::all()).await?;
    let mut ready = Vec::new();
    for node in nodes {
        let tree = node.tree()?;
        let conditions = items(&tree, "status.conditions");
        if conditions.iter().any(|one| text(one, "type") == "Ready" && text(one, "status") == "True") {
            ready.push(node.name().to_owned());
        }
    }
    Ok(ready)
}

/// Refuses where a drill would meet a real failure: a node that is not Ready, or a world that looks wrong.
pub async fn looks_well(client: &Client) -> Result<()> {
    let (nodes, _) = client.list(&of::NODE, "", &Select::all()).await?;
    let ready = ready_nodes(client).await?;
    if let Some(node) = nodes.iter().find(|node| !ready.iter().any(|name| name == node.name())) {
        bail!("node {} is not Ready: this is no time for a drill", node.name());
    }
    let (repairs, _) = client.list(&REPAIRS, CLUSTER_NAMESPACE, &Select::all()).await?;
    for repair in repairs {
        let tree = repair.tree()?;
        if text(&tree, "spec.fault") == "WorldLooksWrong" && text(&tree, "status.outcome") == "Suppressed" {
            bail!("the world looks wrong ({}): this is no time for a drill", text(&tree, "spec.evidence"));
        }
    }
    Ok(())
}

/// Makes a namespace; waits for one of the same name that is being removed.
pub async fn make_namespace(client: &Client, name: &str) -> Result<()> {
    for _ in 0..TRIES {
        match client.create(&kinds::NAMESPACE, "", &super::namespace(name)).await {
            Ok(_) => return Ok(()),
            Err(ClientError::AlreadyExists { .. }) => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    bail!("the namespace {name} of another drill is still there: kubectl delete namespace {name}")
}
