//! Nodes die, are cut off and pause, the server is away: what has an identity runs on one node at a time, and runs again.
//!
//! Behind the database of each test is the write oracle (`demo/oracle.rs`). Faults come at random phases of leases and probes.

use std::path::PathBuf;
use std::time::Duration;

use kintsugi::demo::oracle::{self, Verdict};
use kintsugi::faults::Paused;
use network::links::Way;

use crate::harness::{Cluster, IMAGE, until_true};

/// Three nodes with a database that follows its volume, and a Deployment of three.
struct World {
    cluster: Cluster,
    shared: tempfile::TempDir,
}

const VOTERS: &str =
    "jsonpath={range .items[*]}{.metadata.annotations.healing\\.kintsugi\\.dev/voters}{'\\n'}{end}";
/// Where each of the Deployment's pods is, and whether it is Ready.
const PLACES: &str =
    "jsonpath={range .items[*]}{.spec.nodeName} {.status.conditions[?(@.type=='Ready')].status}{'\\n'}{end}";
/// Which pods there are, and how often each was restarted.
const PODS: &str =
    "jsonpath={range .items[*]}{.metadata.uid} {.status.containerStatuses[0].restartCount}{'\\n'}{end}";
/// How often the leases of nodes were renewed, as far as their revisions tell.
const RENEWALS: &str = "jsonpath={range .items[*]}{.metadata.name}={.spec.renewTime} {end}";

impl World {
    fn new() -> Self {
        let shared = tempfile::tempdir().expect("a temporary folder");
        let cluster =
            Cluster::start_with(3, &["--shared-dir", shared.path().to_str().expect("a plain path")]);
        cluster.import_demo_image();
        cluster.apply(&workload());
        cluster.until(&["get", "deployment", "web", "-o", crate::READY], |ready| ready == "3");
        cluster.until(&["get", "statefulset", "db", "-o", crate::READY], |ready| ready == "1");
        // Whoever is to be lost must not be the only one who votes.
        cluster.until(&["get", "lease", "-n", "kube-node-lease", "-o", VOTERS], |voters| {
            let all = |line: &&str| ["node-1", "node-2", "node-3"].iter().all(|node| line.contains(node));
            voters.lines().filter(all).count() == 3
        });
        let world = Self { cluster, shared };
        until_true("the database's first writes", || world.verdict().writes > 0);
        world
    }

    fn node_of_db(&self) -> String {
        self.cluster.value("pod/db-0", "{.spec.nodeName}")
    }

