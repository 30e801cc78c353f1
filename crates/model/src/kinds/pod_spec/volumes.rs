//! May volumes be so, and may containers mount them so?

use std::collections::BTreeSet;

use super::super::Faults;
use super::super::persistent_volume_claim::check_claim;
use super::containers::{check_reference, check_resource_path};
use crate::tree::{at, is_set, is_there, items, text, whole};
use crate::{Quantity, Tree, syntax};

/// The highest mode of a file: all rights and the three special ones.
const MODE_MAX: i64 = 0o777;

/// How short a projected token may live, in seconds (ten minutes, upstream's limit), and how long.
const TOKEN_SECONDS_MIN: i64 = 600;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// May the pod have these volumes?
pub fn check(spec: &Tree, field: &str, faults: &mut Faults) {
    let mut names = BTreeSet::new();
    for (index, volume) in items(spec, "volumes").iter().enumerate() {
        let (field, name) = (format!("{field}.volumes[{index}]"), text(volume, "name"));
        match name {
            "" => faults.required(format!("{field}.name"), ""),
            _ => faults.each(format_args!("{field}.name"), name, syntax::dns1123_label(name)),
        }
        if !name.is_empty() && !names.insert(name) {
            faults.duplicate(format!("{field}.name"), name);
        }
        let sources: Vec<&str> =
            entries_of(volume).filter(|(name, _)| *name != "name").map(|(name, _)| name).collect();
        match sources.as_slice() {
            [] => faults.required(field, "must specify a volume type"),
            [first, more @ ..] => {
                for name in more {
                    faults.forbidden(format!("{field}.{name}"), "may not specify more than 1 volume type");
                }
                check_source(first, &volume[*first], &format!("{field}.{first}"), faults);
            }
        }
    }
}

fn entries_of(tree: &Tree) -> impl Iterator<Item = (&str, &Tree)> {
    let fields = tree.as_object().into_iter().flatten();
    fields.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.as_str(), value))
}

fn check_source(kind: &str, source: &Tree, field: &str, faults: &mut Faults) {
    match kind {
        "emptyDir" => check_scratch(source, field, faults),
        "hostPath" => check_host_path(source, field, faults),
        "secret" | "configMap" => {
            let name = if kind == "secret" { "secretName" } else { "name" };
            check_reference(text(source, name), &format!("{field}.{name}"), faults);
            check_mode(&source["defaultMode"], &format!("{field}.defaultMode"), faults);
            check_items(source, field, faults);
        }
        "downwardAPI" => {
            check_mode(&source["defaultMode"], &format!("{field}.defaultMode"), faults);
            check_told(source, field, faults);
        }
        "projected" => check_projected(source, field, faults),
        "persistentVolumeClaim" => match text(source, "claimName") {
            "" => faults.required(format!("{field}.claimName"), ""),
            name => faults.each(format_args!("{field}.claimName"), name, syntax::dns1123_subdomain(name)),
        },
        "ephemeral" => match &source["volumeClaimTemplate"] {
            Tree::Null => faults.required(format!("{field}.volumeClaimTemplate"), ""),
            claim => check_claim(&claim["spec"], &format!("{field}.volumeClaimTemplate.spec"), faults),
        },
        "nfs" => {
            for name in ["server", "path"].iter().filter(|name| !is_set(source, name)) {
                faults.required(format!("{field}.{name}"), "");
            }
        }
        "csi" if !is_set(source, "driver") => faults.required(format!("{field}.driver"), ""),
        "image" if !is_set(source, "reference") => faults.required(format!("{field}.reference"), ""),
        _ => {}
    }
}

fn check_scratch(source: &Tree, field: &str, faults: &mut Faults) {
    let limit = text(source, "sizeLimit").parse::<Quantity>().unwrap_or_default();
    if limit.is_negative() {
        faults.forbidden(format!("{field}.sizeLimit"), "SizeLimit field must be a valid resource quantity");
    }
}

