//! The laws that hold at every step. Pure: what was seen so far and what happened now go in, what it breaks comes out.

use model::Tree;
use runtime::SandboxSpec;
use store::Event;

use super::sight::{Sight, at, items, text};

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
    } else if !old.is_null() {
        broken.extend(of_change(path, old, new));
    }
    if path.starts_with("/poddisruptionbudgets.policy/") && !event.removed {
        broken.extend(of_budget(old, new));
    }
    broken
}

fn of_change(path: &str, old: &Tree, new: &Tree) -> Vec<String> {
    let mut broken = Vec::new();
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
    if path.starts_with("/pods/") {
        let uid = text(old, "metadata.uid");
        let is_forced = sight.forced.contains(uid);
        let still = sight.running.keys().filter(|(whose, _)| whose == uid && !is_forced);
        for (_, container) in still {
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
    if let Some((other, _)) = sight.running.get(&key) {
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
        sight.running.insert(("u".into(), "c".into()), ("a".into(), "1".into()));
        assert_eq!(of_start(&sight, "a", &sandbox("u"), "c").len(), 1);
    }

    #[test]
    fn a_pod_that_moves_breaks_a_law() {
        let pod = |node: &str| json!({"metadata": {"uid": "u"}, "spec": {"nodeName": node}});
        assert_eq!(of_change("/pods/default/x", &pod("a"), &pod("a")), Vec::<String>::new());
        assert_eq!(of_change("/pods/default/x", &pod("a"), &pod("b")).len(), 1);
    }

    #[test]
    fn what_goes_with_finalizers_or_with_running_containers_breaks_a_law() {
        let mut sight = Sight::default();
        let held = json!({"metadata": {"uid": "u", "finalizers": ["keep"]}});
        let free = json!({"metadata": {"uid": "u"}});
        assert_eq!(of_removal(&sight, "/pods/default/x", &held, &free), Vec::<String>::new());
        assert_eq!(of_removal(&sight, "/pods/default/x", &held, &held).len(), 1);
        sight.running.insert(("u".into(), "c".into()), ("a".into(), "1".into()));
        assert_eq!(of_removal(&sight, "/pods/default/x", &free, &free).len(), 1);
    }
}
