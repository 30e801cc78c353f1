//! Breaks things of a cluster on this machine on purpose, behind its back: for the demo and the drills.
//!
//! Touches only what the data directory's own cluster started: processes in the cgroups of its pods, its agents, its
//! links. Each act is one system call or two; none waits for the cluster to notice.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use host::Host;
use network::links::{Lan, LanSettings, Way};

use crate::node::NodeSettings;
use crate::place::Place;

/// What a fault may be done to.
#[derive(Clone)]
pub struct Faults {
    host: Host,
    place: Place,
}

impl Faults {
    /// Faults for the cluster of a data directory.
    pub fn new(host: Host, place: Place) -> Self {
        Self { host, place }
    }

    /// Kills every process of a pod's containers with SIGKILL. Its monitor stays.
    pub fn kill_containers(&self, pod_uid: &str) -> Result<()> {
        let group = format!("/pod{pod_uid}/");
        // A monitor keeps processes ready for the next container; they still have its own command line.
        let programs: Vec<libc::pid_t> = processes_in(&group).filter(|pid| !is_monitor(*pid)).collect();
        if programs.is_empty() {
            bail!("no container of pod {pod_uid} runs on this machine");
        }
        programs.into_iter().try_for_each(|pid| signal(pid, libc::SIGKILL))
    }

    /// Sends a signal to a further node's agent.
    pub fn signal_agent(&self, node: &str, number: i32) -> Result<()> {
        signal(self.agent(node)?, number)
    }

    /// The process of a further node's agent, as it wrote it into its lock.
    pub fn agent(&self, node: &str) -> Result<libc::pid_t> {
        let path = self.folder(node)?.join("agent.lock");
        let text = std::fs::read_to_string(&path);
        let text = text.with_context(|| format!("{node} has no agent of its own on this machine"))?;
        text.trim().parse().with_context(|| format!("no process id in {}", path.display()))
    }

    /// The server's process: the one that holds the data directory's lock.
    pub fn server(&self) -> Result<libc::pid_t> {
        let lock = self.place.dir().join("lock");
        let held = |pid: &libc::pid_t| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file == lock)
        };
        let own = std::process::id() as libc::pid_t;
        let server = processes().find(|pid| *pid != own && held(pid));
        server.with_context(|| format!("no server runs on {}", self.place.dir().display()))
    }

    /// Kills what a node's pods consist of: their monitors, with which their containers end. Its agent goes first.
    pub fn kill_node(&self, node: &str) -> Result<()> {
        self.signal_agent(node, libc::SIGKILL)?;
        let pods = self.folder(node)?.join("run/pods");
        let is_ours = |pid: &libc::pid_t| words(*pid).iter().any(|word| Path::new(word).starts_with(&pods));
        let monitors: Vec<libc::pid_t> = processes().filter(|pid| is_monitor(*pid) && is_ours(pid)).collect();
        for pid in monitors {
            // One that ended meanwhile is as good.
            let _ = signal(pid, libc::SIGKILL);
        }
        Ok(())
    }

    /// Cuts a further node off, one way or both.
    pub async fn cut(&self, node: &str, way: Way) -> Result<()> {
        Ok(self.lan(node).await?.isolate(number(node)?, way).await?)
    }

    /// Joins a node again that was cut off.
    pub async fn join(&self, node: &str) -> Result<()> {
        Ok(self.lan(node).await?.rejoin(number(node)?).await?)
    }

    async fn lan(&self, node: &str) -> Result<Lan> {
        let path = self.folder(node)?.join("agent.json");
        let text = std::fs::read(&path);
        let text = text.with_context(|| format!("{node} is not a further node of this machine"))?;
        let settings: NodeSettings = serde_json::from_slice(&text).context("the agent's settings")?;
        let IpAddr::V4(address) = settings.address else { bail!("{node} has no IPv4 address") };
        let [a, b, c, _] = address.octets();
        let mut lan = LanSettings::of(self.place.dir(), settings.cluster_pods.parse()?);
        lan.subnet = format!("{a}.{b}.{c}.0/24").parse()?;
        Ok(Lan::open(self.host.clone(), lan).await?)
    }

    fn folder(&self, node: &str) -> Result<std::path::PathBuf> {
        Ok(self.place.node(u8::try_from(number(node)?)?))
    }
}

/// A process that is stopped until this is dropped.
pub struct Paused(libc::pid_t);

impl Paused {
    /// Stops a process.
    pub fn stop(pid: libc::pid_t) -> Result<Self> {
        signal(pid, libc::SIGSTOP).map(|()| Self(pid))
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        // One that was killed meanwhile needs nothing more.
        let _ = signal(self.0, libc::SIGCONT);
    }
}

/// The number in a node's name.
fn number(node: &str) -> Result<u32> {
    let number = node.strip_prefix("node-").and_then(|number| number.parse().ok());
    number.with_context(|| format!("{node} is not a node of this machine"))
}

/// A process's command line without the program's own name.
fn words(pid: libc::pid_t) -> Vec<OsString> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).skip(1).map(|word| OsStr::from_bytes(word).to_owned()).collect()
}

fn is_monitor(pid: libc::pid_t) -> bool {
    runtime::monitor::is_meant(&words(pid))
}

/// The processes of this machine.
fn processes() -> impl Iterator<Item = libc::pid_t> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The processes whose cgroup's path has a part.
fn processes_in(group: &str) -> impl Iterator<Item = libc::pid_t> {
    processes().filter(move |pid| {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.lines().any(|line| line.contains(group))
    })
}

fn signal(pid: libc::pid_t, number: i32) -> Result<()> {
    // SAFETY: takes no pointers.
    match unsafe { libc::kill(pid, number) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()).with_context(|| format!("cannot signal process {pid}")),
    }
}