fn check_host_path(source: &Tree, field: &str, faults: &mut Faults) {
    const KINDS: &[&str] = &[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let path = text(source, "path");
    if path.is_empty() {
        return faults.required(format!("{field}.path"), "");
    }
    if path.split('/').any(|part| part == "..") {
        faults.invalid(format!("{field}.path"), path, "must not contain '..'");
    }
    let kind = text(source, "type");
    if !KINDS.contains(&kind) {
        faults.not_supported(format!("{field}.type"), kind, KINDS);
    }
}

fn check_projected(source: &Tree, field: &str, faults: &mut Faults) {
    check_mode(&source["defaultMode"], &format!("{field}.defaultMode"), faults);
    for (index, part) in items(source, "sources").iter().enumerate() {
        let field = format!("{field}.sources[{index}]");
        let named: Vec<(&str, &Tree)> = entries_of(part).collect();
        match named.as_slice() {
            [] => faults.required(field.as_str(), "must specify a volume type"),
            [_] => {}
            _ => faults.forbidden(field.as_str(), "may not specify more than 1 volume type per source"),
        }
        for (kind, part) in named {
            let field = format!("{field}.{kind}");
            match kind {
                "secret" | "configMap" => {
                    check_reference(text(part, "name"), &format!("{field}.name"), faults);
                    check_items(part, &field, faults);
                }
                "downwardAPI" => check_told(part, &field, faults),
                "serviceAccountToken" => check_token(part, &field, faults),
                _ => {}
            }
        }
    }
}

fn check_token(token: &Tree, field: &str, faults: &mut Faults) {
    let seconds = whole(token, "expirationSeconds").unwrap_or(0);
    if seconds < TOKEN_SECONDS_MIN {
        faults.invalid(
            format!("{field}.expirationSeconds"),
            seconds,
            "may not specify a duration less than 10 minutes",
        );
    }
    if seconds > TOKEN_SECONDS_MAX {
        faults.invalid(
            format!("{field}.expirationSeconds"),
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        );
    }
    match text(token, "path") {
        "" => faults.required(format!("{field}.path"), ""),
        path => check_local_path(path, &format!("{field}.path"), faults),
    }
}

/// The keys that become files, and where.
fn check_items(source: &Tree, field: &str, faults: &mut Faults) {
    for (index, item) in items(source, "items").iter().enumerate() {
        let field = format!("{field}.items[{index}]");
        if !is_set(item, "key") {
            faults.required(format!("{field}.key"), "");
        }
        check_file(item, &field, faults);
    }
}

/// The facts about the pod that become files, and where.
fn check_told(source: &Tree, field: &str, faults: &mut Faults) {
    const PATHS: &[&str] =
        &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
    for (index, item) in items(source, "items").iter().enumerate() {
        let field = format!("{field}.items[{index}]");
        check_file(item, &field, faults);
        match (is_there(item, "fieldRef"), is_there(item, "resourceFieldRef")) {
            (true, true) => {
                faults.invalid(
                    field,
                    "resource",
                    "fieldRef and resourceFieldRef can not be specified simultaneously",
                );
            }
            (false, false) => faults.required(field, "one of fieldRef and resourceFieldRef is required"),
            (true, false) => {
                let path = text(item, "fieldRef.fieldPath");
                let subscripted =
                    path.starts_with("metadata.labels['") || path.starts_with("metadata.annotations['");
                if !PATHS.contains(&path) && !subscripted {
                    faults.not_supported(format!("{field}.fieldRef.fieldPath"), path, PATHS);
                }
            }
            (false, true) => {
                let field = format!("{field}.resourceFieldRef");
                if !is_set(item, "resourceFieldRef.containerName") {
                    faults.required(format!("{field}.containerName"), "");
                }
                check_resource_path(&item["resourceFieldRef"], &field, faults);
            }
        }
    }
}

fn check_file(item: &Tree, field: &str, faults: &mut Faults) {
    match text(item, "path") {
        "" => faults.required(format!("{field}.path"), ""),
        path => {
            check_local_path(path, &format!("{field}.path"), faults);
            if path.starts_with("..") {
                faults.invalid(format!("{field}.path"), path, "must not start with '..'");
            }
        }
    }
    check_mode(&item["mode"], &format!("{field}.mode"), faults);
}

fn check_mode(mode: &Tree, field: &str, faults: &mut Faults) {
    if mode.as_i64().is_some_and(|mode| !(0..=MODE_MAX).contains(&mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        faults.invalid(field, mode.clone(), detail);
    }
}

/// A path that stays below where it starts.
pub(super) fn check_local_path(path: &str, field: &str, faults: &mut Faults) {
    if path.starts_with('/') {
        faults.invalid(field, path, "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        faults.invalid(field, path, "must not contain '..'");
    }
}

/// May a container mount the pod's volumes so?
pub fn check_mounts(container: &Tree, spec: &Tree, field: &str, faults: &mut Faults) {
    let known = |name: &str| {
        let templates = items(spec, "volumes").iter().any(|volume| text(volume, "name") == name);
        templates && !name.is_empty()
    };
    let mut paths = BTreeSet::new();
    for (index, mount) in items(container, "volumeMounts").iter().enumerate() {
        let field = format!("{field}.volumeMounts[{index}]");
        let (name, path) = (text(mount, "name"), text(mount, "mountPath"));
        match name {
            "" => faults.required(format!("{field}.name"), ""),
            _ if !known(name) => faults.not_found(format!("{field}.name"), name),
            _ => {}
        }
        if path.is_empty() {
            faults.required(format!("{field}.mountPath"), "");
        }
        if !paths.insert(path) {
            faults.invalid(format!("{field}.mountPath"), path, "must be unique");
        }
        for part in ["subPath", "subPathExpr"] {
            check_local_path(text(mount, part), &format!("{field}.{part}"), faults);
        }
        if is_set(mount, "subPath") && is_set(mount, "subPathExpr") {
            let detail = "subPathExpr and subPath are mutually exclusive";
            faults.invalid(format!("{field}.subPathExpr"), text(mount, "subPathExpr"), detail);
        }
        check_propagation(mount, container, &field, faults);
    }
    for (index, device) in items(container, "volumeDevices").iter().enumerate() {
        let (field, name) = (format!("{field}.volumeDevices[{index}]"), text(device, "name"));
        match name {
            "" => faults.required(format!("{field}.name"), ""),
            _ if !known(name) => faults.not_found(format!("{field}.name"), name),
            _ => {}
        }
        if !is_set(device, "devicePath") {
            faults.required(format!("{field}.devicePath"), "");
        }
    }
}

fn check_propagation(mount: &Tree, container: &Tree, field: &str, faults: &mut Faults) {
    let propagation = text(mount, "mountPropagation");
    if propagation.is_empty() {
        return;
    }
    let field = format!("{field}.mountPropagation");
    faults.one_of(&field, propagation, &["Bidirectional", "HostToContainer", "None"]);
    let privileged = at(container, "securityContext.privileged").as_bool() == Some(true);
    if propagation == "Bidirectional" && !privileged {
        faults.forbidden(field, "Bidirectional mount propagation is available only to privileged containers");
    }
}

/// The claims of a set stand in for volumes of its pods, so mounts may name them.
pub fn with_claims(spec: &Tree, claims: &[Tree]) -> Tree {
    let mut spec = spec.clone();
    let named: Vec<Tree> = claims
        .iter()
        .map(|claim| text(claim, "metadata.name"))
        .map(|name| serde_json::json!({"name": name, "persistentVolumeClaim": {"claimName": name}}))
        .collect();
    let has = |name: &Tree| named.iter().any(|claim| claim["name"] == *name);
    let own: Vec<Tree> =
        items(&spec, "volumes").iter().filter(|volume| !has(&volume["name"])).cloned().collect();
    crate::tree::set(&mut spec, "volumes", own.into_iter().chain(named.clone()).collect::<Vec<_>>());
    spec
}
