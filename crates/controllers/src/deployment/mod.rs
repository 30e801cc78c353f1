//! Deployment: rolls from one template to the next through ReplicaSets, within bounds, and back.
//!
//! When nothing changes any more, one ReplicaSet has all the replicas and the template that is asked for, the others
//! have none, and no more of them are kept than the history allows. It writes ReplicaSets' spec, the Deployment's
//! revision annotation and its status; it never touches a pod.

use std::sync::Arc;

use model::kinds::{DEPLOYMENT, POD, REPLICA_SET, of};
use model::{Controller, EventNote, Key, Object, Plan, Selector, Time, Tree, Watch, World};
use serde::Deserialize;

use crate::owning;
use crate::pods::Pod;

mod history;
mod progress;
mod rollout;
mod scaling;
mod sets;
#[cfg(test)]
mod tests;

use sets::Set;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "deployment-controller",
    primary: of::DEPLOYMENT,
    also: &[Watch { gvr: of::REPLICA_SET, wakes: of_set }, Watch { gvr: of::POD, wakes: of_pod }],
    reconcile,
};

/// What is read of a Deployment.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Body {
    pub(crate) spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    pub(crate) replicas: Option<i64>,
    pub(crate) min_ready_seconds: i64,
    pub(crate) selector: Tree,
    pub(crate) template: Tree,
    pub(crate) strategy: Strategy,
    pub(crate) paused: bool,
    pub(crate) revision_history_limit: Option<usize>,
    pub(crate) progress_deadline_seconds: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Strategy {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) rolling_update: Rolling,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Rolling {
    pub(crate) max_surge: Tree,
    pub(crate) max_unavailable: Tree,
}

/// A Deployment and its ReplicaSets.
pub(crate) struct Seen<'a> {
    pub(crate) world: &'a dyn World,
    pub(crate) key: Key,
    pub(crate) object: Object,
    pub(crate) body: Arc<Body>,
    /// The ReplicaSet that has the template asked for.
    pub(crate) new: Option<Set>,
    /// The others, the oldest first.
    pub(crate) old: Vec<Set>,
    pub(crate) now: Time,
}

/// What a Deployment's pass is about: the first that applies.
enum Case {
    /// It is going, or selects everything: only its status is kept.
    Leave,
    /// It is paused, or its number of replicas changed: every ReplicaSet is resized in proportion.
    Scale,
    /// The old pods go before the new ones come.
    Recreate,
    /// Old and new are exchanged within bounds.
    Roll,
}

/// Decides on one Deployment.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(seen) = see(key, world, now, &mut plan) else { return plan };
    if !plan.is_quiet() {
        // Adoptions first: what they change is seen in the next pass.
        return plan;
    }
    match case(&seen) {
        Case::Leave => {}
        Case::Scale => scaling::scale(&mut plan, &seen),
        Case::Recreate => rollout::recreate(&mut plan, &seen),
        Case::Roll => rollout::roll(&mut plan, &seen),
    }
    if !touches_itself(&plan, key) {
        progress::report(&mut plan, &seen);
    }
    plan
}

fn case(seen: &Seen<'_>) -> Case {
    match () {
        () if seen.object.is_ending() || seen.selector().is_everything() => Case::Leave,
        () if seen.body.spec.paused || scaling::is_asked(seen) => Case::Scale,
        () if seen.body.spec.strategy.kind == "Recreate" => Case::Recreate,
        () => Case::Roll,
    }
}

/// Whether the plan already writes the Deployment: its status is then left to the next pass.
fn touches_itself(plan: &Plan, key: &Key) -> bool {
    plan.acts
        .iter()
        .any(|act| matches!(&act.write, model::Write::Patch { key: written, .. } if written == key))
}

fn see<'a>(key: &Key, world: &'a dyn World, now: Time, plan: &mut Plan) -> Option<Seen<'a>> {
    let object = world.get(key)?;
    let body: Arc<Body> = object.seen()?;
    let selector = crate::selector(&body.spec.selector);
    if selector.is_everything() {
        let (old, new) = (Vec::new(), None);
        return Some(Seen { world, key: key.clone(), object, body, new, old, now });
    }
    let candidates = world.list(&REPLICA_SET, object.namespace());
    let claim = owning::claim(&object, &selector, candidates);
    claim.write(plan, &REPLICA_SET, &object, &DEPLOYMENT, "Deployment");
    let mut sets: Vec<Set> = claim.mine.into_iter().filter_map(Set::read).collect();
    sets.sort_by_key(|set| (set.object.meta().creation_timestamp, set.object.name().to_owned()));
    let found = sets.iter().position(|set| set.has_template(&body.spec.template));
    let new = found.map(|at| sets.remove(at));
    Some(Seen { world, key: key.clone(), object, body, new, old: sets, now })
}

impl Seen<'_> {
    /// How many replicas are asked for.
    pub(crate) fn wanted(&self) -> i64 {
        self.body.spec.replicas.unwrap_or(1)
    }

    pub(crate) fn selector(&self) -> Selector {
        crate::selector(&self.body.spec.selector)
    }

    /// All ReplicaSets, the new one last.
    pub(crate) fn sets(&self) -> impl Iterator<Item = &Set> {
        self.old.iter().chain(&self.new)
    }

    pub(crate) fn is_rolling(&self) -> bool {
        self.body.spec.strategy.kind != "Recreate"
    }

    /// How many pods there may be beyond those asked for, and how many may be missing.
    pub(crate) fn bounds(&self) -> (i64, i64) {
        if !self.is_rolling() {
            return (0, 0);
        }
        let rolling = &self.body.spec.strategy.rolling_update;
        let surge = crate::share(&rolling.max_surge, self.wanted(), true);
        let unavailable = crate::share(&rolling.max_unavailable, self.wanted(), false);
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        (surge, unavailable.min(self.wanted()))
    }

    /// The pods of these sets, terminating ones included.
    pub(crate) fn pods_of<'s>(&self, sets: impl Iterator<Item = &'s Set>) -> Vec<Pod> {
        sets.flat_map(|set| Pod::all(self.world.owned_by(&POD, set.object.uid()))).collect()
    }

    pub(crate) fn event(&self, reason: &str, message: String) -> EventNote {
        EventNote::normal(&self.object, &DEPLOYMENT, "Deployment", reason, message)
    }
}

/// The Deployments that a ReplicaSet concerns.
pub(crate) fn of_set(set: &Object, world: &dyn World) -> Vec<Key> {
    if set.controller().is_some() {
        return model::controller::owner(set, &DEPLOYMENT, "Deployment");
    }
    let all = world.list(&DEPLOYMENT, set.namespace());
    let matching = all.iter().filter(|deployment| {
        let selector = deployment.seen::<Body>().map(|body| crate::selector(&body.spec.selector));
        selector.is_some_and(|selector| selector.matches(&set.meta().labels))
    });
    matching.map(|deployment| Key::new(&DEPLOYMENT, deployment.namespace(), deployment.name())).collect()
}

/// A pod matters only to a Deployment that waits for its last old pod.
fn of_pod(pod: &Object, world: &dyn World) -> Vec<Key> {
    let sets = model::controller::owner(pod, &REPLICA_SET, "ReplicaSet");
    let owners = sets.iter().filter_map(|key| world.get(key));
    let deployments = owners.flat_map(|set| model::controller::owner(&set, &DEPLOYMENT, "Deployment"));
    let waits = |key: &Key| {
        let body = world.get(key).and_then(|deployment| deployment.seen::<Body>());
        body.is_some_and(|body| body.spec.strategy.kind == "Recreate")
    };
    deployments.filter(waits).collect()
}
