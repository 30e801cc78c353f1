//! An agent over a simulated runtime and network and a small API, on virtual time.

mod double;

use std::path::Path;
use std::time::Duration;

use double::Bench;
use kubelet::Files;
use serde_json::{Value, json};

/// How long a test waits for something on virtual time before it fails.
const PATIENCE: Duration = Duration::from_secs(120);

fn web(spec: Value) -> Value {
    let mut whole = json!({
        "nodeName": "n1", "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
        "containers": [{"name": "web", "image": "img:1", "command": ["run"]}],
    });
    if let (Some(all), Some(more)) = (whole.as_object_mut(), spec.as_object()) {
        all.extend(more.clone());
    }
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web", "namespace": "shop", "generation": 1}, "spec": whole, "status": {"phase": "Pending"}})
}

fn condition(pod: &Value, kind: &str) -> String {
    let mut all = pod["status"]["conditions"].as_array().into_iter().flatten();
    let found = all.rfind(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or("").to_owned()
}

fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready") == "True"
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_is_ready_and_leaves_when_it_is_deleted() {
    let bench = Bench::start().await;
    bench.api.put("/api/v1/namespaces/shop/pods", web(json!({})));
    let pod = bench.until(PATIENCE, "web", is_ready).await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(pod["status"]["podIP"], "10.0.0.1");
    assert!(container(&pod)["containerID"].as_str().is_some_and(|id| id.starts_with("kintsugi://")));
    bench.delete("web", 30);
    bench.until_gone(PATIENCE, "web").await;
    assert_eq!(bench.runtime.take_log().join("\n"), "sandbox\nstart web 0\nsignal web 15\nremove sandbox");
    assert_eq!(bench.files.count(), 0, "no file is left");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_killed_is_replaced_at_once_three_times() {
    let bench = Bench::start().await;
    bench.api.put("/api/v1/namespaces/shop/pods", web(json!({})));
    bench.until(PATIENCE, "web", is_ready).await;
    for count in 1..=3 {
        let before = bench.host.moment();
        bench.runtime.kill("web", 137);
        bench.runtime.until_started("web", count).await;
        assert!(bench.host.moment().since(before) < Duration::from_millis(5));
    }
    let pod = bench.until(PATIENCE, "web", |pod| container(pod)["restartCount"] == 3 && is_ready(pod)).await;
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 137);
}

#[tokio::test(start_paused = true)]
async fn with_the_api_away_a_crashed_container_still_restarts() {
    let bench = Bench::start().await;
    bench.api.put("/api/v1/namespaces/shop/pods", web(json!({})));
    bench.until(PATIENCE, "web", is_ready).await;
    bench.api.set_cut(true);
    bench.runtime.kill("web", 1);
    bench.runtime.until_started("web", 1).await;
    bench.api.set_cut(false);
    bench.until(PATIENCE, "web", |pod| container(pod)["restartCount"] == 1 && is_ready(pod)).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_keeps_failing_backs_off_visibly() {
    let bench = Bench::start().await;
    let spec = json!({"containers": [{"name": "web", "image": "img:1", "command": ["exit", "1", "0"]}]});
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    let is_waiting = |pod: &Value| container(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = bench.until(PATIENCE, "web", is_waiting).await;
    let message = container(&pod)["state"]["waiting"]["message"].as_str().unwrap_or("").to_owned();
    assert!(message.starts_with("back-off 500ms restarting failed container=web pod=web_shop("), "{message}");
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(container(&pod)["lastState"]["terminated"]["reason"], "Error");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_ends_well_has_succeeded_and_keeps_its_sandbox_for_its_log() {
    let bench = Bench::start().await;
    let spec = json!({"restartPolicy": "Never",
        "containers": [{"name": "web", "image": "img:1", "command": ["exit", "0", "1000"]}]});
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    let pod = bench.until(PATIENCE, "web", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(container(&pod)["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&pod, "Ready"), "False");
    assert!(!bench.runtime.take_log().contains(&"remove sandbox".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_the_other_before_the_rest() {
    let bench = Bench::start().await;
    let init = |name: &str| json!({"name": name, "image": "img:1", "command": ["exit", "0", "500"]});
    let spec = json!({"initContainers": [init("i1"), init("i2")]});
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    let early = |pod: &Value| pod["status"]["initContainerStatuses"][0]["state"]["running"].is_object();
    let pod = bench.until(PATIENCE, "web", early).await;
    assert_eq!(container(&pod)["state"]["waiting"]["reason"], "PodInitializing");
    assert_eq!(
        (condition(&pod, "Initialized").as_str(), &pod["status"]["phase"]),
        ("False", &json!("Pending"))
    );
    let pod = bench.until(PATIENCE, "web", is_ready).await;
    assert_eq!(condition(&pod, "Initialized"), "True");
    assert_eq!(bench.runtime.take_log().join(" "), "sandbox start i1 0 start i2 0 start web 0");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_adopts_what_runs_and_flips_nothing() {
    let bench = Bench::start().await;
    let probe = json!({"exec": {"command": ["ok"]}, "periodSeconds": 5});
    let spec = json!({"containers": [{"name": "web", "image": "img:1", "command": ["run"], "readinessProbe": probe}]});
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    bench.until(PATIENCE, "web", is_ready).await;
    bench.runtime.take_log();
    let bench = bench.restart().await;
    let revision = bench.pod("web")["metadata"]["resourceVersion"].clone();
    bench.host.sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.pod("web")["metadata"]["resourceVersion"], revision, "no status was written");
    assert_eq!(bench.runtime.take_log(), Vec::<String>::new());
    bench.delete("web", 0);
    bench.until_gone(PATIENCE, "web").await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_file_systems_were_shut_down_gets_its_volumes_and_a_sandbox_anew() {
    let bench = Bench::start().await;
    bench.bind("data");
    let spec = json!({
        "containers": [{"name": "web", "image": "img:1", "command": ["run"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    });
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    bench.until(PATIENCE, "web", is_ready).await;
    let anew = ["refuse", "remove sandbox", "sandbox"];
    for count in 1..=2 {
        bench.runtime.take_log();
        bench.runtime.shut_all("web");
        bench.runtime.until_started("web", count).await;
        let pod =
            bench.until(PATIENCE, "web", |pod| container(pod)["restartCount"] == count && is_ready(pod));
        assert_eq!(container(&pod.await)["lastState"]["terminated"]["exitCode"], 137);
        assert_eq!(bench.runtime.take_log(), [&anew[..], &[&format!("start web {count}")]].concat());
    }

    // An agent that comes up in between learns it from the monitor as well.
    bench.api.set_cut(true);
    let stopped = bench.stop();
    stopped.runtime.shut_all("web");
    stopped.api.set_cut(false);
    let bench = stopped.start_again().await;
    bench.runtime.take_log();
    bench.runtime.until_started("web", 3).await;
    bench.until(PATIENCE, "web", |pod| container(pod)["restartCount"] == 3 && is_ready(pod)).await;
    assert_eq!(bench.runtime.take_log(), [&anew[..], &["start web 3"]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_node_gave_up_and_may_run_after_all_gets_its_volumes_again() {
    let bench = Bench::start().await;
    let map = json!({"metadata": {"name": "cm", "namespace": "shop"}, "data": {"k": "1"}});
    bench.api.put("/api/v1/namespaces/shop/configmaps", map);
    let spec = json!({
        "containers": [{"name": "web", "image": "img:1", "command": ["run"],
            "volumeMounts": [{"name": "c", "mountPath": "/etc/c"}]}],
        "volumes": [{"name": "c", "configMap": {"name": "cm"}}],
    });
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    let pod = bench.until(PATIENCE, "web", is_ready).await;
    let dir = format!("/data/kubelet/pods/{}", pod["metadata"]["uid"].as_str().unwrap_or(""));
    bench.files.0.remove(Path::new(&dir)).expect("it is there");
    bench.runtime.give_up("web");
    bench.runtime.until_started("web", 1).await;
    assert_eq!(bench.read(&format!("{dir}/volumes/c/k")), "1");
}

#[tokio::test(start_paused = true)]
async fn what_runs_without_a_pod_is_removed() {
    let bench = Bench::start().await;
    bench.api.put("/api/v1/namespaces/shop/pods", web(json!({})));
    bench.until(PATIENCE, "web", is_ready).await;
    let stopped = bench.stop();
    stopped.api.remove("/api/v1/namespaces/shop/pods/web");
    stopped.runtime.take_log();
    let bench = stopped.start_again().await;
    bench.host.sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.runtime.take_log(), ["remove sandbox"]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_liveness_probe_restarts_the_container() {
    let bench = Bench::start().await;
    let probe = json!({"exec": {"command": ["fail"]}, "periodSeconds": 1, "failureThreshold": 3});
    let spec = json!({"terminationGracePeriodSeconds": 1,
        "containers": [{"name": "web", "image": "img:1", "command": ["run"], "livenessProbe": probe}]});
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    bench.until(PATIENCE, "web", |pod| container(pod)["restartCount"] == 1).await;
    let log = bench.runtime.take_log();
    assert_eq!(log[..4], ["sandbox", "start web 0", "signal web 15", "start web 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ignores_the_signal_is_killed_when_its_grace_is_over() {
    let bench = Bench::start().await;
    let hook = json!({"preStop": {"exec": {"command": ["ok"]}}});
    let spec = json!({"containers": [{"name": "web", "image": "img:1", "command": ["stubborn"], "lifecycle": hook}]});
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    bench.until(PATIENCE, "web", is_ready).await;
    let before = bench.host.moment();
    bench.delete("web", 5);
    bench.until_gone(PATIENCE, "web").await;
    let took = bench.host.moment().since(before);
    assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&took), "{took:?}");
    let log = bench.runtime.take_log().join(" ");
    assert_eq!(log, "sandbox start web 0 exec web ok signal web 15 signal web 9 remove sandbox");
}

#[tokio::test(start_paused = true)]
async fn an_image_that_cannot_be_had_is_told_and_tried_again() {
    let bench = Bench::start().await;
    let spec = json!({"containers": [{"name": "web", "image": "missing:1", "command": ["run"]}]});
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    let waits =
        |reason: &'static str| move |pod: &Value| container(pod)["state"]["waiting"]["reason"] == reason;
    bench.until(PATIENCE, "web", waits("ErrImagePull")).await;
    bench.until(PATIENCE, "web", waits("ImagePullBackOff")).await;
    bench.runtime.add_image("missing:1");
    bench.until(PATIENCE, "web", is_ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_config_map_that_comes_later_lets_the_pod_start_and_reaches_it_when_it_changes() {
    let bench = Bench::start().await;
    let spec = json!({
        "containers": [{"name": "web", "image": "img:1", "command": ["run"],
            "volumeMounts": [{"name": "c", "mountPath": "/etc/c"}]}],
        "volumes": [{"name": "c", "configMap": {"name": "cm"}}],
    });
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    bench.host.sleep(Duration::from_secs(3)).await;
    assert_eq!(container(&bench.pod("web"))["state"]["waiting"]["reason"], "ContainerCreating");
    let map = |value: &str| json!({"metadata": {"name": "cm", "namespace": "shop"}, "data": {"k": value}});
    bench.api.put("/api/v1/namespaces/shop/configmaps", map("1"));
    let pod = bench.until(PATIENCE, "web", is_ready).await;
    let path = format!("/data/kubelet/pods/{}/volumes/c/k", pod["metadata"]["uid"].as_str().unwrap_or(""));
    assert_eq!(bench.read(&path), "1");
    bench.api.put("/api/v1/namespaces/shop/configmaps", map("2"));
    bench.host.sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.read(&path), "2");
}

#[tokio::test(start_paused = true)]
async fn a_config_map_that_goes_while_volumes_are_made_is_in_none_of_them() {
    let bench = Bench::start().await;
    let maps = "/api/v1/namespaces/shop/configmaps";
    bench.api.put(maps, json!({"metadata": {"name": "cm", "namespace": "shop"}, "data": {"k": "1"}}));
    bench.bind("data");
    let spec = json!({
        "containers": [{"name": "web", "image": "img:1", "command": ["run"]}],
        "volumes": [
            {"name": "c", "configMap": {"name": "cm", "optional": true}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        ],
    });
    bench.api.set_delay(Duration::from_millis(200));
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    // The map has been read, the claim not yet.
    bench.host.sleep(Duration::from_millis(700)).await;
    bench.api.remove(&format!("{maps}/cm"));
    let pod = bench.until(PATIENCE, "web", is_ready).await;
    bench.host.sleep(Duration::from_secs(3)).await;
    let path = format!("/data/kubelet/pods/{}/volumes/c/k", pod["metadata"]["uid"].as_str().unwrap_or(""));
    assert_eq!(bench.read(&path), "");
}

#[tokio::test(start_paused = true)]
async fn a_config_map_that_changes_while_its_last_change_is_written_reaches_the_pod() {
    let bench = Bench::start().await;
    let spec = json!({
        "containers": [{"name": "web", "image": "img:1", "command": ["run"]}],
        "volumes": [
            {"name": "c", "configMap": {"name": "cm", "optional": true}},
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
        ],
    });
    bench.bind("data");
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    let pod = bench.until(PATIENCE, "web", is_ready).await;
    let path = format!("/data/kubelet/pods/{}/volumes/c/k", pod["metadata"]["uid"].as_str().unwrap_or(""));
    // To ask for the claim takes a while: the volumes are made anew slowly.
    bench.api.set_delay(Duration::from_millis(200));
    for value in ["1", "2", "3"] {
        let map = json!({"metadata": {"name": "cm", "namespace": "shop"}, "data": {"k": value}});
        bench.api.put("/api/v1/namespaces/shop/configmaps", map);
        bench.host.sleep(Duration::from_millis(100)).await;
    }
    bench.host.sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.read(&path), "3");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_fails_the_pod() {
    let bench = Bench::start().await;
    bench.api.put("/api/v1/namespaces/shop/pods", web(json!({"activeDeadlineSeconds": 5})));
    let pod = bench.until(PATIENCE, "web", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
}

#[tokio::test(start_paused = true)]
async fn the_node_registers_and_renews_its_lease() {
    let bench = Bench::start().await;
    bench.host.sleep(Duration::from_secs(2)).await;
    let node = bench.api.get("/api/v1/nodes/n1").expect("it is registered");
    assert_eq!(condition(&node, "Ready"), "True");
    assert_eq!(node["status"]["allocatable"]["cpu"], "2");
    let lease = |bench: &Bench| {
        let path = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
        bench.api.get(path).expect("it is there")["spec"]["renewTime"].clone()
    };
    let before = lease(&bench);
    bench.host.sleep(Duration::from_secs(2)).await;
    assert_ne!(lease(&bench), before);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_ends_its_pods_says_so_and_lets_its_lease_go() {
    let bench = Bench::start().await;
    bench.api.put("/api/v1/namespaces/shop/pods", web(json!({})));
    bench.until(PATIENCE, "web", is_ready).await;
    let stopped = bench.leave().await;
    let pod = stopped.api.get("/api/v1/namespaces/shop/pods/web").expect("its owner deletes it");
    assert_eq!((&pod["status"]["phase"], &pod["status"]["reason"]), (&json!("Failed"), &json!("Terminated")));
    assert_eq!(condition(&pod, "DisruptionTarget"), "True");
    assert_eq!(stopped.runtime.take_log().join(" "), "sandbox start web 0 signal web 15");
    let node = stopped.api.get("/api/v1/nodes/n1").expect("it stays");
    assert_eq!(condition(&node, "Ready"), "False");
    let lease = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";
    let state = |api: &client::fake::Fake| {
        let lease = api.get(lease).expect("it is there");
        lease["metadata"]["annotations"]["healing.kintsugi.dev/lease-state"].clone()
    };
    assert_eq!(state(&stopped.api), "Lost");

    // It comes back as a node that has nothing to do any more with what ran here.
    let bench = stopped.start_again().await;
    bench.host.sleep(Duration::from_secs(2)).await;
    assert_eq!(condition(&bench.api.get("/api/v1/nodes/n1").expect("it stays"), "Ready"), "True");
    assert_eq!(state(&bench.api), "Held");
    assert_eq!(bench.pod("web")["status"]["phase"], "Failed");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_does_not_keep_a_node_from_leaving() {
    let bench = Bench::start().await;
    let spec = json!({"terminationGracePeriodSeconds": 3600,
        "containers": [{"name": "web", "image": "img:1", "command": ["stubborn"]}]});
    bench.api.put("/api/v1/namespaces/shop/pods", web(spec));
    bench.until(PATIENCE, "web", is_ready).await;
    bench.api.set_cut(true);
    let before = bench.host.moment();
    let stopped = bench.leave().await;
    assert!(stopped.host.moment().since(before) < Duration::from_secs(60), "whoever turns it off waits");
    assert_eq!(stopped.runtime.take_log().last().map(String::as_str), Some("signal web 9"));
}
