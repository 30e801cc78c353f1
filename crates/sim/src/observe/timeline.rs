//! What users would see change, one line each. Pure: the object before and after go in, lines come out.

use std::collections::BTreeSet;

use model::Tree;

use super::aliases::placed;
use super::sight::{Sight, at, condition, containers, items, text};

/// The lines for one change of an object; `old` or `new` is `None` when it was made or removed.
pub fn lines(sight: &Sight, path: &str, old: Option<&Tree>, new: Option<&Tree>) -> Vec<String> {
    let Some(any) = new.or(old) else { return Vec::new() };
    let said = match path.split('/').nth(1).unwrap_or_default() {
        "pods" => pod(old, new),
        "nodes" => node(old, new),
        "namespaces" => whole(old, new, &["phase"]),
        "jobs.batch" => conditions(old, new, &["Complete", "Failed"]),
        "deployments.apps" => conditions(old, new, &["Available", "Progressing"]),
        "endpointslices.discovery.k8s.io" => return slice(sight, old, new),
        _ => return Vec::new(),
    };
    let kind = text(any, "kind").to_lowercase();
    let name = sight.called(any);
    said.into_iter().map(|said| line(&kind, &name, &said)).collect()
}

/// One line, in columns.
pub fn line(kind: &str, name: &str, said: &str) -> String {
    format!("{kind:<10} {name:<10} {said}")
}

fn pod(old: Option<&Tree>, new: Option<&Tree>) -> Vec<String> {
    let Some(new) = new else { return vec!["gone".to_owned()] };
    let none = Tree::Null;
    let is_new = old.is_none();
    let old = old.unwrap_or(&none);
    let mut said = Vec::new();
    if is_new {
        said.push("created".to_owned());
    }
    if text(old, "spec.nodeName") != text(new, "spec.nodeName") {
        said.push(format!("bound to {}", text(new, "spec.nodeName")));
    }
    if at(old, "metadata.deletionTimestamp").is_null() && !at(new, "metadata.deletionTimestamp").is_null() {
        said.push(format!("being deleted, {}s of grace", at(new, "metadata.deletionGracePeriodSeconds")));
    }
    let phase = text(new, "status.phase");
    if text(old, "status.phase") != phase && phase != "Pending" {
        let reason = text(new, "status.reason");
        said.push(format!("{phase} {reason}").trim_end().to_owned());
    }
    for container in containers(new) {
        let before = containers(old).find(|known| known["name"] == container["name"]).unwrap_or(&none);
        said.extend(of_container(before, container));
    }
    match (condition(old, "Ready"), condition(new, "Ready")) {
        (was, "True") if was != "True" => said.push("Ready".to_owned()),
        ("True", is) if is != "True" => said.push("not Ready".to_owned()),
        _ => {}
    }
    said
}

/// Waiting reasons that every pod goes through say nothing.
const USUAL: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];

fn of_container(old: &Tree, new: &Tree) -> Vec<String> {
    let name = text(new, "name");
    let mut said = Vec::new();
    let count = |tree: &Tree| tree["restartCount"].as_i64().unwrap_or(0);
    let ended = at(new, "state.terminated");
    if !ended.is_null() && at(old, "state.terminated").is_null() {
        said.push(format!("{name} ended: {} ({})", ended["exitCode"], text(ended, "reason")));
    }
    let waiting = text(new, "state.waiting.reason");
    if waiting != text(old, "state.waiting.reason") && !USUAL.contains(&waiting) {
        said.push(format!("{name} waits: {waiting}"));
    }
    if count(new) > count(old) {
        let last = at(new, "lastState.terminated");
        said.push(format!(
            "{name} restarted ({}), last {} ({})",
            count(new),
            last["exitCode"],
            text(last, "reason")
        ));
    }
    said
}

fn node(old: Option<&Tree>, new: Option<&Tree>) -> Vec<String> {
    let mut said = conditions(old, new, &["Ready"]);
    if let Some(new) = new {
        let (before, after) = (old.map(taints).unwrap_or_default(), taints(new));
        said.extend(after.difference(&before).map(|taint| format!("tainted {taint}")));
        said.extend(before.difference(&after).map(|taint| format!("no longer tainted {taint}")));
    }
    said
}

