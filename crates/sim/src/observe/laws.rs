//! The laws that hold at every step. Pure: what was seen so far and what happened now go in, what it breaks comes out.

use model::Tree;
use model::fence::{EPOCH, STATE};
use runtime::SandboxSpec;
use store::Event;

use super::sight::{Running, Sight, at, condition, containers, items, text};

/// Where the leases of nodes are.
pub const LEASES: &str = "/leases.coordination.k8s.io/kube-node-lease/";

/// What one event of the history breaks; `new` is what it writes, or the object as it goes.
pub fn of_event(sight: &Sight, event: &Event, new: &Tree) -> Vec<String> {
    let record = &event.record;
    let path: &str = &record.path;
    let known = sight.objects.get(path);
    let mut broken = Vec::new();
    if record.revision <= sight.revision {
        broken.push(format!("revisions only grow: {} came after {}", record.revision, sight.revision));
    }
    let (before, seen) =
        (event.before.as_ref().map(|before| before.revision), known.map(|seen| seen.revision));
    if before != seen {
        broken.push(format!(
            "a watcher sees each history without gap or repeat: {path} was at {before:?}, seen {seen:?}"
        ));
    }
    let none = Tree::Null;
    let old = known.map_or(&none, |seen| &seen.tree);
    if event.removed {
        broken.extend(of_removal(sight, path, old, new));
    } else if old.is_null() {
        broken.extend(of_creation(sight, path, new));
    } else {
        broken.extend(of_change(path, old, new));
    }
    if let Some(node) = path.strip_prefix(LEASES).filter(|_| !event.removed) {
        broken.extend(of_lease(sight, node, old, new));
    }
    if path.starts_with("/poddisruptionbudgets.policy/") && !event.removed {
        broken.extend(of_budget(old, new));
    }
    broken
}

/// No epoch comes twice, and none is lost while anything runs under it.
fn of_lease(sight: &Sight, node: &str, old: &Tree, new: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    let annotation =
        |tree: &Tree, name: &str| at(tree, "metadata.annotations")[name].as_str().map(str::to_owned);
    let epoch = |tree: &Tree| annotation(tree, EPOCH).and_then(|epoch| epoch.parse::<u64>().ok());
    let is_lost = |tree: &Tree| annotation(tree, STATE).is_some_and(|state| state == "Lost");
    let Some(now) = epoch(new) else { return broken };
    let newest = sight.epochs.get(node).copied();
    if epoch(old) != Some(now) && newest >= Some(now) {
        broken.push(format!("no epoch comes twice: that of {node} is {now} after {newest:?}"));
    }
    let is_under = |one: &&Running| one.node == node && one.epoch == Some(now) && sight.writes(one);
    if is_lost(new)
        && !is_lost(old)
        && let Some(one) = sight.running.values().find(is_under)
    {
        broken.push(format!(
            "no lease is lost while its deadline runs: that of {node} is, and {} runs",
            one.pod
        ));
    }
    broken
}

/// Whether a container was started again.
pub fn is_restart(sight: &Sight, event: &Event, new: &Tree) -> bool {
    let path: &str = &event.record.path;
    let restarts = |tree: &Tree| containers(tree).filter_map(|one| one["restartCount"].as_u64()).sum::<u64>();
    path.starts_with("/pods/")
        && sight.objects.get(path).is_some_and(|old| restarts(new) > restarts(&old.tree))
}

/// What is done although nothing is wrong but noise.
pub fn of_calm(sight: &Sight, event: &Event, new: &Tree) -> Vec<String> {
    let path: &str = &event.record.path;
    let old = sight.objects.get(path).map_or(&Tree::Null, |seen| &seen.tree);
    let is_new = |is: fn(&Tree) -> bool| is(new) && !is(old);
    let is_ending = |tree: &Tree| !at(tree, "metadata.deletionTimestamp").is_null();
    let is_lost = |tree: &Tree| at(tree, "metadata.annotations")[STATE] == "Lost";
    let wrong = if path.starts_with("/pods/") && (event.removed || is_new(is_ending)) {
        "a pod is moved"
    } else if path.starts_with(LEASES) && is_new(is_lost) {
        "a living node is taken over"
    } else if path.starts_with("/endpointslices.")
        && !sight.ready_in(old).is_empty()
        && sight.ready_in(new).is_empty()
    {
        "a Service is emptied"
    } else {
        return Vec::new();
    };
    vec![format!("noise is no fault: {wrong}, {path}")]
}

