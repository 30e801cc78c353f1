//! A controller that is cut off between any two of its writes gets there all the same, and is quiet then.

use std::ops::ControlFlow;
use std::sync::Mutex;

use anyhow::Result;
use serde_json::json;
use sim::crashes::Trial;
use sim::crew;

/// More crashes than that in one trial say that something writes without end.
const SYNCS_MAX: u64 = 400;

/// Every k-th sync of `trial` is tried, for every k.
fn check(trial: Result<Trial>) {
    let trial = trial.expect("a good trial");
    let peace = trial.run(None).expect("a run");
    assert_eq!(peace.faults, Vec::<String>::new(), "{} in peace", trial.name);
    assert!((1..SYNCS_MAX).contains(&peace.syncs), "{} takes {} syncs", trial.name, peace.syncs);
    let failed = Mutex::new(Vec::new());
    crew::each(0..peace.syncs, crew::threads(), |cut_after| {
        let faults =
            trial.run(Some(cut_after)).map_or_else(|error| vec![format!("{error:#}")], |ran| ran.faults);
        if !faults.is_empty() {
            let told = format!("{} cut after sync {cut_after}:\n  {}", trial.name, faults.join("\n  "));
            failed.lock().expect("no other run panicked").push(told);
        }
        ControlFlow::Continue(())
    });
    let failed = failed.into_inner().expect("no run panicked");
    assert!(failed.is_empty(), "{} of {} failed\n{}", failed.len(), peace.syncs, failed.join("\n"));
}

#[test]
fn a_deployment_is_rolled_out_and_updated_and_goes() {
    let web = |release: &str| json!({"replicas": 2, "grace": "1s", "labels": {"release": release}});
    let there = "deployment web observed=true updated=2 available=2 replicas=2 replicasets=1";
    let trial = || {
        Trial::new("deployment")
            .apply("deployment web", web("r1"), &[there, "pods web count=2 ready=2"])?
            .apply(
                "deployment web",
                web("r2"),
                &[
                    "deployment web spec.template.metadata.labels.release=r2",
                    there,
                    "pods web count=2 ready=2",
                ],
            )?
            .act("delete deployment web", &["deployment web gone", "pods web count=0"])
    };
    check(trial());
}

#[test]
fn a_replica_set_keeps_its_count() {
    let trial = || {
        Trial::new("replicaset")
            .apply(
                "replicaset set",
                json!({"replicas": 2, "grace": "1s"}),
                &["replicaset set ready=2 replicas=2"],
            )?
            .act(
                "delete pod set-1",
                &["pod set-1 gone", "replicaset set ready=2 replicas=2", "pods set count=2"],
            )?
            .act("scale replicaset set 1", &["replicaset set ready=1 replicas=1", "pods set count=1"])
    };
    check(trial());
}

#[test]
fn a_stateful_set_starts_updates_and_shrinks_in_order() {
    let db = |release: &str| json!({"replicas": 2, "grace": "1s", "labels": {"release": release}});
    let trial = || {
        Trial::new("statefulset")
            .apply("statefulset db", db("r1"), &["statefulset db ready=2 replicas=2"])?
            .apply(
                "statefulset db",
                db("r2"),
                &["statefulset db status.observedGeneration=2 ready=2 updated=2"],
            )?
            .act("scale statefulset db 1", &["pod db-1 gone", "statefulset db ready=1 replicas=1"])
    };
    check(trial());
}

#[test]
fn a_daemon_set_is_on_each_node_once() {
    let each = |release: &str| json!({"grace": "1s", "labels": {"release": release}});
    let there =
        "daemonset each status.numberReady=2 status.updatedNumberScheduled=2 status.currentNumberScheduled=2";
    let trial = || {
        Trial::new("daemonset").apply("daemonset each", each("r1"), &[there, "pods each count=2"])?.apply(
            "daemonset each",
            each("r2"),
            &["daemonset each status.observedGeneration=2", there, "pods each count=2"],
        )
    };
    check(trial());
}

#[test]
fn a_job_counts_each_pod_once() {
    let sum = json!({"completions": 3, "parallelism": 2, "runs": "exit 0 after 1s"});
    let trial = || {
        Trial::new("job").apply(
            "job sum",
            sum,
            &["job sum Complete=True succeeded=3", "pods sum count=3 succeeded=3"],
        )
    };
    check(trial());
}

#[test]
fn a_cron_job_starts_one_job_a_time() {
    // The minute after every simulation begins, counted from 1970.
    let (first, second) = ("job tick-29453761", "job tick-29453762");
    let tick = json!({"spec": {"schedule": "* * * * *", "successfulJobsHistoryLimit": 1, "jobTemplate": {"spec": {"template": {
        "spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "web:1", "args": ["exit 0 after 1s"]}]}}}}}});
    let rests = json!({"spec": {"suspend": true}});
    let done = |job: &str| format!("{job} Complete=True succeeded=1");
    let trial = || {
        Trial::new("cronjob")
            .apply("cronjob tick", tick, &[&done(first)])?
            .apply("cronjob tick", json!({}), &[&done(second), &format!("{first} gone")])?
            .apply("cronjob tick", rests, &["cronjob tick spec.suspend=true"])
    };
    check(trial());
}
