//! Making room for a pod by deleting pods of lower priority: as few and as unimportant as will do.

use std::cmp::Reverse;

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use model::kinds::{POD, POD_DISRUPTION_BUDGET};
use model::{EventNote, Plan, Precondition, Selector, Time, World, time};
use serde_json::json;

use crate::cluster::{Cluster, Place, Resident};
use crate::filter::{self, Reasons, Wishes};
use crate::key_of;
use crate::place::conditions;

/// Room that can be made on a node.
pub struct Room {
    /// The node.
    pub node: String,
    /// Who has to go.
    pub victims: Vec<Resident>,
    /// What the pod that waits is told.
    pub said: String,
    /// How many budgets that breaks.
    broken: usize,
}

/// A budget: whom it covers and how many may still go.
struct Budget {
    namespace: String,
    selector: Selector,
    allowed: i32,
}

/// The node where making room costs least; otherwise what the pod is told.
pub fn room(wishes: &Wishes<'_>, cluster: &Cluster<'_>, refusals: &[Reasons]) -> Result<Room, String> {
    let pod = wishes.pod;
    let nodes = cluster.places.len();
    if !pod.facts.may_preempt {
        return Err("not eligible due to preemptionPolicy=Never.".into());
    }
    if makes_room_already(pod, cluster) {
        return Err("not eligible due to a terminating pod on the nominated node.".into());
    }
    let helpless = refusals.iter().filter(|reasons| !reasons.is_curable).count();
    let budgets = budgets(cluster.world);
    let curable = cluster.places.iter().zip(refusals).filter(|(_, reasons)| reasons.is_curable);
    let rooms = curable.filter_map(|(place, _)| room_on(wishes, place, cluster, &budgets));
    let best = rooms.min_by_key(cost);
    best.ok_or_else(|| {
        let counted = [
            (nodes - helpless, "No preemption victims found for incoming pod"),
            (helpless, "Preemption is not helpful for scheduling"),
        ];
        let mut texts: Vec<String> = counted
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, text)| format!("{count} {text}"))
            .collect();
        texts.sort();
        if nodes == 0 {
            String::new()
        } else {
            format!("0/{nodes} nodes are available: {}.", texts.join(", "))
        }
    })
}

/// Whether pods of lower priority are already on their way out for this pod.
fn makes_room_already(pod: &Resident, cluster: &Cluster<'_>) -> bool {
    let place = cluster.places.iter().find(|place| place.node.name == pod.facts.nominated);
    place.is_some_and(|place| {
        place
            .pods
            .iter()
            .any(|other| other.object.is_ending() && other.facts.fit.priority < pod.facts.fit.priority)
    })
}

/// Takes all pods of lower priority away, then gives back as many as will do, the most important first.
fn room_on(wishes: &Wishes<'_>, place: &Place, cluster: &Cluster<'_>, budgets: &[Budget]) -> Option<Room> {
    let pod = wishes.pod;
    let lower = |other: &Resident| other.facts.fit.priority < pod.facts.fit.priority && other.facts.resides();
    let empty = place.without(lower);
    let mut lesser: Vec<&Resident> = place.pods.iter().filter(|other| lower(other)).collect();
    if lesser.is_empty() || !fits(wishes, &empty, cluster) {
        return None;
    }
    lesser.sort_by_key(|other| {
        (
            Reverse(other.facts.fit.priority),
            other.facts.started.is_none(),
            other.facts.started,
            other.object.name().to_owned(),
        )
    });
    let (broken, rest) = by_budget(&lesser, budgets);
    let mut victims: Vec<Resident> = Vec::new();
    let mut kept: Vec<&Resident> = Vec::new();
    let mut broken_count = 0;
    for (nth, other) in broken.iter().chain(&rest).enumerate() {
        kept.push(other);
        let place =
            place.without(|one| lower(one) && !kept.iter().any(|kept| kept.object.uid() == one.object.uid()));
        if !fits(wishes, &place, cluster) {
            kept.pop();
            broken_count += usize::from(nth < broken.len());
            victims.push((*other).clone());
        }
    }
    let said = String::new();
    Some(Room { node: place.node.name.clone(), victims, said, broken: broken_count })
}