fn of_creation(sight: &Sight, path: &str, new: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    let (uid, namespace) = (text(new, "metadata.uid"), text(new, "metadata.namespace"));
    if let Some(other) = sight.uids.get(uid) {
        broken.push(format!("no two objects have one uid: {path} has that of {other}"));
    }
    let home = format!("/namespaces/{namespace}");
    if !namespace.is_empty() && !sight.objects.contains_key(&home) {
        broken.push(format!("an object lives in a namespace that is there: {path}"));
    }
    broken
}

fn of_change(path: &str, old: &Tree, new: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    let number = |tree: &Tree, field: &str| at(tree, field).as_i64();
    let (was, is) = (number(old, "metadata.generation"), number(new, "metadata.generation"));
    if was > is {
        broken.push(format!("generations only grow: {path} went from {was:?} to {is:?}"));
    }
    if at(old, "metadata.creationTimestamp") != at(new, "metadata.creationTimestamp") {
        broken.push(format!("an object was made once: {path} has another creationTimestamp"));
    }
    let grace = |tree: &Tree| number(tree, "metadata.deletionGracePeriodSeconds");
    if let (Some(was), Some(is)) = (grace(old), grace(new))
        && is > was
    {
        broken.push(format!("a grace is only cut short: {path} went from {was} s to {is} s"));
    }
    if path.starts_with("/pods/") {
        broken.extend(of_pod_status(path, old, new));
    }
    if path.starts_with("/jobs.batch/") {
        broken.extend(of_job_status(path, old, new));
    }
    if text(old, "metadata.uid") != text(new, "metadata.uid") {
        broken.push(format!("an object keeps its uid as long as it is there: {path}"));
    }
    let (was, is) = (text(old, "spec.nodeName"), text(new, "spec.nodeName"));
    if path.starts_with("/pods/") && !was.is_empty() && was != is {
        broken.push(format!("a pod is bound once: {path} went from {was} to {is:?}"));
    }
    if !at(old, "metadata.deletionTimestamp").is_null() && at(new, "metadata.deletionTimestamp").is_null() {
        broken.push(format!("a deletion that was asked for is not taken back: {path}"));
    }
    broken
}

/// What is over for a pod stays over, and what was counted stays counted.
fn of_pod_status(path: &str, old: &Tree, new: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    let (was, is) = (text(old, "status.phase"), text(new, "status.phase"));
    if matches!(was, "Succeeded" | "Failed") && was != is {
        broken.push(format!("a pod that is done stays done: {path} went from {was} to {is:?}"));
    }
    let restarts = |one: &Tree| one["restartCount"].as_i64().unwrap_or(0);
    for before in containers(old) {
        let after = containers(new).find(|after| after["name"] == before["name"]);
        if let Some(after) = after.filter(|after| restarts(after) < restarts(before)) {
            let (name, was, is) = (text(before, "name"), restarts(before), restarts(after));
            broken.push(format!("restarts are never forgotten: {path} {name} went from {was} to {is}"));
        }
    }
    broken
}

/// A Job never uncounts a pod, and never takes back its end.
fn of_job_status(path: &str, old: &Tree, new: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    for field in ["status.succeeded", "status.failed"] {
        let count = |tree: &Tree| at(tree, field).as_i64().unwrap_or(0);
        // A Job whose indexes are taken back starts counting at what is left; nobody here does that.
        if count(new) < count(old) {
            let (was, is) = (count(old), count(new));
            broken.push(format!("a Job never uncounts a pod: {path} {field} went from {was} to {is}"));
        }
    }
    for kind in ["Complete", "Failed"] {
        if condition(old, kind) == "True" && condition(new, kind) != "True" {
            broken.push(format!("a Job that is done stays done: {path} is no longer {kind}"));
        }
    }
    broken
}

