//! One node's lease: taken from it when it is silent and its voters agree; then its fenced pods are let go.

use model::fence::{Record, State, pod_epoch};
use model::kinds::{LEASE, NODE, POD, of};
use model::{
    Controller, EventNote, Key, Object, Plan, Precondition, Propagation, Time, Tree, Watch, World, Write,
};
use serde_json::json;

use super::overdue_at;
use crate::node_lifecycle::LEASES;
use crate::pods::Pod;
use crate::status::{self, Says};
use crate::suspicion::{self, OUT_OF_SERVICE};

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "fence-controller",
    primary: of::LEASE,
    also: &[Watch { gvr: of::NODE, wakes: of_node }, Watch { gvr: of::POD, wakes: of_pod }],
    reconcile,
};

fn of_node(node: &Object, _: &dyn World) -> Vec<Key> {
    vec![Key::new(&LEASE, LEASES, node.name())]
}

fn of_pod(pod: &Object, _: &dyn World) -> Vec<Key> {
    match pod_epoch(pod) {
        Some(_) => vec![Key::new(&LEASE, LEASES, Pod::read(pod.clone()).node())],
        None => Vec::new(),
    }
}

/// Decides on one lease.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(lease) = world.get(key).filter(|lease| lease.namespace() == LEASES) else { return plan };
    let Some(record) = Record::read(&lease) else { return plan };
    let node = world.get(&Key::new(&NODE, "", key.name.as_str()));
    release(&mut plan, key, &record, world, now);
    if !plan.is_quiet() {
        return plan;
    }
    match record.state {
        State::Lost if lease.is_ending() => {
            let patch = json!({"metadata": {"finalizers": null}});
            plan.patch(
                key.clone(),
                "",
                patch,
                Precondition::exactly(&lease),
                "nothing is fenced by it any more",
            );
        }
        State::Lost => {}
        // What its voters know is not what this store knows: only the node itself, or an operator, ends it.
        State::Restored if node.as_ref().is_some_and(is_out_of_service) => {
            lose(&mut plan, key, &lease, &record, node.as_ref(), "an operator says so");
        }
        State::Restored => {}
        State::Held if is_orphan(&lease, node.as_ref()) => {
            plan.delete(key.clone(), Precondition::same(&lease), "its node was deleted");
        }
        State::Held | State::Ending => {
            // As upstream, the word counts of a node that is silent: one that has come back holds its lease again, though the
            // taint was forgotten.
            let word = node.as_ref().is_some_and(|node| is_out_of_service(node) && is_silent(node));
            match overdue_at(key, &lease, &record, world) {
                _ if word => lose(&mut plan, key, &lease, &record, node.as_ref(), "an operator says so"),
                at if at > now => plan.wake(at),
                _ => {
                    let votes = Write::Votes {
                        lease: key.clone(),
                        revision: record.revision,
                        set: record.set.clone(),
                    };
                    plan.act(votes, "its node is silent");
                    lose(&mut plan, key, &lease, &record, node.as_ref(), "its voters agree");
                }
            }
        }
    }
    plan
}

fn lose(plan: &mut Plan, key: &Key, lease: &Object, record: &Record, node: Option<&Object>, why: &str) {
    let patch = json!({"metadata": Record::losing()});
    plan.patch(key.clone(), "", patch, Precondition::exactly(lease), why);
    if let Some(node) = node {
        let message = format!("Node {} lost its lease of epoch {}: {why}", key.name, record.epoch);
        plan.tell(EventNote::normal(node, &NODE, "Node", "LeaseLost", message));
    }
}

/// Lets go what is bound to an epoch that is over: nothing of it runs, and nothing will.
fn release(plan: &mut Plan, key: &Key, record: &Record, world: &dyn World, now: Time) {
    let is_over = |epoch: u64| match record.state {
        State::Lost => epoch <= record.epoch,
        State::Held | State::Ending | State::Restored => epoch < record.epoch,
    };
    for object in world.list(&POD, "").into_iter().filter(|pod| pod_epoch(pod).is_some_and(is_over)) {
        let pod = Pod::read(object);
        if pod.node() != key.name {
            continue;
        }
        let place = Key::new(&POD, pod.object.namespace(), pod.name());
        let when = Precondition::same(&pod.object);
        if !pod.is_terminal() {
            let mut conditions = status::conditions(&status::of(&pod.object));
            let message = "Fence: the lease of its node is lost";
            let says = Says { kind: "DisruptionTarget", status: "True", reason: "DeletionByPodGC", message };
            status::set_condition(&mut conditions, says, now);
            let patch = json!({"status": {"phase": "Failed", "conditions": conditions}});
            plan.patch(place.clone(), "status", patch, when.clone(), "its node's lease is lost");
        }
        let propagation = Propagation::Background;
        let write = Write::Delete { key: place, when, grace_seconds: Some(0), propagation };
        plan.act(write, "its node's lease is lost");
        let message = format!("Released from node {}, whose lease is lost", key.name);
        plan.tell(EventNote::normal(&pod.object, &POD, "Pod", "FenceReleased", message));
    }
}