/// Whether the pod fits when the node looks like this.
fn fits(wishes: &Wishes<'_>, place: &Place, cluster: &Cluster<'_>) -> bool {
    if !wishes.depend_on_pods(cluster) {
        return filter::refuses(wishes, place, cluster.world).is_none();
    }
    let changed = cluster.with(place.clone());
    Wishes::of(wishes.pod, &changed)
        .is_ok_and(|wishes| filter::refuses(&wishes, place, cluster.world).is_none())
}

/// Those whose going breaks a budget, and the others.
fn by_budget<'p>(pods: &[&'p Resident], budgets: &[Budget]) -> (Vec<&'p Resident>, Vec<&'p Resident>) {
    let mut left: Vec<i32> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.iter().partition(|pod| {
        let mut breaks = false;
        for (budget, left) in budgets.iter().zip(&mut left) {
            if budget.covers(pod) {
                *left -= 1;
                breaks |= *left < 0;
            }
        }
        breaks
    })
}

impl Budget {
    fn covers(&self, pod: &Resident) -> bool {
        self.namespace == pod.object.namespace() && self.selector.matches(&pod.object.meta().labels)
    }
}

fn budgets(world: &dyn World) -> Vec<Budget> {
    let all = world.list(&POD_DISRUPTION_BUDGET, "");
    let read = all.iter().filter_map(|object| {
        let view: PodDisruptionBudget = object.view().ok()?;
        let selector = Selector::of_view(view.spec.unwrap_or_default().selector.as_ref()).ok()?;
        let allowed = view.status.and_then(|status| status.disruptions_allowed).unwrap_or(0);
        Some(Budget { namespace: object.namespace().into(), selector, allowed })
    });
    read.collect()
}

/// What is compared, the first difference deciding: budgets broken, the highest priority, the sum of priorities, the
/// number of pods, and the youth of the most important.
fn cost(room: &Room) -> impl Ord + use<> {
    let priorities = room.victims.iter().map(|victim| i64::from(victim.facts.fit.priority));
    let highest = priorities.clone().max();
    // Shifted so that more pods cost more, even where priorities are negative.
    let sum: i64 = priorities.map(|priority| priority + i64::from(i32::MAX) + 1).sum();
    let important =
        room.victims.iter().filter(|victim| Some(i64::from(victim.facts.fit.priority)) == highest);
    let started = important.filter_map(|victim| victim.facts.started).min();
    (room.broken, highest, sum, room.victims.len(), Reverse(started), room.node.clone())
}

/// Marks and deletes the victims.
pub fn write(plan: &mut Plan, pod: &Resident, room: &Room, now: Time) {
    for victim in room.victims.iter().filter(|victim| !victim.object.is_ending()) {
        let mut conditions = conditions(&victim.object);
        conditions.retain(|one| one["type"] != "DisruptionTarget");
        conditions.push(json!({
            "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
            "message": format!("{}: preempting to accommodate a higher priority pod", crate::NAME),
            "lastTransitionTime": time::seconds(now),
        }));
        let key = key_of(&POD, &victim.object);
        let patch = json!({"status": {"conditions": conditions}});
        plan.patch(key.clone(), "status", patch, Precondition::same(&victim.object), "it makes room");
        plan.delete(key, Precondition::same(&victim.object), "a more urgent pod needs its room");
        let message = format!("Preempted by pod {} on node {}", pod.object.uid(), room.node);
        plan.tell(EventNote::normal(&victim.object, &POD, "Pod", "Preempted", message));
    }
}

impl<'w> Cluster<'w> {
    /// The same cluster with one node changed.
    fn with(&self, place: Place) -> Cluster<'w> {
        let mut changed = self.clone();
        if let Some(known) = changed.places.iter_mut().find(|known| known.node.name == place.node.name) {
            *known = place;
        }
        changed
    }

    /// Counts the pod on the node that is being freed for it.
    pub fn make_room(&mut self, pod: &Resident, room: &Room) {
        let gone = |one: &Resident| room.victims.iter().any(|victim| victim.object.uid() == one.object.uid());
        if let Some(place) = self.places.iter_mut().find(|place| place.node.name == room.node) {
            *place = place.without(gone);
        }
        self.put(pod.clone(), &room.node);
    }
}
