//! The two ways from one template to the next.

use model::{Plan, Precondition};
use serde_json::json;

use super::{Seen, Set, history, progress, sets};

/// Old and new are exchanged within the bounds: one step a pass.
pub(super) fn roll(plan: &mut Plan, seen: &Seen<'_>) {
    let Some(new) = renewed(plan, seen) else { return };
    if !plan.is_quiet() || grow(plan, seen, new) || shrink(plan, seen, new) {
        return;
    }
    if progress::is_complete(seen) {
        history::clean(plan, seen);
    }
}

/// The old pods go before the new ones come.
pub(super) fn recreate(plan: &mut Plan, seen: &Seen<'_>) {
    let mut shrunk = false;
    for set in seen.old.iter().filter(|set| set.size() > 0) {
        shrunk |= set.resize(plan, seen, 0, "the old pods go first");
    }
    if shrunk || seen.pods_of(seen.old.iter()).iter().any(|pod| !pod.is_terminal()) {
        return;
    }
    let Some(new) = renewed(plan, seen) else { return };
    if plan.is_quiet()
        && !new.resize(plan, seen, seen.wanted(), "the old pods are gone")
        && progress::is_complete(seen)
    {
        history::clean(plan, seen);
    }
}

/// The new ReplicaSet, once it exists; its and the Deployment's revision are brought up to date.
pub(super) fn renewed<'s>(plan: &mut Plan, seen: &'s Seen<'_>) -> Option<&'s Set> {
    let Some(new) = &seen.new else {
        sets::create(plan, seen, first_size(seen));
        return None;
    };
    sets::refresh(plan, seen, new);
    let revision = new.object.meta().annotations.get(sets::REVISION);
    if plan.is_quiet() && revision != seen.object.meta().annotations.get(sets::REVISION) {
        let patch = json!({"metadata": {"annotations": {sets::REVISION: revision}}});
        plan.patch(seen.key.clone(), "", patch, Precondition::same(&seen.object), "a new revision");
    }
    Some(new)
}

/// How many pods the new ReplicaSet begins with.
fn first_size(seen: &Seen<'_>) -> i64 {
    if seen.is_rolling() { grown(seen, 0) } else { seen.wanted() }
}

/// How many pods the new ReplicaSet may have now.
fn grown(seen: &Seen<'_>, size: i64) -> i64 {
    let total: i64 = seen.sets().map(Set::size).sum();
    let room = seen.wanted() + seen.bounds().0 - total;
    size + room.max(0).min(seen.wanted() - size)
}

fn grow(plan: &mut Plan, seen: &Seen<'_>, new: &Set) -> bool {
    let size = if new.size() > seen.wanted() { seen.wanted() } else { grown(seen, new.size()) };
    size != new.size() && new.resize(plan, seen, size, "room for new pods")
}

/// Shrinks the old ReplicaSets: first what serves nobody, then as much as the new pods can stand in for.
fn shrink(plan: &mut Plan, seen: &Seen<'_>, new: &Set) -> bool {
    let wanted_at_least = seen.wanted() - seen.bounds().1;
    let total: i64 = seen.sets().map(Set::size).sum();
    let missing = new.size() - new.status().available_replicas;
    let may_go = total - wanted_at_least - missing;
    if may_go <= 0 {
        return false;
    }
    let mut sizes: Vec<i64> = seen.old.iter().map(Set::size).collect();
    let mut gone = 0;
    for (set, size) in seen.old.iter().zip(&mut sizes) {
        let unhealthy = (*size - set.status().available_replicas).max(0);
        let cut = unhealthy.min(may_go - gone);
        *size -= cut;
        gone += cut;
    }
    let available: i64 = seen.sets().map(|set| set.status().available_replicas).sum();
    let mut spare = available - wanted_at_least;
    for size in &mut sizes {
        let cut = (*size).min(spare.max(0));
        *size -= cut;
        spare -= cut;
    }
    let mut shrunk = false;
    for (set, size) in seen.old.iter().zip(sizes).filter(|(set, size)| set.size() != *size) {
        shrunk |= set.resize(plan, seen, size, "new pods stand in for old ones");
    }
    shrunk
}
