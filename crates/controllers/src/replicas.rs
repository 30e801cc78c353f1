//! Decides which pods of a ReplicaSet or ReplicationController to start and stop.
//!
//! When nothing changes any more, as many active pods as asked for are the owner's, and its status counts them.
//! It never touches a pod of another owner, and starts none for an owner that is ending.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::kinds::POD;
use model::{EventNote, Gvr, Key, Object, Plan, Precondition, Selector, Time, Tree, World};
use serde::Deserialize;
use serde_json::json;

use crate::owning;
use crate::pods::{Availability, Pod};
use crate::status::{self, Says};
use crate::{naming, templates};

/// How many pods one pass starts or stops. A plan stops at the first refusal, so a quota is met by one failed request;
/// this bounds how long one owner keeps the others waiting.
const BURST_MAX: usize = 500;

/// What a decision about replicas reads of the owner.
pub struct Owner {
    /// Its key.
    pub key: Key,
    /// Its kind.
    pub kind: &'static str,
    /// The object.
    pub object: Object,
    /// Its spec and status.
    pub body: Arc<Body>,
    /// Which pods are meant.
    pub selector: Selector,
    /// Other owners' pods that stand in for these, for telling which nodes are crowded.
    pub relatives: Vec<Object>,
}

/// What is read of the owner's object.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Body {
    /// The spec.
    pub spec: Spec,
}

/// What is read of the owner's spec.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    /// How many pods; 1 when left out.
    pub replicas: Option<i32>,
    /// For how long a pod must be ready to be available.
    pub min_ready_seconds: i32,
    /// Which pods are meant.
    pub selector: Tree,
    /// What a pod looks like.
    pub template: Tree,
}

/// Decides for one owner.
pub fn decide(world: &dyn World, owner: &Owner, now: Time) -> Plan {
    let mut plan = Plan::default();
    let (object, gvr) = (&owner.object, &owner.key.gvr);
    let all = world.list(&POD, object.namespace());
    let over = |object: &Object| Pod::read(object.clone()).is_terminal();
    let candidates = all.into_iter().filter(|pod| concerns(owner, pod) && !over(pod)).collect();
    let claim = owning::claim(object, &owner.selector, candidates);
    claim.write(&mut plan, &POD, object, gvr, owner.kind);
    let (ending, active): (Vec<Pod>, Vec<Pod>) = Pod::all(claim.mine).into_iter().partition(Pod::is_ending);
    let wanted = usize::try_from(owner.body.spec.replicas.unwrap_or(1)).unwrap_or(0);
    let starts = match active.len() {
        _ if object.is_ending() => 0,
        few if few < wanted => (wanted - few).min(BURST_MAX),
        _ => 0,
    };
    if !object.is_ending() && active.len() > wanted {
        stop(&mut plan, owner, &active, (active.len() - wanted).min(BURST_MAX), now);
    }
    start(&mut plan, world, owner, starts);
    count(&mut plan, owner, &active, ending.len(), starts, now);
    plan
}

/// Whether a pod can be of any interest: it matches, or it names the owner.
fn concerns(owner: &Owner, pod: &Object) -> bool {
    owner.selector.matches(&pod.meta().labels)
        || pod.controller().is_some_and(|named| named.uid == owner.object.uid())
}

fn start(plan: &mut Plan, world: &dyn World, owner: &Owner, count: usize) {
    let object = &owner.object;
    let seed = [object.uid(), object.meta().resource_version()];
    let stem = format!("{}-", object.name());
    for name in naming::fresh(world, &POD, object.namespace(), &stem, &seed, count) {
        let reference = owning::reference(object, &owner.key.gvr, owner.kind);
        let mut pod = templates::pod(&owner.body.spec.template, object.namespace(), &name, reference);
        pod["metadata"]["generateName"] = stem.as_str().into();
        plan.create(&POD, object.namespace(), pod, "fewer pods than asked for");
        plan.tell(event(owner, "SuccessfulCreate", "Created pod: {name}"));
    }
}

