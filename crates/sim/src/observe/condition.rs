//! What a scenario wants to see: `pod web-1 phase=Running ready=true`, `deployment web available >= 2`, `pod x gone`.
//! Pure.

use std::fmt;

use anyhow::{Context, Result, bail};
use model::Tree;
use model::kinds::{KINDS, Kind};

use super::sight::{Sight, at, condition, containers, controller, items, text};

/// Something that holds or not at each moment.
#[derive(Debug, Clone)]
pub struct Condition {
    text: String,
    subject: Subject,
    terms: Vec<Term>,
}

#[derive(Debug, Clone)]
enum Subject {
    /// One object.
    Object { kind: &'static Kind, namespace: String, name: String },
    /// One pod, by its alias.
    Pod(String),
    /// All pods of a workload together.
    Pods(String),
    /// A load of requests.
    Load(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    Gone,
    There,
    Is { field: String, how: How, value: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Equal,
    Other,
    AtLeast,
    AtMost,
    More,
    Less,
}

/// The comparisons, the longer ones first.
const SIGNS: [(&str, How); 6] = [
    (">=", How::AtLeast),
    ("<=", How::AtMost),
    ("!=", How::Other),
    ("=", How::Equal),
    (">", How::More),
    ("<", How::Less),
];

/// The built-in kind of a name: singular, plural or short.
pub fn kind_named(word: &str) -> Result<&'static Kind> {
    let word = word.to_lowercase();
    let is_named = |kind: &&&Kind| {
        kind.stored_as.is_none()
            && (kind.singular == word || kind.gvr.plural == word || kind.short.contains(&word.as_str()))
    };
    KINDS.iter().find(is_named).copied().with_context(|| format!("{word:?} is no kind"))
}

/// A name with the namespace before it, or one in `default`.
fn place(text: &str, is_namespaced: bool) -> (String, String) {
    match text.split_once('/') {
        _ if !is_namespaced => (String::new(), text.to_owned()),
        Some((namespace, name)) => (namespace.to_owned(), name.to_owned()),
        None => ("default".to_owned(), text.to_owned()),
    }
}

impl Condition {
    /// Reads a condition.
    pub fn read(line: &str) -> Result<Self> {
        let mut words: Vec<String> = Vec::new();
        let mut joins = false;
        for word in line.split_whitespace() {
            let is_sign = SIGNS.iter().any(|(sign, _)| *sign == word);
            match words.last_mut() {
                Some(last) if is_sign || joins => last.push_str(word),
                _ => words.push(word.to_owned()),
            }
            joins = is_sign;
        }
        let (Some(what), Some(name)) = (words.first(), words.get(1)) else {
            bail!("{line:?} names nothing to see")
        };
        let subject = match what.as_str() {
            "pod" => Subject::Pod(name.clone()),
            "pods" => Subject::Pods(name.clone()),
            "load" => Subject::Load(name.clone()),
            other => {
                let kind = kind_named(other)?;
                let (namespace, name) = place(name, kind.namespaced);
                Subject::Object { kind, namespace, name }
            }
        };
        let terms = words[2..].iter().map(|word| term(word)).collect::<Result<Vec<_>>>()?;
        let terms = if terms.is_empty() { vec![Term::There] } else { terms };
        Ok(Self { text: line.trim().to_owned(), subject, terms })
    }

    /// Whether it holds.
    pub fn holds(&self, sight: &Sight) -> bool {
        let found = self.find(sight);
        self.terms.iter().all(|term| match (term, &found) {
            (Term::Gone, found) => found.is_none(),
            (Term::There, found) => found.is_some(),
            (Term::Is { field, how, value }, Some(found)) => holds(&found.field(sight, field), *how, value),
            (Term::Is { .. }, None) => false,
        })
    }

    /// What there is instead, for messages.
    pub fn found(&self, sight: &Sight) -> String {
        let Some(found) = self.find(sight) else { return "not there".to_owned() };
        let each = self.terms.iter().map(|term| match term {
            Term::Gone | Term::There => "there".to_owned(),
            Term::Is { field, .. } => format!("{field}={}", found.field(sight, field)),
        });
        each.collect::<Vec<_>>().join(" ")
    }

    fn find<'a>(&'a self, sight: &'a Sight) -> Option<Found<'a>> {
        match &self.subject {
            Subject::Object { kind, namespace, name } => {
                sight.get(kind.storage(), namespace, name).map(|tree| Found::Object(kind, tree))
            }
            Subject::Pod(alias) => {
                let (uid, tree) = sight.pod(alias)?;
                tree.map(|tree| Found::Pod(uid, tree))
            }
            Subject::Pods(root) => {
                let live = sight.aliases.of_root(root).filter_map(|(uid, named)| {
                    let tree = &sight.objects.get(&named.path)?.tree;
                    (text(tree, "metadata.uid") == uid).then_some(tree)
                });
                Some(Found::Pods(live.collect()))
            }
            Subject::Load(name) => sight.loads.get(name).map(Found::Load),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn term(word: &str) -> Result<Term> {
    match word {
        "gone" => return Ok(Term::Gone),
        "there" => return Ok(Term::There),
        _ => {}
    }
    let place = |sign: &str| word.find(sign);
    let first = SIGNS.iter().filter_map(|(sign, how)| Some((place(sign)?, sign, how)));
    let Some((at, sign, how)) = first.min_by_key(|(at, sign, _)| (*at, 9 - sign.len())) else {
        bail!("{word:?} compares nothing");
    };
    Ok(Term::Is { field: word[..at].to_owned(), how: *how, value: word[at + sign.len()..].to_owned() })
}

fn holds(found: &str, how: How, wanted: &str) -> bool {
    let numbers = found.parse::<f64>().ok().zip(wanted.parse::<f64>().ok());
    let compared = |is: fn(f64, f64) -> bool| numbers.is_some_and(|(found, wanted)| is(found, wanted));
    match how {
        How::Equal => found == wanted,
        How::Other => found != wanted,
        How::AtLeast => compared(|a, b| a >= b),
        How::AtMost => compared(|a, b| a <= b),
        How::More => compared(|a, b| a > b),
        How::Less => compared(|a, b| a < b),
    }
}

enum Found<'a> {
    Object(&'static Kind, &'a Tree),
    Pod(&'a str, &'a Tree),
    Pods(Vec<&'a Tree>),
    Load(&'a super::Load),
}

impl Found<'_> {
    fn field(&self, sight: &Sight, field: &str) -> String {
        match self {
            Found::Load(load) => match field {
                "sent" => load.sent.to_string(),
                "failed" => load.failed.to_string(),
                _ => String::new(),
            },
            Found::Pods(all) => of_pods(all, field),
            Found::Pod(uid, pod) => of_pod(sight, uid, pod, field),
            Found::Object(kind, tree) => of_object(sight, kind, tree, field),
        }
    }
}

fn of_pods(all: &[&Tree], field: &str) -> String {
    let count = |is: &dyn Fn(&Tree) -> bool| all.iter().filter(|pod| is(pod)).count().to_string();
    match field {
        "count" => all.len().to_string(),
        "ready" => count(&|pod| condition(pod, "Ready") == "True"),
        // Started, and not ready yet.
        "coming" => count(&|pod| {
            condition(pod, "Ready") != "True"
                && containers(pod).any(|one| !at(one, "state.running").is_null())
        }),
        "ending" => count(&|pod| !at(pod, "metadata.deletionTimestamp").is_null()),
        "restarts" => all.iter().map(|pod| restarts(pod)).sum::<i64>().to_string(),
        phase => count(&|pod| text(pod, "status.phase").to_lowercase() == phase),
    }
}

fn restarts(pod: &Tree) -> i64 {
    containers(pod).filter_map(|one| one["restartCount"].as_i64()).sum()
}

fn of_pod(sight: &Sight, uid: &str, pod: &Tree, field: &str) -> String {
    match field {
        "phase" => text(pod, "status.phase").to_owned(),
        "ready" => (condition(pod, "Ready") == "True").to_string(),
        "node" => text(pod, "spec.nodeName").to_owned(),
        "restarts" => restarts(pod).to_string(),
        "ending" => (!at(pod, "metadata.deletionTimestamp").is_null()).to_string(),
        "waiting" => {
            let mut reasons = containers(pod).map(|one| text(one, "state.waiting.reason"));
            reasons.find(|reason| !reason.is_empty()).unwrap_or_default().to_owned()
        }
        "tried" => {
            let all = items(pod, "status.conditions");
            let mut told = all.filter(|one| text(one, "type") == model::diagnosis::KEEPS_FAILING);
            told.next().map(|one| text(one, "reason")).unwrap_or_default().to_owned()
        }
        "flips" => sight.flips.get(uid).copied().unwrap_or_default().to_string(),
        "starts" => {
            let own = sight.starts.iter().filter(|((whose, _), _)| whose == uid);
            own.map(|(_, count)| *count).sum::<u32>().to_string()
        }
        _ => of_any(pod, field),
    }
}

fn of_object(sight: &Sight, kind: &Kind, tree: &Tree, field: &str) -> String {
    let count = |path: &str| at(tree, path).as_i64().unwrap_or(0).to_string();
    match (kind.singular, field) {
        ("service", "ready") => behind(sight, tree).len().to_string(),
        ("service", "pods") => behind(sight, tree).join(","),
        ("job", "succeeded") => count("status.succeeded"),
        ("job", "failed") => count("status.failed"),
        ("deployment", "replicasets") => with_replicas(sight, tree).to_string(),
        ("poddisruptionbudget", "allowed") => count("status.disruptionsAllowed"),
        (_, "ready") => count("status.readyReplicas"),
        (_, "available") => count("status.availableReplicas"),
        (_, "updated") => count("status.updatedReplicas"),
        (_, "replicas") => count("status.replicas"),
        (_, "observed") => {
            let of = at(tree, "metadata.generation");
            (!of.is_null() && at(tree, "status.observedGeneration") == of).to_string()
        }
        ("node", "taints") => {
            let taints: Vec<&str> = items(tree, "spec.taints").map(|taint| text(taint, "key")).collect();
            taints.join(",")
        }
        ("node", "suspected") => {
            at(tree, "metadata.annotations").get(model::fence::SUSPECTED).is_some().to_string()
        }
        ("repair", "outcome") => text(tree, "status.outcome").to_owned(),
        (_, "phase") => text(tree, "status.phase").to_owned(),
        _ => of_any(tree, field),
    }
}

/// How many ReplicaSets of a Deployment ask for replicas or still have some.
fn with_replicas(sight: &Sight, deployment: &Tree) -> usize {
    let uid = text(deployment, "metadata.uid");
    let is_own = |set: &Tree| controller(set).is_some_and(|owner| text(owner, "uid") == uid);
    let has = |set: &Tree, field: &str| at(set, field).as_i64() > Some(0);
    let sets = sight.all(&model::kinds::REPLICA_SET).map(|(_, set)| set);
    sets.filter(|set| is_own(set) && (has(set, "spec.replicas") || has(set, "status.replicas"))).count()
}

fn behind(sight: &Sight, service: &Tree) -> Vec<String> {
    sight.ready_behind(text(service, "metadata.namespace"), text(service, "metadata.name"))
}

/// A condition where the field begins with a capital, otherwise what stands at that path.
fn of_any(tree: &Tree, field: &str) -> String {
    if field.starts_with(char::is_uppercase) {
        return condition(tree, field).to_owned();
    }
    match at(tree, field) {
        Tree::Null => String::new(),
        Tree::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sight::Seen;
    use super::*;

    fn sight() -> Sight {
        let mut sight = Sight::default();
        let web = json!({"metadata": {"name": "web", "uid": "w", "generation": 4}, "status": {"readyReplicas": 2,
            "observedGeneration": 4, "conditions": [{"type": "Available", "status": "True"}]}});
        sight.objects.insert("/deployments.apps/default/web".into(), Seen { revision: 1, tree: web });
        for (name, owner, wanted, had) in
            [("a", "w", 2, 2), ("b", "w", 0, 1), ("c", "w", 0, 0), ("d", "v", 2, 2)]
        {
            let set = json!({"metadata": {"name": name, "ownerReferences": [{"uid": owner, "controller": true}]},
                "spec": {"replicas": wanted}, "status": {"replicas": had}});
            let path = format!("/replicasets.apps/default/{name}");
            sight.objects.insert(path, Seen { revision: 1, tree: set });
        }
        let pod = json!({"metadata": {"uid": "u", "name": "x"}, "spec": {"nodeName": "a"},
            "status": {"phase": "Running", "containerStatuses": [{"restartCount": 3}]}});
        sight.name_pod("/pods/default/x", &pod);
        sight.objects.insert("/pods/default/x".into(), Seen { revision: 2, tree: pod });
        sight
    }

    fn check(text: &str, wanted: bool) {
        let condition = Condition::read(text).expect("a condition");
        assert_eq!(condition.holds(&sight()), wanted, "{text}: {}", condition.found(&sight()));
    }

    #[test]
    fn objects_are_compared_by_what_users_call_their_fields() {
        check("deployment web ready=2", true);
        check("deployment web ready >= 3", false);
        check("deployment web ready != 3 Available=True", true);
        check("deploy web available < 1", true);
        check("deployment other gone", true);
        check("deployment web gone", false);
        check("deployment web", true);
        check("deployment web observed=true", true);
        check("deployment web replicasets=2", true);
    }

    #[test]
    fn a_status_is_of_a_spec_only_if_both_say_so() {
        check("pod x observed=true", false);
        check("replicaset a observed=true", false);
    }

    #[test]
    fn pods_go_by_their_aliases() {
        check("pod x phase=Running node=a restarts>2 ready=false", true);
        check("pod x gone", false);
        check("pod y gone", true);
        check("pods x count=1 running=1", true);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for bad in ["", "pod", "dragon x gone", "pod x ready"] {
            assert!(Condition::read(bad).is_err(), "{bad}");
        }
    }
}
