//! Carries out plans: act by act, stopping at the first that is refused.
//!
//! Promises: what was done is told (the marks for the barrier, the events for users); neighbouring creations, deletions
//! and bindings go several at a time, since their order says nothing. Never decides anything.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use client::{Caches, Client, ClientError, Events};
use futures_util::future::join_all;
use host::Host;
use model::fence::Terms;
use model::{Act, Gvr, Key, Tree, World, Write};

use crate::ballot::Ballot;
use crate::barrier::{Decided, Mark};
use crate::governor::{Governor, Verdict};
use crate::metrics::Metrics;
use crate::pulse::Pulse;
use crate::queue::Ended;

/// How many writes of one plan may be under way at once.
///
/// The store commits what arrives together in one sync; 16 fill a commit, more would hold up other keys.
pub const WRITES_AT_ONCE: usize = 16;

/// Who takes pods from nodes that do not suffer them.
const EVICTS: &str = "taint-eviction-controller";

/// Who carries out the plans of one member.
#[derive(Clone)]
pub struct Hand {
    /// The member's name, for the log.
    pub name: &'static str,
    /// Asks as the member.
    pub client: Client,
    /// What is seen.
    pub caches: Caches,
    /// The resources that the member reads.
    pub reads: Arc<[Gvr]>,
    /// Tells users.
    pub events: Events,
    /// Allows disruptive acts; `None`: the member does none on suspicion. Guards the governor for one question.
    pub governor: Option<Arc<Mutex<Governor>>>,
    /// Asks voters.
    pub ballot: Arc<Ballot>,
    /// Knows whether this process stood still.
    pub pulse: Arc<Pulse>,
    /// The lengths that leases are counted with.
    pub terms: Terms,
    /// What is counted of mends.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub host: Host,
}

