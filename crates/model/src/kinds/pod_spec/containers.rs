//! May containers be so? Their names, images, ports, environment, resources and rights.

use std::collections::BTreeSet;

use super::super::Faults;
use super::check::{check_ids, check_seccomp};
use super::{probes, volumes};
use crate::tree::{at, entries, flag, is_set, is_there, items, text, whole};
use crate::{Quantity, Tree, syntax};

/// May these containers be together?
pub fn check(spec: &Tree, field: &str, faults: &mut Faults) {
    let grace = whole(spec, "terminationGracePeriodSeconds");
    let mut names = BTreeSet::new();
    if items(spec, "containers").is_empty() {
        faults.required(format!("{field}.containers"), "");
    }
    for (index, container) in items(spec, "containers").iter().enumerate() {
        let field = format!("{field}.containers[{index}]");
        check_container(container, spec, &field, &mut names, faults);
        probes::check_all(container, grace, &field, faults);
        check_restart_rules(container, &field, faults);
    }
    check_host_ports(items(spec, "containers"), &format!("{field}.containers"), faults);
    for (index, init) in items(spec, "initContainers").iter().enumerate() {
        let field = format!("{field}.initContainers[{index}]");
        check_container(init, spec, &field, &mut names, faults);
        check_restart_rules(init, &field, faults);
        if text(init, "restartPolicy") == "Always" {
            probes::check_all(init, grace, &field, faults);
        } else {
            for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if is_there(init, name) {
                    let detail = "may not be set for init containers without restartPolicy=Always";
                    faults.forbidden(format!("{field}.{name}"), detail);
                }
            }
        }
    }
    for (index, guest) in items(spec, "ephemeralContainers").iter().enumerate() {
        let field = format!("{field}.ephemeralContainers[{index}]");
        check_container(guest, spec, &field, &mut names, faults);
        check_guest(guest, spec, &field, faults);
    }
}

fn check_container<'a>(
    container: &'a Tree,
    spec: &Tree,
    field: &str,
    names: &mut BTreeSet<&'a str>,
    faults: &mut Faults,
) {
    let name = text(container, "name");
    match name {
        "" => faults.required(format!("{field}.name"), ""),
        _ => faults.each(format_args!("{field}.name"), name, syntax::dns1123_label(name)),
    }
    if !name.is_empty() && !names.insert(name) {
        faults.duplicate(format!("{field}.name"), name);
    }
    check_image(text(container, "image"), &format!("{field}.image"), faults);
    let policies = &["FallbackToLogsOnError", "File"];
    faults.one_of(
        format_args!("{field}.terminationMessagePolicy"),
        text(container, "terminationMessagePolicy"),
        policies,
    );
    let pull = &["Always", "IfNotPresent", "Never"];
    faults.one_of(format_args!("{field}.imagePullPolicy"), text(container, "imagePullPolicy"), pull);
    check_ports(container, field, faults);
    check_env(container, field, faults);
    volumes::check_mounts(container, spec, field, faults);
    check_resources(&container["resources"], &format!("{field}.resources"), faults);
    check_rights(&container["securityContext"], &format!("{field}.securityContext"), faults);
}

fn check_image(image: &str, field: &str, faults: &mut Faults) {
    if image.is_empty() {
        faults.required(field, "");
    } else if image.trim() != image {
        faults.invalid(field, image, "must not have leading or trailing whitespace");
    }
}

fn check_guest(guest: &Tree, spec: &Tree, field: &str, faults: &mut Faults) {
    const FORBIDDEN: [&str; 6] =
        ["ports", "lifecycle", "livenessProbe", "readinessProbe", "startupProbe", "resizePolicy"];
    for name in FORBIDDEN.iter().filter(|name| is_set(guest, name)) {
        faults.forbidden(format!("{field}.{name}"), "cannot be set for an Ephemeral Container");
    }
    if is_set(guest, "resources") {
        faults.forbidden(format!("{field}.resources"), "cannot be set for an Ephemeral Container");
    }
    let target = text(guest, "targetContainerName");
    let known = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| items(spec, list))
        .any(|c| text(c, "name") == target);
    if !target.is_empty() && !known {
        faults.not_found(format!("{field}.targetContainerName"), target);
    }
}

