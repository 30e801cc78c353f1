//! What the engine promises, with small controllers, the fake server and virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use client::fake::Fake;
use client::{Caches, Client};
use host::watch;
use host::{Host, SimDisk, Task, Time};
use model::controller::EVERY;
use model::{Controller, EventNote, Gvr, Key, Plan, Precondition, Watch, World, Write};
use serde_json::json;

use crate::{Member, Setup};

const PODS: Gvr = Gvr::new("", "v1", "pods");
const SETS: Gvr = Gvr::new("apps", "v1", "replicasets");
const SETS_PATH: &str = "/apis/apps/v1/namespaces/a/replicasets";
const PODS_PATH: &str = "/api/v1/namespaces/a/pods";

/// Makes as many pods as the set says, with names that the server makes up, so that a repeat would be a second pod.
static FILL: Controller = Controller {
    name: "fill",
    primary: SETS,
    also: &[Watch { gvr: PODS, wakes: |pod, _| model::controller::owner(pod, &SETS, "ReplicaSet") }],
    reconcile: fill,
};

fn fill(key: &Key, world: &dyn World, _: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(set) = world.get(key) else {
        return plan;
    };
    let wanted = set.tree().expect("an object")["spec"]["replicas"].as_u64().unwrap_or(0) as usize;
    let there = world.owned_by(&PODS, set.uid()).len();
    for _ in there..wanted {
        let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": set.name(), "uid": set.uid(), "controller": true});
        let pod = json!({"metadata": {"generateName": "pod-", "ownerReferences": [owner]}});
        plan.create(&PODS, "a", pod, "the set has too few");
        plan.tell(EventNote::normal(&set, &SETS, "ReplicaSet", "SuccessfulCreate", "Created pod: {name}"));
        plan.otherwise(Write::Patch {
            key: key.clone(),
            part: "status",
            patch: json!({"status": {"why": "{refusal}"}}),
            when: Precondition::default(),
        });
    }
    plan
}

fn member(controller: &'static Controller) -> Member {
    Member { controller, governed: false }
}

struct Running {
    fake: Fake,
    _engine: Task<()>,
}

fn start(fake: Fake, members: Vec<Member>, lead: watch::Receiver<bool>) -> Running {
    let host = Host::simulated(1, Time::UNIX_EPOCH, SimDisk::new());
    let client = Client::new(Arc::new(fake.clone()), "engine");
    let caches = Caches::new(client.clone(), host.clone());
    let peers = Arc::new(client::NoPeers);
    let clients = Arc::new(move |_: &str| client.clone());
    let setup = Setup {
        clients,
        caches,
        host: host.clone(),
        peers,
        members,
        lead,
        terms: model::fence::Terms::LAN,
        metrics: Arc::default(),
    };
    Running { fake, _engine: host.spawn(crate::run(setup, std::future::pending())) }
}

fn started(fake: Fake, members: Vec<Member>) -> Running {
    start(fake, members, watch::channel(true).1)
}

/// Lets virtual time pass.
async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

fn set(name: &str, replicas: usize) -> model::Tree {
    json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"replicas": replicas}})
}

#[tokio::test(start_paused = true)]
async fn a_set_gets_exactly_its_pods_and_then_all_is_quiet() {
    let world = started(Fake::new(), vec![member(&FILL)]);
    world.fake.put(SETS_PATH, set("x", 40));
    pass(5).await;
    assert_eq!(world.fake.names(PODS_PATH).len(), 40);
    let gone = world.fake.names(PODS_PATH)[7].clone();
    world.fake.remove(&format!("{PODS_PATH}/{gone}"));
    pass(1).await;
    assert_eq!(world.fake.names(PODS_PATH).len(), 40);
    world.fake.take_log();
    pass(3600).await;
    assert_eq!(world.fake.take_log(), Vec::<String>::new(), "a quiet cluster is left in peace");
}