fn stop(plan: &mut Plan, owner: &Owner, active: &[Pod], count: usize, now: Time) {
    let crowds = crowds(owner, active);
    let mut ranked: Vec<&Pod> = active.iter().collect();
    ranked.sort_by_cached_key(|pod| rank(pod, crowds.get(pod.node()).copied().unwrap_or(0), now));
    for pod in ranked.into_iter().take(count) {
        let key = Key::new(&POD, pod.object.namespace(), pod.name());
        plan.delete(key, Precondition::same(&pod.object), "more pods than asked for");
        plan.tell(event(owner, "SuccessfulDelete", &format!("Deleted pod: {}", pod.name())));
    }
}

/// How many active pods of the owner and its relatives each node has.
fn crowds(owner: &Owner, active: &[Pod]) -> BTreeMap<String, usize> {
    let mut crowds = BTreeMap::new();
    let relatives = Pod::all(owner.relatives.clone());
    for pod in relatives.iter().filter(|pod| pod.is_active()).chain(active) {
        *crowds.entry(pod.node().to_owned()).or_insert(0) += 1;
    }
    crowds
}

/// What is stopped first sorts first: unscheduled, not yet running, not ready, cheap, crowded, newly ready, often
/// restarted, young.
fn rank(pod: &Pod, crowd: usize, now: Time) -> impl Ord + use<> {
    let phase = match pod.phase() {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    let age = |since: Option<Time>| since.map_or(0, |since| magnitude(now.duration_since(since).as_secs()));
    (
        !pod.node().is_empty(),
        phase,
        pod.is_ready(),
        deletion_cost(pod),
        std::cmp::Reverse(if pod.node().is_empty() { 0 } else { crowd }),
        age(pod.ready_since()),
        std::cmp::Reverse(pod.restarts_max()),
        age(pod.object.meta().creation_timestamp),
        pod.object.uid().to_owned(),
    )
}

/// Ages are compared by their order of magnitude, so that the choice among pods of similar age is spread.
fn magnitude(seconds: i64) -> u32 {
    u64::try_from(seconds).ok().and_then(u64::checked_ilog2).map_or(0, |log| log + 1)
}

fn deletion_cost(pod: &Pod) -> i32 {
    let cost = pod.object.meta().annotations.get("controller.kubernetes.io/pod-deletion-cost");
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn event(owner: &Owner, reason: &str, message: &str) -> EventNote {
    EventNote::normal(&owner.object, &owner.key.gvr, owner.kind, reason, message)
}

/// Counts the pods into the status, and says when a count will change by itself.
fn count(plan: &mut Plan, owner: &Owner, active: &[Pod], ending: usize, starts: usize, now: Time) {
    let known = status::of(&owner.object);
    let min_ready = owner.body.spec.min_ready_seconds;
    let (mut ready, mut available, mut labelled) = (0, 0, 0);
    let labels = templates::labels(&owner.body.spec.template);
    for pod in active {
        ready += i64::from(pod.is_ready());
        labelled +=
            i64::from(labels.iter().all(|(name, value)| pod.object.meta().labels.get(name) == Some(value)));
        match pod.availability(min_ready, now) {
            Availability::Yes => available += 1,
            Availability::From(at) => plan.wake(at),
            Availability::No => {}
        }
    }
    let mut conditions = status::conditions(&known);
    if starts == 0 {
        status::drop_condition(&mut conditions, "ReplicaFailure");
    }
    let mut wanted = json!({
        "replicas": active.len(), "readyReplicas": status::count(ready),
        "availableReplicas": status::count(available), "fullyLabeledReplicas": status::count(labelled),
        "observedGeneration": owner.object.meta().generation,
        "conditions": status::written(conditions.clone()),
    });
    if owner.kind == "ReplicaSet" {
        wanted["terminatingReplicas"] = ending.into();
    }
    fail_with(plan, owner, wanted.clone(), conditions, now);
    status::write(plan, &owner.key, &owner.object, &wanted, "the pods changed");
}

/// The first start that is refused leaves the reason in the status; those that are refused after it do not change it, for
/// each names another pod, and whoever writes is woken by what it wrote.
fn fail_with(plan: &mut Plan, owner: &Owner, mut wanted: Tree, mut conditions: Vec<Tree>, now: Time) {
    let says = Says { kind: "ReplicaFailure", status: "True", reason: "FailedCreate", message: "{refusal}" };
    if status::condition(&conditions, says.kind).is_none_or(|known| known["status"] != says.status) {
        status::set_condition(&mut conditions, says, now);
    }
    wanted["conditions"] = status::written(conditions);
    let Some(write) = status::patch(&owner.key, &owner.object, &wanted) else { return };
    for act in &mut plan.acts {
        if matches!(act.write, model::Write::Create { .. }) {
            act.otherwise = Some(Box::new(write.clone()));
        }
    }
}

/// The pods that a changed pod concerns: its owner, or, when it has none, every owner that could adopt it.
pub fn wakes(pod: &Object, world: &dyn World, gvr: &Gvr, kind: &str) -> Vec<Key> {
    if pod.controller().is_some() {
        return model::controller::owner(pod, gvr, kind);
    }
    if pod.is_ending() {
        return Vec::new();
    }
    let owners = world.list(gvr, pod.namespace());
    let matching = owners.iter().filter(|owner| {
        let selector = owner.seen::<Body>().map(|body| crate::selector(&body.spec.selector));
        selector.is_some_and(|selector| selector.matches(&pod.meta().labels))
    });
    matching.map(|owner| Key::new(gvr, owner.namespace(), owner.name())).collect()
}

#[cfg(test)]
mod tests {
    use model::kinds::REPLICA_SET;
    use model::tiny::{TinyWorld, at, check};

    use super::*;

    const WEB: &str = "replicasets web spec.replicas=2 spec.selector.matchLabels.app=web
        + spec.template.metadata.labels.app=web\n";

    fn decide(world: &dyn World, now: Time) -> Plan {
        crate::replicaset::reconcile(&Key::new(&REPLICA_SET, "default", "web"), world, now)
    }

    fn judge(pods: &str, now: i64, expected: &str) {
        check(&format!("{WEB}{pods}"), now, decide, expected);
    }

    #[test]
    fn starts_what_is_missing() {
        judge(
            "",
            0,
            r#"create pods web-* {"metadata":{"labels":{"app":"web"},"ownerReferences":[{"uid":"replicasets-web","controller":true,"blockOwnerDeletion":true}]}} # fewer pods than asked for ! SuccessfulCreate Created pod: {name}
               create pods web-*
               patch replicasets web/status {"status":{"replicas":0,"observedGeneration":1}}"#,
        );
    }

    #[test]
    fn replaces_a_failed_pod_and_one_that_is_going() {
        judge(
            "pods a labels=app:web owner=replicasets/web failed
             pods b labels=app:web owner=replicasets/web ready ending@1
             pods c labels=app:web owner=replicasets/web ready",
            5,
            r#"create pods web-*
               patch replicasets web/status {"status":{"replicas":1,"readyReplicas":1,"terminatingReplicas":1}}"#,
        );
    }

    #[test]
    fn stops_first_what_is_worth_least() {
        let pods = "pods a labels=app:web owner=replicasets/web on=n1 ready
            pods b labels=app:web owner=replicasets/web on=n1 running
            pods c labels=app:web owner=replicasets/web on=n2 ready
            pods d labels=app:web owner=replicasets/web pending\n";
        judge(
            pods,
            100,
            r#"delete pods d # more pods than asked for ! SuccessfulDelete Deleted pod: d
               delete pods b
               patch replicasets web/status"#,
        );
    }

    #[test]
    fn among_equals_the_crowded_and_the_young_go() {
        judge(
            "pods a labels=app:web owner=replicasets/web on=n1 ready created@0
             pods b labels=app:web owner=replicasets/web on=n2 ready created@0
             pods c labels=app:web owner=replicasets/web on=n2 ready@90 created@90",
            100,
            "delete pods c
             patch replicasets web/status",
        );
        judge(
            r#"pods a labels=app:web owner=replicasets/web on=n1 ready metadata.annotations.[controller.kubernetes.io/pod-deletion-cost]="-1"
               pods b labels=app:web owner=replicasets/web on=n2 ready
               pods c labels=app:web owner=replicasets/web on=n2 ready"#,
            100,
            "delete pods a
             patch replicasets web/status",
        );
    }

    #[test]
    fn adopts_what_matches_and_lets_go_what_does_not() {
        judge(
            "pods a labels=app:web ready
             pods b labels=app:other owner=replicasets/web ready
             pods c labels=app:web owner=replicasets/other ready",
            5,
            r#"patch pods a {"metadata":{"ownerReferences":[{"uid":"replicasets-web"}]}}
               patch pods b {"metadata":{"ownerReferences":null}}
               create pods web-*
               patch replicasets web/status {"status":{"replicas":1}}"#,
        );
    }

    #[test]
    fn looks_again_when_a_pod_will_be_available() {
        check(
            "replicasets web spec.replicas=1 spec.minReadySeconds=10 spec.selector.matchLabels.app=web
             pods a labels=app:web owner=replicasets/web ready@5",
            8,
            decide,
            r#"patch replicasets web/status {"status":{"replicas":1,"readyReplicas":1,"availableReplicas":null}}
               wake 15s"#,
        );
    }

    #[test]
    fn a_refusal_stands_in_the_status_until_it_is_over() {
        let mut world = TinyWorld::read(WEB);
        world.refuse("pods", "exceeded quota: q");
        let refused = world.apply(&decide(&world, at(1)), at(1));
        assert_eq!(refused, Err("exceeded quota: q".into()));
        let key = Key::new(&REPLICA_SET, "default", "web");
        let conditions =
            world.tree(&key).map(|tree| tree["status"]["conditions"].clone()).unwrap_or_default();
        assert_eq!(conditions[0]["type"], "ReplicaFailure");
        assert_eq!(conditions[0]["message"], "exceeded quota: q");
        world.refuse("pods", "another pod's name: exceeded quota: q");
        assert!(world.apply(&decide(&world, at(2)), at(2)).is_err());
        let later = world.tree(&key).map(|tree| tree["status"]["conditions"].clone()).unwrap_or_default();
        assert_eq!(later, conditions, "a write of each refusal would wake the next");
        world.allow("pods");
        world.settle(9, at(2), |world| decide(world, at(2)));
        assert!(world.tree(&key).is_some_and(|tree| tree["status"]["conditions"].is_null()));
    }

    #[test]
    fn an_owner_that_is_going_starts_nothing() {
        check(
            "replicasets web spec.replicas=2 spec.selector.matchLabels.app=web ending@1
             + status={\"replicas\":0,\"terminatingReplicas\":0,\"observedGeneration\":1}",
            5,
            decide,
            "",
        );
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_is_there_it_ends_quiet_with_as_many_as_asked_for(
            states in proptest::collection::vec(0_usize..5, 0..8), wanted in 0_usize..5
        ) {
            let mut text = WEB.replace("replicas=2", &format!("replicas={wanted}"));
            for (n, state) in states.iter().enumerate() {
                let state = ["ready", "running", "pending", "failed", "succeeded"][*state];
                text.push_str(&format!("pods p{n} labels=app:web owner=replicasets/web on=n{} {state}\n", n % 3));
            }
            let mut world = TinyWorld::read(&text);
            world.settle(9, at(9), |world| decide(world, at(9)));
            let active = Pod::all(world.list(&POD, "")).iter().filter(|pod| pod.is_active()).count();
            assert_eq!(active, wanted);
        }
    }
}