fn of_removal(sight: &Sight, path: &str, old: &Tree, last: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
    let holds = |field: &str| items(old, field).next().is_some() && items(last, field).next().is_some();
    let of_namespace = path.starts_with("/namespaces/") && holds("spec.finalizers");
    if holds("metadata.finalizers") || of_namespace {
        broken.push(format!(
            "a finalizer is never skipped: {path} is gone with {}",
            at(last, "metadata.finalizers")
        ));
    }
    if let Some(name) = path.strip_prefix("/namespaces/") {
        let inside = |seen: &&super::sight::Seen| text(&seen.tree, "metadata.namespace") == name;
        if let Some(left) = sight.objects.values().find(inside) {
            let (kind, left) = (text(&left.tree, "kind"), text(&left.tree, "metadata.name"));
            broken.push(format!("a namespace goes last: {name} is gone, {kind} {left} is in it"));
        }
    }
    if path.starts_with("/pods/") {
        let uid = text(old, "metadata.uid");
        // A fenced pod's name is free only when it runs nowhere, whoever forces its deletion.
        let is_fenced = at(old, "metadata.annotations").get(model::fence::FENCE).is_some();
        let is_forced = sight.forced.contains(uid) && !is_fenced;
        let still =
            sight.running.iter().filter(|((whose, _), one)| whose == uid && !is_forced && sight.writes(one));
        for ((_, container), _) in still {
            broken.push(format!("a pod outlives its containers: {path} is gone, {container} runs"));
        }
    }
    broken
}

/// An eviction is seen by the pods that a budget counts as disrupted from now on: it must have allowed that many.
fn of_budget(old: &Tree, new: &Tree) -> Vec<String> {
    let disrupted = at(new, "status.disruptedPods").as_object().into_iter().flatten();
    let is_new = |name: &str| at(old, "status.disruptedPods").get(name).is_none();
    let evicted = disrupted.filter(|(name, _)| is_new(name)).count();
    let allowed = at(old, "status.disruptionsAllowed").as_u64().unwrap_or(0);
    if evicted as u64 > allowed {
        let name = text(new, "metadata.name");
        return vec![format!("a budget is respected by evictions: {name} allowed {allowed}, {evicted} went")];
    }
    Vec::new()
}

