use serde_json::json;

use super::*;

/// A pod of a revision on a node, whose one container is as `status` says.
fn pod(name: &str, revision: &str, node: &str, status: Tree) -> Tree {
    let ready = if status["ready"] == true { "True" } else { "False" };
    let mut container = json!({"name": "web", "restartCount": 0, "ready": false, "state": {}});
    for (key, value) in status.as_object().into_iter().flatten() {
        container[key] = value.clone();
    }
    json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"pod-template-hash": revision}},
        "spec": {"nodeName": node, "containers": [
            {"name": "web", "image": "web:2", "resources": {"limits": {"memory": "64Mi"}}}]},
        "status": {"phase": "Running", "containerStatuses": [container],
            "conditions": [{"type": "Ready", "status": ready}]},
    })
}

fn crashed(code: i64, reason: &str) -> Tree {
    json!({"restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": code, "reason": reason, "finishedAt": "2026-01-01T00:00:00Z"}}})
}

fn well() -> Tree {
    json!({"ready": true, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}})
}

/// What is said of a pod among others, and what to try.
fn check(pod: &Tree, peers: &[Tree], revisions: &[Tree], words: Option<&str>, said: &[&str], next: &[&str]) {
    let known = diagnose(&Seen { pod, peers, revisions, node: None, last_words: words });
    let lines: Vec<String> = known.lines().collect();
    for (line, wanted) in lines.iter().zip(said) {
        assert!(line.contains(wanted), "{line:?} lacks {wanted:?}");
    }
    assert_eq!(lines.len(), said.len(), "{lines:#?}");
    for (step, wanted) in known.next.iter().zip(next) {
        assert!(step.contains(wanted), "{step:?} lacks {wanted:?}");
    }
    assert_eq!(known.next.len(), next.len(), "{:#?}", known.next);
}

#[test]
fn a_pod_that_is_well_or_goes_gets_no_diagnosis() {
    check(&pod("a", "1", "n", well()), &[], &[], Some("bye"), &[], &[]);
    let mut going = pod("a", "1", "n", crashed(1, "Error"));
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    check(&going, &[], &[], None, &[], &[]);
}

#[test]
fn an_end_is_named_with_its_signal_or_its_memory() {
    let one = |status: Tree, said: &str, next: &str| {
        check(&pod("a", "1", "n", status), &[], &[], None, &[said], &[next])
    };
    one(
        crashed(1, "Error"),
        "gave up with exit code 1 (exit code 1, reason Error",
        "kubectl logs a -n shop -c web --previous",
    );
    one(crashed(127, "Error"), "its command was not found", "correct the command");
    one(crashed(139, "Error"), "broke down (SIGSEGV)", "kubectl logs");
    one(crashed(143, "Error"), "ended by SIGTERM", "kubectl logs");
    one(crashed(159, "Error"), "ended by SIGSYS", "seccomp");
    one(crashed(0, "Completed"), "ended by itself without an error", "belongs into a Job");
    one(
        crashed(137, "OOMKilled"),
        "used more memory than its limit of 64Mi",
        "raise resources.limits.memory",
    );
}

#[test]
fn an_end_without_an_error_is_none() {
    let ended = json!({"state": {"running": {"startedAt": "x"}}, "started": true,
        "lastState": {"terminated": {"exitCode": 0, "reason": "Completed"}}});
    check(
        &pod("a", "1", "n", ended),
        &[],
        &[],
        None,
        &["does not pass its readiness probe"],
        &["ask what the probe asks"],
    );
}

#[test]
fn what_keeps_a_container_from_starting_is_named() {
    let waits =
        |reason: &str, message: &str| json!({"state": {"waiting": {"reason": reason, "message": message}}});
    let pulled = pod("a", "1", "n", waits("ImagePullBackOff", "no such tag"));
    check(
        &pulled,
        &[],
        &[],
        None,
        &["the image web:2 of container web cannot be had (ImagePullBackOff: no such tag)"],
        &["correct the image"],
    );
    let config = pod("a", "1", "n", waits("CreateContainerConfigError", "secret \"s\" not found"));
    check(
        &config,
        &[],
        &[],
        None,
        &["cannot be made (CreateContainerConfigError: secret \"s\" not found)"],
        &["make what it names"],
    );
    let mut pending = pod("a", "1", "", json!({}));
    pending["status"] = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}]});
    check(&pending, &[], &[], None, &["no node takes it (the scheduler: 0/1 nodes"], &["lower its requests"]);
}

#[test]
fn a_new_revision_that_alone_fails_is_the_suspect() {
    let set = |revision: &str, number: &str, image: &str| {
        json!({"metadata": {"name": format!("web-{revision}"), "labels": {"pod-template-hash": revision},
                "annotations": {"deployment.kubernetes.io/revision": number}, "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"kind": "Deployment", "name": "web", "uid": "d"}]},
            "spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}}})
    };
    let revisions = newest_first(vec![set("1", "1", "web:1"), set("2", "2", "web:2")]);
    let failing = |name: &str| pod(name, "2", "n", crashed(1, "Error"));
    check(
        &failing("a"),
        &[failing("b"), pod("c", "1", "n", well())],
        &revisions,
        Some("line 1\npanic: no database\n"),
        &[
            "gave up with exit code 1",
            "its last words: line 1\npanic: no database (the log of the container that ended)",
            "what changed with its revision: containers[web].image: web:1 → web:2 (web-2, made 2026-01-01T00:00:00Z)",
            "of the others, 1 of 1 of its revision fail, and 0 of 1 of other revisions (the Ready conditions of 2 pods)",
        ],
        &["kubectl logs", "kubectl rollout undo deployment/web -n shop"],
    );
}

#[test]
fn a_node_on_which_alone_pods_fail_is_the_suspect() {
    check(
        &pod("a", "1", "n1", crashed(1, "Error")),
        &[pod("b", "1", "n1", crashed(1, "Error")), pod("c", "1", "n2", well())],
        &[],
        None,
        &["gave up", "1 of 2 others fail too", "it fails on node n1, the 1 on other nodes do not"],
        &["kubectl logs", "look at node n1"],
    );
}

#[test]
fn last_words_are_cut_at_a_line() {
    assert_eq!(tail("first\nsecond\nthird", 8), "third");
    assert_eq!(tail("short", 80), "short");
    assert_eq!(tail("äöüß", 3), "ß");
}

#[test]
fn differences_are_named_by_path_and_bounded() {
    let tree = |count: usize| {
        json!((0..count).map(|n| (format!("k{n}"), json!(count))).collect::<serde_json::Map<_, _>>())
    };
    assert_eq!(changes(&tree(0), &tree(9)).last().map(String::as_str), Some("and 3 more"));
    assert_eq!(changes(&json!({"a": {"b": 1}}), &json!({"a": {}})), ["a.b: 1 → nothing"]);
}

#[test]
fn a_ready_pod_whose_storage_is_silent_is_not_well() {
    let mut silent = pod("a", "1", "n", well());
    let message =
        "the storage behind /mnt has not answered for 4 s: look at it, and `umount -f -l /mnt` gives it up";
    let conditions = silent["status"]["conditions"].as_array_mut().expect("a list");
    conditions.push(json!({"type": STORAGE_SILENT, "status": "True", "message": message}));
    let said = "the storage behind its volumes does not answer (condition healing.kintsugi.dev/StorageSilent: the storage behind /mnt";
    let next = ["on node n `dmesg | tail`", "on node n umount -f -l /mnt"];
    check(&silent, &[], &[], None, &[said], &next);
}
