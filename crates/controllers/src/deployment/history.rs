//! How many old ReplicaSets are kept for going back.

use model::{Plan, Precondition};

use super::{Seen, Set};

/// How many when the author does not say: the API's default.
const KEPT: usize = 10;

/// Deletes the oldest revisions beyond the limit; never one that still has pods or has not been looked at.
pub(super) fn clean(plan: &mut Plan, seen: &Seen<'_>) {
    let limit = seen.body.spec.revision_history_limit.unwrap_or(KEPT);
    let mut alive: Vec<&Set> = seen.old.iter().filter(|set| !set.object.is_ending()).collect();
    alive.sort_by_key(|set| set.revision());
    let surplus = alive.len().saturating_sub(limit);
    for set in alive.into_iter().take(surplus).filter(|set| is_idle(set)) {
        plan.delete(set.key(), Precondition::exactly(&set.object), "beyond the history kept");
    }
}

fn is_idle(set: &Set) -> bool {
    set.size() == 0
        && set.status().replicas == 0
        && set.object.meta().generation <= set.status().observed_generation
}
