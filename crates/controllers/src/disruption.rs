//! PodDisruptionBudgets: how many of the pods they cover may be disturbed now.
//!
//! It writes the budget's status, on which evictions are decided; it disturbs nothing itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::kinds::{
    DEPLOYMENT, POD, POD_DISRUPTION_BUDGET, REPLICA_SET, REPLICATION_CONTROLLER, STATEFUL_SET, of,
};
use model::{Controller, Gvr, Key, Object, Plan, Selector, Time, Tree, Watch, World, time};
use serde::Deserialize;
use serde_json::{Map, json};

use crate::pods::Pod;
use crate::status::{self, Says};

/// How long an eviction that was allowed counts before its pod is seen to go, in seconds: the API's own time.
const EVICTION_SECONDS: i64 = 120;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "disruption-controller",
    primary: of::POD_DISRUPTION_BUDGET,
    also: &[
        Watch { gvr: of::POD, wakes: of_pod },
        Watch { gvr: of::REPLICA_SET, wakes: all_budgets },
        Watch { gvr: of::DEPLOYMENT, wakes: all_budgets },
        Watch { gvr: of::STATEFUL_SET, wakes: all_budgets },
        Watch { gvr: of::REPLICATION_CONTROLLER, wakes: all_budgets },
    ],
    reconcile,
};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    selector: Option<Tree>,
    min_available: Tree,
    max_unavailable: Tree,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    disrupted_pods: BTreeMap<String, Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Scaled {
    spec: Scale,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Scale {
    replicas: Option<i64>,
}

impl Spec {
    /// Whom it covers; with an empty selector, everyone.
    fn selector(&self) -> Selector {
        Selector::of_tree(self.selector.as_ref()).unwrap_or_else(|_| Selector::nothing())
    }
}

fn budgets(world: &dyn World, namespace: &str, means: impl Fn(&Body) -> bool) -> Vec<Key> {
    let all = world.list(&POD_DISRUPTION_BUDGET, namespace);
    let meant = all.iter().filter(|budget| budget.seen::<Body>().is_some_and(|body| means(&body)));
    meant.map(|budget| Key::new(&POD_DISRUPTION_BUDGET, budget.namespace(), budget.name())).collect()
}

fn of_pod(pod: &Object, world: &dyn World) -> Vec<Key> {
    budgets(world, pod.namespace(), |body| body.spec.selector().matches(&pod.meta().labels))
}

/// A controller was resized: what its pods' budgets expect may be something else.
fn all_budgets(object: &Object, world: &dyn World) -> Vec<Key> {
    budgets(world, object.namespace(), |_| true)
}

/// Decides on one budget.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(budget) = world.get(key).filter(|budget| !budget.is_ending()) else { return plan };
    let Some(body) = budget.seen::<Body>() else { return plan };
    let selector = body.spec.selector();
    let meant =
        world.list(&POD, budget.namespace()).into_iter().filter(|pod| selector.matches(&pod.meta().labels));
    let pods: Vec<Pod> = meant.map(Pod::read).filter(|pod| !pod.is_terminal()).collect();
    let disrupted = disrupted(&mut plan, &body, &pods, now);
    let healthy =
        pods.iter().filter(|pod| pod.is_ready() && !pod.is_ending() && !disrupted.contains_key(pod.name()));
    let healthy = count(healthy.count());
    let (expected, desired) = wanted(world, &body.spec, &pods);
    let allowed = if expected == 0 { 0 } else { (healthy - desired).max(0) };
    report(&mut plan, key, &budget, [healthy, desired, expected, allowed], disrupted, now);
    plan
}

fn count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Pods whose eviction was allowed a moment ago and that are not yet seen to go.
fn disrupted(plan: &mut Plan, body: &Arc<Body>, pods: &[Pod], now: Time) -> BTreeMap<String, Time> {
    let mut disrupted = BTreeMap::new();
    for (name, since) in &body.status.disrupted_pods {
        let until = time::after_seconds(*since, EVICTION_SECONDS);
        let is_there = pods.iter().any(|pod| pod.name() == name && !pod.is_ending());
        if is_there && until > now {
            plan.wake(until);
            disrupted.insert(name.clone(), *since);
        }
    }
    disrupted
}

/// How many pods there should be, and how many of them healthy.
fn wanted(world: &dyn World, spec: &Spec, pods: &[Pod]) -> (i64, i64) {
    match (&spec.max_unavailable, &spec.min_available) {
        (Tree::Null, Tree::Null) => (count(pods.len()), 0),
        (Tree::Null, least) if least.is_number() => (count(pods.len()), least.as_i64().unwrap_or(0)),
        (Tree::Null, least) => {
            let expected = expected(world, pods);
            (expected, crate::share(least, expected, true))
        }
        (most, _) => {
            let expected = expected(world, pods);
            (expected, (expected - crate::share(most, expected, true)).max(0))
        }
    }
}

