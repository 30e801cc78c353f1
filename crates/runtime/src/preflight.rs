//! Whether this machine can run containers; if not, what it lacks, in plain words.
//!
//! Looks and tries, and leaves nothing behind.

use std::path::Path;

use crate::cgroup::Cgroups;
use crate::monitor::capabilities;
use crate::sys;

/// Something that this machine lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What is missing, and what it is for.
    pub what: String,
    /// What to do about it.
    pub help: String,
    /// Whether nothing runs without it.
    pub fatal: bool,
}

/// Rights without which no container starts, and what for.
const RIGHTS: [(&str, &str); 12] = [
    ("SYS_ADMIN", "to make namespaces and mounts"),
    ("NET_ADMIN", "to give pods their network"),
    ("SETUID", "to run containers as their users"),
    ("SETGID", "to run containers with their groups"),
    ("SETPCAP", "to limit what containers may do"),
    ("CHOWN", "to unpack images"),
    ("DAC_OVERRIDE", "to unpack images and mount volumes"),
    ("FOWNER", "to unpack images"),
    ("FSETID", "to unpack images"),
    ("MKNOD", "to unpack images whose layers delete files"),
    ("SYS_CHROOT", "to change the root of containers"),
    ("KILL", "to stop containers"),
];
/// Namespaces that pods need: their file below `/proc/self/ns` and what they separate.
const NAMESPACES: [(&str, &str); 5] = [
    ("mnt", "file systems"),
    ("pid", "process ids"),
    ("net", "networks"),
    ("ipc", "shared memory"),
    ("uts", "host names"),
];
/// The system calls that starting a container relies on: name, number, the kernel that brought it.
const SYSTEM_CALLS: [(&str, libc::c_long, &str); 4] = [
    ("openat2", libc::SYS_openat2, "5.6"),
    ("pidfd_open", libc::SYS_pidfd_open, "5.3"),
    ("mount_setattr", libc::SYS_mount_setattr, "5.12"),
    ("close_range", libc::SYS_close_range, "5.9"),
];

/// Says what this machine lacks; empty when all is well.
pub fn preflight() -> Vec<Lack> {
    let mut lacks = Vec::new();
    let mut fatal = |what: String, help: &str| lacks.push(Lack { what, help: help.to_owned(), fatal: true });
    for (right, purpose) in missing_rights() {
        fatal(
            format!("the right CAP_{right} is missing, {purpose}"),
            "run as root, in a privileged container at least",
        );
    }
    for (file, purpose) in
        NAMESPACES.iter().filter(|(file, _)| !Path::new("/proc/self/ns").join(file).exists())
    {
        fatal(
            format!("the kernel has no {file} namespaces, which separate the {purpose} of pods"),
            "use a kernel with namespaces",
        );
    }
    for (name, _, kernel) in SYSTEM_CALLS.iter().filter(|(_, number, _)| !has_call(*number)) {
        fatal(
            format!("the system call {name} is missing or forbidden"),
            &format!("use Linux {kernel} or later"),
        );
    }
    for name in ["overlay", "proc", "tmpfs", "devpts", "sysfs", "mqueue"] {
        if let Err(error) = rustix::mount::fsopen(name, rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC) {
            fatal(
                format!("the file system {name} cannot be used: {error}"),
                "load its module or use a kernel that has it",
            );
        }
    }
    if !has_seccomp() {
        fatal(
            "the kernel cannot filter system calls (seccomp)".to_owned(),
            "use a kernel with CONFIG_SECCOMP_FILTER",
        );
    }
    match Cgroups::detect() {
        Ok(groups) => {
            for name in groups.lacks() {
                let help = "mount it, or enable it in cgroup.subtree_control of the root";
                fatal(
                    format!("the control group controller {name} is missing, which limits containers"),
                    help,
                );
            }
        }
        Err(error) => {
            fatal(format!("control groups cannot be looked up: {error}"), "mount /proc and /sys/fs/cgroup")
        }
    }
    if !has_right("SYS_RESOURCE") {
        let what = "the right CAP_SYS_RESOURCE is missing, so no container is preferred when memory runs out";
        lacks.push(Lack {
            what: what.to_owned(),
            help: "grant it, or live with it".to_owned(),
            fatal: false,
        });
    }
    lacks
}

fn has_right(name: &str) -> bool {
    let has = capabilities::permitted().unwrap_or(0);
    capabilities::bit(name).is_some_and(|bit| has & bit != 0)
}

fn missing_rights() -> impl Iterator<Item = (&'static str, &'static str)> {
    RIGHTS.into_iter().filter(|(name, _)| !has_right(name))
}

/// Calls with arguments that every kernel refuses, to see whether it knows the call.
fn has_call(number: libc::c_long) -> bool {
    // SAFETY: the kernel checks the descriptors or pointers, which are none, and refuses them.
    let done = unsafe { libc::syscall(number, -1, 0, -1, 0, 0) };
    let error = std::io::Error::last_os_error().raw_os_error();
    done >= 0 || !matches!(error, Some(libc::ENOSYS | libc::EPERM))
}

fn has_seccomp() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: asks whether the action is known; the number lives through the call.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    sys::check(done as i32).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_comes_with_help() {
        assert!(preflight().iter().all(|lack| !lack.what.is_empty() && !lack.help.is_empty()));
    }
}
