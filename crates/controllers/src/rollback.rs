//! The last rung of the ladder: a Deployment that asks for it goes back to its former template when the new one is the
//! suspect.
//!
//! Asked for by the annotation `healing.kintsugi.dev/rollback: auto`; without it nothing is ever rolled back. The
//! suspicion is a comparison: new pods fail where the old ones of the same Deployment do not. It writes the template
//! and the annotation that says what was done, once; it never touches a ReplicaSet or a pod.

use model::diagnosis::{fails, is_of, is_well, newest_first, revision_of};
use model::kinds::{DEPLOYMENT, POD, REPLICA_SET, of};
use model::repair::{ROLLBACK, ROLLED_BACK};
use model::tree::{at, items, text};
use model::{Act, Controller, EventNote, Key, Object, Plan, Time, Tree, Watch, World, Write};

use crate::deployment::of_set;

/// How many new pods have to fail before their template is the suspect: fewer may have met one bad node.
pub const FAILING_MIN: usize = 3;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "rollback-controller",
    primary: of::DEPLOYMENT,
    also: &[Watch { gvr: of::REPLICA_SET, wakes: of_set }, Watch { gvr: of::POD, wakes: of_pod }],
    reconcile,
};

/// Decides on one Deployment.
pub fn reconcile(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(deployment) = world.get(key).filter(|one| !one.is_ending() && asks(one)) else { return plan };
    let revisions = newest_first(trees(world.list(&REPLICA_SET, &key.namespace), deployment.uid()));
    let [new, former, ..] = &revisions[..] else { return plan };
    let Ok(mut object) = deployment.tree() else { return plan };
    if let Some(why) = suspicion(&object, &revisions, world, &key.namespace) {
        let (bad, good) = (number(new), number(former));
        let said = format!("from revision {bad} to revision {good}: {why}");
        object["spec"]["template"] = plain_template(former);
        object["metadata"]["annotations"][ROLLED_BACK] = said.clone().into();
        let event = EventNote::normal(
            &deployment,
            &DEPLOYMENT,
            "Deployment",
            "RolledBack",
            format!("Rolled back {said}"),
        );
        plan.acts.push(Act {
            write: Write::Replace { key: key.clone(), part: "", object },
            why,
            event: Some(event.warning()),
            otherwise: None,
        });
    }
    plan
}

/// The Deployment of a pod, if that asks to be rolled back.
fn of_pod(pod: &Object, world: &dyn World) -> Vec<Key> {
    let sets = model::controller::owner(pod, &REPLICA_SET, "ReplicaSet");
    let sets = sets.iter().filter_map(|key| world.get(key));
    let deployments = sets.flat_map(|set| model::controller::owner(&set, &DEPLOYMENT, "Deployment"));
    deployments.filter(|key| world.get(key).is_some_and(|deployment| asks(&deployment))).collect()
}

fn asks(deployment: &Object) -> bool {
    deployment.meta().annotations.get(ROLLBACK).is_some_and(|word| word == "auto")
}

fn trees(objects: Vec<Object>, owner: &str) -> Vec<Tree> {
    objects.iter().filter_map(|object| object.tree().ok()).filter(|tree| is_of(tree, owner)).collect()
}

fn number(set: &Tree) -> &str {
    let number = at(set, "metadata.annotations").get("deployment.kubernetes.io/revision");
    number.and_then(Tree::as_str).unwrap_or("?")
}

/// Why the newest revision is the suspect, if it is.
fn suspicion(deployment: &Tree, revisions: &[Tree], world: &dyn World, namespace: &str) -> Option<String> {
    let newest = revision_of(revisions.first()?);
    let own = |pod: &Tree| revisions.iter().any(|set| is_of(pod, text(set, "metadata.uid")));
    let pods = world.list(&POD, namespace);
    let pods: Vec<Tree> = pods.iter().filter_map(|pod| pod.tree().ok()).filter(|pod| own(pod)).collect();
    let (new, old): (Vec<&Tree>, Vec<&Tree>) = pods.iter().partition(|pod| revision_of(pod) == newest);
    let well = |pod: &&&Tree| is_well(pod) && text(pod, "metadata.deletionTimestamp").is_empty();
    // Without an old pod that is well there is nothing to compare with, and nothing to go back to that is known to work.
    let old_well = old.iter().filter(well).count();
    if old_well == 0 || old.iter().any(|pod| fails(pod)) {
        return None;
    }
    let failing = new.iter().filter(|pod| fails(pod)).count();
    if failing >= FAILING_MIN {
        return Some(format!("{failing} of {} new pods fail, none of {} old ones", new.len(), old.len()));
    }
    let stuck = items(deployment, "status.conditions")
        .iter()
        .any(|one| text(one, "type") == "Progressing" && text(one, "reason") == "ProgressDeadlineExceeded");
    stuck.then(|| format!("its progress deadline is over, and {old_well} old pods are well"))
}

