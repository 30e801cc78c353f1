//! The default: what ordinary programs need, less what reaches the kernel's less guarded corners.

use seccompiler::{SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use crate::Security;
use crate::monitor::capabilities;
use crate::seccomp::{Layer, Rules, table};

/// Refused to everyone.
const REFUSED: &[&str] = &[
    "_sysctl",
    "add_key",
    "afs_syscall",
    "epoll_ctl_old",
    "epoll_wait_old",
    "getpmsg",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "migrate_pages",
    "move_pages",
    "nfsservctl",
    "pivot_root",
    "putpmsg",
    "request_key",
    "security",
    "swapoff",
    "swapon",
    "sysfs",
    "tuxcall",
    "uselib",
    "userfaultfd",
    "ustat",
    "vserver",
];

/// Refused without one of these capabilities.
const GUARDED: &[(&[&str], &[&str])] = &[
    (&["DAC_READ_SEARCH"], &["open_by_handle_at"]),
    (
        &["SYS_ADMIN"],
        &[
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "umount2",
            "unshare",
        ],
    ),
    (&["SYS_ADMIN", "BPF"], &["bpf"]),
    (&["SYS_ADMIN", "PERFMON"], &["perf_event_open"]),
    (&["SYS_ADMIN", "SYSLOG"], &["syslog"]),
    (&["SYS_BOOT"], &["reboot"]),
    (&["SYS_CHROOT"], &["chroot"]),
    (&["SYS_MODULE"], &["delete_module", "finit_module", "init_module"]),
    (&["SYS_NICE"], &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    (&["SYS_PACCT"], &["acct"]),
    (&["SYS_PTRACE"], &["kcmp", "pidfd_getfd", "process_vm_readv", "process_vm_writev"]),
    (&["SYS_RAWIO"], &["ioperm", "iopl"]),
    (&["SYS_TIME"], &["clock_settime", "settimeofday"]),
    (&["SYS_TTY_CONFIG"], &["vhangup"]),
];

/// The flags of `clone` that make namespaces.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// The personalities that change nothing that matters: none, 32 bits, and what asks which there is.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The programs of the default for a container of these capabilities.
pub(super) fn layers(security: &Security) -> Result<Vec<Layer>, String> {
    let has = capabilities::wanted(security)?;
    let holds =
        |names: &[&str]| names.iter().filter_map(|name| capabilities::bit(name)).any(|bit| has & bit != 0);
    let known = Layer {
        rules: table::numbers().map(|number| (number, Vec::new())).collect(),
        matched: SeccompAction::Allow,
        other: SeccompAction::Errno(libc::ENOSYS as u32),
    };
    let mut refused: Rules = REFUSED.iter().filter_map(|name| table::number(name)).map(any).collect();
    let guarded =
        GUARDED.iter().filter(|(capabilities, _)| !holds(capabilities)).flat_map(|(_, calls)| *calls);
    refused.extend(guarded.filter_map(|name| table::number(name)).map(any));
    refused
        .insert(libc::SYS_personality, vec![rule(PERSONALITIES.iter().map(|p| (0, SeccompCmpOp::Ne, *p)))?]);
    refused.insert(libc::SYS_socket, vec![rule([(0, SeccompCmpOp::Eq, libc::AF_VSOCK as u64)])?]);
    let mut layers = vec![known];
    if !holds(&["SYS_ADMIN"]) {
        let makes = |flag: &i32| rule([(0, SeccompCmpOp::MaskedEq(*flag as u64), *flag as u64)]);
        refused.insert(libc::SYS_clone, NAMESPACES.iter().map(makes).collect::<Result<_, _>>()?);
        // Its flags are in memory, where no filter can look: as if it did not exist, programs use `clone` instead.
        layers.push(refusing([any(libc::SYS_clone3)].into(), libc::ENOSYS));
    }
    layers.push(refusing(refused, libc::EPERM));
    Ok(layers)
}

fn any(number: i64) -> (i64, Vec<SeccompRule>) {
    (number, Vec::new())
}

fn refusing(rules: Rules, errno: i32) -> Layer {
    Layer { rules, matched: SeccompAction::Errno(errno as u32), other: SeccompAction::Allow }
}

fn rule(conditions: impl IntoIterator<Item = (u8, SeccompCmpOp, u64)>) -> Result<SeccompRule, String> {
    let condition = |(index, op, value)| SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value);
    let conditions = conditions.into_iter().map(condition).collect::<Result<Vec<_>, _>>();
    conditions.and_then(SeccompRule::new).map_err(|error| format!("seccomp: {error}"))
}
