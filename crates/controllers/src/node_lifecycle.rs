//! Nodes: whether they are heard of, and what that means for who may run there.
//!
//! A node that is late with a renewal is suspected: an annotation says so, and the addresses of its pods are left out of
//! Services ([`crate::suspicion`]). One whose lease is overdue gets Ready=Unknown; its conditions become taints; the pods
//! of a silent node count as not ready. Only what the node itself writes is a sign of life, not that its lease was taken
//! from it. Silence is counted by our own clock, from when we saw the lease renewed: a node's clock may be off. All of
//! that can be undone, so suspicion is enough. It deletes nothing: see [`crate::taint_eviction`].

use std::time::Duration;

use model::fence::{KNOCK, SUSPECTED};
use model::kinds::{LEASE, NODE, POD, of};
use model::{Controller, EventNote, Key, Object, Plan, Precondition, Time, Tree, Watch, World, Write, time};
use serde::Deserialize;
use serde_json::json;

use crate::pods::{Condition, Pod, Taint};
use crate::status::{self, Says};

/// Where the leases of nodes are.
pub const LEASES: &str = "kube-node-lease";

/// How long a node without a lease of its own may be silent, in seconds: the usual grace for clients that only post a
/// status, which they do every 10 s.
const SILENCE_MAX_SECONDS: i64 = 50;

/// What the house's own agents hold a lease for when it does not say, in seconds.
const LEASE_SECONDS: i64 = 4;

/// How long a suspicion may take from its write to the rules of all nodes: several times what that takes where nothing is
/// busy. It is written so much before its time, so that the addresses are out when it is due.
const SPREAD: Duration = Duration::from_millis(50);

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "node-lifecycle-controller",
    primary: of::NODE,
    also: &[Watch { gvr: of::LEASE, wakes: of_lease }, Watch { gvr: of::POD, wakes: of_pod }],
    reconcile,
};

fn of_lease(lease: &Object, _: &dyn World) -> Vec<Key> {
    if lease.namespace() == LEASES { vec![Key::new(&NODE, "", lease.name())] } else { Vec::new() }
}

/// A ready pod on a node that is not heard of: its state is not known either.
fn of_pod(pod: &Object, world: &dyn World) -> Vec<Key> {
    let pod = Pod::read(pod.clone());
    let key = Key::new(&NODE, "", pod.node());
    let silent = || world.get(&key).and_then(|node| node.seen::<Body>()).is_some_and(|body| body.is_silent());
    if !pod.node().is_empty() && pod.is_ready() && silent() { vec![key] } else { Vec::new() }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    unschedulable: bool,
    taints: Vec<Taint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Heard>,
}

/// A condition of a node.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Heard {
    #[serde(flatten)]
    condition: Condition,
    last_heartbeat_time: Option<Time>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lease {
    spec: LeaseSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct LeaseSpec {
    renew_time: Option<Time>,
    lease_duration_seconds: Option<i64>,
}

impl Body {
    fn condition(&self, kind: &str) -> Option<&Heard> {
        self.status.conditions.iter().find(|heard| heard.condition.kind == kind)
    }

    fn says(&self, kind: &str) -> &str {
        self.condition(kind).map_or("", |heard| heard.condition.status.as_str())
    }

    fn is_silent(&self) -> bool {
        self.says("Ready") == "Unknown"
    }
}

/// Decides on one node.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(node) = world.get(key) else { return plan };
    let Some(body) = node.seen::<Body>() else { return plan };
    let silence = Silence::of(&node, &body, world);
    if let Some(silence) = &silence {
        suspect(&mut plan, key, &node, silence, now);
        if !plan.acts.is_empty() {
            // Seen again when that is written: both it and what follows name the revision that was seen.
            return plan;
        }
    }
    match silence.map(|silence| silence.overdue_at) {
        Some(at) if at <= now => doubt(&mut plan, key, &node, &body, now),
        Some(at) if !body.is_silent() => plan.wake(at),
        _ => {}
    }
    if body.is_silent() {
        doubt_pods(&mut plan, &node, world, now);
    }
    if plan.acts.iter().all(|act| !matches!(&act.write, Write::Patch { key: written, .. } if written == key))
    {
        taint(&mut plan, key, &node, &body, now);
    }
    plan
}