/// The template as an author writes it: without the label that its ReplicaSet added.
fn plain_template(set: &Tree) -> Tree {
    let mut template = at(set, "spec.template").clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove("pod-template-hash");
    }
    template
}

#[cfg(test)]
mod tests {
    use model::tiny::{TinyWorld, at as moment, told};

    use super::*;

    /// A Deployment rolled from image 1 to image 2, with a ReplicaSet each.
    const WEB: &str = r#"
        deployments web metadata.annotations={"healing.kintsugi.dev/rollback":"auto"} spec.template.spec.containers=[{"name":"a","image":"a:2"}]
        replicasets web-1 owner=deployments/web labels=pod-template-hash:1 metadata.annotations={"deployment.kubernetes.io/revision":"1"}
            + spec.template.metadata.labels={"app":"web","pod-template-hash":"1"} spec.template.spec.containers=[{"name":"a","image":"a:1"}]
        replicasets web-2 owner=deployments/web labels=pod-template-hash:2 metadata.annotations={"deployment.kubernetes.io/revision":"2"}
            + spec.template.metadata.labels={"app":"web","pod-template-hash":"2"} spec.template.spec.containers=[{"name":"a","image":"a:2"}]
        pods old owner=replicasets/web-1 labels=pod-template-hash:1 ready@5
    "#;

    const FAILS: &str = r#"labels=pod-template-hash:2 status.phase=Running status.containerStatuses=[{"name":"a","restartCount":2}]"#;

    fn failing(count: usize) -> String {
        (0..count).map(|n| format!("pods new-{n} owner=replicasets/web-2 {FAILS}\n")).collect()
    }

    fn decide(text: &str) -> Plan {
        reconcile(&Key::new(&DEPLOYMENT, "default", "web"), &TinyWorld::read(text), moment(100))
    }

    #[test]
    fn it_goes_back_when_three_new_pods_fail_and_no_old_one_does() {
        let plan = decide(&format!("{WEB}{}", failing(3)));
        let [Act { write: Write::Replace { object, .. }, why, .. }] = &plan.acts[..] else {
            panic!("{:?}", told(&plan))
        };
        assert_eq!(why, "3 of 3 new pods fail, none of 1 old ones");
        assert_eq!(text(&object["spec"]["template"]["spec"]["containers"][0], "image"), "a:1");
        assert_eq!(object["spec"]["template"]["metadata"]["labels"], serde_json::json!({"app": "web"}));
        assert!(
            object["metadata"]["annotations"][ROLLED_BACK]
                .as_str()
                .is_some_and(|said| said.starts_with("from revision 2 to revision 1: "))
        );
    }

    #[test]
    fn it_goes_back_when_the_deadline_is_over() {
        let late = r#"status.conditions=[{"type":"Progressing","status":"False","reason":"ProgressDeadlineExceeded"}]"#;
        let world = WEB.replace("deployments web", &format!("deployments web {late}"));
        assert_eq!(decide(&format!("{world}{}", failing(1))).acts.len(), 1);
    }

    #[test]
    fn it_leaves_alone_what_may_have_another_cause_or_does_not_ask() {
        for (world, why) in [
            (format!("{WEB}{}", failing(2)), "two may have met one bad node"),
            (format!("{}{}", WEB.replace("auto", "never"), failing(3)), "nobody asked"),
            (format!("{}{}", WEB.replace("ready@5", ""), failing(3)), "no old pod is known to work"),
            (
                format!(
                    "{WEB}pods bad owner=replicasets/web-1 {}\n{}",
                    FAILS.replace(":2", ":1"),
                    failing(3)
                ),
                "old ones fail too",
            ),
            (WEB.to_owned(), "nothing fails"),
        ] {
            assert!(decide(&world).is_quiet(), "{why}");
        }
    }
}