/// What the start of a container breaks.
pub fn of_start(sight: &Sight, node: &str, pod: &SandboxSpec, container: &str) -> Vec<String> {
    let mut broken = Vec::new();
    let key = (pod.pod_uid.clone(), container.to_owned());
    let place = format!("{}/{} {container}", pod.namespace, pod.name);
    if let Some(Running { node: other, .. }) = sight.running.get(&key) {
        broken.push(format!("a container runs once at a time: {place} starts on {node}, runs on {other}"));
    }
    match sight.bound.get(&pod.pod_uid) {
        Some(bound) if bound == node => {}
        Some(bound) => {
            broken.push(format!("a pod runs only where it is bound: {place} on {node}, not {bound}"))
        }
        None => broken.push(format!("a pod runs only where it is bound: {place} on {node}, bound nowhere")),
    }
    broken
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sight::Seen;
    use super::*;

    fn sandbox(uid: &str) -> SandboxSpec {
        SandboxSpec {
            pod_uid: uid.into(),
            name: "x".into(),
            namespace: "default".into(),
            ..SandboxSpec::default()
        }
    }

    #[test]
    fn a_container_that_runs_twice_or_elsewhere_breaks_a_law() {
        let mut sight = Sight::default();
        assert_eq!(of_start(&sight, "a", &sandbox("u"), "c").len(), 1, "bound nowhere");
        sight.bound.insert("u".into(), "a".into());
        assert_eq!(of_start(&sight, "a", &sandbox("u"), "c"), Vec::<String>::new());
        assert_eq!(of_start(&sight, "b", &sandbox("u"), "c").len(), 1);
        sight.running.insert(
            ("u".into(), "c".into()),
            Running { node: "a".into(), id: "1".into(), ..Running::default() },
        );
        assert_eq!(of_start(&sight, "a", &sandbox("u"), "c").len(), 1);
    }

    #[test]
    fn a_pod_that_moves_breaks_a_law() {
        let pod = |node: &str| json!({"metadata": {"uid": "u"}, "spec": {"nodeName": node}});
        assert_eq!(of_change("/pods/default/x", &pod("a"), &pod("a")), Vec::<String>::new());
        assert_eq!(of_change("/pods/default/x", &pod("a"), &pod("b")).len(), 1);
    }

    #[test]
    fn an_object_without_a_home_or_with_anothers_uid_breaks_a_law() {
        let mut sight = Sight::default();
        let pod = json!({"metadata": {"uid": "u", "namespace": "shop"}});
        assert_eq!(of_creation(&sight, "/pods/shop/x", &pod).len(), 1);
        sight.objects.insert("/namespaces/shop".into(), Seen { revision: 1, tree: json!({}) });
        assert_eq!(of_creation(&sight, "/pods/shop/x", &pod), Vec::<String>::new());
        sight.uids.insert("u".into(), "/pods/shop/y".into());
        assert_eq!(of_creation(&sight, "/pods/shop/x", &pod).len(), 1);
    }

    #[test]
    fn what_is_over_stays_over_and_what_was_counted_stays_counted() {
        let check = |path: &str, old: Tree, new: Tree, wanted: usize| {
            let broken = of_change(path, &old, &new);
            assert_eq!(broken.len(), wanted, "{broken:?}");
        };
        let pod = |phase: &str, restarts: i64| json!({"status": {"phase": phase, "containerStatuses": [{"name": "c", "restartCount": restarts}]}});
        check("/pods/default/x", pod("Running", 1), pod("Failed", 2), 0);
        check("/pods/default/x", pod("Failed", 1), pod("Running", 1), 1);
        check("/pods/default/x", pod("Running", 2), pod("Running", 1), 1);
        let job = |succeeded: i64, complete: &str| json!({"status": {"succeeded": succeeded, "conditions": [{"type": "Complete", "status": complete}]}});
        check("/jobs.batch/default/j", job(1, "False"), job(2, "True"), 0);
        check("/jobs.batch/default/j", job(2, "True"), job(1, "False"), 2);
        let ending = |grace: i64, generation: i64| json!({"metadata": {"deletionGracePeriodSeconds": grace, "generation": generation}});
        check("/pods/default/x", ending(30, 1), ending(0, 2), 0);
        check("/pods/default/x", ending(1, 2), ending(30, 1), 2);
    }

    #[test]
    fn a_namespace_that_goes_before_what_is_in_it_breaks_a_law() {
        let mut sight = Sight::default();
        let gone = json!({"metadata": {"name": "shop"}});
        assert_eq!(of_removal(&sight, "/namespaces/shop", &gone, &gone), Vec::<String>::new());
        let map = json!({"kind": "ConfigMap", "metadata": {"name": "m", "namespace": "shop"}});
        sight.objects.insert("/configmaps/shop/m".into(), Seen { revision: 1, tree: map });
        assert_eq!(of_removal(&sight, "/namespaces/shop", &gone, &gone).len(), 1);
    }

    #[test]
    fn what_goes_with_finalizers_or_with_running_containers_breaks_a_law() {
        let mut sight = Sight::default();
        let held = json!({"metadata": {"uid": "u", "finalizers": ["keep"]}});
        let free = json!({"metadata": {"uid": "u"}});
        assert_eq!(of_removal(&sight, "/pods/default/x", &held, &free), Vec::<String>::new());
        assert_eq!(of_removal(&sight, "/pods/default/x", &held, &held).len(), 1);
        sight.running.insert(
            ("u".into(), "c".into()),
            Running { node: "a".into(), id: "1".into(), ..Running::default() },
        );
        assert_eq!(of_removal(&sight, "/pods/default/x", &free, &free).len(), 1);
    }
}
