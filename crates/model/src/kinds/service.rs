//! A service: one address for the pods that its selector finds.

use std::collections::BTreeSet;

use serde_json::json;

use super::table::{column, joined, label_map, or, wide};
use super::{Column, Faults, Kind, Part, is_cidr, of};
use crate::tree::{at, entries, is_set, items, text, whole};
use crate::{Tree, syntax, tree};

/// What the house knows of `v1` Service.
pub static KIND: Kind = Kind::new(of::SERVICE, "Service", "service", "io.k8s.api.core.v1.Service")
    .short(&["svc"])
    .categories(&["all"])
    .namespaced()
    .parts(&[
        Part::Other {
            name: "proxy",
            kind: ("", "v1", "ServiceProxyOptions"),
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        Part::Status,
    ])
    .columns(COLUMNS)
    .fields(&["spec.clusterIP", "spec.type"])
    .named(crate::syntax::dns1123_label)
    .filling(fill)
    .checking(check)
    .changing(change)
    .beginning(first)
    .continuing(next);

const COLUMNS: &[Column] = &[
    column("Type", |object, _| or(object, "spec.type", "")),
    column("Cluster-IP", |object, _| cluster_address(object)),
    column("External-IP", |object, _| external_addresses(object)),
    column("Port(s)", |object, _| ports(object)),
    wide("Selector", |object, _| label_map(object, "spec.selector")),
];

/// How long a client sticks to an endpoint, in seconds, when it does and its author does not say: three hours.
const AFFINITY_SECONDS: i64 = 10_800;

/// The types of services that get an address of the cluster.
const WITH_ADDRESS: [&str; 3] = ["ClusterIP", "NodePort", "LoadBalancer"];

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "type", "ClusterIP");
    tree::fill(spec, "sessionAffinity", "None");
    match text(spec, "sessionAffinity") {
        "None" => tree::remove(spec, "sessionAffinityConfig"),
        "ClientIP" => {
            let client = tree::object(spec, "sessionAffinityConfig")
                .and_then(|config| tree::object(config, "clientIP"));
            client.into_iter().for_each(|client| tree::fill(client, "timeoutSeconds", AFFINITY_SECONDS));
        }
        _ => {}
    }
    for port in tree::items_mut(spec, "ports") {
        tree::fill(port, "protocol", "TCP");
        if matches!(port.get("targetPort"), None | Some(Tree::Null))
            || port["targetPort"] == 0
            || port["targetPort"] == ""
        {
            match port.get("port").cloned() {
                Some(number) => tree::set(port, "targetPort", number),
                None => tree::remove(port, "targetPort"),
            }
        }
    }
    let kind = text(spec, "type").to_owned();
    let external = kind == "NodePort" || kind == "LoadBalancer";
    if external || (kind == "ClusterIP" && is_set(spec, "externalIPs")) {
        tree::fill(spec, "externalTrafficPolicy", "Cluster");
    }
    if WITH_ADDRESS.contains(&kind.as_str()) {
        tree::fill(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        tree::fill(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({"loadBalancer": {}}));
}

/// What the API gave a service stays with it when its author leaves it out.
fn next(old: &Tree, new: &mut Tree) {
    let kinds = (text(old, "spec.type").to_owned(), text(new, "spec.type").to_owned());
    let with_address = |kind: &str| matches!(kind, "" | "ClusterIP" | "NodePort" | "LoadBalancer");
    let with_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    let ports: Vec<Tree> = items(old, "spec.ports").to_vec();
    let Some(spec) = new.get_mut("spec") else { return };
    if with_address(&kinds.0) && with_address(&kinds.1) {
        for name in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            let known = old["spec"][name].clone();
            if !known.is_null() && !is_set(spec, name) {
                tree::set(spec, name, known);
            }
        }
    }
    if with_ports(&kinds.0) && with_ports(&kinds.1) {
        for port in tree::items_mut(spec, "ports") {
            let same = ports.iter().find(|known| {
                known["port"] == port["port"]
                    && protocol(known) == protocol(port)
                    && text(known, "name") == text(port, "name")
            });
            if let Some(number) = same.and_then(|known| whole(known, "nodePort"))
                && whole(port, "nodePort").unwrap_or(0) == 0
            {
                tree::set(port, "nodePort", number);
            }
        }
    }
    drop_what_its_type_has_not(old, new);
}

