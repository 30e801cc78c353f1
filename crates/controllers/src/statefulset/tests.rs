//! What a StatefulSet promises.

use model::kinds::{CONTROLLER_REVISION, PERSISTENT_VOLUME_CLAIM};
use model::tiny::{TinyWorld, at, told};

use super::*;

const DB: &str = r#"statefulsets db spec.replicas=3 spec.serviceName=db spec.selector.matchLabels.app=db
    + spec.template.metadata.labels.app=db spec.template.spec.containers=[{"name":"c","image":"db:1"}]
    + spec.updateStrategy={"type":"RollingUpdate","rollingUpdate":{"partition":0}}
    + spec.volumeClaimTemplates=[{"metadata":{"name":"data"},"spec":{"accessModes":["ReadWriteOnce"]}}]
    "#;

fn key() -> Key {
    Key::new(&STATEFUL_SET, "default", "db")
}

fn decide(world: &TinyWorld) -> Plan {
    reconcile(&key(), world, at(5))
}

fn names(world: &TinyWorld) -> Vec<String> {
    world.list(&POD, "").iter().map(|pod| pod.name().to_owned()).collect()
}

/// Readies one pod that is not; says whether there was one.
fn ready_one(world: &mut TinyWorld) -> bool {
    let pods = Pod::all(world.list(&POD, ""));
    let Some(pod) = pods.iter().find(|pod| pod.phase().is_empty()) else { return false };
    let mut plan = Plan::default();
    let patch = json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": at(1).to_string()}]}});
    plan.patch(Key::new(&POD, "default", pod.name()), "", patch, Precondition::default(), "it runs");
    world.apply(&plan, at(5)).expect("it may run");
    true
}

fn settle(world: &mut TinyWorld) {
    world.settle(20, at(5), decide);
}

fn run(world: &mut TinyWorld, law: impl Fn(&TinyWorld)) {
    for _ in 0..60 {
        settle(world);
        law(world);
        if !ready_one(world) {
            return;
        }
    }
    panic!("not quiet: {:?}", told(&decide(world)));
}

fn update(world: &mut TinyWorld, patch: Tree) {
    let mut plan = Plan::default();
    plan.patch(key(), "", patch, Precondition::default(), "the user's wish");
    world.apply(&plan, at(5)).expect("the user may");
}

fn images(world: &TinyWorld) -> Vec<String> {
    let pods = world.list(&POD, "");
    let image = |pod: &Object| {
        pod.tree().expect("a pod")["spec"]["containers"][0]["image"].as_str().map(str::to_owned)
    };
    pods.iter().filter_map(image).collect()
}

fn status_of(world: &TinyWorld) -> Tree {
    world.tree(&key()).map(|tree| tree["status"].clone()).unwrap_or_default()
}

