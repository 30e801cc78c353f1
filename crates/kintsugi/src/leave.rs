//! `kintsugi leave`: a node of this machine leaves. Its agent is told so, ends its pods, lets its lease go, and ends.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use host::Host;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::agent;
use crate::place::Place;
use crate::settings::Leave;

/// The signal that tells an agent to leave.
pub const SIGNAL: i32 = libc::SIGUSR1;
/// The file in a node's folder that says that it has left: whoever starts agents again does not start this one.
const LEFT: &str = "agent.left";

/// How long an agent may take to leave: the grace of its pods, and what it takes to tell of it.
const LEAVE_MAX: Duration = Duration::from_secs(60);

/// Writes down that the node in this folder has left, or that it is here.
pub fn note(dir: &Path, has_left: bool) -> io::Result<()> {
    let file = dir.join(LEFT);
    match has_left {
        true => std::fs::write(file, ""),
        false => match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

/// Whether the node in this folder has left.
pub fn has_left(dir: &Path) -> bool {
    dir.join(LEFT).exists()
}

/// Has a node leave, and says so when it has.
pub async fn run(host: &Host, settings: &Leave) -> Result<String> {
    let place = Place::open(&settings.data.data_dir)?;
    let (name, pid) = whom(&place, settings.node_name.as_deref())?;
    let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK).context("the agent has just ended")?;
    pidfd_send_signal(&pidfd, Signal::USR1).with_context(|| format!("cannot tell the agent of {name}"))?;
    // SAFETY: the descriptor is owned by what is made here, and is open and the same as long as that is there.
    let ended =
        unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(io::Error::from)?;
    match host.within(LEAVE_MAX, ended.readable()).await {
        Some(ended) => drop(ended?),
        None => bail!("the agent of {name} has not ended within {} s", LEAVE_MAX.as_secs()),
    }
    Ok(format!("{name} has left: its pods have ended, and may start elsewhere"))
}

/// The node that is meant, and its agent.
fn whom(place: &Place, wanted: Option<&str>) -> Result<(String, Pid)> {
    let name = |dir: &PathBuf| dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let nodes = place.nodes();
    let running: Vec<(String, Pid)> = nodes
        .iter()
        .filter(|dir| wanted.is_none_or(|wanted| name(dir) == wanted))
        .filter_map(|dir| Some((name(dir), agent::running(dir)?)))
        .collect();
    match running.as_slice() {
        [] => match wanted {
            Some(wanted) => bail!("no agent of node {wanted} runs on {}", place.dir().display()),
            None => bail!("no agent runs on {}", place.dir().display()),
        },
        [one] => Ok(one.clone()),
        many => {
            let names: Vec<&str> = many.iter().map(|(name, _)| name.as_str()).collect();
            bail!("which of {}? Say so with --node-name", names.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_name_the_one_node_whose_agent_runs_is_meant() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = Place::open(dir.path()).expect("a folder");
        let hold = |name: &str| {
            let node = dir.path().join("nodes").join(name);
            std::fs::create_dir_all(&node).expect("it is ours");
            agent::take_over(&node).expect("nobody has it")
        };
        assert!(whom(&place, None).is_err());
        drop(hold("idle"));
        let a = hold("a");
        assert_eq!(whom(&place, None).expect("there is one").0, "a");
        let b = hold("b");
        let why = whom(&place, None).expect_err("there are two").to_string();
        assert!(why.contains("which of a, b?"), "{why}");
        assert_eq!(whom(&place, Some("b")).expect("it is named").0, "b");
        assert!(whom(&place, Some("idle")).is_err());
        drop((a, b));
    }
}
