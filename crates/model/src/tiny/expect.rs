//! A plan as text, and what a test expects of it.

use super::{TinyWorld, at};
use crate::{Act, Key, Plan, Propagation, Time, Tree, World, Write};

/// Decides in the world of `text` at `now` seconds and compares with what is expected, line by line.
///
/// A name may end in `*`; a JSON object is expected to be contained; a reason (`# …`) and an event (`! …`) count
/// only where they are named. Nothing expected means a quiet plan without a wake.
///
/// # Panics
/// When the plan differs.
pub fn check(text: &str, now: i64, decide: impl Fn(&dyn World, Time) -> Plan, expected: &str) {
    let world = TinyWorld::read(text);
    let plan = decide(&world, at(now));
    assert_eq!(plan, decide(&world, at(now)), "the same world and time give the same plan");
    let lines = told(&plan);
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let matches = lines.len() == expected.len()
        && expected.iter().zip(&lines).all(|(expected, line)| line_matches(expected, line));
    assert!(matches, "expected:\n  {}\nbut the plan is:\n  {}", expected.join("\n  "), lines.join("\n  "));
}

/// A plan as text, an act a line.
pub fn told(plan: &Plan) -> Vec<String> {
    let mut lines: Vec<String> = plan.acts.iter().map(act).collect();
    lines.extend(
        plan.news
            .iter()
            .map(|note| format!("say {} ! {} {}", short(&note.object), note.reason, note.message)),
    );
    lines.extend(plan.wake_at.map(|at| format!("wake {}s", at.as_second())));
    lines
}

fn act(act: &Act) -> String {
    let mut line = write(&act.write);
    line.push_str(&format!(" # {}", act.why));
    if let Some(event) = &act.event {
        line.push_str(&format!(" ! {} {}", event.reason, event.message));
    }
    line
}

fn write(write: &Write) -> String {
    match write {
        Write::Create { gvr, namespace, object } => {
            let meta = &object["metadata"];
            let name = meta["name"].as_str().or(meta["generateName"].as_str()).unwrap_or_default();
            format!("create {} {object}", short(&Key::new(gvr, namespace.as_str(), name)))
        }
        Write::Patch { key, part: "", patch, .. } => format!("patch {} {patch}", short(key)),
        Write::Patch { key, part, patch, .. } => format!("patch {}/{part} {patch}", short(key)),
        Write::Replace { key, part, object } => format!("replace {} {part} {object}", short(key)),
        Write::Bind { pod, node, .. } => format!("bind {} to {node}", short(pod)),
        Write::Evict { pod, .. } => format!("evict {}", short(pod)),
        Write::Knock { node, .. } => format!("knock {}", short(node)),
        Write::Votes { lease, set, .. } => {
            let hosts: Vec<&str> = set.voters.iter().map(|voter| voter.host.as_str()).collect();
            format!("votes {} of {}", short(lease), hosts.join(","))
        }
        Write::Absent { key, uid } => format!("absent {} uid {uid}", short(key)),
        Write::Delete { key, grace_seconds, propagation, .. } => {
            let grace = grace_seconds.map(|grace| format!(" grace {grace}")).unwrap_or_default();
            let how = match propagation {
                Propagation::Background => "",
                Propagation::Foreground => " foreground",
                Propagation::Orphan => " orphan",
            };
            format!("delete {}{grace}{how}", short(key))
        }
    }
}

fn short(key: &Key) -> String {
    match key.namespace.as_str() {
        "" | "default" => format!("{} {}", key.gvr.plural, key.name),
        namespace => format!("{} {namespace}/{}", key.gvr.plural, key.name),
    }
}

fn line_matches(expected: &str, line: &str) -> bool {
    let (expected, expected_event) = split(expected, " ! ");
    let (line, event) = split(line, " ! ");
    let (expected, expected_why) = split(expected, " # ");
    let (line, why) = split(line, " # ");
    let (expected, expected_tree) = tree(expected);
    let (line, tree) = tree(line);
    let named = match expected.strip_suffix('*') {
        Some(prefix) => line.starts_with(prefix),
        None => line == expected,
    };
    let asks_nothing = |asked: Option<&str>, found| asked.is_none() || asked == found;
    named
        && asks_nothing(expected_why, why)
        && asks_nothing(expected_event, event)
        && expected_tree.is_none_or(|expected| tree.is_some_and(|tree| contains(&tree, &expected)))
}

fn split<'a>(line: &'a str, mark: &str) -> (&'a str, Option<&'a str>) {
    line.rsplit_once(mark).map_or((line, None), |(before, after)| (before, Some(after)))
}

fn tree(line: &str) -> (&str, Option<Tree>) {
    match line.split_once(" {") {
        Some((before, json)) => {
            let tree = serde_json::from_str(&format!("{{{json}")).unwrap_or_else(|error| {
                panic!("not JSON: {{{json}: {error}");
            });
            (before.trim(), Some(tree))
        }
        None => (line.trim(), None),
    }
}

/// Whether `tree` has all that `part` has: fields of objects, items of lists in order, `null` for what is absent.
fn contains(tree: &Tree, part: &Tree) -> bool {
    match (tree, part) {
        (Tree::Object(all), Tree::Object(some)) => some
            .iter()
            .all(|(name, value)| all.get(name).map_or(value.is_null(), |found| contains(found, value))),
        (Tree::Array(all), Tree::Array(some)) => {
            all.len() == some.len() && all.iter().zip(some).all(|(tree, part)| contains(tree, part))
        }
        (Tree::Number(all), Tree::Number(some)) => all.as_f64() == some.as_f64(),
        _ => tree == part,
    }
}