#[test]
fn pods_start_in_order_each_with_its_claim() {
    let mut world = TinyWorld::read(DB);
    settle(&mut world);
    assert_eq!(names(&world), ["db-0"]);
    assert!(world.get(&Key::new(&PERSISTENT_VOLUME_CLAIM, "default", "data-db-0")).is_some());
    ready_one(&mut world);
    settle(&mut world);
    assert_eq!(names(&world), ["db-0", "db-1"]);
    run(&mut world, |_| {});
    assert_eq!(names(&world), ["db-0", "db-1", "db-2"]);
    let pod = world.get(&Key::new(&POD, "default", "db-2")).expect("it is there").tree().expect("a pod");
    assert_eq!(pod["spec"]["hostname"], "db-2");
    assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], "2");
    assert_eq!(pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"], "data-db-2");
    let status = status_of(&world);
    assert_eq!(status["availableReplicas"], 3);
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn parallel_pods_wait_for_nobody() {
    let mut world =
        TinyWorld::read(&DB.replace("spec.replicas=3", "spec.replicas=3 spec.podManagementPolicy=Parallel"));
    settle(&mut world);
    assert_eq!(names(&world), ["db-0", "db-1", "db-2"]);
}

#[test]
fn the_last_pod_goes_first_and_claims_stay() {
    let mut world = TinyWorld::read(DB);
    run(&mut world, |_| {});
    update(&mut world, json!({"spec": {"replicas": 1}}));
    let deletes =
        told(&decide(&world)).iter().filter(|line| line.starts_with("delete")).cloned().collect::<Vec<_>>();
    assert!(deletes.len() == 1 && deletes[0].starts_with("delete pods db-2"), "{deletes:?}");
    settle(&mut world);
    assert_eq!(names(&world), ["db-0"]);
    assert_eq!(world.list(&PERSISTENT_VOLUME_CLAIM, "").len(), 3);
}

#[test]
fn scaling_down_waits_for_an_unready_pod() {
    let mut world = TinyWorld::read(DB);
    run(&mut world, |_| {});
    let mut plan = Plan::default();
    let patch = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    plan.patch(Key::new(&POD, "default", "db-0"), "", patch, Precondition::default(), "it breaks");
    world.apply(&plan, at(5)).expect("it may break");
    update(&mut world, json!({"spec": {"replicas": 2}}));
    settle(&mut world);
    assert_eq!(names(&world), ["db-0", "db-1", "db-2"]);
}

#[test]
fn updates_go_from_the_last_to_the_first_and_stop_at_the_partition() {
    let mut world = TinyWorld::read(DB);
    run(&mut world, |_| {});
    update(
        &mut world,
        json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}, "template": {"spec":
        {"containers": [{"name": "c", "image": "db:2"}]}}}}),
    );
    run(&mut world, |world| {
        let ready = Pod::all(world.list(&POD, "")).iter().filter(|pod| pod.is_ready()).count();
        assert!(ready >= 2, "at most one missing");
    });
    assert_eq!(images(&world), ["db:1", "db:2", "db:2"]);
    assert_ne!(status_of(&world)["currentRevision"], status_of(&world)["updateRevision"]);
    world.drop(&Key::new(&POD, "default", "db-0"));
    run(&mut world, |_| {});
    assert_eq!(images(&world), ["db:1", "db:2", "db:2"], "below the partition the old template stays");
    update(&mut world, json!({"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}));
    run(&mut world, |_| {});
    assert_eq!(images(&world), ["db:2", "db:2", "db:2"]);
    assert_eq!(status_of(&world)["currentRevision"], status_of(&world)["updateRevision"]);
}

#[test]
fn going_back_takes_up_the_old_revision_by_its_name() {
    let mut world = TinyWorld::read(DB);
    run(&mut world, |_| {});
    let first = status_of(&world)["updateRevision"].clone();
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    update(&mut world, image("db:2"));
    run(&mut world, |_| {});
    assert_ne!(status_of(&world)["updateRevision"], first);
    update(&mut world, image("db:1"));
    run(&mut world, |_| {});
    assert_eq!(status_of(&world)["updateRevision"], first);
    let mut numbers: Vec<i64> = world
        .list(&CONTROLLER_REVISION, "")
        .iter()
        .map(|one| one.tree().expect("a revision")["revision"].as_i64().unwrap_or(0))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3]);
}

#[test]
fn a_failed_pod_is_made_anew_under_its_name() {
    let mut world = TinyWorld::read(DB);
    run(&mut world, |_| {});
    world.also("pods db-1 labels=app:db owner=statefulsets/db failed");
    run(&mut world, |_| {});
    let pod = world.get(&Key::new(&POD, "default", "db-1")).expect("it is there");
    assert_ne!(pod.uid(), "pods-db-1");
}

#[test]
fn claims_go_with_the_set_where_asked_for() {
    let policy = "spec.replicas=3 spec.persistentVolumeClaimRetentionPolicy={\"whenDeleted\":\"Delete\",\"whenScaled\":\"Delete\"}";
    let mut world = TinyWorld::read(&DB.replace("spec.replicas=3", policy));
    run(&mut world, |_| {});
    let owner = |world: &TinyWorld, claim: &str| {
        let claim = world.get(&Key::new(&PERSISTENT_VOLUME_CLAIM, "default", claim));
        claim.and_then(|claim| claim.meta().owner_references.first().map(|owner| owner.kind.clone()))
    };
    assert_eq!(owner(&world, "data-db-2"), Some("StatefulSet".into()));
    update(&mut world, json!({"spec": {"replicas": 2}}));
    settle(&mut world);
    assert_eq!(owner(&world, "data-db-2"), Some("Pod".into()));
    assert_eq!(owner(&world, "data-db-1"), Some("StatefulSet".into()));
}