/// How long a node has been silent, and what that means when.
struct Silence {
    /// When it was heard last, as far as is known.
    heard: Time,
    /// Whether that was a renewal that this world has seen; otherwise it only began to count.
    is_seen: bool,
    /// The revision of its lease; 0 without one.
    revision: u64,
    /// When it is suspected; `None` for a node without a lease.
    suspected_at: Option<Time>,
    /// When it has been silent for too long.
    overdue_at: Time,
}

impl Silence {
    /// Silence before this world began proves nothing.
    fn of(node: &Object, body: &Body, world: &dyn World) -> Option<Self> {
        let key = Key::new(&LEASE, LEASES, node.name());
        let object = world.get(&key);
        let revision = object.as_ref().map_or(0, Object::revision);
        let lease = object.and_then(|lease| lease.seen::<Lease>());
        let leased = lease.as_ref().and_then(|lease| {
            Some((lease.spec.renew_time?, lease.spec.lease_duration_seconds.unwrap_or(LEASE_SECONDS)))
        });
        let told = body.condition("Ready").and_then(|ready| ready.last_heartbeat_time);
        let (seen, seconds) = match leased {
            Some((renewed, seconds)) => (world.renewed_since(&key).unwrap_or(renewed), seconds),
            None => (told.or(node.meta().creation_timestamp)?, SILENCE_MAX_SECONDS),
        };
        let began = world.began();
        let heard = began.map_or(seen, |began| seen.max(began));
        let terms = world.terms().of_lease(Duration::from_secs(seconds.try_into().unwrap_or(0)));
        let after = |wait: Duration| heard.checked_add(wait).unwrap_or(Time::MAX);
        Some(Self {
            heard,
            revision,
            is_seen: began.is_none_or(|began| seen > began),
            suspected_at: leased.map(|_| after(terms.suspicion)),
            overdue_at: after(terms.silence()),
        })
    }
}

/// A node that is late is suspected until it is heard again, unless its machine refuses connections: then its agent is
/// gone for a moment, and its pods are not. That begins at once and ends at once: addresses go by it.
fn suspect(plan: &mut Plan, key: &Key, node: &Object, silence: &Silence, now: Time) {
    let is_suspected = node.meta().annotations.contains_key(SUSPECTED);
    let Some(suspected_at) = silence.suspected_at else { return };
    let knock_at = suspected_at.checked_sub(KNOCK + SPREAD).unwrap_or(Time::MIN);
    let is_late = knock_at <= now;
    let says = match (is_suspected, is_late) {
        (false, true) => Tree::from(time::micros(silence.heard)),
        (true, false) if silence.is_seen => Tree::Null,
        (_, false) => return plan.wake(knock_at),
        (true, true) => return,
    };
    if is_late && now < silence.overdue_at {
        let lease = Key::new(&LEASE, LEASES, node.name());
        let knock = Write::Knock { node: key.clone(), lease, revision: silence.revision };
        plan.act(knock, "it is late with a renewal");
        plan.wake(silence.overdue_at);
    }
    let why = if is_late { "it is late with a renewal" } else { "it is heard of again" };
    let patch = json!({"metadata": {"annotations": {SUSPECTED: says}}});
    plan.patch(key.clone(), "", patch, Precondition::exactly(node), why);
}

/// What a silent node said last may no longer hold.
fn doubt(plan: &mut Plan, key: &Key, node: &Object, body: &Body, now: Time) {
    let known = status::of(node);
    let mut conditions = status::conditions(&known);
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        let (reason, message) = match body.condition(kind) {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        if body.says(kind) != "Unknown" {
            status::set_condition(&mut conditions, Says { kind, status: "Unknown", reason, message }, now);
        }
    }
    status::write(plan, key, node, &json!({"conditions": conditions}), "its lease is overdue");
    if !plan.is_quiet() {
        let message = format!("Node {} status is now: NodeNotReady", node.name());
        plan.tell(EventNote::normal(node, &NODE, "Node", "NodeNotReady", message));
    }
}

