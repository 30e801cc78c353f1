//! Agents of further nodes: killed, they are back by themselves, and nothing of their pods was disturbed.

use crate::READY;
use crate::harness::{Cluster, process_of, signal, until_true, web_pod};

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
fn a_server_that_comes_back_goes_on_with_the_agents_that_live() {
    // At another port it would be another server to them.
    let mut cluster = Cluster::start_with(2, &["--listen", "127.0.0.1:6443"]);
    cluster.import_demo_image();
    cluster.apply(WEB);
    cluster.until(&["get", "deployment", "far", "-o", READY], |ready| ready == "2");
    let look = |cluster: &Cluster| {
        let pods = cluster.kubectl(&["get", "pods", "-l", "app=far", "-o", STATE]);
        [pods, cluster.kubectl(&["get", "node", "node-2", "-o", NODE])]
    };
    let (before, lives) = (look(&cluster), agent(&cluster).expect("it said who it is"));
    cluster.end_server(libc::SIGKILL);
    cluster.up();
    // It does what the new server says; one started beside it would have ended it before.
    let mut pod = web_pod("next");
    pod["spec"]["nodeName"] = "node-2".into();
    cluster.apply(&pod.to_string());
    cluster.until(&["get", "pod", "next", "-o", "jsonpath={.status.phase}"], |phase| phase == "Running");
    assert_eq!(agent(&cluster), Some(lives), "the same process");
    assert_eq!(look(&cluster), before);
    // It is looked after as any other is.
    signal(lives, libc::SIGKILL);
    until_true("the next agent", || agent(&cluster).is_some_and(|now| now != lives));
    cluster.until(&["get", "node", "node-2", "-o", NODE], |said| said.starts_with("True"));
    // One that an orderly stop ended is started anew.
    let next = agent(&cluster);
    cluster.end_server(libc::SIGTERM);
    cluster.up();
    until_true("another agent", || agent(&cluster) != next);
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

/// A database that runs where it is allowed to.
const DB: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  replicas: 1
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: db, image: 'kintsugi.dev/demo/web:latest', imagePullPolicy: IfNotPresent, args: ['8080']}
";

#[test]
fn a_node_that_leaves_gives_its_database_up_by_its_own_word() {
    let cluster = Cluster::start(2);
    cluster.import_demo_image();
    cluster.kubectl(&["cordon", "node-1"]);
    cluster.apply(DB);
    let place = "jsonpath={.spec.nodeName} {.status.conditions[?(@.type=='Ready')].status}";
    cluster.until(&["get", "pod", "db-0", "-o", place], |said| said == "node-2 True");
    cluster.kubectl(&["uncordon", "node-1"]);

    let left = cluster.binary_act(&["leave", "--node-name", "node-2"]);
    let said = String::from_utf8_lossy(&[left.stdout, left.stderr].concat()).into_owned();
    assert!(left.status.success() && said.contains("node-2 has left"), "{said}");
    cluster.until(&["get", "pod", "db-0", "-o", place], |said| said == "node-1 True");
    let lease = cluster.kubectl(&["get", "lease", "node-2", "-n", "kube-node-lease", "-o", "yaml"]);
    assert!(lease.contains("healing.kintsugi.dev/lease-state: Lost"), "{lease}");
    // Nobody was asked.
    let events = cluster.kubectl(&["get", "events", "-A", "--field-selector", "reason=LeaseLost"]);
    assert!(!events.contains("node-2"), "{events}");
    // Whoever starts agents again does not start this one.
    let lock = std::fs::File::open(cluster.data_dir().join("nodes/node-2/agent.lock")).expect("it is there");
    lock.try_lock().expect("the agent is gone");
    let again = cluster.binary_act(&["leave", "--node-name", "node-2"]);
    assert!(!again.status.success(), "nobody is there to leave");
}
