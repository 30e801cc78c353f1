//! The ladder for pods that keep failing: restarts, a fresh sandbox, another node; and the cluster says what it did.

use serde_json::json;

use crate::READY;
use crate::harness::{Cluster, Space, process_of, signal, tool, tool_pod};

/// Takes a lock that a container which was killed leaves behind in its pod's shared memory.
const LOCKS: &str = "new /dev/shm/lock then sleep";
/// Fails where its node's folder lacks a file.
const NEEDS: &str = "cat /here/well then sleep";

/// What repairs tell of themselves, one a line.
const REPAIRS: &str = "jsonpath={range .items[*]}{.spec.subject.name} {.spec.fault} {.status.outcome}: {.status.action}{'\\n'}{end}";

#[test]
fn a_container_that_fails_in_its_sandbox_gets_a_fresh_one_and_runs() {
    let space = Space::new("ladder");
    let mut pod = tool_pod("stale", LOCKS);
    pod["spec"]["restartPolicy"] = json!("Always");
    space.start(&pod);
    let address = space.value("pod/stale", "{.status.podIP}");
    signal(process_of("stale", &tool(LOCKS)), libc::SIGKILL);
    // The kill and five runs that found its lock; the seventh finds none.
    let restarts = "{.status.containerStatuses[0].restartCount}";
    space.until_value("pod/stale", restarts, |count| count == "6");
    space.until_ready("stale");
    assert_eq!(space.value("pod/stale", restarts), "6");
    assert_ne!(space.value("pod/stale", "{.status.podIP}"), address, "its network is a fresh one, too");
    let events =
        ["get", "events", "--field-selector", "reason=SandboxChanged", "-o", "jsonpath={.items[*].message}"];
    let said = space.until(&events, |said| !said.is_empty());
    assert_eq!(said, "Container main failed 6 times in this sandbox: it will be killed and re-created.");
    let told = space.until(&["get", "repairs", "-o", REPAIRS], |all| {
        all.lines().any(|line| line.starts_with("stale CrashLooping Recovered"))
    });
    assert!(told.contains("given a fresh sandbox"), "{told}");
}

#[test]
fn a_pod_that_fails_on_its_node_alone_goes_to_another_one_when_all_else_was_tried() {
    let cluster = Cluster::start(3);
    cluster.import_demo_image();
    let marks = cluster.dir().join("marks");
    for node in ["node-1", "node-2", "node-3"] {
        std::fs::create_dir_all(marks.join(node)).expect("the folder is ours");
        std::fs::write(marks.join(node).join("well"), "well").expect("the folder is ours");
    }
    let spread = json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "picky"}}}]);
    let main = json!({
        "name": "main", "image": crate::harness::IMAGE, "imagePullPolicy": "IfNotPresent", "command": tool(NEEDS),
        "env": [{"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
        "volumeMounts": [{"name": "marks", "mountPath": "/here", "subPathExpr": "$(NODE)"}],
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "picky"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "picky"}}, "template": {
            "metadata": {"labels": {"app": "picky"}},
            "spec": {"terminationGracePeriodSeconds": 1, "topologySpreadConstraints": spread, "containers": [main],
                "volumes": [{"name": "marks", "hostPath": {"path": marks}}]},
        }},
    });
    cluster.apply(&deployment.to_string());
    cluster.until(&["get", "deployment", "picky", "-o", READY], |ready| ready == "3");

    // One node loses what the program needs there.
    let pods = "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName}{'\\n'}{end}";
    let all = cluster.kubectl(&["get", "pods", "-l", "app=picky", "-o", pods]);
    let (pod, bad) = all.lines().next().and_then(|line| line.split_once(' ')).expect("there are three");
    std::fs::remove_file(marks.join(bad).join("well")).expect("it is there");
    signal(process_of(pod, &tool(NEEDS)), libc::SIGKILL);

    let tried = "{.status.conditions[?(@.type=='healing.kintsugi.dev/KeepsFailing')].reason}";
    let tried = ["get", "pod", pod, "-o", &format!("jsonpath={tried}")];
    cluster.until(&tried, |reason| reason == "FreshSandbox");
    let moved = cluster.until(&["get", "pods", "-l", "app=picky", "-o", pods], |all| {
        !all.contains(pod) && all.lines().count() == 3 && !all.contains(&format!(" {bad}\n"))
    });
    cluster.until(&["get", "deployment", "picky", "-o", READY], |ready| ready == "3");

    // What it did, and why.
    let told = cluster.until(&["get", "repairs", "-o", REPAIRS], |all| {
        all.contains(&format!("{pod} FailsOnNode Recovered: replaced by picky-"))
    });
    let line = told.lines().find(|line| line.contains("FailsOnNode")).expect("just seen");
    let next = line
        .split(' ')
        .find(|word| moved.contains(&format!("{word} ")))
        .expect("it names who took the place");
    assert!(
        moved.contains(&format!("{next} {}", line.rsplit(' ').next().unwrap_or_default())),
        "{line}\n{moved}"
    );
    let avoided =
        cluster.value(&format!("node/{bad}"), r"{.metadata.annotations.healing\.kintsugi\.dev/avoided-by}");
    // Three times or more: the governor says when.
    assert!(avoided.contains("times in a fresh sandbox, too"), "{avoided}");
    let output = cluster.binary_act(&["why", &format!("pod/{pod}")]);
    let why = String::from_utf8_lossy(&output.stdout);
    for part in [
        "FailsOnNode",
        &format!("on node {bad}; others of its kind do not fail elsewhere"),
        &format!("Moved away from node {bad}: container main failed "),
        " times in a fresh sandbox, too",
    ] {
        assert!(why.contains(part), "{part:?} is missing:\n{why}");
    }
}