fn check_restart_rules(container: &Tree, field: &str, faults: &mut Faults) {
    let policy = text(container, "restartPolicy");
    if !policy.is_empty() {
        faults.one_of(format_args!("{field}.restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
    }
    if policy.is_empty() && is_set(container, "restartPolicyRules") {
        let detail = "must specify restartPolicy when restart rules are used";
        faults.required(format!("{field}.restartPolicy"), detail);
    }
}

fn check_ports(container: &Tree, field: &str, faults: &mut Faults) {
    let mut names = BTreeSet::new();
    for (index, port) in items(container, "ports").iter().enumerate() {
        let (field, name) = (format!("{field}.ports[{index}]"), text(port, "name"));
        if !name.is_empty() {
            let reasons = syntax::port_name(name);
            if reasons.is_empty() && !names.insert(name) {
                faults.duplicate(format!("{field}.name"), name);
            }
            faults.each(format_args!("{field}.name"), name, reasons);
        }
        match whole(port, "containerPort").unwrap_or(0) {
            0 => faults.required(format!("{field}.containerPort"), ""),
            number => faults.each(format_args!("{field}.containerPort"), number, syntax::port_number(number)),
        }
        match whole(port, "hostPort").unwrap_or(0) {
            0 => {}
            number => faults.each(format_args!("{field}.hostPort"), number, syntax::port_number(number)),
        }
        faults.one_of(format_args!("{field}.protocol"), text(port, "protocol"), &["SCTP", "TCP", "UDP"]);
    }
}

/// No two containers of a pod hold the same port of the node.
fn check_host_ports(containers: &[Tree], field: &str, faults: &mut Faults) {
    let mut held = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (at, port) in items(container, "ports").iter().enumerate() {
            let number = whole(port, "hostPort").unwrap_or(0);
            let whose = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if number != 0 && !held.insert(whose.clone()) {
                faults.duplicate(format!("{field}[{index}].ports[{at}].hostPort"), whose);
            }
        }
    }
}

fn check_env(container: &Tree, field: &str, faults: &mut Faults) {
    for (index, variable) in items(container, "env").iter().enumerate() {
        let (field, name) = (format!("{field}.env[{index}]"), text(variable, "name"));
        match name {
            "" => faults.required(format!("{field}.name"), ""),
            _ => faults.each(format_args!("{field}.name"), name, syntax::env_name(name)),
        }
        if is_there(variable, "valueFrom") {
            check_source(variable, &format!("{field}.valueFrom"), faults);
        }
    }
    for (index, from) in items(container, "envFrom").iter().enumerate() {
        let (field, prefix) = (format!("{field}.envFrom[{index}]"), text(from, "prefix"));
        if !prefix.is_empty() {
            faults.each(format_args!("{field}.prefix"), prefix, syntax::env_name(prefix));
        }
        let sources: Vec<&str> =
            ["configMapRef", "secretRef"].into_iter().filter(|name| is_there(from, name)).collect();
        match sources.as_slice() {
            [] => faults.invalid(field, "", "must specify one of: `configMapRef` or `secretRef`"),
            [one] => check_reference(text(&from[*one], "name"), &format!("{field}.{one}.name"), faults),
            _ => faults.invalid(field, "", "may not have more than one field specified at a time"),
        }
    }
}

fn check_source(variable: &Tree, field: &str, faults: &mut Faults) {
    const SOURCES: [&str; 5] =
        ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];
    let from = &variable["valueFrom"];
    let named: Vec<&str> = SOURCES.into_iter().filter(|name| is_there(from, name)).collect();
    for name in &named {
        let (source, field) = (&from[*name], format!("{field}.{name}"));
        match *name {
            "fieldRef" => check_field_path(source, &field, faults),
            "resourceFieldRef" => check_resource_path(source, &field, faults),
            "configMapKeyRef" | "secretKeyRef" => {
                check_reference(text(source, "name"), &format!("{field}.name"), faults);
                match text(source, "key") {
                    "" => faults.required(format!("{field}.key"), ""),
                    key => faults.each(format_args!("{field}.key"), key, syntax::config_key(key)),
                }
            }
            _ => {
                for part in ["volumeName", "path", "key"].iter().filter(|part| !is_set(source, part)) {
                    faults.required(format!("{field}.{part}"), "");
                }
            }
        }
    }
    match named.len() {
        0 => {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            faults.invalid(field, "", detail);
        }
        _ if is_set(variable, "value") => {
            faults.invalid(field, "", "may not be specified when `value` is not empty")
        }
        1 => {}
        _ => faults.invalid(field, "", "may not have more than one field specified at a time"),
    }
}

/// The name of a ConfigMap or a Secret that is referred to.
pub(super) fn check_reference(name: &str, field: &str, faults: &mut Faults) {
    match name {
        "" => faults.required(field, ""),
        _ => faults.each(field, name, syntax::dns1123_subdomain(name)),
    }
}

