//! What a Job promises, with pods that end as the test says.

use model::tiny::{TinyWorld, at, told};

use super::*;

const BASE: &str = r#"jobs work spec.selector.matchLabels.job=work spec.template.metadata.labels.job=work
    + spec.template.spec={"restartPolicy":"Never","containers":[{"name":"c"}]}"#;

fn key() -> Key {
    Key::new(&JOB, "default", "work")
}

fn world(more: &str) -> TinyWorld {
    TinyWorld::read(&format!("{BASE} {more}"))
}

fn settle(world: &mut TinyWorld, now: i64) {
    world.settle(30, at(now), |world| reconcile(&key(), world, at(now)));
}

/// Ends a pod that runs; `None` when there is none for which `choose` holds.
fn end_pod(world: &mut TinyWorld, now: i64, code: i32, choose: impl Fn(&Pod) -> bool) -> Option<String> {
    let pods = Pod::all(world.list(&POD, ""));
    let pod = pods.iter().find(|pod| pod.is_active() && choose(pod))?;
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let mut plan = Plan::default();
    let patch = json!({"status": {"phase": phase, "containerStatuses": [
        {"name": "c", "state": {"terminated": {"exitCode": code, "finishedAt": at(now).to_string()}}}]}});
    plan.patch(Key::new(&POD, "default", pod.name()), "", patch, Precondition::default(), "it ends");
    world.apply(&plan, at(now)).expect("it may end");
    settle(world, now);
    Some(pod.name().to_owned())
}

fn status_of(world: &TinyWorld) -> Tree {
    world.tree(&key()).map(|tree| tree["status"].clone()).unwrap_or_default()
}

fn ended(world: &TinyWorld) -> Option<(String, String)> {
    let status = status_of(world);
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let over = conditions.iter().find(|one| one["type"] == "Complete" || one["type"] == "Failed")?;
    assert_eq!(
        (&status["active"], &status["terminating"], &status["ready"]),
        (&Tree::Null, &json!(0), &json!(0))
    );
    Some((over["type"].as_str()?.to_owned(), over["reason"].as_str()?.to_owned()))
}

fn over(kind: &str, reason: &str) -> Option<(String, String)> {
    Some((kind.to_owned(), reason.to_owned()))
}

fn active(world: &TinyWorld) -> usize {
    Pod::all(world.list(&POD, "")).iter().filter(|pod| pod.is_active()).count()
}

#[test]
fn it_runs_so_many_at_once_until_so_many_succeeded() {
    let mut world = world("spec.completions=3 spec.parallelism=2");
    settle(&mut world, 1);
    assert_eq!(active(&world), 2);
    for _ in 0..3 {
        assert!(ended(&world).is_none());
        end_pod(&mut world, 2, 0, |_| true).expect("one runs");
        assert!(active(&world) <= 2);
    }
    assert_eq!(ended(&world), over("Complete", "CompletionsReached"));
    assert_eq!(status_of(&world)["succeeded"], 3);
    assert!(world.list(&POD, "").iter().all(|pod| pod.meta().finalizers.is_empty()), "every pod is let go");
}

#[test]
fn an_end_is_counted_once_even_when_its_pod_vanishes() {
    let mut world = world("spec.completions=2 spec.parallelism=1");
    settle(&mut world, 1);
    let name = end_pod(&mut world, 2, 0, |_| true).expect("one runs");
    world.drop(&Key::new(&POD, "default", name));
    settle(&mut world, 3);
    assert_eq!(status_of(&world)["succeeded"], 1);
    assert_eq!(status_of(&world)["uncountedTerminatedPods"], json!({}));
}

#[test]
fn it_rests_longer_after_each_failure_and_gives_up_at_its_limit() {
    let mut world = world("spec.completions=1 spec.parallelism=1 spec.backoffLimit=1");
    settle(&mut world, 1);
    end_pod(&mut world, 2, 1, |_| true).expect("one runs");
    assert_eq!(active(&world), 0);
    assert_eq!(reconcile(&key(), &world, at(3)).wake_at, Some(at(12)));
    settle(&mut world, 12);
    assert_eq!(active(&world), 1);
    end_pod(&mut world, 20, 1, |_| true).expect("one runs");
    assert_eq!(ended(&world), over("Failed", "BackoffLimitExceeded"));
    assert_eq!(status_of(&world)["failed"], 2);
}

#[test]
fn each_index_has_one_pod_that_knows_it() {
    let mut world = world("spec.completions=3 spec.parallelism=3 spec.completionMode=Indexed");
    settle(&mut world, 1);
    let mut indexes: Vec<Option<i64>> = Pod::all(world.list(&POD, "")).iter().map(start::index_of).collect();
    indexes.sort();
    assert_eq!(indexes, [Some(0), Some(1), Some(2)]);
    let pod = world.list(&POD, "").remove(0).tree().expect("a pod");
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    assert_eq!(pod["spec"]["hostname"], "work-0");
    for index in [0, 2] {
        end_pod(&mut world, 2, 0, |pod| start::index_of(pod) == Some(index));
    }
    assert_eq!(status_of(&world)["completedIndexes"], "0,2");
    end_pod(&mut world, 2, 0, |_| true);
    assert_eq!(status_of(&world)["completedIndexes"], "0-2");
    assert_eq!(ended(&world), over("Complete", "CompletionsReached"));
}

