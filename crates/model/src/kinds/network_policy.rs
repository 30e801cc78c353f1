//! NetworkPolicy of `networking.k8s.io/v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{column, label_selector};
use super::{Column, Faults, Kind, check_selector, is_cidr, of};
use crate::tree::{at, is_set, is_there, items, text, whole};
use crate::{Tree, syntax, tree};

/// What the house knows of `networking.k8s.io/v1` NetworkPolicy.
pub static KIND: Kind =
    Kind::new(of::NETWORK_POLICY, "NetworkPolicy", "networkpolicy", "io.k8s.api.networking.v1.NetworkPolicy")
        .short(&["netpol"])
        .namespaced()
        .columns(COLUMNS)
        .filling(fill)
        .checking(check)
        .counts();

const COLUMNS: &[Column] = &[column("Pod-Selector", |object, _| label_selector(object, "spec.podSelector"))];

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::object(spec, "podSelector");
    if !is_set(spec, "policyTypes") {
        let types = if is_set(spec, "egress") { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
        tree::set(spec, "policyTypes", types);
    }
    for list in ["ingress", "egress"] {
        for rule in tree::items_mut(spec, list) {
            tree::items_mut(rule, "ports").for_each(|port| tree::fill(port, "protocol", "TCP"));
        }
    }
}

fn check(object: &Tree, faults: &mut Faults) {
    check_selector(at(object, "spec.podSelector"), "spec.podSelector", faults);
    for kind in items(object, "spec.policyTypes").iter().filter_map(Tree::as_str) {
        faults.one_of("spec.policyTypes", kind, &["Egress", "Ingress"]);
    }
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in items(&object["spec"], list).iter().enumerate() {
            let field = format!("spec.{list}[{index}]");
            for (at, port) in items(rule, "ports").iter().enumerate() {
                check_port(port, &format!("{field}.ports[{at}]"), faults);
            }
            for (at, peer) in items(rule, peers).iter().enumerate() {
                check_peer(peer, &format!("{field}.{peers}[{at}]"), faults);
            }
        }
    }
}

fn check_port(port: &Tree, field: &str, faults: &mut Faults) {
    faults.one_of(format_args!("{field}.protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    match (port["port"].as_i64(), port["port"].as_str()) {
        (Some(number), _) => faults.each(format_args!("{field}.port"), number, syntax::port_number(number)),
        (_, Some(name)) => faults.each(format_args!("{field}.port"), name, syntax::port_name(name)),
        _ => {}
    }
    if let Some(end) = whole(port, "endPort") {
        if whole(port, "port").is_none_or(|port| end < port) {
            faults.invalid(format!("{field}.endPort"), end, "must be greater than or equal to `port`");
        }
        faults.each(format_args!("{field}.endPort"), end, syntax::port_number(end));
    }
}

fn check_peer(peer: &Tree, field: &str, faults: &mut Faults) {
    let selects = is_there(peer, "podSelector") || is_there(peer, "namespaceSelector");
    check_selector(&peer["podSelector"], &format!("{field}.podSelector"), faults);
    check_selector(&peer["namespaceSelector"], &format!("{field}.namespaceSelector"), faults);
    match (selects, is_there(peer, "ipBlock")) {
        (false, false) => faults.required(field, "must specify a peer"),
        (true, true) => faults.forbidden(field, "may not specify both ipBlock and another peer"),
        (true, false) => {}
        (false, true) => {
            let range = text(peer, "ipBlock.cidr");
            if !is_cidr(range) {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                faults.invalid(format!("{field}.ipBlock.cidr"), range, detail);
            }
        }
    }
}
