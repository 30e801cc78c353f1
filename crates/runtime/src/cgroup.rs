//! Control groups: v1, hybrid and v2. Limits, membership, killing, counting.
//!
//! Promises: touches only groups below the name it is given, and removes what it made. Never mounts anything and
//! never changes a group of others (on v2 it enables controllers in the root's `subtree_control`, without which
//! no child could have them).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Resources;

/// The v1 controllers that containers join; others stay with the monitor's group.
const V1_CONTROLLERS: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "devices"];
/// The v2 controllers that are enabled for containers.
const V2_CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Microseconds over which a CPU limit is counted: the kernel's own default.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// The least quota that the kernel takes, in microseconds.
const CPU_QUOTA_MICROS_MIN: u64 = 1_000;
/// How often killing what forks meanwhile is tried again where the kernel cannot kill a group at once.
const KILL_TRIES: usize = 64;

/// The machine's control groups.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    /// v1 hierarchies in use: their controllers and mount points.
    v1: Vec<(Vec<String>, PathBuf)>,
    /// The unified hierarchy.
    unified: Option<PathBuf>,
}

impl Cgroups {
    /// Finds what is mounted.
    pub(crate) fn detect() -> io::Result<Self> {
        Ok(Self::from_mountinfo(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn from_mountinfo(text: &str) -> Self {
        let mut found = Self { v1: Vec::new(), unified: None };
        for line in text.lines() {
            let Some((mount, fs)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4) else { continue };
            let fs: Vec<&str> = fs.split(' ').collect();
            match fs.as_slice() {
                ["cgroup2", ..] => {
                    found.unified = Some(found.unified.unwrap_or_else(|| PathBuf::from(point)))
                }
                ["cgroup", _, options, ..] => found.add_v1(point, options),
                _ => {}
            }
        }
        found
    }

    fn add_v1(&mut self, point: &str, options: &str) {
        let wanted = |name: &&str| V1_CONTROLLERS.contains(name);
        let known = |name: &str| self.v1.iter().any(|(names, _)| names.iter().any(|known| known == name));
        let names: Vec<String> =
            options.split(',').filter(wanted).filter(|n| !known(n)).map(String::from).collect();
        if !names.is_empty() {
            self.v1.push((names, PathBuf::from(point)));
        }
    }

    /// Whether limits are the unified hierarchy's.
    pub(crate) fn is_v2(&self) -> bool {
        self.v1.is_empty() && self.unified.is_some()
    }

    /// The controllers that limits need and that are missing.
    pub(crate) fn lacks(&self) -> Vec<String> {
        let has: Vec<String> = if self.is_v2() {
            let root = self.unified.clone().unwrap_or_default();
            let text = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            text.split_whitespace().map(String::from).collect()
        } else {
            self.v1.iter().flat_map(|(names, _)| names.clone()).collect()
        };
        V2_CONTROLLERS
            .iter()
            .filter(|name| !has.iter().any(|h| h == *name))
            .map(|n| (*n).to_owned())
            .collect()
    }

    /// The group at `path` below the root; nothing is made yet.
    pub(crate) fn group(&self, path: &str) -> Group {
        let v1 = self.v1.iter().map(|(names, point)| (names.clone(), point.join(path)));
        Group {
            v1: v1.collect(),
            unified: self.unified.as_ref().map(|point| point.join(path)),
            root: self.unified.clone(),
            is_v2: self.is_v2(),
        }
    }

    /// Where each hierarchy in use is mounted, for showing them inside a container: name, mount point.
    pub(crate) fn v1_mounts(&self) -> Vec<(String, PathBuf)> {
        self.v1.iter().map(|(names, point)| (names.join(","), point.clone())).collect()
    }
}

/// One group, in all hierarchies.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    v1: Vec<(Vec<String>, PathBuf)>,
    unified: Option<PathBuf>,
    root: Option<PathBuf>,
    is_v2: bool,
}

impl Group {
    /// The group of this name below it.
    pub(crate) fn child(&self, name: &str) -> Group {
        Group {
            v1: self.v1.iter().map(|(names, dir)| (names.clone(), dir.join(name))).collect(),
            unified: self.unified.as_ref().map(|dir| dir.join(name)),
            root: self.root.clone(),
            is_v2: self.is_v2,
        }
    }

    /// Makes it and, on v2, hands the controllers down to it.
    pub(crate) fn create(&self) -> io::Result<()> {
        for dir in self.dirs() {
            fs::create_dir_all(dir).map_err(|error| naming(error, dir))?;
        }
        if self.is_v2 { self.enable_controllers() } else { Ok(()) }
    }

    fn enable_controllers(&self) -> io::Result<()> {
        let (Some(root), Some(dir)) = (&self.root, &self.unified) else { return Ok(()) };
        let above: Vec<&Path> = dir.ancestors().skip(1).take_while(|dir| dir.starts_with(root)).collect();
        for dir in above.into_iter().rev() {
            for name in V2_CONTROLLERS {
                // A controller that the machine lacks was named by preflight; the limit's write fails then.
                let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"));
            }
        }
        Ok(())
    }

    fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.v1.iter().map(|(_, dir)| dir.as_path()).chain(self.unified.as_deref())
    }

    /// The folder of a v1 controller, or the unified one on v2.
    fn dir_of(&self, controller: &str) -> Option<&Path> {
        if self.is_v2 {
            return self.unified.as_deref();
        }
        let has = |names: &Vec<String>| names.iter().any(|name| name == controller);
        self.v1.iter().find(|(names, _)| has(names)).map(|(_, dir)| dir.as_path())
    }

    /// The folder into which `clone3` can place a child, where that is all there is to join.
    pub(crate) fn clone_into(&self) -> Option<&Path> {
        self.unified.as_deref().filter(|_| self.is_v2)
    }

    /// Moves the calling process into it.
    pub(crate) fn join(&self) -> io::Result<()> {
        for dir in self.dirs() {
            let file = dir.join("cgroup.procs");
            fs::write(&file, "0").map_err(|error| naming(error, &file))?;
        }
        Ok(())
    }

    /// Sets limits. What is `None` is left alone in a fresh group, and lifted in one that had limits.
    ///
    /// A limit of memory below what is in use is refused: v1's kernel does so itself, v2's would kill for it.
    pub(crate) fn limit(&self, resources: &Resources, fresh: bool) -> io::Result<()> {
        if let Some(limit) = resources.memory_limit.filter(|_| !fresh) {
            let (_, used) = self.usage();
            if limit < used {
                let why = format!("attempting to set memory limit ({limit}) below current usage ({used})");
                return Err(io::Error::other(why));
            }
        }
        for (controller, file, value) in self.limits(resources, fresh) {
            let Some(dir) = self.dir_of(controller) else { continue };
            let path = dir.join(file);
            fs::write(&path, &value).map_err(|error| naming(error, &path))?;
        }
        Ok(())
    }

    fn limits(&self, resources: &Resources, fresh: bool) -> Vec<(&'static str, &'static str, String)> {
        let mut limits = Vec::new();
        let mut set = |controller, file, value: Option<String>, lifted: &str| {
            if let Some(value) = value.or_else(|| (!fresh).then(|| lifted.to_owned())) {
                limits.push((controller, file, value));
            }
        };
        let quota =
            resources.cpu_limit_millis.map(|m| (m * CPU_PERIOD_MICROS / 1000).max(CPU_QUOTA_MICROS_MIN));
        let text = |n: u64| n.to_string();
        if self.is_v2 {
            set("cpu", "cpu.weight", resources.cpu_shares.map(|s| text(weight(s))), "100");
            set("cpu", "cpu.max", quota.map(|q| format!("{q} {CPU_PERIOD_MICROS}")), "max");
            set("memory", "memory.max", resources.memory_limit.map(text), "max");
        } else {
            set("cpu", "cpu.shares", resources.cpu_shares.map(|s| text(s.max(2))), "1024");
            set("cpu", "cpu.cfs_quota_us", quota.map(text), "-1");
            set("memory", "memory.limit_in_bytes", resources.memory_limit.map(text), "-1");
        }
        set("pids", "pids.max", resources.pids_limit.map(text), "max");
        limits
    }

    /// On v2: an OOM kill takes the whole container, as Kubernetes has it.
    pub(crate) fn kill_as_one(&self) {
        if let Some(dir) = self.unified.as_deref().filter(|_| self.is_v2) {
            let _ = fs::write(dir.join("memory.oom.group"), "1");
        }
    }

    /// On v1: allows no device but the harmless ones and those named (type, major, minor).
    pub(crate) fn allow_devices(&self, devices: &[(char, u32, u32)]) -> io::Result<()> {
        let Some((_, dir)) = self.v1.iter().find(|(names, _)| names.iter().any(|n| n == "devices")) else {
            return Ok(());
        };
        fs::write(dir.join("devices.deny"), "a")?;
        let harmless = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
        let mut allowed = vec!["c *:* m".to_owned(), "b *:* m".to_owned(), "c 136:* rwm".to_owned()];
        allowed.extend(harmless.iter().map(|(major, minor)| format!("c {major}:{minor} rwm")));
        allowed.extend(devices.iter().map(|(kind, major, minor)| format!("{kind} {major}:{minor} rwm")));
        for line in allowed {
            fs::write(dir.join("devices.allow"), line)?;
        }
        Ok(())
    }

    /// The processes in it and below.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let Some(dir) = self.dirs().last() else { return Vec::new() };
        let mut pids = Vec::new();
        let mut dirs = vec![dir.to_path_buf()];
        while let Some(dir) = dirs.pop() {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
            dirs.extend(children(&dir));
        }
        pids
    }