#[test]
fn failed_indexes_are_tried_so_often_each() {
    let mut world = world(
        "spec.completions=4 spec.parallelism=4 spec.completionMode=Indexed spec.backoffLimitPerIndex=1",
    );
    for now in (1..200).step_by(30) {
        settle(&mut world, now);
        for index in 0..4 {
            end_pod(&mut world, now, i32::from(index % 2 == 1), |pod| start::index_of(pod) == Some(index));
        }
    }
    assert_eq!(ended(&world), over("Failed", "FailedIndexes"));
    let status = status_of(&world);
    assert_eq!((&status["failed"], &status["succeeded"]), (&json!(4), &json!(2)));
    assert_eq!((&status["failedIndexes"], &status["completedIndexes"]), (&json!("1,3"), &json!("0,2")));
}

#[test]
fn a_rule_may_end_the_job_or_ignore_a_failure() {
    let rule = |action: &str| {
        format!(
            r#"spec.completions=1 spec.backoffLimit=0 spec.podFailurePolicy.rules=[{{"action":"{action}","onExitCodes":{{"operator":"In","values":[42]}}}}]"#
        )
    };
    let mut failing = world(&rule("FailJob"));
    settle(&mut failing, 1);
    end_pod(&mut failing, 2, 42, |_| true);
    assert_eq!(ended(&failing), over("Failed", "PodFailurePolicy"));
    let mut ignoring = world(&rule("Ignore"));
    settle(&mut ignoring, 1);
    end_pod(&mut ignoring, 2, 42, |_| true);
    settle(&mut ignoring, 60);
    assert_eq!((ended(&ignoring), active(&ignoring)), (None, 1));
    end_pod(&mut ignoring, 61, 1, |_| true);
    assert_eq!(ended(&ignoring), over("Failed", "BackoffLimitExceeded"));
}

#[test]
fn some_indexes_may_be_enough() {
    let mut world = world(
        r#"spec.completions=3 spec.parallelism=3 spec.completionMode=Indexed spec.successPolicy.rules=[{"succeededIndexes":"0"}]"#,
    );
    settle(&mut world, 1);
    end_pod(&mut world, 2, 0, |pod| start::index_of(pod) == Some(0));
    assert_eq!(ended(&world), over("Complete", "SuccessPolicy"));
    assert_eq!(status_of(&world)["completedIndexes"], "0");
}

#[test]
fn a_suspended_job_runs_nothing_until_it_goes_on() {
    let mut world = world("spec.completions=1 spec.suspend=true");
    settle(&mut world, 1);
    assert_eq!(active(&world), 0);
    assert_eq!(status_of(&world)["conditions"][0]["reason"], "JobSuspended");
    let mut plan = Plan::default();
    plan.patch(key(), "", json!({"spec": {"suspend": false}}), Precondition::default(), "the user's wish");
    world.apply(&plan, at(5)).expect("the user may");
    settle(&mut world, 5);
    assert_eq!(active(&world), 1);
    assert_eq!(status_of(&world)["startTime"], "1970-01-01T00:00:05Z");
}

#[test]
fn a_deadline_ends_it_and_it_goes_after_its_time() {
    let mut world = world("spec.completions=1 spec.activeDeadlineSeconds=10 spec.ttlSecondsAfterFinished=5");
    settle(&mut world, 1);
    assert_eq!(reconcile(&key(), &world, at(2)).wake_at, Some(at(11)));
    settle(&mut world, 11);
    assert_eq!(
        ended(&world),
        over("Failed", "DeadlineExceeded"),
        "{:?}",
        told(&reconcile(&key(), &world, at(11)))
    );
    assert_eq!(reconcile(&key(), &world, at(12)).wake_at, Some(at(16)));
    settle(&mut world, 16);
    assert!(world.get(&key()).is_none());
}

#[test]
fn a_pod_that_no_longer_matches_is_let_go_whole() {
    let mut world = world("spec.completions=1 spec.parallelism=1");
    settle(&mut world, 1);
    let name = world.list(&POD, "")[0].name().to_owned();
    let mut plan = Plan::default();
    let patch = json!({"metadata": {"labels": null}});
    plan.patch(
        Key::new(&POD, "default", name.as_str()),
        "",
        patch,
        Precondition::default(),
        "it is taken out",
    );
    world.apply(&plan, at(2)).expect("labels may go");
    settle(&mut world, 2);
    let pod = world.get(&Key::new(&POD, "default", name.as_str())).expect("it is there still");
    assert!(pod.controller().is_none() && pod.meta().finalizers.is_empty());
    assert_eq!(active(&world), 2, "another took its place");
}

#[test]
fn pods_whose_job_is_gone_are_let_go() {
    let mut world = world("spec.completions=2 spec.parallelism=2");
    settle(&mut world, 1);
    world.drop(&key());
    settle(&mut world, 2);
    assert!(world.list(&POD, "").iter().all(|pod| pod.meta().finalizers.is_empty()));
}

#[test]
fn sets_of_indexes_are_written_in_runs() {
    for (text, again) in [("", ""), ("1", "1"), ("0,1,2,5", "0-2,5"), ("3,4", "3,4"), ("2-4,x,9", "2-4,9")] {
        assert_eq!(Indexes::read(text).to_string(), again);
    }
}
