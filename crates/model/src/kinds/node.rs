//! Node of `v1`: its constants, and what its schema cannot say.

use std::collections::BTreeSet;

use super::table::{column, joined, or, wide};
use super::{AGE, Column, Faults, Kind, Part, is_cidr, of};
use crate::tree::{at, entries, flag, is_set, items, text};
use crate::{Tree, syntax, tree};

/// What the house knows of `v1` Node.
pub static KIND: Kind = Kind::new(of::NODE, "Node", "node", "io.k8s.api.core.v1.Node")
    .short(&["no"])
    .parts(&[
        Part::Other {
            name: "proxy",
            kind: ("", "v1", "NodeProxyOptions"),
            verbs: &["create", "delete", "get", "patch", "update"],
        },
        Part::Status,
    ])
    .columns(COLUMNS)
    .fields(&["spec.unschedulable"])
    .filling(fill)
    .checking(check)
    .changing(change)
    .keeps_status();

const COLUMNS: &[Column] = &[
    column("Status", |object, _| status(object)),
    column("Roles", |object, _| roles(object)),
    AGE,
    column("Version", |object, _| or(object, "status.nodeInfo.kubeletVersion", "")),
    wide("Internal-IP", |object, _| address(object, "InternalIP")),
    wide("External-IP", |object, _| address(object, "ExternalIP")),
    wide("OS-Image", |object, _| or(object, "status.nodeInfo.osImage", "<unknown>")),
    wide("Kernel-Version", |object, _| kernel(object)),
    wide("Container-Runtime", |object, _| or(object, "status.nodeInfo.containerRuntimeVersion", "<unknown>")),
];

fn fill(object: &mut Tree) {
    if let Some(status) = object.get_mut("status") {
        let capacity = at(status, "capacity").clone();
        if !capacity.is_null() {
            tree::fill(status, "allocatable", capacity);
        }
    }
}

fn check(object: &Tree, faults: &mut Faults) {
    let mut seen = BTreeSet::new();
    for (index, taint) in items(object, "spec.taints").iter().enumerate() {
        let field = format!("spec.taints[{index}]");
        let (key, effect) = (text(taint, "key"), text(taint, "effect"));
        faults.each(format_args!("{field}.key"), key, syntax::qualified_name(key));
        let value = text(taint, "value");
        faults.each(format_args!("{field}.value"), value, syntax::label_value(value));
        faults.one_of(
            format_args!("{field}.effect"),
            effect,
            &["NoSchedule", "PreferNoSchedule", "NoExecute"],
        );
        if !seen.insert((key, effect)) {
            faults.duplicate(field, taint.clone());
        }
    }
    for (index, range) in items(object, "spec.podCIDRs").iter().filter_map(Tree::as_str).enumerate() {
        if !is_cidr(range) {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            faults.invalid(format!("spec.podCIDRs[{index}]"), range, detail);
        }
    }
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    for name in ["podCIDR", "podCIDRs", "providerID"] {
        let (before, after) = (&old["spec"][name], &new["spec"][name]);
        if is_set(old, &format!("spec.{name}")) && before != after {
            faults.forbidden(
                format!("spec.{name}"),
                "node updates may not change podCIDR except from \"\" to valid",
            );
        }
    }
}

fn status(object: &Tree) -> Tree {
    let ready =
        items(object, "status.conditions").iter().find(|condition| text(condition, "type") == "Ready");
    let mut status = match ready.map(|ready| text(ready, "status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(object, "spec.unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status.into()
}

fn roles(object: &Tree) -> Tree {
    let labels = entries(&object["metadata"], "labels");
    let role = |(key, value): (&str, &Tree)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) if !role.is_empty() => Some(role.to_owned()),
        _ if key == "kubernetes.io/role" => value.as_str().filter(|role| !role.is_empty()).map(str::to_owned),
        _ => None,
    };
    let roles: BTreeSet<String> = labels.filter_map(role).collect();
    if roles.is_empty() { "<none>".into() } else { joined(roles.iter().map(String::as_str)).into() }
}

fn address(object: &Tree, kind: &str) -> Tree {
    let found = items(object, "status.addresses").iter().find(|address| text(address, "type") == kind);
    found.map_or("<none>", |address| text(address, "address")).into()
}

fn kernel(object: &Tree) -> Tree {
    let version = or(object, "status.nodeInfo.kernelVersion", "<unknown>");
    let version = version.as_str().unwrap_or_default();
    match text(object, "status.nodeInfo.architecture") {
        "" => version.into(),
        architecture => format!("{version} ({architecture})").into(),
    }
}
