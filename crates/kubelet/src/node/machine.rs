//! What the machine is and has, as the kernel tells it.

use std::fs;
use std::path::Path;

use crate::resources::Allocatable;
use crate::settings::Machine;

/// Memory that pods do not get, so that the node itself stays alive: as upstream's eviction threshold.
const MEMORY_KEPT: u64 = 100 << 20;

/// The share of the disk that pods do not get, as upstream's eviction threshold.
const DISK_KEPT_PERCENT: u64 = 10;

/// How many pods a node takes, as upstream.
const PODS_MAX: u64 = 110;

pub fn look(data_dir: &Path) -> Machine {
    let capacity = Allocatable {
        cpu_millis: std::thread::available_parallelism().map_or(1000, |n| n.get() as u64 * 1000),
        memory: memory(),
        ephemeral_storage: disk(data_dir),
        pods: PODS_MAX,
    };
    let allocatable = Allocatable {
        memory: capacity.memory.saturating_sub(MEMORY_KEPT),
        ephemeral_storage: capacity.ephemeral_storage / 100 * (100 - DISK_KEPT_PERCENT),
        ..capacity
    };
    Machine {
        capacity,
        allocatable,
        architecture: architecture().into(),
        kernel: line("/proc/sys/kernel/osrelease"),
        os_image: os_image(),
        machine_id: line("/etc/machine-id"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        resolv_conf: resolv_conf(),
        hosts: fs::read_to_string("/etc/hosts").unwrap_or_default(),
    }
}

fn line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The disk that holds `path`, or its nearest parent that exists.
fn disk(path: &Path) -> u64 {
    let existing = path.ancestors().find(|at| at.exists()).unwrap_or(Path::new("/"));
    rustix::fs::statvfs(existing).map_or(0, |stat| stat.f_blocks * stat.f_frsize)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn os_image() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// The servers behind a local stub, where there is one: pods cannot reach the stub.
fn resolv_conf() -> String {
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    match own.contains("nameserver 127.0.0.53") {
        true => fs::read_to_string("/run/systemd/resolve/resolv.conf").unwrap_or(own),
        false => own,
    }
}