/// What the old type gave and the new one does not know goes with the type, unless the author says otherwise.
fn drop_what_its_type_has_not(old: &Tree, new: &mut Tree) {
    let ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    let had = text(old, "spec.type").to_owned();
    let has = text(new, "spec.type").to_owned();
    let reachable = |kind: &str, object: &Tree| {
        ports(kind) || (kind == "ClusterIP" && is_set(object, "spec.externalIPs"))
    };
    let unreachable = reachable(&had, old) && !reachable(&has, new);
    let Some(spec) = new.get_mut("spec") else { return };
    let before = &old["spec"];
    let drop = |spec: &mut Tree, names: &[&str]| {
        for name in names.iter().filter(|name| spec[**name] == before[**name]).collect::<Vec<_>>() {
            tree::remove(spec, name);
        }
    };
    if WITH_ADDRESS.contains(&had.as_str()) && !WITH_ADDRESS.contains(&has.as_str()) {
        drop(spec, &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"]);
    }
    if unreachable {
        drop(spec, &["externalTrafficPolicy"]);
    }
    if had == "LoadBalancer" && has != "LoadBalancer" {
        drop(spec, &["allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort"]);
    }
    if ports(&had) && !ports(&has) {
        let known: Vec<i64> =
            items(before, "ports").iter().filter_map(|port| whole(port, "nodePort")).collect();
        for port in tree::items_mut(spec, "ports") {
            if whole(port, "nodePort").is_some_and(|number| known.contains(&number)) {
                tree::remove(port, "nodePort");
            }
        }
    }
}

fn protocol(port: &Tree) -> &str {
    match text(port, "protocol") {
        "" => "TCP",
        known => known,
    }
}

fn check(object: &Tree, faults: &mut Faults) {
    let spec = &object["spec"];
    let kind = text(spec, "type");
    faults.one_of("spec.type", kind, &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]);
    faults.one_of("spec.sessionAffinity", text(spec, "sessionAffinity"), &["ClientIP", "None"]);
    let headless = text(spec, "clusterIP") == "None";
    if !is_set(spec, "ports") && !headless && kind != "ExternalName" {
        faults.required("spec.ports", "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            faults.invalid("spec.clusterIPs[0]", "None", &detail);
        }
        "ExternalName" => check_external_name(spec, faults),
        _ => {}
    }
    check_ports(spec, kind, headless, faults);
    check_addresses(spec, faults);
    for (key, value) in entries(spec, "selector") {
        faults.each("spec.selector", key, syntax::qualified_name(key));
        let value = value.as_str().unwrap_or_default();
        faults.each("spec.selector", value, syntax::label_value(value));
    }
    check_policies(spec, kind, faults);
}

fn check_external_name(spec: &Tree, faults: &mut Faults) {
    for name in ["clusterIP", "clusterIPs"] {
        if is_set(spec, name) && text(spec, name) != "None" {
            faults.forbidden(format!("spec.{name}"), "may not be set for ExternalName services");
        }
    }
    match text(spec, "externalName").trim_end_matches('.') {
        "" => faults.required("spec.externalName", ""),
        name => faults.each("spec.externalName", name, syntax::dns1123_subdomain(name)),
    }
}

