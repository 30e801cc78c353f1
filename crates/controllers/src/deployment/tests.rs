//! What a Deployment promises, with its ReplicaSets and a node that makes every pod ready at once.

use model::kinds::{DEPLOYMENT, POD, REPLICA_SET};
use model::tiny::{TinyWorld, at, check, told};
use model::{Gvr, Key, Plan, Time, World};
use serde_json::json;

use super::reconcile;
use crate::replicaset;

fn decide(world: &dyn World, now: Time) -> Plan {
    reconcile(&web(), world, now)
}

fn web() -> Key {
    Key::new(&DEPLOYMENT, "default", "web")
}

const WEB: &str = r#"deployments web spec.replicas=3 spec.selector.matchLabels.app=web spec.progressDeadlineSeconds=600
    + spec.template.metadata.labels.app=web spec.template.spec.containers=[{"name":"a","image":"a:1"}]
    + spec.strategy={"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"}}"#;

fn keys(world: &dyn World, gvr: &Gvr) -> Vec<Key> {
    world.list(gvr, "").iter().map(|object| Key::new(gvr, object.namespace(), object.name())).collect()
}

/// One round: the Deployment, its ReplicaSets, and a node on which pods whose image is not `bad` become ready.
fn round(world: &mut TinyWorld, now: i64) -> bool {
    let mut quiet = true;
    let plan = decide(world, at(now));
    quiet &= plan.is_quiet();
    world.apply(&plan, at(now)).expect("the Deployment's plan is carried out");
    for key in keys(world, &REPLICA_SET) {
        let plan = replicaset::reconcile(&key, world, at(now));
        quiet &= plan.is_quiet();
        world.apply(&plan, at(now)).expect("the ReplicaSet's plan is carried out");
    }
    for key in keys(world, &POD) {
        let tree = world.tree(&key).cloned().unwrap_or_default();
        if tree["spec"]["containers"][0]["image"] == "bad" || tree["status"]["phase"] == "Running" {
            continue;
        }
        quiet = false;
        let mut plan = Plan::default();
        let status = json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": at(now).to_string()}]});
        plan.patch(key, "status", json!({"status": status}), Default::default(), "runs");
        world.apply(&plan, at(now)).expect("a pod runs");
    }
    quiet
}

fn until_quiet(world: &mut TinyWorld, now: i64, mut law: impl FnMut(&TinyWorld)) {
    for _ in 0..200 {
        law(world);
        if round(world, now) {
            return;
        }
    }
    panic!("not quiet: {:?}", told(&decide(world, at(now))));
}

fn update(world: &mut TinyWorld, patch: serde_json::Value) {
    let mut plan = Plan::default();
    plan.patch(web(), "", patch, Default::default(), "the user's wish");
    world.apply(&plan, at(0)).expect("the user may");
}

fn image(name: &str) -> serde_json::Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "a", "image": name}]}}}})
}

fn sizes(world: &TinyWorld) -> Vec<(String, i64)> {
    let sets = keys(world, &REPLICA_SET);
    let mut sizes: Vec<_> = sets
        .iter()
        .filter_map(|key| world.tree(key))
        .map(|set| {
            let image =
                set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
            (image.to_owned(), set["spec"]["replicas"].as_i64().unwrap_or(1))
        })
        .collect();
    sizes.sort();
    sizes
}

fn condition(world: &TinyWorld, kind: &str) -> (String, String) {
    let conditions = world.tree(&web()).map(|tree| tree["status"]["conditions"].clone()).unwrap_or_default();
    let found =
        conditions.as_array().into_iter().flatten().find(|condition| condition["type"] == kind).cloned();
    let found = found.unwrap_or_default();
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"))
}

#[test]
fn a_new_deployment_makes_one_replicaset_with_its_hash() {
    check(
        WEB,
        0,
        decide,
        r#"create replicasets web-* {"spec":{"replicas":3,"selector":{"matchLabels":{"app":"web"}}},"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1","deployment.kubernetes.io/desired-replicas":"3","deployment.kubernetes.io/max-replicas":"4"},"ownerReferences":[{"kind":"Deployment","controller":true}]}}
           patch deployments web/status {"status":{"observedGeneration":1}}"#,
    );
}

