//! What changed last: the newest revision of the pod's owner against the one before.

use super::{Diagnosis, Seen};
use crate::Tree;
use crate::tree::{at, items, text};

/// How many differences are named; a template that differs in more is another program.
const CHANGES_MAX: usize = 6;

/// How long a value may be to be shown, in characters.
const VALUE_LEN_MAX: usize = 80;

/// Labels that name a revision: ReplicaSets' and those of ControllerRevisions.
pub const REVISION_LABELS: [&str; 2] = ["pod-template-hash", "controller-revision-hash"];

/// The revision of its owner that a pod, or a ReplicaSet or ControllerRevision, is of; empty when it has none.
pub fn revision_of(object: &Tree) -> &str {
    let labels = at(object, "metadata.labels");
    REVISION_LABELS.iter().find_map(|label| labels.get(label)?.as_str()).unwrap_or_default()
}

/// Says since which revision the pod is as it is, and what came with it.
pub fn since(seen: &Seen, known: &mut Diagnosis) {
    let revision = revision_of(seen.pod);
    let position = seen.revisions.iter().position(|one| revision_of(one) == revision);
    let Some(position) = position.filter(|_| !revision.is_empty()) else { return };
    let (now, before) = (&seen.revisions[position], seen.revisions.get(position + 1));
    let because = format!("{}, made {}", text(now, "metadata.name"), text(now, "metadata.creationTimestamp"));
    match before.map(|before| changes(template(before), template(now))) {
        None => known.says("it is of its owner's first known revision", because),
        Some(all) if all.is_empty() => {
            known.says("nothing but annotations changed with its revision", because)
        }
        Some(all) => known.says(format!("what changed with its revision: {}", all.join("; ")), because),
    }
}

/// The pod template within a ReplicaSet or a ControllerRevision.
fn template(revision: &Tree) -> &Tree {
    match at(revision, "spec.template.spec") {
        Tree::Null => at(revision, "data.spec.template.spec"),
        spec => spec,
    }
}

/// The differences of two trees by their paths, `a → b`, a few of them; list items go by their name where they have one.
pub fn changes(old: &Tree, new: &Tree) -> Vec<String> {
    let mut all = Vec::new();
    compare(String::new(), old, new, &mut all);
    let surplus = all.len().saturating_sub(CHANGES_MAX);
    all.truncate(CHANGES_MAX);
    if surplus > 0 {
        all.push(format!("and {surplus} more"));
    }
    all
}

fn compare(path: String, old: &Tree, new: &Tree, all: &mut Vec<String>) {
    match (old, new) {
        (old, new) if old == new => {}
        (Tree::Object(before), Tree::Object(after)) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let value = |map: &serde_json::Map<String, Tree>| map.get(key).cloned().unwrap_or(Tree::Null);
                compare(inner, &value(before), &value(after), all);
            }
        }
        (Tree::Array(before), Tree::Array(after)) if named(before) && named(after) => {
            let mut names: Vec<&str> = before.iter().chain(after).map(|item| text(item, "name")).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                let of = |list: &[Tree]| list.iter().find(|item| text(item, "name") == name).cloned();
                let value = |list: &[Tree]| of(list).unwrap_or(Tree::Null);
                compare(format!("{path}[{name}]"), &value(before), &value(after), all);
            }
        }
        (old, new) => all.push(format!("{path}: {} → {}", shown(old), shown(new))),
    }
}

fn named(list: &[Tree]) -> bool {
    !list.is_empty() && list.iter().all(|item| !text(item, "name").is_empty())
}

fn shown(value: &Tree) -> String {
    let all = match value {
        Tree::Null => "nothing".to_owned(),
        Tree::String(text) => text.clone(),
        other => other.to_string(),
    };
    match all.char_indices().nth(VALUE_LEN_MAX) {
        Some((at, _)) => format!("{}…", &all[..at]),
        None => all,
    }
}

/// The ReplicaSets or ControllerRevisions of one owner, the newest first.
pub fn newest_first(mut revisions: Vec<Tree>) -> Vec<Tree> {
    let number = |one: &Tree| {
        let annotated =
            at(one, "metadata.annotations").get("deployment.kubernetes.io/revision").and_then(Tree::as_str);
        annotated.and_then(|text| text.parse().ok()).or_else(|| at(one, "revision").as_i64()).unwrap_or(0)
    };
    revisions.sort_by_key(|one| std::cmp::Reverse(number(one)));
    revisions
}

/// Whether an object belongs to the owner of a uid.
pub fn is_of(object: &Tree, uid: &str) -> bool {
    items(object, "metadata.ownerReferences").iter().any(|owner| text(owner, "uid") == uid)
}
