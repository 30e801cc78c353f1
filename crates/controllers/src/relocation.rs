//! The rung of the ladder after a fresh sandbox: a pod that keeps failing on its node, and whose like does not fail
//! elsewhere, is evicted, and its owner's pods keep away from the node for a while.
//!
//! Proof by comparison: at least one other pod of the same owner and revision is ready on another node, and none fails on
//! any. One that was moved and whose successor fails too is the suspect itself, not its nodes: it is moved no more. It
//! respects budgets, and never touches pods that belong to a node or that nobody makes anew.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::avoid::{self, Avoided};
use model::diagnosis::{self, FAILS_HERE, KEEPS_FAILING};
use model::fit::{self, NodeFacts, PodFacts};
use model::kinds::{NODE, PERSISTENT_VOLUME, PERSISTENT_VOLUME_CLAIM, POD, of};
use model::tree::text;
use model::{Controller, EventNote, Key, Object, Owner, Plan, Precondition, Time, Tree, Watch, World, Write};
use model::{controller::nobody, storage};
use serde_json::json;

use crate::pods::Pod;
use crate::suspicion;
use crate::volumes::claim_names;

/// Owners that make a pod anew, wherever it can be.
const OWNERS: [&str; 3] = ["ReplicaSet", "StatefulSet", "ReplicationController"];

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "relocation-controller",
    primary: of::POD,
    also: &[
        Watch { gvr: of::NODE, wakes: nobody },
        Watch { gvr: of::PERSISTENT_VOLUME, wakes: nobody },
        Watch { gvr: of::PERSISTENT_VOLUME_CLAIM, wakes: nobody },
    ],
    reconcile,
};

/// Decides on one pod.
pub fn reconcile(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = world.get(key).filter(|pod| !pod.is_ending()) else { return plan };
    let Some(owner) = pod.controller().filter(|owner| OWNERS.contains(&owner.kind.as_str())) else {
        return plan;
    };
    let tree = tree_of(&pod);
    let Some(said) = diagnosis::holds(&tree, KEEPS_FAILING).filter(|one| text(one, "reason") == FAILS_HERE)
    else {
        return plan;
    };
    let here = text(&tree, "spec.nodeName");
    let Some(node) = world.get(&Key::new(&NODE, "", here)) else { return plan };
    let Some(well) = well_elsewhere(&pod, owner, here, world) else { return plan };
    if was_moved(&pod, here, world, now) || !may_go_elsewhere(&pod, here, world, now) {
        return plan;
    }
    let said = text(said, "message");
    let known = avoid::of(&node, now);
    if known.iter().any(|one| one.pod == pod.uid()) {
        plan.act(
            Write::Evict { pod: key.clone(), when: Precondition::exactly(&pod) },
            "it fails here and its like do not elsewhere",
        );
        let message =
            format!("Moved away from node {here}: {said}; {well} of its kind do not fail elsewhere");
        plan.tell(EventNote::normal(&pod, &POD, "Pod", "Relocated", message).warning());
    } else {
        avoid_it(&mut plan, &node, known, &pod, owner, (said, now));
        // It goes as soon as that is seen; nothing else need happen meanwhile.
        plan.wake(now);
    }
    plan
}

fn tree_of(object: &Object) -> Arc<Tree> {
    object.seen::<Tree>().unwrap_or_default()
}

/// How many pods of the same owner and revision are ready on other nodes; `None` when none is, or one fails there.
fn well_elsewhere(pod: &Object, owner: &Owner, here: &str, world: &dyn World) -> Option<usize> {
    let mut like = world.owned_by(&POD, &owner.uid);
    like.retain(|other| {
        other.uid() != pod.uid() && !other.is_ending() && avoid::revision(other) == avoid::revision(pod)
    });
    let elsewhere: Vec<Arc<Tree>> =
        like.iter().map(tree_of).filter(|other| text(other, "spec.nodeName") != here).collect();
    let ready = elsewhere.iter().filter(|other| diagnosis::holds(other, "Ready").is_some()).count();
    let fails = elsewhere.iter().any(|other| diagnosis::fails(other));
    (ready > 0 && !fails).then_some(ready)
}

/// Whether one like it was moved before and did not do better for it: it fails on a second node, or came back to this one.
fn was_moved(pod: &Object, here: &str, world: &dyn World, now: Time) -> bool {
    world.list(&NODE, "").iter().any(|node| {
        let all = avoid::of(node, now).into_iter();
        let mut theirs = all.filter(|one| one.concerns(pod) && one.pod != pod.uid());
        let is_later = |one: &Avoided| pod.meta().creation_timestamp.is_none_or(|made| made > one.since);
        theirs.any(|one| node.name() != here || is_later(&one))
    })
}

/// Whether another node would take it, as far as its own wishes and its volumes go.
fn may_go_elsewhere(pod: &Object, here: &str, world: &dyn World, now: Time) -> bool {
    let Some(facts) = pod.seen::<PodFacts>() else { return false };
    let facts = PodFacts { node: String::new(), ..(*facts).clone() };
    let volumes = volumes_of(pod, world);
    world.list(&NODE, "").iter().any(|node| {
        let avoided = avoid::of(node, now).iter().any(|one| one.concerns(pod));
        let takes = |node: &NodeFacts| {
            fit::misfit(&facts, node).is_none() && volumes.iter().all(|volume| storage::reaches(volume, node))
        };
        node.name() != here
            && suspicion::silent_since(node).is_none()
            && !avoided
            && node.seen::<NodeFacts>().is_some_and(|node| takes(&node))
    })
}

