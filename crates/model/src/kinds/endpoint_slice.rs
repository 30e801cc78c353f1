//! EndpointSlice of `discovery.k8s.io/v1`: its constants, and what its schema cannot say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::endpoints::endpoint_address;
use super::table::{column, few, or};
use super::{Column, Faults, Kind, of};
use crate::tree::{items, text, whole};
use crate::{Tree, syntax, tree};

/// What the house knows of `discovery.k8s.io/v1` EndpointSlice.
pub static KIND: Kind =
    Kind::new(of::ENDPOINT_SLICE, "EndpointSlice", "endpointslice", "io.k8s.api.discovery.v1.EndpointSlice")
        .namespaced()
        .columns(COLUMNS)
        .filling(fill)
        .checking(check)
        .changing(change)
        .counts();

const COLUMNS: &[Column] = &[
    column("AddressType", |object, _| or(object, "addressType", "")),
    column("Ports", |object, _| ports(object)),
    column("Endpoints", |object, _| addresses(object)),
];

/// How many endpoints, and how many ports, one slice may have (upstream's limits).
const ENDPOINTS_LEN_MAX: usize = 1000;
const PORTS_LEN_MAX: usize = 20_000;
/// How many addresses one endpoint may have.
const ADDRESSES_LEN_MAX: usize = 100;

fn fill(object: &mut Tree) {
    for port in tree::items_mut(object, "ports") {
        tree::fill(port, "name", "");
        tree::fill(port, "protocol", "TCP");
    }
}

fn check(object: &Tree, faults: &mut Faults) {
    let kind = text(object, "addressType");
    faults.one_of("addressType", kind, &["FQDN", "IPv4", "IPv6"]);
    let (endpoints, ports) = (items(object, "endpoints"), items(object, "ports"));
    if endpoints.len() > ENDPOINTS_LEN_MAX {
        faults.too_many("endpoints", endpoints.len(), ENDPOINTS_LEN_MAX);
    }
    if ports.len() > PORTS_LEN_MAX {
        faults.too_many("ports", ports.len(), PORTS_LEN_MAX);
    }
    for (index, endpoint) in endpoints.iter().take(ENDPOINTS_LEN_MAX).enumerate() {
        check_endpoint(endpoint, kind, &format!("endpoints[{index}]"), faults);
    }
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let (field, name) = (format!("ports[{index}]"), text(port, "name"));
        if !name.is_empty() {
            faults.each(format_args!("{field}.name"), name, syntax::dns1123_label(name));
        }
        if !names.insert(name) {
            faults.duplicate(format!("{field}.name"), name);
        }
        faults.one_of(format_args!("{field}.protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

fn check_endpoint(endpoint: &Tree, kind: &str, field: &str, faults: &mut Faults) {
    let addresses = items(endpoint, "addresses");
    if addresses.is_empty() {
        faults.required(format!("{field}.addresses"), "must contain at least 1 address");
    }
    if addresses.len() > ADDRESSES_LEN_MAX {
        faults.too_many(format!("{field}.addresses"), addresses.len(), ADDRESSES_LEN_MAX);
    }
    for (at, address) in addresses.iter().filter_map(Tree::as_str).take(ADDRESSES_LEN_MAX).enumerate() {
        let field = format!("{field}.addresses[{at}]");
        match (kind, address.parse::<IpAddr>()) {
            ("FQDN", _) => faults.each(&field, address, syntax::dns1123_subdomain(address)),
            ("IPv4", Ok(IpAddr::V4(_))) | ("IPv6", Ok(IpAddr::V6(_))) => {
                endpoint_address(address, &field, faults)
            }
            ("IPv4", _) => faults.invalid(field, address, "must be a valid IPv4 address"),
            _ => faults.invalid(field, address, "must be a valid IPv6 address"),
        }
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("addressType", &old["addressType"], &new["addressType"]);
}

/// How many ports or addresses a row shows.
const SHOWN: usize = 3;

fn ports(object: &Tree) -> Tree {
    let shown = items(object, "ports").iter().map(|port| match (whole(port, "port"), text(port, "name")) {
        (Some(number), _) => number.to_string(),
        (None, "") => "*".to_owned(),
        (None, name) => name.to_owned(),
    });
    few(&shown.collect::<Vec<_>>(), SHOWN, "<unset>")
}

fn addresses(object: &Tree) -> Tree {
    let all = items(object, "endpoints").iter().flat_map(|endpoint| items(endpoint, "addresses"));
    few(&all.filter_map(Tree::as_str).map(str::to_owned).collect::<Vec<_>>(), SHOWN, "<unset>")
}