impl Hand {
    /// Carries out the acts of a plan; says how it ended and what the caches are to show.
    pub async fn carry_out(&self, acts: &[Act], decided: &Decided) -> (Ended, Vec<Mark>) {
        let mut marks = Vec::new();
        let mut rest = acts;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(together(rest));
            rest = later;
            let mut stop = None;
            for (act, done) in now.iter().zip(join_all(now.iter().map(|act| self.one(act))).await) {
                match done {
                    Ok(mark) => marks.extend(mark),
                    Err(why) => drop(stop.get_or_insert((act, why))),
                }
            }
            if let Some((act, why)) = stop {
                let (ended, mark) = match why {
                    Stop::Held(ended) => (ended, None),
                    Stop::Refused(error) => self.refused(act, error, decided).await,
                };
                marks.extend(mark);
                return (ended, marks);
            }
        }
        (Ended::Done, marks)
    }

    async fn one(&self, act: &Act) -> Result<Option<Mark>, Stop> {
        if let Some(held) = self.held(&act.write) {
            return Err(Stop::Held(held));
        }
        if let Write::Votes { lease, revision, set } = &act.write {
            let voted = self.ballot.hold(&self.caches, lease, *revision, set).await;
            return voted.map(|()| None).map_err(|wait| Stop::Held(Ended::Later(wait)));
        }
        if let Write::Knock { node, lease, revision } = &act.write {
            let silent = self.ballot.knock(&self.caches, node, lease, *revision).await;
            return silent.map(|()| None).map_err(|wait| Stop::Held(Ended::Later(wait)));
        }
        let before =
            subject(&act.write).and_then(|key| self.caches.get(key)).map_or(0, |seen| seen.revision());
        let outcome = self.client.carry_out(&act.write).await.map_err(Stop::Refused)?;
        tracing::debug!(by = self.name, what = told(&act.write), why = act.why, already = outcome.already);
        if !outcome.already {
            if self.name == EVICTS && matches!(act.write, Write::Delete { .. }) {
                self.metrics.evicted();
            }
            let name = outcome.object.as_ref().map(|object| object.name());
            self.tell(act, name.or(subject(&act.write).map(|key| key.name.as_str())), None);
        }
        Ok(Mark::of(&act.write, &outcome, before))
    }

    /// What the governor says against a write, if it is one that has to be asked about.
    fn held(&self, write: &Write) -> Option<Ended> {
        let governor = self.governor.as_ref()?;
        let now = self.host.now();
        let verdict = self.caches.read(|world| {
            governor.lock().unwrap_or_else(PoisonError::into_inner).judge_write(write, world, now)
        });
        match verdict {
            Verdict::Go => None,
            Verdict::Wait { until, why } => {
                tracing::info!(by = self.name, what = told(write), why, "held back for a while");
                self.metrics.held_back(sort_of_deed(write), "wait");
                let left = until.duration_since(now);
                Some(Ended::Later(left.try_into().unwrap_or_default()))
            }
            Verdict::No { why } => {
                tracing::warn!(by = self.name, what = told(write), why, "held back");
                self.metrics.held_back(sort_of_deed(write), "no");
                Some(Ended::Later(crate::governor::HELD_REST))
            }
        }
    }

    async fn refused(&self, act: &Act, error: ClientError, decided: &Decided) -> (Ended, Option<Mark>) {
        let what = told(&act.write);
        match (&error, &act.write) {
            (ClientError::Conflict { .. }, _) => {
                tracing::debug!(by = self.name, what, %error, "the picture was old");
                return (Ended::Stale, Mark::of_refusal(&act.write, decided));
            }
            (ClientError::NotFound { .. }, write) if !matches!(write, Write::Create { .. }) => {
                tracing::debug!(by = self.name, what, %error, "the picture was old");
                return (Ended::Stale, Mark::of_refusal(&act.write, decided));
            }
            (ClientError::TooManyRequests { after, .. }, _) => {
                tracing::debug!(by = self.name, what, %error);
                return (Ended::Later(*after), None);
            }
            (ClientError::Unreachable(_), _) => {
                tracing::debug!(by = self.name, what, %error);
                return (Ended::Failed, None);
            }
            _ => tracing::warn!(by = self.name, what, why = act.why, %error, "refused"),
        }
        let refusal = error.said();
        self.tell(act, None, Some(&refusal));
        (Ended::Failed, self.otherwise(act, &refusal).await)
    }

    /// Writes what the plan says for the case of a refusal.
    async fn otherwise(&self, act: &Act, refusal: &str) -> Option<Mark> {
        let write = with_refusal(act.otherwise.as_deref()?, refusal);
        match self.client.carry_out(&write).await {
            Ok(outcome) => Mark::of(&write, &outcome, 0),
            Err(error) => {
                tracing::debug!(by = self.name, what = told(&write), %error, "could not say so either");
                None
            }
        }
    }

    /// Tells the event of an act that was done or refused.
    fn tell(&self, act: &Act, name: Option<&str>, refusal: Option<&str>) {
        let Some(mut note) = act.event.clone() else {
            return;
        };
        match refusal {
            None => note.message = note.message.replace("{name}", name.unwrap_or_default()),
            Some(refusal) => {
                let Some(deed) = note.reason.strip_prefix("Successful") else {
                    return;
                };
                note.reason = format!("Failed{deed}");
                note.message = match act.write {
                    Write::Create { .. } => format!("Error creating: {refusal}"),
                    Write::Delete { .. } => format!("Error deleting: {refusal}"),
                    _ => format!("{}: {refusal}", act.why),
                };
                note.is_warning = true;
            }
        }
        self.events.tell(note);
    }
}

/// Why a plan stops.
enum Stop {
    /// The governor says so.
    Held(Ended),
    /// The server says so.
    Refused(ClientError),
}

/// How many of the first acts may go at once: those whose order says nothing.
fn together(acts: &[Act]) -> usize {
    let first = sort(&acts[0].write);
    let mut keys = BTreeSet::new();
    let fits = |act: &&Act| {
        sort(&act.write) == first && subject(&act.write).is_none_or(|key| keys.insert(key.clone()))
    };
    match first {
        Sort::Alone => 1,
        _ => acts.iter().take(WRITES_AT_ONCE).take_while(fits).count().max(1),
    }
}

/// Writes of one sort about different objects may go in any order.
#[derive(PartialEq)]
enum Sort<'a> {
    /// Creations of one resource.
    Making(&'a Gvr),
    /// Deletions and evictions.
    Ending,
    /// Bindings, and what is said in the status of pods.
    OfPods,
    /// All else.
    Alone,
}

fn sort(write: &Write) -> Sort<'_> {
    match write {
        Write::Create { gvr, .. } => Sort::Making(gvr),
        Write::Delete { .. } | Write::Evict { .. } => Sort::Ending,
        Write::Bind { .. } => Sort::OfPods,
        Write::Patch { key, part: "status", .. } if key.gvr.plural == "pods" => Sort::OfPods,
        Write::Patch { .. }
        | Write::Replace { .. }
        | Write::Absent { .. }
        | Write::Knock { .. }
        | Write::Votes { .. } => Sort::Alone,
    }
}