#[test]
fn a_new_deployment_becomes_available_and_quiet() {
    let mut world = TinyWorld::read(WEB);
    until_quiet(&mut world, 0, |_| {});
    let status = world.tree(&web()).expect("it is there")["status"].clone();
    assert_eq!(status["availableReplicas"], 3);
    assert_eq!(status["updatedReplicas"], 3);
    assert_eq!(condition(&world, "Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    assert_eq!(condition(&world, "Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    let annotations = &world.tree(&web()).expect("it is there")["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "1");
}

#[test]
fn rolling_keeps_within_its_bounds_and_ends_with_the_new_template() {
    let mut world = TinyWorld::read(WEB);
    until_quiet(&mut world, 0, |_| {});
    update(&mut world, image("a:2"));
    until_quiet(&mut world, 5, |world| {
        let pods = world.list(&POD, "");
        assert!(pods.len() <= 4, "at most one more than asked for");
        let ready =
            pods.iter().filter(|pod| pod.tree().expect("a pod")["status"]["phase"] == "Running").count();
        assert!(ready >= 3, "at most none missing: a quarter of three rounds down");
    });
    assert_eq!(sizes(&world), [("a:1".into(), 0), ("a:2".into(), 3)]);
}

#[test]
fn going_back_takes_up_the_old_replicaset_as_a_new_revision() {
    let mut world = TinyWorld::read(WEB);
    until_quiet(&mut world, 0, |_| {});
    update(&mut world, image("a:2"));
    until_quiet(&mut world, 5, |_| {});
    update(&mut world, image("a:1"));
    until_quiet(&mut world, 9, |_| {});
    assert_eq!(sizes(&world), [("a:1".into(), 3), ("a:2".into(), 0)]);
    let annotations = &world.tree(&web()).expect("it is there")["metadata"]["annotations"];
    assert_eq!(annotations["deployment.kubernetes.io/revision"], "3");
}

#[test]
fn a_bad_template_stops_rolling_and_its_deadline_passes() {
    let mut world = TinyWorld::read(WEB);
    until_quiet(&mut world, 0, |_| {});
    update(&mut world, image("bad"));
    until_quiet(&mut world, 5, |_| {});
    assert_eq!(sizes(&world), [("a:1".into(), 3), ("bad".into(), 1)]);
    assert_eq!(decide(&world, at(10)).wake_at, Some(at(605)));
    until_quiet(&mut world, 605, |_| {});
    assert_eq!(condition(&world, "Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(condition(&world, "Available"), ("True".into(), "MinimumReplicasAvailable".into()));
}

#[test]
fn recreate_never_has_old_and_new_pods_at_once() {
    let mut world = TinyWorld::read(WEB);
    update(&mut world, json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}}));
    until_quiet(&mut world, 0, |_| {});
    update(&mut world, image("a:2"));
    until_quiet(&mut world, 5, |world| {
        let images: std::collections::BTreeSet<String> = world
            .list(&POD, "")
            .iter()
            .map(|pod| pod.tree().expect("a pod")["spec"]["containers"][0]["image"].to_string())
            .collect();
        assert!(images.len() <= 1, "{images:?}");
    });
    assert_eq!(sizes(&world), [("a:1".into(), 0), ("a:2".into(), 3)]);
}

#[test]
fn history_beyond_its_limit_goes() {
    let mut world = TinyWorld::read(WEB);
    update(&mut world, json!({"spec": {"revisionHistoryLimit": 1}}));
    for n in 1..5 {
        update(&mut world, image(&format!("a:{n}")));
        until_quiet(&mut world, n, |_| {});
    }
    assert_eq!(sizes(&world), [("a:3".into(), 0), ("a:4".into(), 3)]);
}

#[test]
fn scaling_amid_a_rollout_is_in_proportion() {
    let mut world = TinyWorld::read(WEB);
    let rolling = json!({"maxSurge": 3, "maxUnavailable": 2});
    update(&mut world, json!({"spec": {"replicas": 10, "strategy": {"rollingUpdate": rolling}}}));
    until_quiet(&mut world, 0, |_| {});
    update(&mut world, image("bad"));
    until_quiet(&mut world, 5, |_| {});
    assert_eq!(sizes(&world), [("a:1".into(), 8), ("bad".into(), 5)]);
    update(&mut world, json!({"spec": {"replicas": 30}}));
    until_quiet(&mut world, 9, |_| {});
    assert_eq!(sizes(&world), [("a:1".into(), 20), ("bad".into(), 13)]);
}

#[test]
fn a_paused_deployment_scales_and_does_not_roll() {
    let mut world = TinyWorld::read(WEB);
    until_quiet(&mut world, 0, |_| {});
    update(&mut world, json!({"spec": {"paused": true, "replicas": 5}}));
    update(&mut world, image("a:2"));
    until_quiet(&mut world, 5, |_| {});
    assert_eq!(sizes(&world), [("a:1".into(), 5)]);
    assert_eq!(condition(&world, "Progressing"), ("Unknown".into(), "DeploymentPaused".into()));
    update(&mut world, json!({"spec": {"paused": null}}));
    until_quiet(&mut world, 9, |_| {});
    assert_eq!(sizes(&world), [("a:1".into(), 0), ("a:2".into(), 5)]);
}

#[test]
fn a_replicaset_that_matches_is_adopted_with_its_revision() {
    let world = r#"deployments web spec.replicas=1 spec.selector.matchLabels.app=web spec.template.metadata.labels.app=web
        replicasets old labels=app:web spec.replicas=1 spec.template.spec.x=1
        + metadata.annotations.[deployment.kubernetes.io/revision]="3546343826724305832""#;
    let mut world = TinyWorld::read(world);
    let plan = decide(&world, at(0));
    assert!(told(&plan)[0].starts_with("patch replicasets old"), "{:?}", told(&plan));
    world.apply(&plan, at(0)).expect("it is adopted");
    let plan = decide(&world, at(0));
    assert!(told(&plan)[0].contains("3546343826724305833"), "{:?}", told(&plan));
}
