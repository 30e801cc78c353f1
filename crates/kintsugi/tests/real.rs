//! Real containers on this machine, driven by real `kubectl`: what the README promises, as a user would see it.

mod harness;

use harness::Cluster;

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: kintsugi.dev/demo/web:latest
          imagePullPolicy: IfNotPresent
          args: ['8080']
          readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
          livenessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
";

const READY: &str = "jsonpath={.status.readyReplicas}";
const RESTARTS: &str = "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].containerID}{'\\n'}{end}";

fn with_web() -> Cluster {
    let cluster = Cluster::start(1);
    cluster.import_demo_image();
    cluster.apply(WEB);
    cluster.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
    cluster
}

#[test]
fn a_deployment_comes_up_behind_its_service_and_answers() {
    let cluster = with_web();
    let ip = cluster.value("service/web", "{.spec.clusterIP}");
    let body = cluster.http_get(&format!("{ip}:80"), "/").expect("the Service answers");
    assert!(body.starts_with("web-"), "{body}");
    let logs = cluster.kubectl(&["logs", "deployment/web"]);
    assert!(logs.contains("serves on port 8080"), "{logs}");
}

#[test]
fn containers_outlive_the_server_and_are_adopted_without_a_restart() {
    let mut cluster = with_web();
    let before = cluster.kubectl(&["get", "pods", "-o", RESTARTS]);
    for signal in [libc::SIGTERM, libc::SIGKILL] {
        cluster.end_server(signal);
        cluster.up();
        cluster.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
        assert_eq!(cluster.kubectl(&["get", "pods", "-o", RESTARTS]), before, "after signal {signal}");
    }
}

#[test]
fn a_deleted_pod_is_replaced() {
    let cluster = with_web();
    let names = cluster.kubectl(&["get", "pods", "-o", "name"]);
    let first = names.lines().next().expect("three pods");
    cluster.kubectl(&["delete", first]);
    cluster.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "3");
    let after = cluster.kubectl(&["get", "pods", "-o", "name"]);
    assert!(!after.contains(first), "{after}");
}

#[test]
fn down_leaves_nothing_behind() {
    let mut cluster = with_web();
    cluster.end_server(libc::SIGTERM);
    let down = cluster.binary("down").output().expect("the binary runs");
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    let dir = cluster.data_dir().display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("procfs is mounted");
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&dir)).collect();
    assert!(left.is_empty(), "{left:?}");
    let processes: Vec<String> = processes_naming(&dir);
    assert!(processes.is_empty(), "{processes:?}");
}

/// The command lines of processes that name a folder.
fn processes_naming(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("procfs is mounted");
    let lines =
        entries.flatten().filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(dir)).map(|line| line.replace('\0', " ")).collect()
}