fn check_ports(spec: &Tree, kind: &str, headless: bool, faults: &mut Faults) {
    let ports = items(spec, "ports");
    let (mut names, mut numbers, mut on_nodes) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (index, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        let (name, number) = (text(port, "name"), whole(port, "port").unwrap_or(0));
        match name {
            "" if ports.len() > 1 => faults.required(format!("{field}.name"), ""),
            "" => {}
            _ if !names.insert(name) => faults.duplicate(format!("{field}.name"), name),
            _ => faults.each(format_args!("{field}.name"), name, syntax::dns1123_label(name)),
        }
        faults.each(format_args!("{field}.port"), number, syntax::port_number(number));
        faults.one_of(format_args!("{field}.protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
        check_target(port, &field, headless, faults);
        if !numbers.insert((number, text(port, "protocol"))) {
            faults.duplicate(field.as_str(), json!({"port": number, "protocol": text(port, "protocol")}));
        }
        let node_port = whole(port, "nodePort").unwrap_or(0);
        if node_port != 0 && kind == "ClusterIP" {
            faults.forbidden(format!("{field}.nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        if node_port != 0 && !on_nodes.insert((node_port, text(port, "protocol"))) {
            faults.duplicate(format!("{field}.nodePort"), node_port);
        }
    }
}

fn check_target(port: &Tree, field: &str, headless: bool, faults: &mut Faults) {
    let (target, number) = (&port["targetPort"], whole(port, "port"));
    let field = format!("{field}.targetPort");
    match (target.as_i64(), target.as_str()) {
        (Some(target), _) => {
            faults.each(&field, target, syntax::port_number(target));
            if headless && Some(target) != number {
                let detail = "must be equal to the value of 'port' when clusterIP = None";
                faults.invalid(field, target, detail);
            }
        }
        (_, Some(name)) => faults.each(&field, name, syntax::port_name(name)),
        _ => {}
    }
}

fn check_addresses(spec: &Tree, faults: &mut Faults) {
    const DETAIL: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
    for name in ["clusterIPs", "externalIPs"] {
        for (index, address) in items(spec, name).iter().filter_map(Tree::as_str).enumerate() {
            let none = name == "clusterIPs" && address == "None" && index == 0;
            if !none && address.parse::<std::net::IpAddr>().is_err() {
                faults.invalid(format!("spec.{name}[{index}]"), address, DETAIL);
            }
        }
    }
    let (one, all) = (text(spec, "clusterIP"), items(spec, "clusterIPs"));
    if !one.is_empty() && all.first().is_some_and(|first| first != one) {
        faults.invalid(
            "spec.clusterIPs",
            at(spec, "clusterIPs").clone(),
            "first value must match `clusterIP`",
        );
    }
    for (index, range) in items(spec, "loadBalancerSourceRanges").iter().filter_map(Tree::as_str).enumerate()
    {
        if !is_cidr(range) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            faults.invalid(format!("spec.loadBalancerSourceRanges[{index}]"), range, detail);
        }
    }
}

fn check_policies(spec: &Tree, kind: &str, faults: &mut Faults) {
    let external = text(spec, "externalTrafficPolicy");
    let reachable =
        matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && is_set(spec, "externalIPs"));
    match external {
        "" if reachable => faults.required("spec.externalTrafficPolicy", ""),
        "" => {}
        _ if !reachable => {
            faults.invalid(
                "spec.externalTrafficPolicy",
                external,
                "may only be set for externally-accessible services",
            );
        }
        _ => faults.one_of("spec.externalTrafficPolicy", external, &["Cluster", "Local"]),
    }
    match text(spec, "internalTrafficPolicy") {
        "" => {}
        policy => faults.one_of("spec.internalTrafficPolicy", policy, &["Cluster", "Local"]),
    }
    let timeout = at(spec, "sessionAffinityConfig.clientIP.timeoutSeconds");
    if let Some(seconds) = timeout.as_i64() {
        // A day is the most that upstream takes.
        if !(1..=86_400).contains(&seconds) {
            let detail = "must be greater than 0 and less than 86400";
            faults.invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds, detail);
        }
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    let kinds = (text(old, "spec.type"), text(new, "spec.type"));
    let both = WITH_ADDRESS.contains(&kinds.0) && WITH_ADDRESS.contains(&kinds.1);
    if both && is_set(old, "spec.clusterIP") && at(old, "spec.clusterIP") != at(new, "spec.clusterIP") {
        let value = at(new, "spec.clusterIP").clone();
        faults.invalid("spec.clusterIPs[0]", value, "may not change once set");
    }
    faults_of_families(old, new, both, faults);
}

fn faults_of_families(old: &Tree, new: &Tree, both: bool, faults: &mut Faults) {
    let first = |object: &Tree| items(object, "spec.ipFamilies").first().cloned();
    if both && first(old).is_some() && first(old) != first(new) {
        faults.invalid("spec.ipFamilies[0]", first(new).unwrap_or_default(), "may not change once set");
    }
}

fn external_addresses(object: &Tree) -> Tree {
    let given = || items(object, "spec.externalIPs").iter().filter_map(Tree::as_str);
    let balanced = || {
        items(object, "status.loadBalancer.ingress").iter().map(|ingress| match text(ingress, "ip") {
            "" => text(ingress, "hostname"),
            ip => ip,
        })
    };
    let (all, empty) = match text(object, "spec.type") {
        "ExternalName" => return text(object, "spec.externalName").into(),
        "LoadBalancer" => (joined(balanced().chain(given())), "<pending>"),
        _ => (joined(given()), "<none>"),
    };
    if all.is_empty() { empty.into() } else { all.into() }
}

fn cluster_address(object: &Tree) -> Tree {
    let first = items(object, "spec.clusterIPs").first().and_then(Tree::as_str);
    match first.unwrap_or_else(|| text(object, "spec.clusterIP")) {
        "" => "<none>".into(),
        address => address.into(),
    }
}

fn ports(object: &Tree) -> Tree {
    let shown = items(object, "spec.ports").iter().map(|port| {
        let (number, protocol) = (whole(port, "port").unwrap_or(0), protocol(port));
        match whole(port, "nodePort").unwrap_or(0) {
            0 => format!("{number}/{protocol}"),
            on_nodes => format!("{number}:{on_nodes}/{protocol}"),
        }
    });
    let shown = shown.collect::<Vec<_>>().join(",");
    if shown.is_empty() { "<none>".into() } else { shown.into() }
}