/// How many pods the pods' owners ask for; a pod that has none stands for itself.
fn expected(world: &dyn World, pods: &[Pod]) -> i64 {
    let mut owners: BTreeMap<String, i64> = BTreeMap::new();
    let mut alone = 0;
    for pod in pods {
        match scale_of(world, &pod.object) {
            Some((uid, replicas)) => {
                owners.insert(uid, replicas);
            }
            None => alone += 1,
        }
    }
    alone + owners.values().sum::<i64>()
}

/// The uid and size of what keeps a pod: of the Deployment, where that keeps its ReplicaSet.
fn scale_of(world: &dyn World, object: &Object) -> Option<(String, i64)> {
    let owner = object.controller()?;
    let gvr: &Gvr = match owner.kind.as_str() {
        "ReplicaSet" => &REPLICA_SET,
        "Deployment" => &DEPLOYMENT,
        "StatefulSet" => &STATEFUL_SET,
        "ReplicationController" => &REPLICATION_CONTROLLER,
        _ => return None,
    };
    let keeper = world.get(&Key::new(gvr, object.namespace(), owner.name.as_str()))?;
    if keeper.uid() != owner.uid {
        return None;
    }
    scale_of(world, &keeper).or_else(|| {
        let replicas = keeper.seen::<Scaled>()?.spec.replicas.unwrap_or(1);
        Some((keeper.uid().to_owned(), replicas))
    })
}

fn report(
    plan: &mut Plan,
    key: &Key,
    budget: &Object,
    [healthy, desired, expected, allowed]: [i64; 4],
    disrupted: BTreeMap<String, Time>,
    now: Time,
) {
    let known = status::of(budget);
    let mut conditions = status::conditions(&known);
    let (value, reason) =
        if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    status::set_condition(
        &mut conditions,
        Says { kind: "DisruptionAllowed", status: value, reason, message: "" },
        now,
    );
    for condition in conditions.iter_mut().filter(|one| one["type"] == "DisruptionAllowed") {
        condition["observedGeneration"] = budget.meta().generation.into();
    }
    let known_pods = known["disruptedPods"].as_object().cloned().unwrap_or_default();
    let gone = known_pods
        .keys()
        .filter(|name| !disrupted.contains_key(*name))
        .map(|name| (name.clone(), Tree::Null));
    let gone: Map<String, Tree> = gone.collect();
    let mut wanted = json!({
        "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": expected,
        "disruptionsAllowed": allowed, "observedGeneration": budget.meta().generation, "conditions": conditions,
    });
    if !gone.is_empty() {
        wanted["disruptedPods"] = if disrupted.is_empty() { Tree::Null } else { gone.into() };
    }
    status::write(plan, key, budget, &wanted, "the pods it covers changed");
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    fn judge(text: &str, expected: &str) {
        let key = Key::new(&POD_DISRUPTION_BUDGET, "default", "b");
        check(text, 5, |world: &dyn World, now| reconcile(&key, world, now), expected);
    }

    const PODS: &str = "pods a labels=app:db owner=replicasets/db ready
        pods b labels=app:db owner=replicasets/db ready
        pods c labels=app:db owner=replicasets/db running
        replicasets db spec.replicas=4\n";

    #[test]
    fn a_number_is_counted_over_the_pods_that_are_there() {
        judge(
            &format!("{PODS} poddisruptionbudgets b spec.selector.matchLabels.app=db spec.minAvailable=1"),
            r#"patch poddisruptionbudgets b/status {"status":{"currentHealthy":2,"desiredHealthy":1,"expectedPods":3,"disruptionsAllowed":1,"observedGeneration":1,"conditions":[{"type":"DisruptionAllowed","status":"True","reason":"SufficientPods"}]}}"#,
        );
    }

    #[test]
    fn a_share_is_taken_of_what_the_owners_ask_for() {
        judge(
            &format!(
                "{PODS} poddisruptionbudgets b spec.selector.matchLabels.app=db spec.maxUnavailable=50%"
            ),
            r#"patch poddisruptionbudgets b/status {"status":{"currentHealthy":2,"desiredHealthy":2,"expectedPods":4,"disruptionsAllowed":0}}"#,
        );
    }

    #[test]
    fn an_eviction_that_was_allowed_counts_until_its_pod_goes() {
        judge(
            &format!(
                r#"{PODS} poddisruptionbudgets b spec.selector.matchLabels.app=db spec.minAvailable=0 status.disruptedPods={{"a":"1970-01-01T00:00:03Z","x":"1970-01-01T00:00:03Z"}}"#
            ),
            r#"patch poddisruptionbudgets b/status {"status":{"currentHealthy":1,"disruptionsAllowed":1,"disruptedPods":{"x":null}}}
               wake 123s"#,
        );
    }
}
