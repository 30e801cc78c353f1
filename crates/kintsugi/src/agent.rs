//! `kintsugi agent`: one more node, in a network namespace and a process of its own.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use client::{Access, Https};
use host::Host;

use crate::node::{Node, NodeSettings};

/// Reads an agent's settings and enters its network; to be called before any thread is started.
pub fn enter(settings: &Path) -> Result<NodeSettings> {
    let text =
        std::fs::read_to_string(settings).with_context(|| format!("cannot read {}", settings.display()))?;
    let settings: NodeSettings = serde_json::from_str(&text).context("the agent's settings")?;
    if let Some(netns) = &settings.netns {
        network::links::enter(netns).with_context(|| format!("cannot enter {}", netns.display()))?;
    }
    Ok(settings)
}

/// Runs the agent until `stop` ends.
pub async fn run(settings: &NodeSettings, stop: impl Future<Output = ()>) -> Result<()> {
    let host = Host::real();
    let access = Access {
        server: format!("https://{}", settings.api),
        authority_pem: settings.authority.clone().into_bytes(),
        server_name: None,
        identity: client::Identity::Certificate {
            chain_pem: settings.client.cert.clone().into_bytes(),
            key_pem: settings.client.key.clone().into_bytes(),
        },
    };
    let transport = Arc::new(Https::new(&access).context("cannot speak to the API")?);
    let node = Node::start(&host, settings, transport).await?;
    tokio::select! {
        biased;
        () = stop => Ok(()),
        ended = node.ended() => ended,
    }
}