fn volumes_of(pod: &Object, world: &dyn World) -> Vec<Arc<Tree>> {
    let names: BTreeSet<String> = claim_names(&Pod::read(pod.clone())).into_iter().collect();
    let volume = |claim: &String| {
        let claim = world.get(&Key::new(&PERSISTENT_VOLUME_CLAIM, pod.namespace(), claim.as_str()))?;
        let name = tree_of(&claim)["spec"]["volumeName"].as_str()?.to_owned();
        Some(tree_of(&world.get(&Key::new(&PERSISTENT_VOLUME, "", name))?))
    };
    names.iter().filter_map(volume).collect()
}

/// Has its owner's pods keep away from the node: before it goes, so that whoever takes its place does not come back.
fn avoid_it(
    plan: &mut Plan,
    node: &Object,
    mut known: Vec<Avoided>,
    pod: &Object,
    owner: &Owner,
    (why, now): (&str, Time),
) {
    known.push(Avoided {
        owner: owner.uid.clone(),
        name: format!("{} {}/{}", owner.kind, pod.namespace(), owner.name),
        revision: avoid::revision(pod).to_owned(),
        pod: pod.uid().to_owned(),
        since: now,
        why: why.to_owned(),
    });
    let surplus = known.len().saturating_sub(avoid::ENTRIES_MAX);
    known.drain(..surplus);
    let said = serde_json::to_string(&known).unwrap_or_default();
    let patch = json!({"metadata": {"annotations": {avoid::AVOIDED_BY: said}}});
    let key = Key::new(&NODE, "", node.name());
    plan.patch(
        key,
        "",
        patch,
        Precondition::exactly(node),
        "a pod fails there and its like do not elsewhere",
    );
}

#[cfg(test)]
mod tests {
    use model::tiny::{TinyWorld, at, told};

    use super::*;

    const NODES: &str = "nodes a ready\nnodes b ready\nnodes c ready\n";

    /// A pod of a set that fails on `node`, as its node says.
    fn fails(name: &str, node: &str, reason: &str) -> String {
        format!(
            r#"pods {name} on={node} owner=replicasets/web labels=pod-template-hash:1 created@50
            + status.conditions=[{{"type":"healing.kintsugi.dev/KeepsFailing","status":"True","reason":"{reason}","message":"it-fails"}}] status.containerStatuses=[{{"name":"c","restartCount":9}}]
            "#
        )
    }

    fn well(name: &str, node: &str) -> String {
        format!("pods {name} on={node} owner=replicasets/web labels=pod-template-hash:1 ready@60\n")
    }

    fn world(text: &str) -> TinyWorld {
        TinyWorld::read(&format!("replicasets web\n{text}"))
    }

    fn decide(world: &TinyWorld, now: i64) -> Plan {
        reconcile(&Key::new(&POD, "default", "sick"), world, at(now))
    }

    #[test]
    fn a_pod_that_fails_here_and_whose_like_does_not_elsewhere_is_moved_once_its_node_is_avoided() {
        let mut world = world(&format!("{NODES}{}{}", fails("sick", "b", FAILS_HERE), well("other", "a")));
        let first = decide(&world, 100);
        assert!(told(&first)[0].starts_with("patch nodes b "), "{:?}", told(&first));
        world.apply(&first, at(100)).expect("it is done");
        let second = told(&decide(&world, 101));
        assert_eq!(second.len(), 1);
        assert!(second[0].starts_with("evict pods sick # it fails here"), "{second:?}");
        assert!(second[0].contains("! Relocated Moved away from node b: it-fails; 1 of its kind"));
    }

    #[test]
    fn what_is_not_proven_moves_nobody() {
        let sick = fails("sick", "b", FAILS_HERE);
        let daemon = sick.replace("replicasets/web", "daemonsets/web");
        let picky = format!("{} spec.nodeSelector={{\"zone\":\"1\"}}", sick.trim_end());
        for (text, why) in [
            (sick.clone(), "it has nobody to be compared with"),
            (format!("{sick}{}", well("other", "b")), "the other one is on the same node"),
            (
                format!("{sick}{}{}", well("other", "a"), fails("third", "c", FAILS_HERE)),
                "one fails elsewhere",
            ),
            (
                format!("{sick}{}", well("other", "a").replace("hash:1", "hash:2")),
                "the other one is of another revision",
            ),
            (
                format!("{}{}", fails("sick", "b", "FreshSandbox"), well("other", "a")),
                "a fresh sandbox may help",
            ),
            (format!("{daemon}{}", well("other", "a")), "it belongs to its node"),
            (format!("{picky}\n{}", well("other", "a")), "no other node would take it"),
        ] {
            assert!(decide(&world(&format!("{NODES}{text}")), 100).is_quiet(), "{why}");
        }
    }

    #[test]
    fn one_whose_like_was_moved_before_is_the_suspect_until_that_is_forgotten() {
        let moved = |node: &str, since: i64| {
            let entry = Avoided {
                owner: "replicasets-web".into(),
                name: String::new(),
                revision: "1".into(),
                pod: "before".into(),
                since: at(since),
                why: String::new(),
            };
            let text = serde_json::to_string(&[entry]).expect("it is JSON").replace('"', "\\\"");
            NODES.replace(
                &format!("nodes {node} ready"),
                &format!(r#"nodes {node} ready metadata.annotations={{"healing.kintsugi.dev/avoided-by":"{text}"}}"#),
            )
        };
        let pods = format!("{}{}", fails("sick", "b", FAILS_HERE), well("other", "a"));
        let quiet = |nodes: String, now: i64| decide(&world(&format!("{nodes}{pods}")), now).is_quiet();
        assert!(quiet(moved("c", 20), 100), "it fails on a second node");
        assert!(quiet(moved("b", 20), 100), "it came back to the node");
        assert!(!quiet(moved("b", 70), 100), "another one failed here before it did");
        assert!(!quiet(moved("c", 20), 20 + 3600), "that was an hour ago");
    }
}