fn check_field_path(source: &Tree, field: &str, faults: &mut Faults) {
    const PATHS: &[&str] = &[
        "metadata.name",
        "metadata.namespace",
        "metadata.uid",
        "spec.nodeName",
        "spec.serviceAccountName",
        "status.hostIP",
        "status.hostIPs",
        "status.podIP",
        "status.podIPs",
    ];
    let path = text(source, "fieldPath");
    let subscript = path.strip_suffix("']").and_then(|path| path.split_once("['"));
    match (path, subscript) {
        ("", _) => faults.required(format!("{field}.fieldPath"), ""),
        (_, Some(("metadata.annotations", key))) => {
            faults.each(field, key, syntax::qualified_name(&key.to_lowercase()));
        }
        (_, Some(("metadata.labels", key))) => faults.each(field, key, syntax::qualified_name(key)),
        (_, Some((path, _))) => faults.invalid(field, path, "does not support subscript"),
        _ if PATHS.contains(&path) => {}
        _ if ["metadata.", "spec.", "status."].iter().any(|start| path.starts_with(start)) => {
            faults.not_supported(format!("{field}.fieldPath"), path, PATHS);
        }
        _ => {
            let detail = format!("error converting fieldPath: field label not supported: {path}");
            faults.invalid(format!("{field}.fieldPath"), path, &detail);
        }
    }
}

/// A part of a container's resources that it may be told.
pub(super) fn check_resource_path(source: &Tree, field: &str, faults: &mut Faults) {
    const PATHS: &[&str] = &[
        "limits.cpu",
        "limits.ephemeral-storage",
        "limits.memory",
        "requests.cpu",
        "requests.ephemeral-storage",
        "requests.memory",
    ];
    let path = text(source, "resource");
    let pages = path.starts_with("limits.hugepages-") || path.starts_with("requests.hugepages-");
    match path {
        "" => faults.required(format!("{field}.resource"), ""),
        _ if PATHS.contains(&path) || pages => {}
        _ => faults.not_supported(format!("{field}.resource"), path, PATHS),
    }
}

fn check_resources(resources: &Tree, field: &str, faults: &mut Faults) {
    for list in ["limits", "requests"] {
        for (name, amount) in entries(resources, list) {
            let field = format!("{field}.{list}[{name}]");
            check_resource_name(name, &field, faults);
            check_amount(name, amount, &field, faults);
        }
    }
    for (name, asked) in entries(resources, "requests") {
        let limit = resources["limits"].get(name).map(quantity);
        match limit {
            Some(limit) if !may_exceed(name) && quantity(asked) != limit => {
                let detail = format!("must be equal to {name} limit of {limit}");
                faults.invalid(format!("{field}.requests"), asked.clone(), &detail);
            }
            Some(limit) if quantity(asked) > limit => {
                let detail = format!("must be less than or equal to {name} limit of {limit}");
                faults.invalid(format!("{field}.requests"), asked.clone(), &detail);
            }
            None if !may_exceed(name) => {
                faults.required(
                    format!("{field}.limits"),
                    "Limit must be set for non overcommitable resources",
                );
            }
            _ => {}
        }
    }
}

/// Whether a node may promise more of a resource than it has.
fn may_exceed(name: &str) -> bool {
    (!name.contains('/') || name.contains("kubernetes.io/")) && !name.starts_with("hugepages-")
}

fn check_resource_name(name: &str, field: &str, faults: &mut Faults) {
    faults.each(field, name, syntax::qualified_name(name));
    let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !name.contains('/') && !standard {
        faults.invalid(field, name, "must be a standard resource for containers");
    }
}

/// An amount of a resource: not negative, and whole where halves make no sense.
pub(super) fn check_amount(name: &str, amount: &Tree, field: &str, faults: &mut Faults) {
    let asked = quantity(amount);
    if asked.is_negative() {
        faults.invalid(field, amount.clone(), "must be greater than or equal to 0");
    }
    if name.contains('/') && !asked.is_whole() {
        faults.invalid(field, amount.clone(), "must be an integer");
    }
}

fn quantity(amount: &Tree) -> Quantity {
    amount.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn check_rights(context: &Tree, field: &str, faults: &mut Faults) {
    check_ids(context, field, faults);
    check_seccomp(&context["seccompProfile"], &format!("{field}.seccompProfile"), faults);
    match text(context, "procMount") {
        "" => {}
        mount => faults.one_of(format_args!("{field}.procMount"), mount, &["Default", "Unmasked"]),
    }
    if at(context, "allowPrivilegeEscalation").as_bool() != Some(false) {
        return;
    }
    if flag(context, "privileged") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        faults.invalid(field, context.clone(), detail);
    }
    if items(context, "capabilities.add").iter().any(|name| name == "CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        faults.invalid(field, context.clone(), detail);
    }
}