    /// The oracle's file, wherever the volume is.
    fn text(&self) -> String {
        let volumes = std::fs::read_dir(self.shared.path()).expect("the folder is ours").flatten();
        let mut files = volumes.map(|volume| volume.path().join("data/writes"));
        files.find_map(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
    }

    fn verdict(&self) -> Verdict {
        oracle::judge(&self.text())
    }

    fn writer(&self) -> String {
        oracle::last_writer(&self.text()).unwrap_or_default()
    }

    /// Whatever happened: nobody wrote beside another, and nothing is lost.
    fn check(&self) {
        let verdict = self.verdict();
        assert_eq!((verdict.doubled, verdict.lost), (0, 0), "{verdict:?}");
    }

    /// Waits until the database writes on another node, and the Deployment is whole without the lost one.
    fn until_moved(&self, from: &str, writer: &str) {
        let place = "jsonpath={.spec.nodeName} {.status.conditions[?(@.type=='Ready')].status}";
        self.cluster.until(&["get", "pod", "db-0", "--ignore-not-found", "-o", place], |out| {
            out.ends_with(" True") && !out.starts_with(from)
        });
        until_true("another writer", || self.writer() != writer);
        self.cluster.until(&["get", "pods", "-l", "app=web", "-o", PLACES], |out| {
            out.lines().filter(|line| line.ends_with(" True") && !line.starts_with(from)).count() == 3
        });
    }

    /// Waits until all nodes are Ready and trusted again, and every pod is well.
    fn until_whole(&self) {
        let ready =
            "jsonpath={range .items[*]}{.spec.taints}{.status.conditions[?(@.type=='Ready')].status} {end}";
        self.cluster.until(&["get", "nodes", "-o", ready], |all| all.trim() == "True True True");
        self.cluster.until(&["get", "pods", "-o", PLACES], |out| {
            out.lines().count() == 4 && out.lines().all(|line| line.ends_with(" True"))
        });
    }

    /// Waits until every node has renewed its lease so many times more.
    fn until_renewed(&self, times: usize) {
        for _ in 0..times {
            let get = ["get", "lease", "-n", "kube-node-lease", "-o", RENEWALS];
            let before = self.cluster.kubectl(&get);
            let stale: Vec<&str> = before.split_whitespace().collect();
            self.cluster.until(&get, |now| !now.split_whitespace().any(|one| stale.contains(&one)));
        }
    }

    /// Waits until the database has written so many times more.
    fn until_written(&self, more: u64) {
        let wanted = self.verdict().writes + more;
        until_true("the database to write on", || self.verdict().writes >= wanted);
    }

    fn pods(&self) -> String {
        self.cluster.kubectl(&["get", "pods", "--sort-by", "{.metadata.uid}", "-o", PODS])
    }

    /// The processes of a node's pods whose command line has this word.
    fn processes(&self, node: &str, word: &str) -> Vec<i32> {
        let dir = self.cluster.data_dir().join("nodes").join(node);
        pids_with(&[word, &dir.display().to_string()])
    }
}

fn workload() -> String {
    format!(
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
          command: [/kintsugi, tool, oracle, /data/writes]
          env:
            - {{name: EPOCH, valueFrom: {{fieldRef: {{fieldPath: \"metadata.annotations['healing.kintsugi.dev/fence']\"}}}}}}
            - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
          volumeMounts: [{{name: data, mountPath: /data}}]
  volumeClaimTemplates:
    - metadata: {{name: data}}
      spec: {{storageClassName: shared, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
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
"
    )
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

/// The processes in the groups of a pod that are no monitor.
fn containers_of(uid: &str) -> Vec<i32> {
    let group = format!("/pod{uid}/");
    let entries = std::fs::read_dir("/proc").expect("procfs is mounted");
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let read = |pid: &i32, what: &str| {
        std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/{what}"))).unwrap_or_default()
    };
    pids.filter(|pid| read(pid, "cgroup").contains(&group) && !read(pid, "cmdline").contains("monitor"))
        .collect()
}

/// Waits for a random part of a lease: faults are to come at any phase.
fn any_phase() {
    use std::hash::{BuildHasher, Hasher};
    let chance = std::collections::hash_map::RandomState::new().build_hasher().finish();
    std::thread::sleep(Duration::from_millis(chance % 1000));
}

/// Stops processes for a while.
fn pause(pids: Vec<i32>, time: Duration) {
    let paused: Vec<Paused> = pids.into_iter().filter_map(|pid| Paused::stop(pid).ok()).collect();
    std::thread::sleep(time);
    drop(paused);
}

/// Less than a lease, and more.
const SHORTLY: Duration = Duration::from_millis(1500);
const LONG: Duration = Duration::from_secs(9);

#[test]
fn a_killed_nodes_pods_start_elsewhere_and_nothing_is_written_twice() {
    let world = World::new();
    let (node, writer) = (world.node_of_db(), world.writer());
    any_phase();
    // An agent that is started again reaches nobody.
    world.cluster.cut(&node, Way::Both);
    world.cluster.fault(async |faults| faults.kill_node(&node));
    // Suspicion takes its addresses out of the Service, long before the node counts as lost.
    let places = "jsonpath={range .items[*].endpoints[*]}{.nodeName} {.conditions.ready}{'\\n'}{end}";
    world
        .cluster
        .until(&["get", "endpointslices", "-l", "kubernetes.io/service-name=web", "-o", places], |out| {
            !out.lines().any(|line| line == format!("{node} true"))
        });
    world.until_moved(&node, &writer);
    world.check();
    let began = |fault: &str| {
        let repair = format!("repair/node-{node}-{fault}");
        let told = "jsonpath={.metadata.creationTimestamp}";
        world.cluster.kubectl(&["-n", "kube-system", "get", &repair, "-o", told])
    };
    assert!(began("nodesuspected") < began("nodelost"), "it was suspected before it was lost");
    let state = "jsonpath={.metadata.annotations.healing\\.kintsugi\\.dev/lease-state}";
    let lease = format!("lease/{node}");
    assert_eq!(world.cluster.kubectl(&["-n", "kube-node-lease", "get", &lease, "-o", state]), "Lost");
    world.cluster.join(&node);
    world.until_whole();
    world.check();
}

#[test]
fn a_node_that_is_cut_off_either_way_gives_its_database_up_and_serves_again_when_it_is_back() {
    let world = World::new();
    for way in [Way::Both, Way::Out, Way::In] {
        let (node, writer) = (world.node_of_db(), world.writer());
        let uid = world.cluster.value("pod/db-0", "{.metadata.uid}");
        any_phase();
        world.cluster.cut(&node, way);
        world.until_moved(&node, &writer);
        // It ended the pod by itself, without hearing that it was to.
        assert_eq!(containers_of(&uid), Vec::<i32>::new(), "{way:?}");
        any_phase();
        world.cluster.join(&node);
        world.until_whole();
        world.until_written(20);
        world.check();
    }
}

#[test]
fn agents_and_whole_nodes_that_pause_neither_write_twice_nor_stay_away() {
    let world = World::new();
    for (time, whole) in [(SHORTLY, false), (LONG, false), (SHORTLY, true), (LONG, true)] {
        let node = world.node_of_db();
        let uid = world.cluster.value("pod/db-0", "{.metadata.uid}");
        let agent = world.cluster.fault(async |faults| faults.agent(&node));
        let (monitors, containers) = match whole {
            true => (world.processes(&node, "monitor"), containers_of(&uid)),
            false => (Vec::new(), Vec::new()),
        };
        any_phase();
        let frozen: Vec<Paused> = containers.into_iter().filter_map(|pid| Paused::stop(pid).ok()).collect();
        pause([vec![agent], monitors].concat(), time);
        // What a machine does before its monitors have looked at their deadlines is not proven (docs/failure.md); so they
        // look first, and what is still stopped then is theirs to end.
        world.until_renewed(2);
        drop(frozen);
        world.until_whole();
        world.until_written(20);
        world.check();
    }
}

#[test]
fn a_monitor_that_pauses_ends_what_it_could_not_be_told_of_and_nothing_is_written_twice() {
    let world = World::new();
    for time in [SHORTLY, LONG] {
        let node = world.node_of_db();
        let uid = world.cluster.value("pod/db-0", "{.metadata.uid}");
        let mut monitors = world.processes(&node, "monitor");
        monitors.retain(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().contains(&uid)
        });
        assert!(!monitors.is_empty(), "a monitor of {uid}");
        any_phase();
        pause(monitors, time);
        world.until_whole();
        world.until_written(20);
        world.check();
    }
}

#[test]
fn while_the_server_is_away_requests_are_answered_the_database_writes_and_nothing_moves_then_or_later() {
    let mut world = World::new();
    let service = format!("{}:80", world.cluster.value("service/web", "{.spec.clusterIP}"));
    world.cluster.until_http(&service, "/", |_| true);
    let (before, writer) = (world.pods(), world.writer());
    any_phase();
    world.cluster.end_server(libc::SIGKILL);
    // Half a thousand writes are more than two leases.
    let wanted = world.verdict().writes + 500;
    let (mut asked, mut failed) = (0, 0);
    until_true("the database to write on", || {
        for _ in 0..10 {
            asked += 1;
            failed += usize::from(world.cluster.http_get(&service, "/").is_none());
        }
        world.verdict().writes >= wanted
    });
    assert_eq!(failed, 0, "of {asked} requests");
    assert_eq!(world.writer(), writer, "the database was never ended");
    world.cluster.up();
    world.until_renewed(6);
    world.until_whole();
    assert_eq!((world.pods(), world.writer()), (before, writer));
    world.check();
}
