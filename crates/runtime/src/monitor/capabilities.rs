//! Capabilities: which a container gets, and giving up the others.

use std::io;

use crate::Security;
use crate::sys;

/// All capabilities by their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless its pod says otherwise: what users of other runtimes expect.
const DEFAULTS: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// The third version of the kernel's interface, of 64 bits.
const VERSION: u32 = 0x2008_0522;

/// Capabilities as bits by number.
pub(crate) type Bits = u64;

const ALL: Bits = (1 << NAMES.len()) - 1;

/// The bit of a capability, named with or without `CAP_`.
pub(crate) fn bit(name: &str) -> Option<Bits> {
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// The capabilities that a pod asks for.
pub(crate) fn wanted(security: &Security) -> Result<Bits, String> {
    if security.privileged {
        return Ok(ALL);
    }
    let bits = |name: &String| match name.eq_ignore_ascii_case("ALL") {
        true => Ok(ALL),
        false => bit(name).ok_or_else(|| format!("unknown capability {name:?}")),
    };
    let mut wanted = DEFAULTS.iter().filter_map(|name| bit(name)).fold(0, |all, bit| all | bit);
    // "ALL" goes first, so that single names can take exception to it.
    let all_first = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort_by_key(|name| !name.eq_ignore_ascii_case("ALL"));
        names
    };
    let (add, drop) = (all_first(&security.capabilities_add), all_first(&security.capabilities_drop));
    for name in drop.iter().filter(|name| name.eq_ignore_ascii_case("ALL")) {
        wanted &= !bits(name)?;
    }
    for name in &add {
        wanted |= bits(name)?;
    }
    for name in drop.iter().filter(|name| !name.eq_ignore_ascii_case("ALL")) {
        wanted &= !bits(name)?;
    }
    Ok(wanted)
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The capabilities this process may use.
pub(crate) fn permitted() -> io::Result<Bits> {
    let header = Header { version: VERSION, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: both live through the call and have the kernel's layout.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) };
    sys::check(done as i32)?;
    Ok(Bits::from(halves[0].permitted) | Bits::from(halves[1].permitted) << 32)
}

/// Takes all but `wanted` out of the bounding set; returns what of it this process has.
pub(crate) fn bound(wanted: Bits) -> io::Result<Bits> {
    let wanted = wanted & permitted()?;
    for number in (0..NAMES.len()).filter(|number| wanted & (1 << number) == 0) {
        match sys::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong) {
            // An older kernel does not know the newest ones.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            done => done?,
        }
    }
    Ok(wanted)
}

/// Makes `wanted` the permitted and effective capabilities.
pub(crate) fn set(wanted: Bits) -> io::Result<()> {
    let header = Header { version: VERSION, pid: 0 };
    let half = |bits: u32| Half { effective: bits, permitted: bits, inheritable: 0 };
    let halves = [half(wanted as u32), half((wanted >> 32) as u32)];
    // SAFETY: both live through the call and have the kernel's layout.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) };
    sys::check(done as i32).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], want: &[&str]) {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security =
            Security { capabilities_add: own(add), capabilities_drop: own(drop), ..Security::default() };
        let want = want.iter().filter_map(|name| bit(name)).fold(0, |all, bit| all | bit);
        assert_eq!(wanted(&security), Ok(want), "add {add:?}, drop {drop:?}");
    }

    #[test]
    fn single_names_take_exception_to_all() {
        check(&[], &["ALL"], &[]);
        check(&["NET_BIND_SERVICE"], &["ALL"], &["NET_BIND_SERVICE"]);
        check(&["CAP_NET_ADMIN"], &["ALL"], &["NET_ADMIN"]);
        check(&["ALL"], &[], &NAMES);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let security = Security { capabilities_add: vec!["FLY".to_owned()], ..Security::default() };
        assert!(wanted(&security).is_err());
    }
}
