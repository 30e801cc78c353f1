//! Endpoints of `v1`: its constants, and what its schema cannot say.

use std::net::IpAddr;

use super::table::{column, few};
use super::{Column, Faults, Kind, of};
use crate::tree::{is_set, items, text, whole};
use crate::{Tree, syntax, tree};

/// What the house knows of `v1` Endpoints.
pub static KIND: Kind = Kind::new(of::ENDPOINTS, "Endpoints", "endpoints", "io.k8s.api.core.v1.Endpoints")
    .short(&["ep"])
    .namespaced()
    .columns(COLUMNS)
    .filling(fill)
    .checking(check);

const COLUMNS: &[Column] = &[column("Endpoints", |object, _| addresses(object))];

fn check(object: &Tree, faults: &mut Faults) {
    for (index, subset) in items(object, "subsets").iter().enumerate() {
        let field = format!("subsets[{index}]");
        if !is_set(subset, "addresses") && !is_set(subset, "notReadyAddresses") {
            faults.required(field.as_str(), "must specify `addresses` or `notReadyAddresses`");
        }
        for list in ["addresses", "notReadyAddresses"] {
            for (at, address) in items(subset, list).iter().enumerate() {
                endpoint_address(text(address, "ip"), &format!("{field}.{list}[{at}].ip"), faults);
            }
        }
        let many = items(subset, "ports").len() > 1;
        for (at, port) in items(subset, "ports").iter().enumerate() {
            let field = format!("{field}.ports[{at}]");
            if many && text(port, "name").is_empty() {
                faults.required(format!("{field}.name"), "");
            }
            let number = whole(port, "port").unwrap_or(0);
            faults.each(format_args!("{field}.port"), number, syntax::port_number(number));
            faults.one_of(format_args!("{field}.protocol"), text(port, "protocol"), &["TCP", "UDP", "SCTP"]);
        }
    }
}

/// An address that an endpoint may have: no loopback, link-local, multicast or unspecified one.
pub(super) fn endpoint_address(address: &str, field: &str, faults: &mut Faults) {
    let Ok(ip) = address.parse::<IpAddr>() else {
        return faults.invalid(
            field,
            address,
            "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        );
    };
    if ip.is_unspecified() {
        faults.invalid(field, address, &format!("may not be unspecified ({address})"));
    }
    if ip.is_loopback() {
        faults.invalid(field, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
    };
    if local {
        faults.invalid(field, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    let multicast_here = match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
        IpAddr::V6(ip) => ip.segments()[0] == 0xff02,
    };
    if multicast_here {
        faults.invalid(
            field,
            address,
            "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)",
        );
    }
}

fn fill(object: &mut Tree) {
    for subset in tree::items_mut(object, "subsets") {
        tree::items_mut(subset, "ports").for_each(|port| tree::fill(port, "protocol", "TCP"));
    }
}

/// How many addresses a row shows.
const SHOWN: usize = 3;

fn addresses(object: &Tree) -> Tree {
    let mut all: Vec<String> = Vec::new();
    for subset in items(object, "subsets") {
        let ports: Vec<i64> = items(subset, "ports").iter().filter_map(|port| whole(port, "port")).collect();
        let hosts = || items(subset, "addresses").iter().map(|address| text(address, "ip"));
        if ports.is_empty() {
            all.extend(hosts().map(str::to_owned));
        }
        for port in ports {
            all.extend(
                hosts().map(
                    |ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") },
                ),
            );
        }
    }
    few(&all, SHOWN, "<none>")
}
