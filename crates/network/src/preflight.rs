//! What the machine lacks for a node's network, and what stands in its way, found by trying where it does no harm.
//!
//! Everything is tried in a network namespace of its own, which vanishes with the thread that tried.

use std::io;
use std::os::fd::AsFd;
use std::thread;

use rustix::thread::{CapabilitySet, UnshareFlags, capabilities, unshare_unsafe};

use crate::links::{Links, Steps, Veth};
use crate::services::trial;

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lack {
    /// What is missing, for the user.
    pub what: String,
    /// What the kernel said.
    pub why: String,
}

/// Says what is missing, a kernel's feature or a right, for [`crate::KernelNetwork`] and [`crate::links::Lan`] to
/// work. Empty when all is there.
pub fn preflight() -> Vec<Lack> {
    let tried = thread::scope(|scope| scope.spawn(try_all).join());
    tried.unwrap_or_else(|_| vec![lack("a network that can be tried", "the trial panicked")])
}

/// Says what of others drops packets that pods send: their tables whose last word on forwarded packets is "drop".
///
/// Nothing of ours can overrule that, and rules of theirs may let our packets through: so it is for the user to know.
pub fn obstacles() -> Vec<Lack> {
    let found = trial::forward_drops().unwrap_or_default();
    let tell =
        |chain: String| lack(&format!("packets forwarded past the chain {chain:?}"), "its policy is drop");
    found.into_iter().map(tell).collect()
}

/// One thing to try: why it does not work.
type Trial = fn() -> Result<(), String>;

fn try_all() -> Vec<Lack> {
    let has_right = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN));
    if !has_right {
        return vec![lack("the right to administer networks (CAP_NET_ADMIN); run as root", "not permitted")];
    }
    // SAFETY: only the network namespace is unshared, and only for this thread, which ends with the trial.
    if let Err(error) = unsafe { unshare_unsafe(UnshareFlags::NEWNET) } {
        return vec![lack("network namespaces (CONFIG_NET_NS, and the right CAP_SYS_ADMIN)", error)];
    }
    let trials: [(&str, Trial); 3] = [
        ("pairs of virtual links (kernel module veth)", try_veth),
        (
            "packet rules (kernel modules nf_tables, nft_ct, nft_nat, nft_masq, nft_fib_ipv4, nft_numgen, nft_reject_ipv4)",
            trial::try_rules,
        ),
        ("tracked connections (kernel module nf_conntrack_netlink)", trial::try_tracked),
    ];
    let failed = trials.into_iter().filter_map(|(what, trial)| trial().err().map(|why| lack(what, &why)));
    failed.collect()
}

fn lack(what: &str, why: impl std::fmt::Display) -> Lack {
    Lack { what: what.to_owned(), why: why.to_string() }
}

fn try_veth() -> Result<(), String> {
    let here = std::fs::File::open("/proc/thread-self/ns/net").map_err(|error| error.to_string())?;
    try_steps(|steps| {
        steps.veth(&Veth {
            name: "kt-trial-a",
            mac: [2, 0, 0, 0, 0, 1],
            peer_name: "kt-trial-b",
            peer_mac: [2, 0, 0, 0, 0, 2],
            peer_netns: here.as_fd(),
            mtu: 1500,
        });
    })
}

fn try_steps(write: impl FnOnce(&mut Steps)) -> Result<(), String> {
    let links: io::Result<Links> = Links::open();
    let mut steps = Steps::default();
    write(&mut steps);
    links.map_err(|error| error.to_string())?.carry_out(steps).map_err(|error| cause(&error))
}

/// An error with all its causes.
pub(crate) fn cause(error: &dyn std::error::Error) -> String {
    let mut all = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        all = format!("{all}: {source}");
        next = source.source();
    }
    all
}
