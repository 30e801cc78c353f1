//! A node dies or is cut off: what has an identity runs on one node at a time, and runs again elsewhere in seconds.

use std::path::Path;

use crate::harness::{Cluster, IMAGE, signal};

/// A StatefulSet of one that writes the time to a folder of the machine that all its nodes share, and a Deployment.
fn workload(cluster: &Cluster) -> std::path::PathBuf {
    let beats = cluster.dir().join("beats");
    std::fs::create_dir(&beats).expect("the folder is ours");
    cluster.import_demo_image();
    cluster.apply(&format!(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: db}}
spec:
  serviceName: db
  replicas: 1
  selector: {{matchLabels: {{app: db}}}}
  template:
    metadata: {{labels: {{app: db}}}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions: [{{key: kubernetes.io/hostname, operator: NotIn, values: [node-1]}}]
      containers:
        - name: main
          image: {IMAGE}
          imagePullPolicy: IfNotPresent
          command: [/kintsugi, tool, beat, /beats/db]
          volumeMounts: [{{name: beats, mountPath: /beats}}]
      volumes: [{{name: beats, hostPath: {{path: {beats}, type: Directory}}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: {IMAGE}
          imagePullPolicy: IfNotPresent
          args: ['8080']
          readinessProbe: {{httpGet: {{path: /readyz, port: 8080}}, periodSeconds: 1}}
",
        beats = beats.display()
    ));
    cluster.until(&["get", "deployment", "web", "-o", crate::READY], |ready| ready == "3");
    cluster.until(&["get", "statefulset", "db", "-o", crate::READY], |ready| ready == "1");
    // Whoever is to be lost must not be the only one who votes.
    cluster.until(&["get", "lease", "-n", "kube-node-lease", "-o", VOTERS], |voters| {
        voters
            .lines()
            .filter(|line| ["node-1", "node-2", "node-3"].iter().all(|node| line.contains(node)))
            .count()
            == 3
    });
    beats.join("db")
}

const VOTERS: &str =
    "jsonpath={range .items[*]}{.metadata.annotations.healing\\.kintsugi\\.dev/voters}{'\\n'}{end}";

fn node_of_db(cluster: &Cluster) -> String {
    cluster.value("pod/db-0", "{.spec.nodeName}")
}

/// Waits until the database runs on another node than before, and the Deployment is whole without that one.
fn until_moved(cluster: &Cluster, from: &str) {
    let place = "jsonpath={.spec.nodeName} {.status.conditions[?(@.type=='Ready')].status}";
    cluster.until(&["get", "pod", "db-0", "--ignore-not-found", "-o", place], |out| {
        out.ends_with(" True") && !out.starts_with(from)
    });
    let places = "jsonpath={range .items[*]}{.spec.nodeName} {.status.conditions[?(@.type=='Ready')].status}{'\\n'}{end}";
    cluster.until(&["get", "pods", "-l", "app=web", "-o", places], |out| {
        out.lines().filter(|line| line.ends_with(" True") && !line.starts_with(from)).count() == 3
    });
}

/// Holds the writes against the law: one writer after the other, and none writes after the next has begun.
fn check_writers(beats: &Path, at_least: usize) {
    let text = std::fs::read_to_string(beats).expect("the database writes");
    let lines: Vec<(&str, u64)> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(who, at)| Some((who, at.parse().ok()?)))
        .collect();
    let mut writers: Vec<(&str, u64, u64)> = Vec::new();
    for (who, at) in lines {
        match writers.iter_mut().find(|(known, ..)| *known == who) {
            Some((_, first, last)) => (*first, *last) = ((*first).min(at), (*last).max(at)),
            None => writers.push((who, at, at)),
        }
    }
    writers.sort_by_key(|(_, first, _)| *first);
    assert!(writers.len() >= at_least, "{} writers of {at_least}", writers.len());
    for pair in writers.windows(2) {
        assert!(pair[0].2 < pair[1].1, "two writers at once: {pair:?}");
    }
}

/// Takes a node's link down.
fn cut(cluster: &Cluster, node: &str) {
    let address = cluster.value(&format!("node/{node}"), "{.status.addresses[0].address}");
    let ip = |args: &[&str]| {
        let output = cluster.inside(Path::new("ip")).args(args).output().expect("iproute2 is installed");
        assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let route = ip(&["route", "get", &address]);
    let link = route.split(" dev ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a link");
    ip(&["link", "set", "dev", link, "down"]);
}

fn pids_with(words: &[&str]) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("procfs is mounted");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.iter().all(|word| line.contains(word))
    };
    pids.filter(has).collect()
}

#[test]
fn a_killed_nodes_pods_start_elsewhere_and_nothing_is_written_twice() {
    let cluster = Cluster::start(3);
    let beats = workload(&cluster);
    let node = node_of_db(&cluster);
    let dir = cluster.data_dir().join("nodes").join(&node).display().to_string();
    // The whole node: its link, so that an agent which is started again reaches nobody; its agent; its monitors, and with
    // them its containers.
    cut(&cluster, &node);
    let kill = |words: &[&str]| pids_with(words).into_iter().for_each(|pid| signal(pid, libc::SIGKILL));
    kill(&["agent", &dir]);
    kill(&["monitor", &dir]);
    until_moved(&cluster, &node);
    check_writers(&beats, 2);
    let state = "{.metadata.annotations.healing\\.kintsugi\\.dev/lease-state}";
    let lease = format!("lease/{node}");
    let lost = cluster.kubectl(&["-n", "kube-node-lease", "get", &lease, "-o", &format!("jsonpath={state}")]);
    assert_eq!(lost, "Lost");
}