#[tokio::test(start_paused = true)]
async fn what_was_there_before_the_start_is_looked_at() {
    let fake = Fake::new();
    fake.put(SETS_PATH, set("x", 2));
    let world = started(fake, vec![member(&FILL)]);
    pass(1).await;
    assert_eq!(world.fake.names(PODS_PATH).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_was_done_and_refused_is_told_as_events_and_in_the_status() {
    let fake = Fake::new();
    fake.refuse_once("create pods", 403, "Forbidden");
    let world = started(fake, vec![member(&FILL)]);
    world.fake.put(SETS_PATH, set("x", 1));
    pass(5).await;
    assert_eq!(world.fake.names(PODS_PATH).len(), 1, "it was tried again after a rest");
    let status = &world.fake.get(&format!("{SETS_PATH}/x")).expect("the set")["status"]["why"];
    assert_eq!(status, "as the test asked");
    let events = world.fake.names("/api/v1/namespaces/a/events");
    let told: Vec<_> = events
        .iter()
        .filter_map(|name| world.fake.get(&format!("/api/v1/namespaces/a/events/{name}")))
        .map(|event| format!("{} {} {}", event["type"], event["reason"], event["message"]).replace('"', ""))
        .collect();
    let pod = &world.fake.names(PODS_PATH)[0];
    assert!(told.contains(&format!("Normal SuccessfulCreate Created pod: {pod}")), "{told:?}");
    let failed = "Warning FailedCreate Error creating: as the test asked";
    assert!(told.contains(&failed.to_owned()), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_for_a_while_is_no_failure() {
    let world = started(Fake::new(), vec![member(&FILL)]);
    world.fake.put(SETS_PATH, set("x", 1));
    pass(1).await;
    world.fake.set_cut(true);
    world.fake.put(SETS_PATH, set("x", 3));
    world.fake.put(SETS_PATH, set("y", 2));
    pass(600).await;
    world.fake.set_cut(false);
    pass(35).await;
    assert_eq!(world.fake.names(PODS_PATH).len(), 5);
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_decides() {
    let (lead, follows) = watch::channel(false);
    let world = start(Fake::new(), vec![member(&FILL)], follows);
    world.fake.put(SETS_PATH, set("x", 1));
    pass(10).await;
    assert!(world.fake.names(PODS_PATH).is_empty());
    lead.send_replace(true);
    pass(1).await;
    assert_eq!(world.fake.names(PODS_PATH).len(), 1);
    lead.send_replace(false);
    pass(1).await;
    world.fake.put(SETS_PATH, set("x", 2));
    pass(10).await;
    assert_eq!(world.fake.names(PODS_PATH).len(), 1);
    lead.send_replace(true);
    pass(1).await;
    assert_eq!(world.fake.names(PODS_PATH).len(), 2);
}

/// Writes one field at a deadline, on exactly the state it saw; in between somebody else may write.
static CLOCK: Controller = Controller { name: "clock", primary: SETS, also: &[], reconcile: tick };

fn tick(key: &Key, world: &dyn World, now: Time) -> Plan {
    let mut plan = Plan::default();
    let due = Time::UNIX_EPOCH + Duration::from_secs(100);
    match world.get(key) {
        Some(set) if set.tree().expect("an object")["status"].is_null() => match now < due {
            true => plan.wake(due),
            false => {
                let patch = json!({"status": {"at": now.to_string()}});
                plan.patch(key.clone(), "", patch, Precondition::exactly(&set), "the time has come");
            }
        },
        _ => {}
    }
    plan
}

#[tokio::test(start_paused = true)]
async fn deadlines_are_kept_to_the_millisecond() {
    let world = started(Fake::new(), vec![member(&CLOCK)]);
    world.fake.put(SETS_PATH, set("x", 0));
    pass(99).await;
    assert!(world.fake.get(&format!("{SETS_PATH}/x")).expect("the set")["status"].is_null());
    pass(2).await;
    let at = world.fake.get(&format!("{SETS_PATH}/x")).expect("the set")["status"]["at"].clone();
    let at: Time = at.as_str().expect("a time").parse().expect("a time");
    let late = at.duration_since(Time::UNIX_EPOCH).as_millis() - 100_000;
    assert!((0..=2).contains(&late), "{late} ms late");
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_is_decided_anew_on_the_new_state() {
    let fake = Fake::new();
    fake.refuse_once("patch replicasets", 409, "Conflict");
    let world = started(fake, vec![member(&CLOCK)]);
    world.fake.put(SETS_PATH, set("x", 0));
    pass(101).await;
    assert!(
        world.fake.get(&format!("{SETS_PATH}/x")).expect("the set")["status"].is_null(),
        "it waits for news"
    );
    world.fake.put(SETS_PATH, set("x", 1));
    pass(1).await;
    assert!(!world.fake.get(&format!("{SETS_PATH}/x")).expect("the set")["status"].is_null());
}

/// Says in its status what it read of its spec; somebody writes while its own write is under way.
static ECHO: Controller = Controller {
    name: "echo",
    primary: SETS,
    also: &[],
    reconcile: |key, world, _| {
        let mut plan = Plan::default();
        if let Some(set) = world.get(key) {
            let tree = set.tree().expect("an object");
            if tree["status"]["seen"] != tree["spec"]["replicas"] {
                let patch = json!({"status": {"seen": tree["spec"]["replicas"]}});
                plan.patch(
                    key.clone(),
                    "status",
                    patch,
                    Precondition::exactly(&set),
                    "it says something else",
                );
            }
        }
        plan
    },
};

#[tokio::test(start_paused = true)]
async fn a_race_lost_to_a_write_that_is_seen_before_the_refusal_is_decided_anew_at_once() {
    let fake = Fake::new();
    // The server holds answers back for a while: the news of the other write overtakes the refusal.
    fake.set_delay(Duration::from_millis(50));
    let world = started(fake, vec![member(&ECHO)]);
    world.fake.put(SETS_PATH, set("x", 1));
    pass(2).await;
    world.fake.put(SETS_PATH, set("x", 2));
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.fake.put(SETS_PATH, set("x", 3));
    pass(1).await;
    assert_eq!(world.fake.get(&format!("{SETS_PATH}/x")).expect("the set")["status"]["seen"], 3);
}

/// Panics on one key, and marks all others.
static CLUMSY: Controller = Controller {
    name: "clumsy",
    primary: SETS,
    also: &[],
    reconcile: |key, world, _| {
        assert!(key.name != "bad", "as the test asked");
        let mut plan = Plan::default();
        if let Some(set) = world.get(key)
            && set.meta().labels.is_empty()
        {
            let patch = json!({"metadata": {"labels": {"seen": "yes"}}});
            plan.patch(key.clone(), "", patch, Precondition::same(&set), "not seen yet");
        }
        plan
    },
};

#[tokio::test(start_paused = true)]
async fn a_pass_that_panics_harms_its_own_key_only() {
    let world = started(Fake::new(), vec![member(&CLUMSY)]);
    for name in ["bad", "good"] {
        world.fake.put(SETS_PATH, set(name, 0));
    }
    pass(10).await;
    assert_eq!(world.fake.take_log(), ["patch replicasets a/good"]);
}

static SEEN: AtomicUsize = AtomicUsize::new(0);

/// Counts the objects it is woken for, of whatever resource.
static COUNT: Controller = Controller {
    name: "count",
    primary: EVERY,
    also: &[],
    reconcile: |key, world, _| {
        if key.gvr.group == "example.com" && world.get(key).is_some() {
            assert!(world.resource_of("example.com/v1", "Thing").is_some());
            SEEN.fetch_add(1, Ordering::Relaxed);
        }
        Plan::default()
    },
};

#[tokio::test(start_paused = true)]
async fn custom_resources_are_followed_as_soon_as_they_are_defined() {
    let fake = Fake::new();
    let things = "/apis/example.com/v1/namespaces/a/things";
    fake.put(things, json!({"metadata": {"name": "one", "namespace": "a"}}));
    let world = started(fake, vec![member(&COUNT)]);
    pass(1).await;
    assert_eq!(SEEN.load(Ordering::Relaxed), 0);
    let definition = json!({
        "metadata": {"name": "things.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true}],
        },
        "status": {"conditions": [{"type": "Established", "status": "True"}]},
    });
    world.fake.put("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition);
    pass(1).await;
    world.fake.put(things, json!({"metadata": {"name": "two", "namespace": "a"}}));
    pass(1).await;
    assert_eq!(SEEN.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_pod_is_written_into_the_ledger() {
    let world = started(Fake::new(), vec![member(&FILL)]);
    world.fake.put(SETS_PATH, set("x", 1));
    pass(1).await;
    let lost = world.fake.names(PODS_PATH)[0].clone();
    world.fake.remove(&format!("{PODS_PATH}/{lost}"));
    pass(1).await;
    let new = world.fake.names(PODS_PATH)[0].clone();
    let path = format!("/apis/healing.kintsugi.dev/v1alpha1/namespaces/a/repairs/pod-{lost}-poddeleted");
    let repair = |fake: &Fake| fake.get(&path).expect("the repair");
    assert_eq!(repair(&world.fake)["status"]["action"], format!("replaced by {new}"));
    assert_eq!(repair(&world.fake)["status"]["outcome"], "Ongoing");
    let mut pod = world.fake.get(&format!("{PODS_PATH}/{new}")).expect("the pod");
    pod["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    world.fake.put(PODS_PATH, pod);
    pass(1).await;
    assert_eq!(repair(&world.fake)["status"]["outcome"], "Recovered");
    assert_eq!(repair(&world.fake)["status"]["recoveredAfter"], "1.0s");
    assert_eq!(repair(&world.fake)["status"]["count"], 1);
}
