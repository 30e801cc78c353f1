//! Starting monitors, and clearing away what dead ones left.

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::cgroup::{Cgroups, Group};
use crate::layout::{Layout, Pod};
use crate::monitor;
use crate::sys;
use crate::wire::{self, ContainerRecord, MonitorRecord, SandboxFile};

/// How often clearing a group is tried while the kernel lets go of its processes, and the time between: two seconds.
const CLEAR_TRIES: usize = 400;
const CLEAR_PAUSE: Duration = Duration::from_millis(5);
/// Bytes of a complaint of a monitor that did not start.
const COMPLAINT_LEN_MAX: u64 = 4096;

/// Makes the sandbox's folder and starts its monitor; returns when that listens. Blocks for some milliseconds.
pub(crate) fn start_monitor(exe: &Path, pod: &Pod, file: &SandboxFile) -> io::Result<()> {
    fs::create_dir_all(pod.containers())?;
    if let Some(dir) = file.netns.as_deref().and_then(Path::parent) {
        fs::create_dir_all(dir)?;
    }
    wire::write_whole(&pod.spec(), file)?;
    let complaints = fs::File::create(pod.complaints())?;
    let mut child = Command::new(exe)
        .arg(monitor::MONITOR)
        .arg(&pod.dir)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(complaints)
        .spawn()?;
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(COMPLAINT_LEN_MAX).read_to_string(&mut said)?;
    }
    child.wait()?;
    if said == monitor::READY {
        return Ok(());
    }
    let detail = fs::read_to_string(pod.complaints()).unwrap_or_default();
    Err(io::Error::other(format!("the monitor did not start: {}{}", said.trim_end(), detail.trim_end())))
}

/// The group of a sandbox.
pub(crate) fn group(layout: &Layout, cgroups: &Cgroups, pod_uid: &str) -> Group {
    cgroups.group(&format!("{}/pod{pod_uid}", layout.cgroup_name()))
}

/// Clears away what a dead or silent monitor left: processes, mounts, groups; the folder stays.
pub(crate) fn clear_remains(layout: &Layout, cgroups: &Cgroups, pod_uid: &str) -> io::Result<()> {
    let pod = layout.pod(pod_uid);
    kill_monitor(&pod);
    let group = group(layout, cgroups, pod_uid);
    group.kill();
    sys::unmount(&pod.shm())?;
    let netns = layout.netns(pod_uid);
    sys::unmount(&netns)?;
    let _ = fs::remove_file(&netns);
    let _ = fs::remove_file(pod.socket());
    clear_group(&group)
}

/// Removes the files of a sandbox that was cleared, but for its logs: they tell why the pod needs another one. A folder
/// without logs goes, too.
pub(crate) fn clear_but_logs(pod: &Pod) -> io::Result<()> {
    let entries = match fs::read_dir(&pod.dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    let mut has_logs = false;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        match () {
            () if path == pod.all_logs() => has_logs = true,
            () if entry.file_type()?.is_dir() => fs::remove_dir_all(path)?,
            () => fs::remove_file(path)?,
        }
    }
    if has_logs { Ok(()) } else { fs::remove_dir(&pod.dir) }
}

/// Removes a group as soon as the kernel lets it go.
pub(crate) fn clear_group(group: &Group) -> io::Result<()> {
    let mut done = group.remove();
    for _ in 0..CLEAR_TRIES {
        if done.is_ok() {
            break;
        }
        std::thread::sleep(CLEAR_PAUSE);
        done = group.remove();
    }
    done
}

/// Kills a monitor that does not answer, if the process of that id is still it.
fn kill_monitor(pod: &Pod) {
    let Ok(record) = wire::read_whole::<MonitorRecord>(&pod.monitor()) else { return };
    let command = fs::read(format!("/proc/{}/cmdline", record.pid)).unwrap_or_default();
    let mut parts = command.split(|byte| *byte == 0).skip(1);
    let is_it = parts.next() == Some(monitor::MONITOR.as_bytes())
        && parts.next() == Some(pod.dir.as_os_str().as_encoded_bytes());
    if is_it && record.pid > 0 {
        // SAFETY: takes no pointers.
        unsafe { libc::kill(record.pid, libc::SIGKILL) };
    }
}

/// The containers of a dead monitor, as it wrote them down. One without an end gets `end`, which is written down too.
pub(crate) fn orphans(pod: &Pod, end: &wire::ExitRecord) -> Vec<ContainerRecord> {
    let mut records = Vec::new();
    for entry in fs::read_dir(pod.containers()).into_iter().flatten().flatten() {
        let path = entry.path().join("state.json");
        let Ok(mut record) = wire::read_whole::<ContainerRecord>(&path) else { continue };
        if record.started_at.is_none() {
            continue;
        }
        if record.exit.is_none() {
            record.exit = Some(end.clone());
            let _ = wire::write_whole(&path, &record);
        }
        records.push(record);
    }
    records.sort_by_key(|record| record.created_at);
    records
}
