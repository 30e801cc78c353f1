//! Looks into procfs: which processes a cluster has, what they take, and how to end them all.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A process: its parent and its command line.
#[derive(Debug)]
struct Process {
    parent: u32,
    command: String,
}

fn all() -> BTreeMap<u32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Some((pid, Process { parent: stat(pid)?.get(1)?.parse().ok()?, command }))
    })
    .collect()
}

/// The words of `/proc/PID/stat` from the state on (the third, proc_pid_stat(5)).
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// The monitors of a data directory, each with the process that waits at its side to become the next container.
pub fn monitors(data_dir: &Path) -> BTreeMap<u32, Monitor> {
    let sign = format!("monitor {}", data_dir.display());
    let mut ours: BTreeMap<u32, Process> = all();
    ours.retain(|_, process| process.command.contains(&sign));
    let mut monitors = BTreeMap::new();
    for (pid, process) in &ours {
        if !ours.contains_key(&process.parent) {
            let waiting = ours.iter().filter(|(_, other)| other.parent == *pid).map(|(pid, _)| *pid);
            let command = process.command.clone();
            monitors.insert(*pid, Monitor { command, waiting: waiting.collect() });
        }
    }
    monitors
}

/// A pod's monitor.
pub struct Monitor {
    command: String,
    /// Its helpers: forks of it that are no container yet.
    pub waiting: Vec<u32>,
}

/// The first process of a pod's one container.
pub fn container_of(data_dir: &Path, pod_uid: &str) -> Result<u32> {
    let mut monitors = monitors(data_dir).into_iter();
    let monitor = monitors.find(|(_, monitor)| monitor.command.contains(pod_uid));
    let (pid, monitor) = monitor.context("the pod has no monitor")?;
    let children = all().into_iter().filter(|(_, process)| process.parent == pid).map(|(pid, _)| pid);
    let children: Vec<u32> = children.filter(|pid| !monitor.waiting.contains(pid)).collect();
    match children.as_slice() {
        [only] => Ok(*only),
        many => bail!("the pod has {} processes", many.len()),
    }
}

/// Sends a signal to a process that was found as one of ours.
pub fn signal(pid: u32, signal: i32) {
    // SAFETY: a plain system call; a process that has ended meanwhile is none of anybody's.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Processor time used so far, user and system.
pub fn time_used(pid: u32) -> Duration {
    // The 14th and 15th words of the file, counted from the third.
    let ticks: u64 = stat(pid)
        .map(|words| words.iter().skip(11).take(2).filter_map(|word| word.parse::<u64>().ok()).sum())
        .unwrap_or_default();
    // SAFETY: asks for a constant of the system.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as f64;
    Duration::from_secs_f64(ticks as f64 / per_second)
}

/// Resident memory in MiB.
pub fn resident(pid: u32) -> Result<f64> {
    sum(&format!("/proc/{pid}/status"), &["VmRSS:"])
}

/// Memory that is a process' own in MiB.
pub fn private(pid: u32) -> Result<f64> {
    sum(&format!("/proc/{pid}/smaps_rollup"), &["Private_Clean:", "Private_Dirty:"])
}

fn sum(file: &str, names: &[&str]) -> Result<f64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let named = words.next().is_some_and(|word| names.contains(&word));
        named.then(|| words.next()?.parse::<f64>().ok()).flatten()
    });
    Ok(lines.sum::<f64>() / 1024.0)
}

/// Ends all that a loss of power would end: processes, mounts and control groups of a data directory.
pub fn lose_power(data_dir: &Path) -> Result<()> {
    let monitors: BTreeSet<u32> = monitors(data_dir).into_keys().collect();
    let groups: BTreeSet<String> = monitors.iter().filter_map(|pid| group_of(*pid)).collect();
    let all = all();
    let ours: Vec<u32> = all.keys().copied().filter(|pid| descends(&all, *pid, &monitors)).collect();
    // Monitors first, so that none sees its containers end.
    for pid in monitors.iter().chain(&ours) {
        signal(*pid, libc::SIGKILL);
    }
    wait_until_gone(&ours)?;
    unmount_below(data_dir)?;
    for group in groups {
        for hierarchy in hierarchies() {
            remove_group(&hierarchy.join(&group));
        }
    }
    Ok(())
}

fn descends(all: &BTreeMap<u32, Process>, pid: u32, roots: &BTreeSet<u32>) -> bool {
    let mut at = pid;
    while let Some(process) = all.get(&at) {
        if roots.contains(&at) {
            return true;
        }
        at = process.parent;
    }
    false
}

fn wait_until_gone(pids: &[u32]) -> Result<()> {
    let began = Instant::now();
    let alive = |pid: &u32| stat(*pid).is_some_and(|words| words.first().is_some_and(|state| state != "Z"));
    while pids.iter().any(alive) {
        if began.elapsed() > Duration::from_secs(20) {
            bail!("killed processes do not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The first part of a monitor's control group that is the cluster's.
fn group_of(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mut parts = text.split([':', '/', '\n']).filter(|part| part.starts_with("kintsugi-"));
    parts.next().map(str::to_owned)
}

fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = mounts.lines().filter(|line| line.contains(" - cgroup"));
    groups.filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// Removes an empty group and those below it; one that is not there is as good.
fn remove_group(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove_group(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(Path::new);
    let mut below: Vec<&Path> = places.filter(|place| *place != dir && place.starts_with(dir)).collect();
    below.sort_by_key(|place| std::cmp::Reverse(place.components().count()));
    for place in below {
        rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", place.display()))?;
    }
    Ok(())
}
