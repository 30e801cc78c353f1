//! `kintsugi agent`: one more node, in a network namespace and a process of its own.

use std::fs::{File, TryLockError};
use std::io::Write;
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

/// Takes the node's folder for this process. An agent that outlived its server is asked to go, and waited for: its
/// containers stay, and this one adopts them.
pub fn take_over(dir: &Path) -> Result<File> {
    let path = dir.join("agent.lock");
    let doing = || format!("cannot take {}", path.display());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(doing)?;
    if let Err(error) = file.try_lock() {
        let TryLockError::WouldBlock = error else { return Err(anyhow::Error::new(error).context(doing())) };
        let holder = std::fs::read_to_string(&path).with_context(doing)?;
        if let Ok(pid) = holder.trim().parse::<libc::pid_t>() {
            // SAFETY: takes no pointers. Who holds the lock lives, and wrote its own id.
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
        file.lock().with_context(doing)?;
    }
    file.set_len(0).with_context(doing)?;
    writeln!(file, "{}", std::process::id()).with_context(doing)?;
    Ok(file)
}

/// Runs the agent until `stop` ends.
pub async fn run(settings: &NodeSettings, stop: impl Future<Output = ()>) -> Result<()> {
    let host = Host::real();
    let _held = take_over(&settings.dir)?;
    let access = Access {
        server: format!("https://{}", settings.api),
        authority_pem: settings.authority.clone().into_bytes(),
        server_name: None,
        identity: settings.client.identity(),
    };
    let transport = Arc::new(Https::new(&access).context("cannot speak to the API")?);
    let _node = Node::start(&host, settings, transport).await?;
    stop.await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_taken_by_one_agent_at_a_time_and_says_by_whom() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let held = take_over(dir.path()).expect("nobody else is there");
        let path = dir.path().join("agent.lock");
        let said = std::fs::read_to_string(&path).expect("just written");
        assert_eq!(said.trim(), std::process::id().to_string());
        let other = File::open(&path).expect("it is there");
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(held);
        other.try_lock().expect("nobody holds it any more");
    }
}
