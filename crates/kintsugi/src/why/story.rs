//! The words of the story: pure, from what was gathered.

use std::fmt::Write;

use model::diagnosis::Diagnosis;
use model::repair::brief;
use model::tree::{at, items, text, whole};
use model::{Time, Tree};

use super::gather::plain;

/// How many happenings are told; the newest stay.
const HAPPENINGS_MAX: usize = 40;

/// What there is to tell of an object.
#[derive(Debug, Default)]
pub struct Told {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its namespace; empty for a cluster-wide object.
    pub namespace: String,
    /// The object; `None`: it is gone, or never was.
    pub subject: Option<Tree>,
    /// How many pods it has made; 1 for a pod.
    pub pods: usize,
    /// How many of them do as they should.
    pub well: usize,
    /// What is known of failing pods, by name.
    pub diagnoses: Vec<(String, Diagnosis)>,
    /// Its repairs.
    pub repairs: Vec<Tree>,
    /// Its events.
    pub events: Vec<Tree>,
}

/// The story as text for a terminal.
pub fn tell(told: &Told, now: Time) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "{}", headline(told));
    for (pod, known) in &told.diagnoses {
        let whose = if told.kind == "Pod" {
            "what is known".to_owned()
        } else {
            format!("what is known of pod/{pod}")
        };
        section(&mut out, &whose, known.lines());
    }
    section(&mut out, "what happened", happenings(told, now));
    let steps = told.diagnoses.iter().flat_map(|(_, known)| known.next.clone());
    let mut next: Vec<String> = Vec::new();
    for step in steps.chain(escalations(told)) {
        if !next.contains(&step) {
            next.push(step);
        }
    }
    section(&mut out, "what to try next", next.into_iter());
    plain(&out)
}

fn section(out: &mut String, title: &str, lines: impl Iterator<Item = String>) {
    let mut lines = lines.peekable();
    if lines.peek().is_none() {
        return;
    }
    let _ = writeln!(out, "\n{title}");
    for line in lines {
        let _ = writeln!(out, "  {}", line.replace('\n', "\n      "));
    }
}

fn headline(told: &Told) -> String {
    let what = format!("{}/{}", told.kind.to_lowercase(), told.name);
    let place = if told.namespace.is_empty() { String::new() } else { format!(" in {}", told.namespace) };
    let Some(subject) = &told.subject else {
        return format!(
            "{what}{place} is not there{}",
            if told.repairs.is_empty() { "" } else { " any more" }
        );
    };
    let state = match told.kind {
        "Pod" => pod_state(subject),
        "Node" => ready_condition(subject),
        _ if told.pods > 0 => format!("{} of {} pods do as they should", told.well, told.pods),
        _ => ready_condition(subject),
    };
    if state.is_empty() { format!("{what}{place}") } else { format!("{what}{place}: {state}") }
}

fn pod_state(pod: &Tree) -> String {
    let phase = text(pod, "status.phase");
    let on = match text(pod, "spec.nodeName") {
        "" => String::new(),
        node => format!(" on {node}"),
    };
    let ready = ready_condition(pod);
    let ready = if phase == "Running" { format!(", {ready}") } else { String::new() };
    let ending = if text(pod, "metadata.deletionTimestamp").is_empty() { "" } else { ", on its way out" };
    format!("{phase}{on}{ready}{ending}")
}

fn ready_condition(object: &Tree) -> String {
    let conditions = items(object, "status.conditions");
    let ready = conditions.iter().find(|one| matches!(text(one, "type"), "Ready" | "Available"));
    match ready.map(|one| (text(one, "status"), text(one, "message"))) {
        None => String::new(),
        Some(("True", _)) => "ready".to_owned(),
        Some(("Unknown", _)) => "silent".to_owned(),
        Some((_, "")) => "not ready".to_owned(),
        Some((_, message)) => format!("not ready ({message})"),
    }
}

/// Repairs and events in the order in which they happened.
fn happenings(told: &Told, now: Time) -> impl Iterator<Item = String> {
    let mut all: Vec<(Time, String)> = told.repairs.iter().filter_map(|repair| mend(repair, told)).collect();
    all.extend(told.events.iter().filter_map(|event| happening(event, told)));
    all.sort();
    let surplus = all.len().saturating_sub(HAPPENINGS_MAX);
    let ago =
        move |at: Time| format!("{:>5} ago", brief(now.duration_since(at).try_into().unwrap_or_default()));
    all.into_iter().skip(surplus).map(move |(at, said)| format!("{}  {said}", ago(at)))
}

