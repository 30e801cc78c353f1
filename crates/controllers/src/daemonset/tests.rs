//! What a DaemonSet promises.

use model::kinds::CONTROLLER_REVISION;
use model::tiny::{TinyWorld, at};

use super::*;

const LOG: &str = r#"daemonsets log spec.selector.matchLabels.app=log spec.template.metadata.labels.app=log
    + spec.template.spec.containers=[{"name":"c","image":"log:1"}] spec.updateStrategy.type=RollingUpdate
    nodes a
    nodes b
    nodes c spec.taints=[{"key":"k","effect":"NoSchedule"}]
    nodes d spec.unschedulable=true
    "#;

fn key() -> Key {
    Key::new(&DAEMON_SET, "default", "log")
}

fn decide(world: &TinyWorld, now: i64) -> Plan {
    reconcile(&key(), world, at(now))
}

/// Binds and readies every pod, until quiet.
fn run(world: &mut TinyWorld, now: i64, law: impl Fn(&TinyWorld)) {
    for _ in 0..60 {
        let plan = decide(world, now);
        world.apply(&plan, at(now)).expect("the plan is carried out");
        law(world);
        let waiting: Vec<Pod> =
            Pod::all(world.list(&POD, "")).into_iter().filter(|pod| pod.phase().is_empty()).collect();
        if plan.is_quiet() && waiting.is_empty() {
            return;
        }
        for pod in waiting {
            let mut plan = Plan::default();
            let patch = json!({"spec": {"nodeName": node_of(&pod)}, "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True", "lastTransitionTime": at(now).to_string()}]}});
            plan.patch(Key::new(&POD, "default", pod.name()), "", patch, Precondition::default(), "it runs");
            world.apply(&plan, at(now)).expect("it may run");
        }
    }
    panic!("not quiet: {:?}", model::tiny::told(&decide(world, now)));
}

fn nodes(world: &TinyWorld) -> Vec<String> {
    let mut nodes: Vec<String> = Pod::all(world.list(&POD, "")).iter().map(node_of).collect();
    nodes.sort();
    nodes
}

#[test]
fn every_welcoming_node_has_one_pod() {
    let mut world = TinyWorld::read(LOG);
    run(&mut world, 5, |_| {});
    assert_eq!(nodes(&world), ["a", "b", "d"]);
    let status = world.tree(&key()).map(|tree| tree["status"].clone()).unwrap_or_default();
    assert_eq!(status["desiredNumberScheduled"], 3);
    assert_eq!(status["numberAvailable"], 3);
    assert_eq!(world.list(&CONTROLLER_REVISION, "").len(), 1);
}

#[test]
fn rests_before_replacing_a_failed_pod() {
    let mut world = TinyWorld::read(LOG);
    run(&mut world, 5, |_| {});
    let pod = world.list(&POD, "").remove(0);
    let mut plan = Plan::default();
    let patch = json!({"status": {"phase": "Failed", "containerStatuses": [
        {"name": "c", "state": {"terminated": {"exitCode": 1, "finishedAt": at(6).to_string()}}}]}});
    plan.patch(Key::new(&POD, "default", pod.name()), "", patch, Precondition::default(), "it fails");
    world.apply(&plan, at(6)).expect("it may fail");
    assert_eq!(decide(&world, 15).wake_at, Some(at(16)));
    let told = model::tiny::told(&decide(&world, 16));
    assert!(told[0].starts_with(&format!("delete pods {}", pod.name())), "{told:?}");
}

#[test]
fn rolling_makes_one_pod_unavailable_at_a_time() {
    let mut world = TinyWorld::read(LOG);
    run(&mut world, 5, |_| {});
    let mut plan = Plan::default();
    let template = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "log:2"}]}}}});
    plan.patch(key(), "", template, Precondition::default(), "an update");
    world.apply(&plan, at(9)).expect("the user may");
    run(&mut world, 9, |world| {
        let available = Pod::all(world.list(&POD, "")).iter().filter(|pod| pod.is_ready()).count();
        assert!(available >= 2, "at most one unavailable");
    });
    let images = world
        .list(&POD, "")
        .iter()
        .all(|pod| pod.tree().expect("a pod")["spec"]["containers"][0]["image"] == "log:2");
    assert!(images && nodes(&world).len() == 3);
    let mut numbers: Vec<i64> =
        world.list(&CONTROLLER_REVISION, "").into_iter().map(|one| revisions_number(&one)).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
}

fn revisions_number(object: &Object) -> i64 {
    object.tree().expect("a revision")["revision"].as_i64().unwrap_or(0)
}

#[test]
fn a_node_that_no_longer_fits_loses_its_pod() {
    let mut world = TinyWorld::read(LOG);
    run(&mut world, 5, |_| {});
    world.also("nodes b spec.taints=[{\"key\":\"k\",\"effect\":\"NoExecute\"}]");
    run(&mut world, 6, |_| {});
    assert_eq!(nodes(&world), ["a", "d"]);
}