fn taints(node: &Tree) -> BTreeSet<String> {
    items(node, "spec.taints")
        .map(|taint| format!("{}:{}", text(taint, "key"), text(taint, "effect")))
        .collect()
}

fn conditions(old: Option<&Tree>, new: Option<&Tree>, kinds: &[&str]) -> Vec<String> {
    let Some(new) = new else { return vec!["gone".to_owned()] };
    let mut said = Vec::new();
    for kind in kinds {
        let was = old.map_or("", |old| condition(old, kind));
        let is = condition(new, kind);
        if was != is && !is.is_empty() {
            let one = items(new, "status.conditions").find(|one| one["type"] == *kind);
            let reason = one.map_or("", |one| text(one, "reason"));
            said.push(format!("{kind}={is} {reason}").trim_end().to_owned());
        }
    }
    said
}

fn whole(old: Option<&Tree>, new: Option<&Tree>, fields: &[&str]) -> Vec<String> {
    match (old, new) {
        (_, None) => vec!["gone".to_owned()],
        (None, Some(_)) => Vec::new(),
        (Some(old), Some(new)) => {
            let status =
                |tree: &Tree, field: &str| tree["status"][field].as_str().unwrap_or_default().to_owned();
            let changed = fields.iter().filter(|field| status(old, field) != status(new, field));
            changed.map(|field| status(new, field)).collect()
        }
    }
}

fn slice(sight: &Sight, old: Option<&Tree>, new: Option<&Tree>) -> Vec<String> {
    let ready = |tree: Option<&Tree>| tree.map(|tree| sight.ready_in(tree)).unwrap_or_default();
    let Some(any) = new.or(old) else { return Vec::new() };
    let service = any["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default();
    let (before, after) = (ready(old), ready(new));
    if before == after || service == "kubernetes" {
        return Vec::new();
    }
    let to = if after.is_empty() { "nobody".to_owned() } else { after.join(" ") };
    vec![line("service", &placed(text(any, "metadata.namespace"), service), &format!("leads to {to}"))]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod_with(status: Tree) -> Tree {
        json!({"kind": "Pod", "metadata": {"name": "x", "namespace": "default"}, "spec": {}, "status": status})
    }

    fn check(old: Option<Tree>, new: Option<Tree>, wanted: &[&str]) {
        let said = lines(&Sight::default(), "/pods/default/x", old.as_ref(), new.as_ref());
        let said: Vec<String> =
            said.iter().map(|line| line.split_whitespace().skip(2).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(said, wanted);
    }

    #[test]
    fn a_pod_is_told_from_creation_to_removal() {
        let (ready, unready) =
            (json!([{"type": "Ready", "status": "True"}]), json!([{"type": "Ready", "status": "False"}]));
        let pending = pod_with(json!({"phase": "Pending"}));
        let running = pod_with(json!({"phase": "Running", "conditions": ready}));
        check(None, Some(pending.clone()), &["created"]);
        check(Some(pending), Some(running.clone()), &["Running", "Ready"]);
        check(Some(running.clone()), Some(running.clone()), &[]);
        check(
            Some(running.clone()),
            Some(pod_with(json!({"phase": "Running", "conditions": unready}))),
            &["not Ready"],
        );
        check(Some(running), None, &["gone"]);
    }

    #[test]
    fn restarts_and_unusual_waits_are_told() {
        let state = |state: Tree, count: i64| {
            let last = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
            pod_with(
                json!({"containerStatuses": [{"name": "c", "restartCount": count, "state": state, "lastState": last}]}),
            )
        };
        let waits = |reason: &str| json!({"waiting": {"reason": reason}});
        let runs = json!({"running": {}});
        check(Some(state(waits("ContainerCreating"), 0)), Some(state(runs.clone(), 0)), &[]);
        check(
            Some(state(waits("CrashLoopBackOff"), 0)),
            Some(state(runs.clone(), 1)),
            &["c restarted (1), last 1 (Error)"],
        );
        check(
            Some(state(runs, 1)),
            Some(state(waits("CrashLoopBackOff"), 1)),
            &["c waits: CrashLoopBackOff"],
        );
    }
}