    /// Kills all processes in it and below.
    pub(crate) fn kill(&self) {
        if let Some(dir) = &self.unified
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for _ in 0..KILL_TRIES {
            let pids = self.pids();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                // SAFETY: takes no pointers; 0 names processes outside our pid namespace and is left alone.
                unsafe { if pid > 0 { libc::kill(pid, libc::SIGKILL) } else { 0 } };
            }
        }
    }

    /// Removes it and the groups below. Gone already counts as done.
    pub(crate) fn remove(&self) -> io::Result<()> {
        self.dirs().try_for_each(remove_tree)
    }

    /// How many processes the kernel killed in it for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let Some(dir) = self.dir_of("memory") else { return 0 };
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        fs::read_to_string(dir.join(file)).map(|text| field(&text, "oom_kill")).unwrap_or(0)
    }

    /// CPU time in nanoseconds and working set in bytes.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let read = |controller, file| {
            let path = self.dir_of(controller).map(|dir| dir.join(file));
            path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default()
        };
        let number = |text: String| text.trim().parse().unwrap_or(0u64);
        let stat = read("memory", "memory.stat");
        if self.is_v2 {
            let cpu = field(&read("cpu", "cpu.stat"), "usage_usec") * 1000;
            let memory = number(read("memory", "memory.current"));
            return (cpu, memory.saturating_sub(field(&stat, "inactive_file")));
        }
        let memory = number(read("memory", "memory.usage_in_bytes"));
        (number(read("cpuacct", "cpuacct.usage")), memory.saturating_sub(field(&stat, "total_inactive_file")))
    }
}