fn mend(repair: &Tree, told: &Told) -> Option<(Time, String)> {
    let began = model::time::parse(text(repair, "spec.began")).ok()?;
    let (spec, status) = (at(repair, "spec"), at(repair, "status"));
    let mut said = format!("MEND  {}", text(spec, "fault"));
    let subject = text(spec, "subject.name");
    if subject != told.name {
        let _ = write!(said, " of {subject}");
    }
    let _ = write!(
        said,
        ": {} → {}, {}",
        text(spec, "evidence"),
        text(status, "action"),
        text(status, "outcome")
    );
    for (label, field) in [("detected in", "detectedAfter"), ("recovered in", "recoveredAfter")] {
        let duration = text(status, field);
        if !duration.is_empty() {
            let _ = write!(said, ", {label} {duration}");
        }
    }
    if let Some(count @ 2..) = whole(status, "count") {
        let _ = write!(said, ", {count} times so far");
    }
    for rejected in items(spec, "rejected").iter().filter_map(Tree::as_str) {
        let _ = write!(said, "; not done: {rejected}");
    }
    Some((began, said))
}

fn happening(event: &Tree, told: &Told) -> Option<(Time, String)> {
    let stamps = ["series.lastObservedTime", "lastTimestamp", "eventTime", "metadata.creationTimestamp"];
    let at = stamps.iter().find_map(|stamp| model::time::parse(text(event, stamp)).ok())?;
    let message = match text(event, "message") {
        "" => text(event, "note"),
        message => message,
    };
    let regarding = text(event, "involvedObject.name");
    let whose = if regarding == told.name { String::new() } else { format!(" of {regarding}") };
    let count = match whole(event, "count").or_else(|| whole(event, "series.count")) {
        Some(count @ 2..) => format!(" ({count} times)"),
        _ => String::new(),
    };
    let mark = if text(event, "type") == "Warning" { "WARN" } else { "    " };
    Some((at, format!("{mark}  {}{whose}: {message}{count}", text(event, "reason"))))
}

/// What the ledger itself says that people have to do.
fn escalations(told: &Told) -> Vec<String> {
    let steps = |repair: &Tree| {
        items(repair, "status.next").iter().filter_map(Tree::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    told.repairs
        .iter()
        .filter(|repair| text(repair, "status.outcome") == "Escalated")
        .flat_map(steps)
        .collect()
}

#[cfg(test)]
mod tests {
    use model::diagnosis::Statement;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_story_is_told_in_order_with_its_evidence() {
        let pod = json!({
            "spec": {"nodeName": "n1"},
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "False", "message": "containers with unready status: [web]"}]},
        });
        let known = Diagnosis {
            statements: vec![Statement {
                says: "container web was killed".into(),
                because: "exit code 137".into(),
            }],
            next: vec!["look".into(), "look".into()],
        };
        let repair = json!({
            "spec": {"subject": {"kind": "Pod", "name": "web-1"}, "fault": "ContainerExited",
                "began": "2026-01-01T00:00:10.000000Z", "evidence": "exit code 137", "rejected": ["another node: it fails there too"]},
            "status": {"action": "restarted", "outcome": "Recovered", "detectedAfter": "1ms", "recoveredAfter": "21ms", "count": 3},
        });
        let event = json!({"involvedObject": {"kind": "Pod", "name": "web-1"}, "type": "Warning", "reason": "BackOff",
            "message": "Back-off \u{1b}[31mrestarting", "count": 4, "lastTimestamp": "2026-01-01T00:00:05Z"});
        let told = Told {
            kind: "Pod",
            name: "web-1".into(),
            namespace: "shop".into(),
            subject: Some(pod),
            pods: 1,
            diagnoses: vec![("web-1".into(), known)],
            repairs: vec![repair],
            events: vec![event],
            ..Told::default()
        };
        let now = model::time::parse("2026-01-01T00:01:00Z").expect("a time");
        let expected = "\
pod/web-1 in shop: Running on n1, not ready (containers with unready status: [web])

what is known
  container web was killed (exit code 137)

what happened
    55s ago  WARN  BackOff: Back-off [31mrestarting (4 times)
    50s ago  MEND  ContainerExited: exit code 137 → restarted, Recovered, detected in 1ms, recovered in 21ms, 3 times so far; not done: another node: it fails there too

what to try next
  look
";
        assert_eq!(tell(&told, now), expected);
    }

    #[test]
    fn what_is_gone_is_said_to_be_gone() {
        let told = Told { kind: "Pod", name: "x".into(), namespace: "a".into(), ..Told::default() };
        assert_eq!(tell(&told, Time::UNIX_EPOCH), "pod/x in a is not there\n");
        let told = Told { repairs: vec![json!({})], ..told };
        assert_eq!(tell(&told, Time::UNIX_EPOCH), "pod/x in a is not there any more\n");
    }
}
