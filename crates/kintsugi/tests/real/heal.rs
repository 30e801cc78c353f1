//! Each row of the demo: what breaks heals, and shows.

use serde_json::json;

use crate::harness::{IMAGE, Space, process_of, signal};
use crate::{READY, WEB, with_web};

#[test]
fn a_deployment_comes_up_behind_its_service_and_answers() {
    let cluster = with_web();
    let ip = cluster.value("service/web", "{.spec.clusterIP}");
    let body = cluster.until_http(&format!("{ip}:80"), "/", |_| true);
    assert!(body.starts_with("web-"), "{body}");
    let logs = cluster.kubectl(&["logs", "deployment/web"]);
    assert!(logs.contains("serves on port 8080"), "{logs}");
}

fn three(name: &'static str) -> (Space, String, String) {
    let space = Space::new(name);
    space.apply(WEB);
    space.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
    let pod = space.kubectl(&["get", "pods", "-o", "jsonpath={.items[0].metadata.name}"]);
    let ip = space.value(&format!("pod/{pod}"), "{.status.podIP}");
    (space, pod, format!("{ip}:8080"))
}

#[test]
fn a_killed_container_is_restarted_in_place() {
    let (space, pod, address) = three("killed");
    let before = space.cluster().http_get(&address, "/").expect("a Ready pod answers");
    signal(process_of(&pod, &["/kintsugi", "web", "8080"]), libc::SIGKILL);
    space.cluster().until_http(&address, "/", |body| body != before);
    space.until_value(&format!("pod/{pod}"), "{.status.containerStatuses[0].restartCount}", |n| n == "1");
    let last = "{.status.containerStatuses[0].lastState.terminated.exitCode}";
    assert_eq!(space.value(&format!("pod/{pod}"), last), "137");
    space.until_ready(&pod);
    let repairs = space.until(&["get", "repairs"], |out| out.contains(&pod));
    assert!(repairs.contains("ContainerExited"), "{repairs}");
}

#[test]
fn a_deleted_pod_is_replaced() {
    let (space, pod, _) = three("deleted");
    space.kubectl(&["delete", "pod", &pod]);
    space.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
    let after = space.kubectl(&["get", "pods", "-o", "name"]);
    assert!(!after.contains(&pod), "{after}");
}

#[test]
fn a_pod_that_fails_its_readiness_leaves_the_service_and_returns() {
    let (space, pod, address) = three("unready");
    let ready = "{.items[*].endpoints[?(@.conditions.ready==true)].targetRef.name}";
    let slices = ["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o"];
    let ready = format!("jsonpath={ready}");
    let ready = [&slices[..], &[&ready]].concat();
    space.until(&ready, |names| names.contains(&pod));
    space.cluster().http("POST", &address, "/unready").expect("the pod takes the order");
    space.until(&ready, |names| !names.contains(&pod) && !names.is_empty());
    let service = format!("{}:80", space.value("service/web", "{.spec.clusterIP}"));
    for _ in 0..10 {
        let body = space.cluster().http_get(&service, "/").expect("the others answer");
        assert!(!body.starts_with(&pod), "{body}");
    }
    space.cluster().http("POST", &address, "/ready").expect("the pod takes the order");
    space.until(&ready, |names| names.contains(&pod));
    space.cluster().until_http(&service, "/", |body| body.starts_with(&pod));
}

#[test]
fn a_container_that_crashes_again_and_again_is_held_back_and_mended_by_its_owner() {
    let space = Space::new("crashing");
    space.apply(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "crasher"},
        "spec": {"selector": {"matchLabels": {"app": "crasher"}}, "template": {
            "metadata": {"labels": {"app": "crasher"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                {"name": "main", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "args": ["crash"]},
            ]},
        }},
    }));
    space.until(&["get", "pods"], |out| out.contains("CrashLoopBackOff"));
    let reason = "jsonpath={.items[0].status.containerStatuses[0].state.waiting.message}";
    let said = space.until(&["get", "pods", "-o", reason], |out| out.contains("back-off"));
    assert!(said.contains("restarting failed container=main pod=crasher-"), "{said}");
    let previous = space.kubectl(&["logs", "deployment/crasher", "--previous"]);
    assert!(previous.contains("broken on purpose"), "{previous}");
    let patch = r#"{"spec":{"template":{"spec":{"containers":[{"name":"main","args":["8080"]}]}}}}"#;
    space.kubectl(&["patch", "deployment", "crasher", "-p", patch]);
    space.kubectl(&["rollout", "status", "deployment/crasher", "--timeout=120s"]);
}

#[test]
fn a_container_that_fails_its_liveness_is_restarted() {
    let (space, pod, address) = three("sick");
    let before = space.cluster().until_http(&address, "/", |_| true);
    let restarts = "{.status.containerStatuses[0].restartCount}";
    let counted = space.value(&format!("pod/{pod}"), restarts);
    space.cluster().http("POST", &address, "/sick").expect("the pod takes the order");
    space.cluster().until_http(&address, "/", |body| body != before);
    space.until_value(&format!("pod/{pod}"), restarts, |now| now != counted);
    space.until(&["get", "events"], |out| out.contains("Liveness probe failed"));
    space.until(&["get", "repairs"], |out| out.contains("LivenessFailed"));
    let said =
        space.value(&format!("pod/{pod}"), "{.status.containerStatuses[0].lastState.terminated.message}");
    assert!(said.contains("failed liveness probe"), "{said}");
}
