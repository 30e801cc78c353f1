//! Ingress of `networking.k8s.io/v1`: its constants, and what its schema cannot say.

use std::collections::BTreeSet;

use serde_json::json;

use super::table::{column, few, joined, or_none};
use super::{Column, Faults, Kind, Part, of};
use crate::tree::{at, is_set, is_there, items, text, whole};
use crate::{Tree, syntax, tree};

/// What the house knows of `networking.k8s.io/v1` Ingress.
pub static KIND: Kind = Kind::new(of::INGRESS, "Ingress", "ingress", "io.k8s.api.networking.v1.Ingress")
    .short(&["ing"])
    .namespaced()
    .parts(&[Part::Status])
    .columns(COLUMNS)
    .checking(check)
    .beginning(first)
    .counts();

const COLUMNS: &[Column] = &[
    column("Class", |object, _| or_none(object, "spec.ingressClassName")),
    column("Hosts", |object, _| hosts(object)),
    column("Address", |object, _| address(object)),
    column("Ports", |object, _| if is_set(object, "spec.tls") { "80, 443".into() } else { "80".into() }),
];

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({"loadBalancer": {}}));
}

fn check(object: &Tree, faults: &mut Faults) {
    let rules = items(object, "spec.rules");
    let default = at(object, "spec.defaultBackend");
    if rules.is_empty() && default.is_null() {
        faults.invalid(
            "spec",
            at(object, "spec.rules").clone(),
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    if !default.is_null() {
        check_backend(default, "spec.defaultBackend", faults);
    }
    for (index, rule) in rules.iter().enumerate() {
        let (field, host) = (format!("spec.rules[{index}]"), text(rule, "host"));
        check_host(host, &format!("{field}.host"), faults);
        if !is_there(rule, "http") {
            continue;
        }
        if items(rule, "http.paths").is_empty() {
            faults.required(format!("{field}.http.paths"), "");
        }
        for (at, path) in items(rule, "http.paths").iter().enumerate() {
            check_path(path, &format!("{field}.http.paths[{at}]"), faults);
        }
    }
    let class = text(object, "spec.ingressClassName");
    if !class.is_empty() {
        faults.each("spec.ingressClassName", class, syntax::dns1123_subdomain(class));
    }
    for (index, tls) in items(object, "spec.tls").iter().enumerate() {
        for (at, host) in items(tls, "hosts").iter().filter_map(Tree::as_str).enumerate() {
            check_host(host, &format!("spec.tls[{index}].hosts[{at}]"), faults);
        }
    }
}

fn check_host(host: &str, field: &str, faults: &mut Faults) {
    if host.is_empty() {
        return;
    }
    if host.parse::<std::net::IpAddr>().is_ok() {
        faults.invalid(field, host, "must be a DNS name, not an IP address");
    }
    let wild = host.contains('*');
    faults.each(
        field,
        host,
        if wild { syntax::wildcard_dns1123_subdomain(host) } else { syntax::dns1123_subdomain(host) },
    );
}

fn check_path(path: &Tree, field: &str, faults: &mut Faults) {
    let (kind, route) = (text(path, "pathType"), text(path, "path"));
    match kind {
        "" => faults.required(format!("{field}.pathType"), "pathType must be specified"),
        "Exact" | "Prefix" if !route.starts_with('/') => {
            faults.invalid(format!("{field}.path"), route, "must be an absolute path");
        }
        "Exact" | "Prefix" => {
            for part in ["//", "/./", "/../", "%2f", "%2F"].iter().filter(|part| route.contains(**part)) {
                faults.invalid(format!("{field}.path"), route, &format!("must not contain '{part}'"));
            }
        }
        "ImplementationSpecific" => {}
        _ => faults.not_supported(
            format!("{field}.pathType"),
            kind,
            &["Exact", "ImplementationSpecific", "Prefix"],
        ),
    }
    check_backend(&path["backend"], &format!("{field}.backend"), faults);
}

fn check_backend(backend: &Tree, field: &str, faults: &mut Faults) {
    match (is_there(backend, "resource"), is_there(backend, "service")) {
        (true, true) => faults.invalid(field, "", "cannot set both resource and service backends"),
        (false, false) => faults.required(field, "resource or service backend is required"),
        (true, false) => {}
        (false, true) => {
            let name = text(backend, "service.name");
            match name {
                "" => faults.required(format!("{field}.service.name"), ""),
                _ => faults.each(format_args!("{field}.service.name"), name, syntax::dns1123_label(name)),
            }
            let (number, named) =
                (whole(backend, "service.port.number").unwrap_or(0), text(backend, "service.port.name"));
            let field = format!("{field}.service.port");
            match (number, named) {
                (0, "") => faults.required(field, "port name or number is required"),
                (0, name) => faults.each(format_args!("{field}.name"), name, syntax::port_name(name)),
                (number, "") => {
                    faults.each(format_args!("{field}.number"), number, syntax::port_number(number))
                }
                _ => faults.invalid(field, "", "cannot set both port name & port number"),
            }
        }
    }
}

/// How many hosts a row shows.
const SHOWN: usize = 3;

fn hosts(object: &Tree) -> Tree {
    let named =
        items(object, "spec.rules").iter().map(|rule| text(rule, "host")).filter(|host| !host.is_empty());
    few(&named.map(str::to_owned).collect::<Vec<_>>(), SHOWN, "*")
}

fn address(object: &Tree) -> Tree {
    let all: BTreeSet<&str> = items(object, "status.loadBalancer.ingress")
        .iter()
        .map(
            |ingress| {
                if text(ingress, "ip").is_empty() { text(ingress, "hostname") } else { text(ingress, "ip") }
            },
        )
        .collect();
    joined(all.into_iter()).into()
}
