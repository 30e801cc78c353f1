//! Reads the text of a tiny world.

use serde_json::{Map, json};

use super::at;
use crate::{Gvr, Key, Tree, kinds};

/// The objects of a text, with their keys.
pub(super) fn objects(text: &str) -> Vec<(Key, Tree)> {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match (line.strip_prefix('+'), lines.last_mut()) {
            (Some(more), Some(last)) => last.push_str(more),
            _ => lines.push(line.to_owned()),
        }
    }
    lines.iter().map(|line| object(line)).collect()
}

fn object(line: &str) -> (Key, Tree) {
    let mut words = line.split_whitespace();
    let (plural, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let gvr = resource(plural);
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (namespace, name),
        None if is_namespaced(gvr) => ("default", name),
        None => ("", name),
    };
    let mut tree = json!({
        "apiVersion": gvr.api_version(), "kind": kind_of(gvr),
        "metadata": {"name": name, "uid": format!("{}-{name}", gvr.plural), "resourceVersion": "1",
            "generation": 1, "creationTimestamp": at(0).to_string()},
    });
    if !namespace.is_empty() {
        tree["metadata"]["namespace"] = namespace.into();
    }
    words.for_each(|word| set_word(&mut tree, word));
    (Key::new(gvr, namespace, name), tree)
}

fn set_word(tree: &mut Tree, word: &str) {
    match word.split_once('=') {
        Some(("labels", pairs)) => {
            for (name, value) in pairs.split(',').filter_map(|pair| pair.split_once(':')) {
                tree["metadata"]["labels"][name] = value.into();
            }
        }
        Some(("owner", owner)) => tree["metadata"]["ownerReferences"] = json!([owner_reference(owner)]),
        Some(("on", node)) => tree["spec"]["nodeName"] = node.into(),
        Some((path, value)) => {
            let value = serde_json::from_str(value).unwrap_or_else(|_| Tree::from(value));
            *at_path(tree, path) = value;
        }
        None => set_state(tree, word),
    }
}

/// `ready@5`, `running`, `failed`, `ending@9`, `created@3` …
fn set_state(tree: &mut Tree, word: &str) {
    let (state, since) = word.split_once('@').unwrap_or((word, "0"));
    let since = at(since.parse().unwrap_or(0)).to_string();
    let ready = |status: &str| json!([{"type": "Ready", "status": status, "lastTransitionTime": since, "lastHeartbeatTime": since}]);
    match state {
        "ready" => {
            tree["status"]["phase"] = "Running".into();
            tree["status"]["conditions"] = ready("True");
        }
        "running" => {
            tree["status"]["phase"] = "Running".into();
            tree["status"]["conditions"] = ready("False");
        }
        "pending" => tree["status"]["phase"] = "Pending".into(),
        "failed" => tree["status"]["phase"] = "Failed".into(),
        "succeeded" => tree["status"]["phase"] = "Succeeded".into(),
        "created" => tree["metadata"]["creationTimestamp"] = since.into(),
        "ending" => tree["metadata"]["deletionTimestamp"] = since.into(),
        other => panic!("the tiny world knows no word {other:?}"),
    }
}

fn owner_reference(owner: &str) -> Tree {
    let (plural, name) = owner.split_once('/').expect("an owner is written as plural/name");
    let gvr = resource(plural);
    json!({"apiVersion": gvr.api_version(), "kind": kind_of(gvr), "name": name,
        "uid": format!("{plural}-{name}"), "controller": true, "blockOwnerDeletion": true})
}

/// The place of a dotted path; `[a.b/c]` is one step.
fn at_path<'a>(tree: &'a mut Tree, path: &str) -> &'a mut Tree {
    let mut place = tree;
    let mut rest = path;
    while !rest.is_empty() {
        let (step, after) = match rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
            Some((step, after)) => (step, after.trim_start_matches('.')),
            None => rest.split_once('.').unwrap_or((rest, "")),
        };
        if !place.is_object() {
            *place = Tree::Object(Map::new());
        }
        place = &mut place[step];
        rest = after;
    }
    place
}

fn resource(plural: &str) -> &'static Gvr {
    let found = kinds::ALL.iter().find(|gvr| gvr.plural == plural);
    found.unwrap_or_else(|| panic!("no built-in resource is called {plural:?}"))
}

/// The kind of a built-in resource, as far as tests need it.
pub(super) fn kind_of(gvr: &Gvr) -> String {
    if let Some(kind) = kinds::by_gvr(gvr) {
        return kind.kind.to_owned();
    }
    const KINDS: &[&str] = &[
        "ReplicaSet",
        "ReplicationController",
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "CronJob",
        "ConfigMap",
        "ServiceAccount",
        "EndpointSlice",
        "Endpoints",
        "ControllerRevision",
        "PersistentVolumeClaim",
        "PersistentVolume",
        "PodDisruptionBudget",
        "ResourceQuota",
        "ClusterRole",
        "PriorityClass",
        "StorageClass",
    ];
    let known = KINDS.iter().find(|kind| {
        let lower = kind.to_lowercase();
        lower == *gvr.plural || format!("{lower}s") == gvr.plural || format!("{lower}es") == gvr.plural
    });
    if let Some(kind) = known {
        return (*kind).to_owned();
    }
    let singular = gvr.plural.strip_suffix('s').unwrap_or(&gvr.plural);
    let (first, rest) = singular.split_at(1.min(singular.len()));
    format!("{}{rest}", first.to_uppercase())
}

/// Whether a built-in resource lives in namespaces, as far as tests need it.
pub(super) fn is_namespaced(gvr: &Gvr) -> bool {
    if let Some(kind) = kinds::by_gvr(gvr) {
        return kind.namespaced;
    }
    const CLUSTER: &[&str] = &[
        "nodes",
        "namespaces",
        "persistentvolumes",
        "clusterroles",
        "clusterrolebindings",
        "priorityclasses",
        "storageclasses",
        "customresourcedefinitions",
        "apiservices",
        "csinodes",
        "runtimeclasses",
        "votersets",
    ];
    !CLUSTER.contains(&&*gvr.plural)
}
