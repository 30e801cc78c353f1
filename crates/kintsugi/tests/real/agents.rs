//! Agents of further nodes: killed, they are back by themselves, and nothing of their pods was disturbed.

use crate::READY;
use crate::harness::{Cluster, process_of, signal, until_true};

/// Two pods on the second node, behind a Service.
const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {selector: {app: far}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: far}
spec:
  replicas: 2
  selector: {matchLabels: {app: far}}
  template:
    metadata: {labels: {app: far}}
    spec:
      nodeName: node-2
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: kintsugi.dev/demo/web:latest
          imagePullPolicy: IfNotPresent
          args: ['8080']
          readinessProbe: {httpGet: {path: /readyz, port: 8080}, periodSeconds: 1, failureThreshold: 1}
";

/// Which containers run, how often they were restarted, and since when their pods are as ready as they are.
const STATE: &str = "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].restartCount} \
    {.status.containerStatuses[0].containerID} {.status.conditions[?(@.type=='Ready')]}{'\\n'}{end}";
/// Whether the node is Ready, and since when.
const NODE: &str = "jsonpath={.status.conditions[?(@.type=='Ready')].status} \
    {.status.conditions[?(@.type=='Ready')].lastTransitionTime}";
/// Where the Service leads, and which write said so.
const SLICES: &str = "jsonpath={range .items[*]}{.metadata.resourceVersion} {.endpoints[*].conditions}{end}";

/// The process that holds the second node's folder.
fn agent(cluster: &Cluster) -> Option<i32> {
    let said = std::fs::read_to_string(cluster.data_dir().join("nodes/node-2/agent.lock")).ok()?;
    said.trim().parse().ok()
}

#[test]
fn a_killed_agent_is_back_by_itself_and_no_pod_notices() {
    let cluster = Cluster::start(2);
    cluster.import_demo_image();
    cluster.apply(WEB);
    cluster.until(&["get", "deployment", "far", "-o", READY], |ready| ready == "2");
    let slices = ["get", "endpointslices", "-l", "kubernetes.io/service-name=far", "-o", SLICES];
    cluster.until(&slices, |told| told.matches("\"ready\":true").count() == 2);
    let look = || {
        let pods = cluster.kubectl(&["get", "pods", "-l", "app=far", "-o", STATE]);
        let node = cluster.kubectl(&["get", "node", "node-2", "-o", NODE]);
        [pods, node, cluster.kubectl(&slices)]
    };
    let before = look();
    let pod = cluster.kubectl(&["get", "pods", "-l", "app=far", "-o", "jsonpath={.items[0].metadata.name}"]);

    for _ in 0..2 {
        let killed = agent(&cluster).expect("it said who it is");
        signal(killed, libc::SIGKILL);
        until_true("the next agent", || agent(&cluster).is_some_and(|now| now != killed));
        // It answers for its containers.
        let hello = ["exec", &pod, "--", "/kintsugi", "tool", "echo", "here"];
        cluster.until(&hello, |said| said.contains("here"));
        assert_eq!(look(), before);
    }

    // Its monitors tell the new agent what happens, and it acts.
    signal(process_of(&pod, &["/kintsugi", "web", "8080"]), libc::SIGKILL);
    let restarts = "jsonpath={.status.containerStatuses[0].restartCount}";
    cluster.until(&["get", "pod", &pod, "-o", restarts], |count| count == "1");
    cluster.until(&["get", "deployment", "far", "-o", READY], |ready| ready == "2");
}

#[test]
fn down_ends_agents_that_outlived_a_killed_server() {
    let mut cluster = Cluster::start(2);
    cluster.import_demo_image();
    cluster.apply(WEB);
    cluster.until(&["get", "deployment", "far", "-o", READY], |ready| ready == "2");
    let lock = std::fs::File::open(cluster.data_dir().join("nodes/node-2/agent.lock")).expect("it is there");
    cluster.end_server(libc::SIGKILL);
    assert!(lock.try_lock().is_err(), "the agent lives on");
    let down = cluster.binary_act(&["down"]);
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    lock.try_lock().expect("the agent is gone");
}
