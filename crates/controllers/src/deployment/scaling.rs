//! A Deployment that is paused or has changed its size: every ReplicaSet is resized in proportion.

use std::cmp::Reverse;

use model::Plan;

use super::{Seen, Set, history};

/// Whether the Deployment's size changed since its ReplicaSets were last sized.
pub(super) fn is_asked(seen: &Seen<'_>) -> bool {
    let sized = seen.sets().filter(|set| set.size() > 0);
    sized.filter_map(Set::desired).any(|desired| desired != seen.wanted())
}

/// Resizes.
pub(super) fn scale(plan: &mut Plan, seen: &Seen<'_>) {
    let active: Vec<&Set> = seen.sets().filter(|set| set.size() > 0).collect();
    match (active.as_slice(), latest(seen)) {
        ([], None) => {}
        ([], Some(only)) | (&[only], _) => {
            only.resize(plan, seen, seen.wanted(), "the Deployment's size");
        }
        _ if seen.new.as_ref().is_some_and(|new| is_saturated(seen, new)) => {
            for set in seen.old.iter().filter(|set| set.size() > 0) {
                set.resize(plan, seen, 0, "the new pods are enough");
            }
        }
        _ if seen.is_rolling() => in_proportion(plan, seen, active),
        _ => {}
    }
    if plan.is_quiet() && seen.body.spec.paused {
        history::clean(plan, seen);
    }
}

/// The ReplicaSet that stands for the Deployment when none has replicas.
fn latest<'s>(seen: &'s Seen<'_>) -> Option<&'s Set> {
    seen.new.as_ref().or(seen.old.last())
}

fn is_saturated(seen: &Seen<'_>, new: &Set) -> bool {
    let wanted = seen.wanted();
    new.size() == wanted && new.desired() == Some(wanted) && new.status().available_replicas == wanted
}

/// The larger get more of what is added and lose more of what is taken; what rounding leaves goes to the largest.
fn in_proportion(plan: &mut Plan, seen: &Seen<'_>, mut active: Vec<&Set>) {
    let total: i64 = active.iter().map(|set| set.size()).sum();
    let allowed = if seen.wanted() > 0 { seen.wanted() + seen.bounds().0 } else { 0 };
    let to_add = allowed - total;
    active.sort_by_key(|set| {
        let born = set.object.meta().creation_timestamp;
        (Reverse(set.size()), if to_add > 0 { (Some(Reverse(born)), None) } else { (None, Some(born)) })
    });
    let mut added = 0;
    let mut sizes = Vec::with_capacity(active.len());
    for set in &active {
        let part = part(seen, set, to_add, added);
        added += part;
        sizes.push(set.size() + part);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (set, size) in active.iter().zip(sizes) {
        set.resize(plan, seen, size, "its part of the Deployment's size");
    }
}

/// How much of `to_add` (negative: to be taken) is this ReplicaSet's part.
fn part(seen: &Seen<'_>, set: &Set, to_add: i64, added: i64) -> i64 {
    if to_add == 0 || to_add == added {
        return 0;
    }
    let left = to_add - added;
    let fraction = fraction(seen, set);
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

fn fraction(seen: &Seen<'_>, set: &Set) -> i64 {
    if seen.wanted() == 0 {
        return -set.size();
    }
    let known = crate::status::of(&seen.object)["replicas"].as_i64();
    match set.max().filter(|max| *max > 0).or(known).filter(|base| *base > 0) {
        None => 0,
        Some(base) => {
            let size = set.size() as f64 * (seen.wanted() + seen.bounds().0) as f64 / base as f64;
            size.round() as i64 - set.size()
        }
    }
}
