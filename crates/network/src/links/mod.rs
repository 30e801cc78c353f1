//! Links, addresses, routes and network namespaces, over netlink.
//!
//! [`Lan`] joins nodes that are network namespaces of one machine; [`tear_down`] removes whatever a cluster left
//! in the kernel. Nothing here touches a link, route or namespace that does not carry the cluster's prefix.

mod kernel;
mod lan;
mod namespace;
mod tear_down;

use std::path::Path;

pub use lan::{Lan, LanNode, LanSettings, Way};
pub use namespace::enter;
pub use tear_down::tear_down;

pub(crate) use kernel::{Link, Links, Mac, Route, Steps, Veth, Vxlan};
pub(crate) use namespace::{inside, make, remove};

use crate::Cidr;

/// The longest prefix that still leaves room for a pod's part in a link's name (15 characters).
pub const PREFIX_LEN_MAX: usize = 6;

/// The letters of a prefix: lower case and digits, none that look alike.
const PREFIX_LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// A short name for the cluster of a data folder, so that several clusters can share a machine.
pub fn prefix_of(data_dir: &Path) -> String {
    let mut hash = hash64(data_dir.as_os_str().as_encoded_bytes());
    let mut prefix = String::new();
    for _ in 0..PREFIX_LEN_MAX {
        prefix.push(char::from(PREFIX_LETTERS[(hash % 32) as usize]));
        hash /= 32;
    }
    prefix
}

/// The range in which the nodes of one machine's cluster find each other: one of the 512 of `198.18.0.0/15`, which
/// is set apart for laboratories and therefore never anybody's real network.
pub fn lan_subnet(prefix: &str) -> Cidr {
    let third_octets = (hash64(prefix.as_bytes()) % 512) as u32;
    let first = u32::from_be_bytes([198, 18, 0, 0]) + third_octets * 256;
    Cidr::new(first.into(), 24).unwrap_or_else(|| unreachable!("24 bits are a prefix"))
}

/// FNV-1a: the same everywhere and for ever, which the standard library's hash does not promise.
pub(crate) fn hash64(bytes: &[u8]) -> u64 {
    let mixed = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // The low bits of FNV alone are poor for short keys.
    (mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The name of a link of the cluster `prefix`: at most 15 characters, and no other cluster's.
pub(crate) fn link_name(prefix: &str, part: &str) -> String {
    format!("kt{prefix}-{part}")
}

/// The number that marks the routes of the cluster `prefix` (their metric): there is no other place for a name.
pub(crate) fn route_metric(prefix: &str) -> u32 {
    0x4b00_0000 | (hash64(prefix.as_bytes()) as u32 & 0x00ff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_data_folders_have_two_prefixes_and_names_fit() {
        let (a, b) = (prefix_of(Path::new("/var/lib/a")), prefix_of(Path::new("/var/lib/b")));
        assert_ne!(a, b);
        assert_eq!(a.len(), PREFIX_LEN_MAX);
        assert!(link_name(&a, "ffffff").len() <= 15);
        assert!(lan_subnet(&a).to_string().starts_with("198.1"));
    }
}