/// v2's weight for v1's shares.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()).collect()
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in children(dir) {
        remove_tree(&child)?;
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(naming(error, dir)),
        _ => Ok(()),
    }
}

fn naming(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";

    #[test]
    fn hybrid_machines_limit_by_v1_and_kill_by_v2() {
        let found = Cgroups::from_mountinfo(HYBRID);
        assert!(!found.is_v2());
        let dirs: Vec<PathBuf> = found.group("x").dirs().map(Path::to_path_buf).collect();
        let want = ["cpu", "memory", "unified"].map(|name| PathBuf::from(format!("/sys/fs/cgroup/{name}/x")));
        assert_eq!(dirs, want);
    }

    #[test]
    fn limits_follow_the_version() {
        let wish = Resources { cpu_limit_millis: Some(250), memory_limit: Some(64), ..Resources::default() };
        let v2 = Cgroups::from_mountinfo("1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw").group("x");
        let want = [("cpu", "cpu.max", "25000 100000".to_owned()), ("memory", "memory.max", "64".to_owned())];
        assert_eq!(v2.limits(&wish, true), want);
        let v1 = Cgroups::from_mountinfo(HYBRID).group("x");
        let want = [
            ("cpu", "cpu.cfs_quota_us", "25000".to_owned()),
            ("memory", "memory.limit_in_bytes", "64".to_owned()),
        ];
        assert_eq!(v1.limits(&wish, true), want);
        assert!(v1.limits(&wish, false).contains(&("cpu", "cpu.shares", "1024".to_owned())));
    }
}
