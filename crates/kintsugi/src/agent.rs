//! `kintsugi agent`: one more node, in a network namespace and a process of its own.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use api::auth::pki;
use client::{Access, Https};
use host::{Host, Time};
use kubelet::Stop;
use rustix::process::Pid;

use crate::leave;
use crate::node::{Node, NodeSettings, Pair};

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

/// The agent that holds a node's folder, if one does.
pub fn running(dir: &Path) -> Option<Pid> {
    let path = dir.join("agent.lock");
    let file = File::open(&path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            Pid::from_raw(std::fs::read_to_string(&path).ok()?.trim().parse().ok()?)
        }
        // Nobody has it; the lock goes with the file.
        _ => None,
    }
}

/// The agent that outlived its server and can go on as it is: it is this very program, and was told what it would be told
/// now, but for its certificates, which are good for a while yet.
pub fn adoptable(settings: &NodeSettings, file: &Path, now: Time) -> Option<Pid> {
    let pid = running(&settings.dir)?;
    let told: NodeSettings = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
    let program = |of: &str| std::fs::metadata(format!("/proc/{of}/exe")).ok();
    let (own, other) = (program("self")?, program(&pid.as_raw_nonzero().to_string())?);
    let is_same_program = (own.dev(), own.ino()) == (other.dev(), other.ino());
    let is_good = [&told.client, &told.serving].iter().all(|pair| is_good_for_long(pair, now));
    (is_same_program && is_good && without_keys(&told)? == without_keys(settings)?).then_some(pid)
}

/// Whether a third of its time is left at least.
fn is_good_for_long(pair: &Pair, now: Time) -> bool {
    pki::validity(&pair.cert).is_some_and(|(begin, end)| {
        end.duration_since(now).as_secs() * 3 >= end.duration_since(begin).as_secs()
    })
}

fn without_keys(settings: &NodeSettings) -> Option<serde_json::Value> {
    let mut told = serde_json::to_value(settings).ok()?;
    let all = told.as_object_mut()?;
    all.remove("client");
    all.remove("serving");
    Some(told)
}

/// Runs the agent until `stop` ends, and leaves if that says so.
pub async fn run(settings: &NodeSettings, stop: impl Future<Output = Stop>) -> Result<()> {
    let host = Host::real();
    let _held = take_over(&settings.dir)?;
    leave::note(&settings.dir, false)?;
    let access = Access {
        server: format!("https://{}", settings.api),
        authority_pem: settings.authority.clone().into_bytes(),
        server_name: None,
        identity: settings.client.identity(),
    };
    let transport = Arc::new(Https::new(&access).context("cannot speak to the API")?);
    let node = Node::start(&host, settings, transport).await?;
    if stop.await == Stop::Leave {
        node.leave().await;
        leave::note(&settings.dir, true)?;
    }
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