/// The object that a write is about; `None` for one that is yet to be made.
fn subject(write: &Write) -> Option<&Key> {
    match write {
        Write::Create { .. } => None,
        Write::Patch { key, .. } | Write::Replace { key, .. } => Some(key),
        Write::Delete { key, .. } | Write::Absent { key, .. } => Some(key),
        Write::Votes { lease: key, .. } | Write::Knock { node: key, .. } => Some(key),
        Write::Bind { pod, .. } | Write::Evict { pod, .. } => Some(pod),
    }
}

/// A governed act in one word, for the metrics.
fn sort_of_deed(write: &Write) -> &'static str {
    match write {
        Write::Patch { key, .. } if key.gvr == crate::ballot::LEASE => "takeover",
        Write::Patch { .. } => "drop",
        _ => "evict",
    }
}

/// A write in a few words, for the log.
fn told(write: &Write) -> String {
    match write {
        Write::Create { gvr, namespace, object } => {
            let metadata = &object["metadata"];
            let name = metadata["name"].as_str().or(metadata["generateName"].as_str()).unwrap_or_default();
            format!("create {gvr} {namespace}/{name}")
        }
        Write::Patch { key, part, .. } => format!("patch {part} {key}"),
        Write::Replace { key, part, .. } => format!("replace {part} {key}"),
        Write::Bind { pod, node, .. } => format!("bind {pod} to {node}"),
        Write::Evict { pod, .. } => format!("evict {pod}"),
        Write::Knock { node, .. } => format!("knock at {node}"),
        Write::Votes { lease, .. } => format!("ask for votes about {lease}"),
        Write::Absent { key, .. } => format!("prove the absence of {key}"),
        Write::Delete { key, .. } => format!("delete {key}"),
    }
}

/// The write with `{refusal}` in its texts replaced.
fn with_refusal(write: &Write, refusal: &str) -> Write {
    let mut write = write.clone();
    match &mut write {
        Write::Create { object, .. } | Write::Replace { object, .. } => fill(object, refusal),
        Write::Patch { patch, .. } => fill(patch, refusal),
        Write::Bind { .. }
        | Write::Evict { .. }
        | Write::Absent { .. }
        | Write::Knock { .. }
        | Write::Votes { .. }
        | Write::Delete { .. } => {}
    }
    write
}

fn fill(tree: &mut Tree, refusal: &str) {
    match tree {
        Tree::String(text) if text.contains("{refusal}") => *text = text.replace("{refusal}", refusal),
        Tree::Array(items) => items.iter_mut().for_each(|item| fill(item, refusal)),
        Tree::Object(fields) => fields.values_mut().for_each(|value| fill(value, refusal)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use model::{Plan, Precondition};
    use serde_json::json;

    use super::*;

    #[test]
    fn neighbouring_creations_go_together_and_nothing_else_does() {
        let (pods, sets) = (Gvr::new("", "v1", "pods"), Gvr::new("apps", "v1", "replicasets"));
        let mut plan = Plan::default();
        let check = |plan: &Plan, count: usize| assert_eq!(together(&plan.acts), count);
        plan.create(&pods, "a", json!({}), "");
        plan.create(&pods, "a", json!({}), "");
        plan.create(&sets, "a", json!({}), "");
        check(&plan, 2);
        plan.acts.drain(..2);
        check(&plan, 1);
        plan.acts.clear();
        plan.patch(Key::new(&pods, "a", "x"), "", json!({}), Precondition::default(), "");
        plan.patch(Key::new(&pods, "a", "y"), "", json!({}), Precondition::default(), "");
        check(&plan, 1);
        plan.acts.clear();
        let key = |n: u32| Key::new(&pods, "a", n.to_string());
        (0..99).for_each(|n| plan.delete(key(n), Precondition::default(), ""));
        check(&plan, WRITES_AT_ONCE);
        plan.acts.clear();
        (0..3).for_each(|n| plan.act(Write::Bind { pod: key(n), uid: "u".into(), node: "n".into() }, ""));
        plan.patch(key(3), "status", json!({}), Precondition::default(), "");
        plan.patch(key(3), "status", json!({}), Precondition::default(), "the same again waits");
        check(&plan, 4);
    }

    #[test]
    fn the_refusal_is_told_wherever_the_plan_names_it() {
        let mut tree = json!({"a": ["no: {refusal}", 1], "b": {"c": "{refusal}"}});
        fill(&mut tree, "quota");
        assert_eq!(tree, json!({"a": ["no: quota", 1], "b": {"c": "quota"}}));
    }
}
