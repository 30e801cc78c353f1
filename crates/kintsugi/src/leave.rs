//! `kintsugi leave`: a node of this machine leaves. Its agent is told so, ends its pods, lets its lease go, and ends.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
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
/// What says whether the machine goes down, where systemd runs it.
pub const SYSTEM: &str = "/usr/bin/systemctl";

/// How long an agent may take to leave: the grace of its pods, and what it takes to tell of it.
const LEAVE_MAX: Duration = Duration::from_secs(60);
/// How long to wait for the word whether the machine goes down: it is on its way down, if it is.
const SYSTEM_MAX: Duration = Duration::from_secs(2);
/// The pause between two looks at whether it was said.
const SYSTEM_LOOK: Duration = Duration::from_millis(10);

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

/// Whether the machine goes down, as far as systemd runs it. `false` where nobody says so.
pub async fn machine_goes_down(host: &Host, system: &Path) -> bool {
    let mut command = Command::new(system);
    command.arg("is-system-running").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let ended = async {
        while let Ok(None) = child.try_wait() {
            host.sleep(SYSTEM_LOOK).await;
        }
    };
    if host.within(SYSTEM_MAX, ended).await.is_none() {
        let _ = child.kill();
    }
    // It has ended, or was killed.
    child.wait_with_output().is_ok_and(|said| said.stdout.trim_ascii() == b"stopping")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn only_a_machine_that_is_stopping_goes_down() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let says = |word: &str| {
            let path = dir.path().join(word);
            std::fs::write(&path, format!("#!/bin/sh\n[ $1 = is-system-running ] && echo {word}\nexit 1\n"))
                .expect("it is ours");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
            path
        };
        for (word, wanted) in [("stopping", true), ("running", false), ("degraded", false)] {
            assert_eq!(machine_goes_down(&Host::real(), &says(word)).await, wanted, "{word}");
        }
        assert!(!machine_goes_down(&Host::real(), &dir.path().join("none")).await);
    }

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
