//! `kintsugi store`: backups and restores of a real cluster, secrets sealed on its disk, and what a restore holds back.

use std::path::Path;

use crate::harness::Cluster;

/// A database of one, whose pod must never run twice.
const DB: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 1
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - {name: web, image: 'kintsugi.dev/demo/web:latest', imagePullPolicy: IfNotPresent, args: ['8080']}
";

fn store(cluster: &Cluster, words: &[&str]) -> (bool, String) {
    let output = cluster.binary_act(&[&["store"], words].concat());
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn well(cluster: &Cluster, words: &[&str]) -> String {
    let (is_well, text) = store(cluster, words);
    assert!(is_well, "store {words:?}: {text}");
    text
}

/// Whether a text stands in a file below a folder.
fn stands(dir: &Path, text: &str) -> bool {
    let files = std::fs::read_dir(dir).expect("the folder is there").flatten();
    files
        .map(|file| std::fs::read(file.path()).unwrap_or_default())
        .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

#[test]
fn a_backup_brings_a_cluster_back_and_its_fenced_pods_wait_for_their_nodes_word() {
    let mut cluster = Cluster::start(1);
    cluster.import_demo_image();
    cluster.apply(DB);
    cluster.kubectl(&["create", "secret", "generic", "s", "--from-literal=word=open-sesame"]);
    cluster.kubectl(&["create", "configmap", "before"]);
    let ready = "jsonpath={.status.readyReplicas}";
    cluster.until(&["get", "statefulset", "db", "-o", ready], |ready| ready == "1");
    let uid = cluster.value("pod/db-0", "{.metadata.uid}");
    let secret = cluster.value("secret/s", "{.data.word}");
    let dir = cluster.data_dir().join("store");
    assert!(!stands(&dir, &secret), "secrets are not on the disk as they are");

    let file = cluster.dir().join("backup");
    let file = file.to_str().expect("a plain path");
    well(&cluster, &["backup", file]);
    assert!(!store(&cluster, &["backup", file]).0, "a backup takes the place of nothing");
    assert!(well(&cluster, &["check", "--backup", file]).contains("sound"));
    let keys = cluster.dir().join("keys-of-then");
    std::fs::copy(cluster.data_dir().join("pki/store.keys"), &keys).expect("the keys are there");
    let keys = keys.to_str().expect("a plain path");
    assert!(well(&cluster, &["check"]).contains("sound"));
    well(&cluster, &["rotate-key"]);
    well(&cluster, &["compact"]);
    cluster.kubectl(&["create", "configmap", "after"]);
    assert!(!store(&cluster, &["restore", file, "--keys", keys, "--overwrite"]).0, "not while it runs");

    cluster.end_server(libc::SIGTERM);
    assert!(!store(&cluster, &["restore", file, "--keys", keys]).0, "there is a store already");
    let (is_well, why) = store(&cluster, &["restore", file, "--overwrite"]);
    assert!(!is_well && why.contains("store.keys"), "{why}");
    let told = well(&cluster, &["restore", file, "--keys", keys, "--overwrite"]);
    assert!(told.contains("has said what runs on it: node-1"), "{told}");
    cluster.up();
    assert_eq!(cluster.value("secret/s", "{.data.word}"), secret);
    let maps = cluster.kubectl(&["get", "configmaps", "-o", "name"]);
    assert!(maps.contains("configmap/before") && !maps.contains("configmap/after"), "{maps}");
    assert!(!stands(&dir, &secret));
    // The node has ended what it ran; then, and not before, the pod starts anew.
    cluster.until(&["get", "pod", "db-0", "-o", "jsonpath={.metadata.uid} {.status.phase}"], |seen| {
        seen.ends_with("Running") && !seen.starts_with(&uid)
    });
}

#[test]
fn a_server_without_its_keys_says_which_file_it_lacks() {
    let mut cluster = Cluster::start(1);
    cluster.kubectl(&["create", "secret", "generic", "s", "--from-literal=word=open-sesame"]);
    cluster.end_server(libc::SIGTERM);
    let keys = cluster.data_dir().join("pki/store.keys");
    let aside = cluster.dir().join("aside");
    std::fs::rename(&keys, &aside).expect("the keys are there");
    let (is_well, why) = store(&cluster, &["check"]);
    assert!(!is_well && why.contains("store.keys: put that file back"), "{why}");
    let (is_well, why) = store(&cluster, &["compact"]);
    assert!(!is_well && why.contains("store.keys: put that file back"), "{why}");
    assert!(!keys.exists(), "nothing takes the place of the keys that are missing");
    std::fs::rename(&aside, &keys).expect("the keys are there");
    cluster.up();
    assert_eq!(cluster.value("secret/s", "{.metadata.name}"), "s");
}
