//! Most nodes are silent at once: that is no death of most nodes, so nothing is moved, then or when they come back.

use std::time::Duration;

use network::links::Way;

use crate::harness::{Cluster, IMAGE};

/// Which pods there are, where, and how often each was restarted.
const PODS: &str = "jsonpath={range .items[*]}{.metadata.uid} {.spec.nodeName} {.status.containerStatuses[0].restartCount}{'\\n'}{end}";
/// What is known of each node.
const NODES: &str = "jsonpath={range .items[*]}{.status.conditions[?(@.type=='Ready')].status} {end}";
/// The addresses of the Service that are asked.
const ASKED: &str =
    "jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.addresses[0]}{'\\n'}{end}";

/// How many acts the governor holds back before the nodes come back: for each of the four pods that are on them, two.
const HELD_BACK_MIN: u64 = 8;

/// How many acts the governor has held back, by the server's metrics.
fn held_back(metrics: &str) -> u64 {
    let rows = metrics.lines().filter(|line| line.starts_with("kintsugi_acts_held_back_total{"));
    rows.filter_map(|row| row.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

/// A pod on each of five nodes behind a Service, and one alone behind its own on the last node.
fn workload() -> String {
    let parts = |name: &str, replicas: u8, on: &str| {
        format!(
            "
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      {on}
      containers:
        - name: web
          image: {IMAGE}
          imagePullPolicy: IfNotPresent
          args: ['8080']
          readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
"
        )
    };
    let spread = "topologySpreadConstraints: [{maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]";
    let last = "nodeSelector: {kubernetes.io/hostname: node-5}";
    format!("{}---{}", parts("web", 5, spread), parts("lone", 1, last))
}

#[test]
fn most_nodes_that_are_cut_off_at_once_and_come_back_one_by_one_lose_no_pod() {
    let cluster = Cluster::start(5);
    cluster.import_demo_image();
    cluster.apply(&workload());
    cluster.until(&["get", "deployment", "web", "-o", crate::READY], |ready| ready == "5");
    cluster.until(&["get", "deployment", "lone", "-o", crate::READY], |ready| ready == "1");
    let pods = || cluster.kubectl(&["get", "pods", "--sort-by", "{.metadata.uid}", "-o", PODS]);
    let asked = |name: &str| {
        let selector = format!("kubernetes.io/service-name={name}");
        cluster.kubectl(&["get", "endpointslices", "-l", &selector, "-o", ASKED]).lines().count()
    };
    let (before, cut) = (pods(), ["node-3", "node-4", "node-5"]);
    for node in cut {
        cluster.cut(node, Way::Both);
    }
    let told =
        ["-n", "kube-system", "get", "repair", "cluster-cluster-worldlookswrong", "--ignore-not-found"];
    let outcome = [&told[..], &["-o", "jsonpath={.status.outcome}"]].concat();
    cluster.until(&outcome, |outcome| outcome == "Suppressed");
    cluster.until(&["get", "nodes", "-o", NODES], |all| all.matches("Unknown").count() == 3);
    cluster.until(&["get", "--raw", "/metrics"], |metrics| held_back(metrics) >= HELD_BACK_MIN);
    assert_eq!(pods(), before);
    assert_eq!((asked("web"), asked("lone")), (5, 1));
    for node in cut {
        cluster.join(node);
        std::thread::sleep(Duration::from_secs(1));
    }
    cluster.until(&["get", "nodes", "-o", NODES], |all| all.matches("True").count() == 5);
    cluster.until(&outcome, |outcome| outcome == "Recovered");
    for (name, count) in [("web", "5"), ("lone", "1")] {
        cluster.until(&["get", "deployment", name, "-o", crate::READY], |ready| ready == count);
    }
    assert_eq!(pods(), before, "nothing was moved or restarted");
}