/// Whether the lease belongs to a Node that is not there any more.
fn is_orphan(lease: &Object, node: Option<&Object>) -> bool {
    let mut owners = lease.meta().owner_references.iter().filter(|owner| owner.kind == "Node").peekable();
    owners.peek().is_some() && owners.all(|owner| node.is_none_or(|node| node.uid() != owner.uid))
}

fn is_silent(node: &Object) -> bool {
    suspicion::silent_since(node).is_some()
}

fn is_out_of_service(node: &Object) -> bool {
    let taints: Tree = node.tree().unwrap_or_default()["spec"]["taints"].take();
    taints.as_array().into_iter().flatten().any(|taint| taint["key"] == OUT_OF_SERVICE)
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&LEASE, LEASES, "n"), world, now)
    }

    /// The lease of node `n` in epoch 7, and whatever else it is.
    fn lease(more: &str) -> String {
        let set =
            r#"{\"number\":1,\"voters\":[{\"host\":\"a\",\"incarnation\":\"1\"}],\"leaseMillis\":4000}"#;
        format!(
            r#"leases kube-node-lease/n created@10 metadata.annotations={{"healing.kintsugi.dev/epoch":"7","healing.kintsugi.dev/incarnation":"1","healing.kintsugi.dev/voters":"{set}","healing.kintsugi.dev/lease-state":"{more}"}}
            "#
        )
    }

    fn pod(epoch: u64) -> String {
        format!(
            r#"pods p on=n ready metadata.annotations={{"healing.kintsugi.dev/fence":"{epoch}"}}
        "#
        )
    }

    #[test]
    fn a_silent_nodes_lease_is_lost_by_its_voters_and_names_what_was_seen() {
        let world = format!("nodes n\n{}{}", lease("Held"), pod(7));
        check(&world, 14, decide, "wake 14s");
        check(
            &world,
            15,
            decide,
            r#"votes leases kube-node-lease/n of a # its node is silent
               patch leases kube-node-lease/n {"metadata":{"annotations":{"healing.kintsugi.dev/lease-state":"Lost"}}} # its voters agree ! LeaseLost Node n lost its lease of epoch 7: its voters agree"#,
        );
    }

    #[test]
    fn an_operators_word_needs_no_votes() {
        let node =
            r#"nodes n spec.taints=[{"key":"node.kubernetes.io/out-of-service","effect":"NoExecute"}]"#;
        let late = r#"metadata.annotations={"healing.kintsugi.dev/suspected":"1970-01-01T00:00:08Z"}"#;
        check(&format!("{node}\n{}", lease("Held")), 11, decide, "wake 14s");
        check(
            &format!("{node} {late}\n{}", lease("Held")),
            11,
            decide,
            r#"patch leases kube-node-lease/n {"metadata":{"annotations":{"healing.kintsugi.dev/lease-state":"Lost"}}} # an operator says so ! LeaseLost Node n lost its lease of epoch 7: an operator says so"#,
        );
    }

    #[test]
    fn after_a_restore_neither_silence_nor_votes_end_a_lease_and_what_was_bound_before_is_let_go() {
        check(&format!("nodes n\n{}{}", lease("Restored"), pod(7)), 99, decide, "");
        let gone = r#"patch pods p/status {"status":{"phase":"Failed"}}
                      delete pods p grace 0"#;
        check(&format!("nodes n\n{}{}", lease("Restored"), pod(0)), 11, decide, gone);
        let node =
            r#"nodes n spec.taints=[{"key":"node.kubernetes.io/out-of-service","effect":"NoExecute"}]"#;
        check(
            &format!("{node}\n{}", lease("Restored")),
            11,
            decide,
            r#"patch leases kube-node-lease/n {"metadata":{"annotations":{"healing.kintsugi.dev/lease-state":"Lost"}}} # an operator says so ! LeaseLost Node n lost its lease of epoch 7: an operator says so"#,
        );
    }

    #[test]
    fn what_is_bound_to_an_epoch_that_is_over_is_let_go_and_nothing_else() {
        let gone = r#"patch pods p/status {"status":{"phase":"Failed"}}
                      delete pods p grace 0"#;
        check(&format!("nodes n\n{}{}", lease("Lost"), pod(7)), 11, decide, gone);
        check(&format!("nodes n\n{}{}", lease("Lost"), pod(8)), 11, decide, "");
        check(&format!("nodes n\n{}{}", lease("Held"), pod(6)), 11, decide, gone);
        check(&format!("nodes n\n{}{}", lease("Held"), pod(7)), 11, decide, "wake 14s");
        check(&format!("nodes n\n{}pods p on=n ready", lease("Lost")), 11, decide, "");
    }
}