/// Nobody knows whether the pods of a silent node still answer: they get no new requests.
fn doubt_pods(plan: &mut Plan, node: &Object, world: &dyn World, now: Time) {
    let pods = Pod::all(world.list(&POD, ""));
    for pod in pods.iter().filter(|pod| pod.node() == node.name() && pod.is_ready()) {
        let mut conditions = status::conditions(&status::of(&pod.object));
        for condition in conditions.iter_mut().filter(|condition| condition["type"] == "Ready") {
            condition["status"] = "False".into();
            condition["lastTransitionTime"] = time::seconds(now).into();
        }
        let key = Key::new(&POD, pod.object.namespace(), pod.name());
        status::write(
            plan,
            &key,
            &pod.object,
            &json!({"conditions": conditions}),
            "its node is not heard of",
        );
    }
}

/// The conditions of a node as taints.
fn taint(plan: &mut Plan, key: &Key, node: &Object, body: &Body, now: Time) {
    let ready = body.says("Ready");
    let rules = [
        ("node.kubernetes.io/not-ready", "NoSchedule", ready == "False"),
        ("node.kubernetes.io/not-ready", "NoExecute", ready == "False"),
        ("node.kubernetes.io/unreachable", "NoSchedule", ready == "Unknown"),
        ("node.kubernetes.io/unreachable", "NoExecute", ready == "Unknown"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule", body.says("MemoryPressure") == "True"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule", body.says("DiskPressure") == "True"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule", body.says("PIDPressure") == "True"),
        ("node.kubernetes.io/network-unavailable", "NoSchedule", body.says("NetworkUnavailable") == "True"),
        ("node.kubernetes.io/unschedulable", "NoSchedule", body.spec.unschedulable),
    ];
    let known = node.tree().unwrap_or_default()["spec"]["taints"].as_array().cloned().unwrap_or_default();
    let ours = |taint: &Tree| {
        rules.iter().find(|(key, effect, _)| taint["key"] == *key && taint["effect"] == *effect)
    };
    let mut wanted: Vec<Tree> =
        known.iter().filter(|taint| ours(taint).is_none_or(|(_, _, holds)| *holds)).cloned().collect();
    for (taint, effect, _) in rules.iter().filter(|(_, _, holds)| *holds) {
        if !wanted.iter().any(|known| known["key"] == *taint && known["effect"] == *effect) {
            wanted.push(json!({"key": taint, "effect": effect}));
        }
    }
    for taint in
        wanted.iter_mut().filter(|taint| taint["effect"] == "NoExecute" && taint["timeAdded"].is_null())
    {
        taint["timeAdded"] = time::seconds(now).into();
    }
    if wanted != known {
        let taints = if wanted.is_empty() { Tree::Null } else { wanted.into() };
        let patch = json!({"spec": {"taints": taints}});
        plan.patch(key.clone(), "", patch, Precondition::exactly(node), "its conditions changed");
    }
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&NODE, "", "n"), world, now)
    }

    fn lease(renewed: &str) -> String {
        format!(
            "leases kube-node-lease/n spec.renewTime=1970-01-01T00:00:{renewed}Z spec.leaseDurationSeconds=4\n"
        )
    }

    #[test]
    fn a_node_that_renews_is_left_alone_until_its_lease_would_be_overdue() {
        check(&format!("nodes n ready\n{}", lease("10")), 11, decide, "wake 11s");
        check(&format!("nodes n {LATE} ready\n{}", lease("10")), 12, decide, "wake 14s");
    }

    /// A node of which is known that it is late.
    const LATE: &str =
        r#"metadata.annotations={"healing.kintsugi.dev/suspected":"1970-01-01T00:00:10.000000Z"}"#;

    #[test]
    fn a_node_is_suspected_from_one_and_a_half_renewals_on_until_it_is_heard_again() {
        check(
            &format!("nodes n ready\n{}", lease("10")),
            12,
            decide,
            r#"knock nodes n # it is late with a renewal
               patch nodes n {"metadata":{"annotations":{"healing.kintsugi.dev/suspected":"1970-01-01T00:00:10.000000Z"}}} # it is late with a renewal
               wake 14s"#,
        );
        check(
            &format!("nodes n ready\n{}", lease("10")),
            15,
            decide,
            r#"patch nodes n {"metadata":{"annotations":{"healing.kintsugi.dev/suspected":"1970-01-01T00:00:10.000000Z"}}}"#,
        );
        check(
            &format!("nodes n {LATE} ready\n{}", lease("13")),
            14,
            decide,
            r#"patch nodes n {"metadata":{"annotations":{"healing.kintsugi.dev/suspected":null}}} # it is heard of again"#,
        );
    }

    /// A world that saw the last renewal of every lease 10 s after its beginning.
    struct Renewed(model::tiny::TinyWorld);

    impl World for Renewed {
        fn get(&self, key: &Key) -> Option<Object> {
            self.0.get(key)
        }

        fn list(&self, gvr: &model::Gvr, namespace: &str) -> Vec<Object> {
            self.0.list(gvr, namespace)
        }

        fn held_since(&self, _: &Key) -> Option<Time> {
            Some(model::tiny::at(14))
        }

        fn renewed_since(&self, _: &Key) -> Option<Time> {
            Some(model::tiny::at(10))
        }
    }

    #[test]
    fn a_lease_that_was_taken_from_its_node_is_no_sign_of_life() {
        let text = format!("nodes n {LATE} ready\n{}", lease("10"));
        let world = Renewed(model::tiny::TinyWorld::read(&text));
        assert!(decide(&world, model::tiny::at(14)).is_quiet());
        let told = model::tiny::told(&decide(&world, model::tiny::at(15)));
        assert!(told.iter().any(|line| line.contains("its lease is overdue")), "{told:?}");
        assert!(!told.iter().any(|line| line.contains("heard of")), "{told:?}");
    }

    #[test]
    fn an_overdue_lease_makes_the_node_unknown_and_its_pods_not_ready() {
        let node = format!("nodes n {LATE} ready\n pods a on=n ready\n pods b on=m ready\n{}", lease("10"));
        check(
            &node,
            15,
            decide,
            r#"patch nodes n/status {"status":{"conditions":[{"type":"Ready","status":"Unknown","reason":"NodeStatusUnknown","lastTransitionTime":"1970-01-01T00:00:15Z"},{"type":"MemoryPressure"},{"type":"DiskPressure"},{"type":"PIDPressure"}]}} # its lease is overdue ! NodeNotReady Node n status is now: NodeNotReady"#,
        );
        let mut world = model::tiny::TinyWorld::read(&node);
        let now = model::tiny::at(15);
        world.settle(4, now, |world| decide(world, now));
        let tree = world.tree(&Key::new(&NODE, "", "n")).cloned().unwrap_or_default();
        assert_eq!(tree["spec"]["taints"][1]["effect"], "NoExecute");
        assert_eq!(tree["spec"]["taints"][1]["timeAdded"], "1970-01-01T00:00:15Z");
        let ready = |name: &str| {
            world.get(&Key::new(&POD, "default", name)).is_some_and(|pod| Pod::read(pod).is_ready())
        };
        assert!(!ready("a") && ready("b"));
    }

    #[test]
    fn taints_follow_the_conditions_and_leave_others_alone() {
        check(
            r#"nodes n ready spec.unschedulable=true spec.taints=[{"key":"mine","effect":"NoSchedule"},{"key":"node.kubernetes.io/not-ready","effect":"NoExecute"}]"#,
            5,
            decide,
            r#"patch nodes n {"spec":{"taints":[{"key":"mine"},{"key":"node.kubernetes.io/unschedulable","effect":"NoSchedule"}]}}
               wake 50s"#,
        );
        check(
            r#"nodes n ready spec.taints=[{"key":"mine","effect":"NoExecute"}]"#,
            5,
            decide,
            r#"patch nodes n {"spec":{"taints":[{"key":"mine","timeAdded":"1970-01-01T00:00:05Z"}]}}
               wake 50s"#,
        );
    }
}
