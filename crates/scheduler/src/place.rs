//! One pass: every pod that waits, the most urgent first.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use model::kinds::{PERSISTENT_VOLUME_CLAIM, POD};
use model::storage::SELECTED_NODE;
use model::{EventNote, Object, Plan, Precondition, Time, Tree, World, Write, time};
use serde_json::json;

use crate::cluster::{Cluster, Resident};
use crate::filter::{self, Reasons, Wishes};
use crate::{key_of, preempt, score};

/// How many pods one pass places: enough for a whole Deployment at once, and the pass stays within milliseconds.
const PLACED_MAX: usize = 200;

/// What becomes of a pod that waits.
enum Fate {
    /// It goes to the node at this index.
    Goes(usize),
    /// It can go to the node at this index once its claims know of it.
    Claims(usize, Vec<Object>),
    /// Pods of lower priority make room for it.
    Preempts(preempt::Room, String),
    /// It stays.
    Stays(String),
}

/// Places every pod that waits, as far as there is room.
pub fn all(world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let pods = Cluster::pods(world);
    let mut waiting: Vec<&Resident> = pods.iter().filter(|pod| pod.facts.waits(&pod.object)).collect();
    if waiting.is_empty() {
        return plan;
    }
    waiting.sort_by_key(|pod| {
        let meta = pod.object.meta();
        (
            Reverse(pod.facts.fit.priority),
            meta.creation_timestamp,
            meta.namespace().to_owned(),
            meta.name().to_owned(),
        )
    });
    let mut cluster = Cluster::read(world, &pods, now);
    let mut placed = 0;
    for pod in waiting {
        if placed == PLACED_MAX {
            plan.wake(now);
            break;
        }
        let fate = fate(pod, &cluster);
        placed += usize::from(matches!(fate, Fate::Goes(_)));
        carry(&mut plan, &mut cluster, pod, fate, now);
    }
    plan
}

fn fate(pod: &Resident, cluster: &Cluster<'_>) -> Fate {
    let wishes = match Wishes::of(pod, cluster) {
        Ok(wishes) => wishes,
        Err(reason) => {
            return Fate::Stays(format!("0/{} nodes are available: {reason}.", cluster.places.len()));
        }
    };
    let refusals: Vec<Option<Reasons>> =
        cluster.places.iter().map(|place| filter::refuses(&wishes, place, cluster.world)).collect();
    let nominated = cluster.places.iter().position(|place| place.node.name == pod.facts.nominated);
    let nominated = nominated.filter(|at| refusals[*at].is_none());
    let free: Vec<usize> = (0..refusals.len()).filter(|at| refusals[*at].is_none()).collect();
    match nominated.or_else(|| score::best(pod, cluster, &free)) {
        Some(at) if wishes.volumes().waiting.is_empty() => Fate::Goes(at),
        Some(at) => Fate::Claims(at, wishes.volumes().waiting.iter().map(|one| one.object.clone()).collect()),
        None => {
            let refusals: Vec<Reasons> = refusals.into_iter().flatten().collect();
            let why = message(&refusals, cluster.places.len());
            match preempt::room(&wishes, cluster, &refusals) {
                Ok(room) => Fate::Preempts(room, why),
                Err(said) if said.is_empty() => Fate::Stays(why),
                Err(said) => Fate::Stays(format!("{why} preemption: {said}")),
            }
        }
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
fn message(refusals: &[Reasons], nodes: usize) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".to_owned();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for text in refusals.iter().flat_map(|reasons| &reasons.texts) {
        *counts.entry(text).or_default() += 1;
    }
    let mut counted: Vec<String> = counts.iter().map(|(text, count)| format!("{count} {text}")).collect();
    counted.sort();
    format!("0/{nodes} nodes are available: {}.", counted.join(", "))
}

fn carry(plan: &mut Plan, cluster: &mut Cluster<'_>, pod: &Resident, fate: Fate, now: Time) {
    match fate {
        Fate::Goes(at) => {
            let node = cluster.places[at].node.name.clone();
            bind(plan, pod, &node);
            cluster.put(pod.clone(), &node);
        }
        Fate::Claims(at, claims) => {
            let node = cluster.places[at].node.name.clone();
            tell_claims(plan, &claims, &node);
            cluster.put(pod.clone(), &node);
        }
        Fate::Preempts(room, why) => {
            let said = format!("{why} preemption: {}", room.said);
            preempt::write(plan, pod, &room, now);
            say_unschedulable(plan, pod, &said, Some(&room.node), now);
            cluster.make_room(pod, &room);
        }
        Fate::Stays(why) => {
            say_unschedulable(plan, pod, &why, None, now);
            let nominated = pod.facts.nominated.clone();
            if !nominated.is_empty() {
                // Room is being made for it: nobody of lower priority may take that.
                cluster.put(pod.clone(), &nominated);
            }
        }
    }
}

fn bind(plan: &mut Plan, pod: &Resident, node: &str) {
    let object = &pod.object;
    let write = Write::Bind { pod: key_of(&POD, object), uid: object.uid().into(), node: node.into() };
    plan.act(write, "the best node with room");
    let message = format!("Successfully assigned {}/{} to {node}", object.namespace(), object.name());
    plan.tell(EventNote::normal(object, &POD, "Pod", "Scheduled", message));
}

fn tell_claims(plan: &mut Plan, claims: &[Object], node: &str) {
    for claim in claims {
        let known = claim.meta().annotations.get(SELECTED_NODE).is_some_and(|known| known == node);
        if !known {
            let patch = json!({"metadata": {"annotations": {SELECTED_NODE: node}}});
            let key = key_of(&PERSISTENT_VOLUME_CLAIM, claim);
            plan.patch(key, "", patch, Precondition::exactly(claim), "its first pod goes to this node");
        }
    }
}

/// Says in the pod's status why it stays, if that is news.
fn say_unschedulable(plan: &mut Plan, pod: &Resident, message: &str, nominated: Option<&str>, now: Time) {
    let says = ("False".to_owned(), "Unschedulable".to_owned(), message.to_owned());
    let moved = nominated.is_some_and(|node| node != pod.facts.nominated);
    if pod.facts.said.as_ref() == Some(&says) && !moved {
        return;
    }
    let mut conditions = conditions(&pod.object);
    let since = match &pod.facts.said {
        Some((status, ..)) if status == "False" => conditions
            .iter()
            .find(|one| one["type"] == "PodScheduled")
            .map(|one| one["lastTransitionTime"].clone()),
        _ => None,
    };
    conditions.retain(|one| one["type"] != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": since.unwrap_or_else(|| time::seconds(now).into()),
    }));
    let mut status = json!({"conditions": conditions});
    if let Some(node) = nominated {
        status["nominatedNodeName"] = node.into();
    }
    let key = key_of(&POD, &pod.object);
    plan.patch(
        key,
        "status",
        json!({"status": status}),
        Precondition::exactly(&pod.object),
        "no node can take it",
    );
    plan.tell(EventNote::normal(&pod.object, &POD, "Pod", "FailedScheduling", message).warning());
}

/// The conditions of a pod as its status has them.
pub fn conditions(object: &Object) -> Vec<Tree> {
    let tree = object.tree().unwrap_or_default();
    tree["status"]["conditions"].as_array().cloned().unwrap_or_default()
}
