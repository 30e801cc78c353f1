//! Volumes that are made when a claim wants one: they outlive their pods, and go with their claims.

use serde_json::{Value, json};

use crate::harness::{Cluster, Space, tool, tool_pod, web_pod};

fn claim(name: &str, class: Option<&str>) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Mi"}}},
    })
}

fn with_claim(mut pod: Value, claim: &str) -> Value {
    pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    pod
}

#[test]
fn a_claim_gets_a_volume_that_outlives_pods_and_goes_with_the_claim() {
    let space = Space::new("claims");
    space.apply(claim("data", None));
    let told = space.until(&["describe", "pvc", "data"], |text| text.contains("WaitForFirstConsumer"));
    assert!(told.contains("waiting for first consumer to be created before binding"), "{told}");
    space.run(&with_claim(tool_pod("writer", "write /data/note remembered"), "data"));
    assert_eq!(space.value("pvc/data", "{.spec.storageClassName} {.status.phase}"), "local Bound");
    space.kubectl(&["delete", "pod", "writer"]);
    let mut reader = with_claim(tool_pod("reader", "cat /data/below/note"), "data");
    reader["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "data", "mountPath": "/data/below", "readOnly": true},
    ]);
    assert_eq!(space.run(&reader), "remembered");

    let volume = space.value("pvc/data", "{.spec.volumeName}");
    let folder = space.cluster().data_dir().join("nodes/node-1/volumes").join(&volume);
    assert!(folder.join("note").exists(), "the data are in {}", folder.display());
    space.start(&with_claim(web_pod("user"), "data"));
    let summary = space.kubectl(&["get", "--raw", "/api/v1/nodes/node-1/proxy/stats/summary"]);
    let summary: Value = serde_json::from_str(&summary).expect("it is JSON");
    let pods = summary["pods"].as_array().expect("there are pods");
    let user =
        pods.iter().find(|pod| pod["podRef"]["name"] == "user" && pod["podRef"]["namespace"] == space.name());
    let told = &user.expect("it is there")["volume"][0];
    assert_eq!((&told["name"], &told["pvcRef"]["name"]), (&json!("data"), &json!("data")), "{told}");
    let number = |name: &str| told[name].as_u64().unwrap_or_else(|| panic!("{name} is missing: {told}"));
    assert!(number("capacityBytes") >= number("availableBytes") && number("inodesUsed") > 0, "{told}");
    space.kubectl(&["delete", "pvc", "data", "--wait=false"]);
    space.until(&["describe", "pvc", "data"], |text| text.contains("Terminating"));
    assert!(folder.join("note").exists(), "a volume in use stays");
    space.kubectl(&["delete", "pod", "reader", "user"]);
    space.until(&["get", "pv", "-o", "name"], |names| !names.contains(&volume));
    assert!(!folder.exists(), "the data went with the claim");
}

#[test]
fn a_stateful_set_finds_its_volumes_again_and_leaves_them_when_it_is_told() {
    let space = Space::new("databases");
    let template = web_pod("db")["spec"].clone();
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db", "replicas": 2, "selector": {"matchLabels": {"app": "db"}},
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete", "whenDeleted": "Retain"},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": template},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim("data", None)["spec"]}],
        },
    });
    let container = &mut set["spec"]["template"]["spec"]["containers"][0];
    container["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    space.apply(&set);
    space.until_value("statefulset/db", "{.status.readyReplicas}", |ready| ready == "2");
    let exec = |steps: &str| {
        let words = [vec!["exec", "db-0", "--"], tool(steps)].concat();
        space.kubectl(&words)
    };
    exec("write /data/note first");
    let uid = space.value("pod/db-0", "{.metadata.uid}");
    space.kubectl(&["delete", "pod", "db-0"]);
    space.until_value("pod/db-0", "{.metadata.uid}", |new| !new.is_empty() && new != uid);
    space.until_ready("db-0");
    assert_eq!(exec("cat /data/note"), "first");
    space.kubectl(&["scale", "statefulset", "db", "--replicas=1"]);
    space.until(&["get", "pvc", "-o", "name"], |names| names.trim() == "persistentvolumeclaim/data-db-0");
    space.kubectl(&["delete", "statefulset", "db"]);
    space.until(&["get", "pods", "-o", "name"], |names| names.trim().is_empty());
    assert_eq!(space.value("pvc/data-db-0", "{.status.phase}"), "Bound");
}

#[test]
fn what_a_class_cannot_give_is_said() {
    let space = Space::new("refusals");
    let mut many = claim("many", None);
    many["spec"]["accessModes"] = json!(["ReadWriteMany"]);
    space.apply(&many);
    space.apply(with_claim(web_pod("waits"), "many"));
    let told = space.until(&["describe", "pvc", "many"], |text| text.contains("ProvisioningFailed"));
    assert!(told.contains("it can be ReadWriteOnce or ReadWriteOncePod"), "{told}");
}

#[test]
fn a_shared_volume_is_on_one_node_at_a_time_and_moves_with_its_data() {
    let shared = tempfile::tempdir().expect("a temporary folder");
    let dir = shared.path().to_str().expect("a plain path");
    let cluster = Cluster::start_with(2, &["--shared-dir", dir]);
    cluster.import_demo_image();
    cluster.kubectl_with(&["apply", "-f", "-"], &claim("data", Some("shared")).to_string());
    let pod = |name: &str, node: &str| {
        let mut pod = with_claim(web_pod(name), "data");
        pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        cluster.kubectl_with(&["apply", "-f", "-"], &pod.to_string());
    };
    let ready = |name: &str| {
        let path = "jsonpath={.status.conditions[?(@.type=='Ready')].status}";
        cluster.until(&["get", "pod", name, "-o", path], |status| status == "True");
    };
    pod("one", "node-1");
    ready("one");
    let write = [vec!["exec", "one", "--"], tool("write /data/note carried")].concat();
    cluster.kubectl(&write);
    pod("two", "node-2");
    let told = cluster.until(&["describe", "pod", "two"], |text| text.contains("FailedAttachVolume"));
    assert!(told.contains("Volume is already used by pod(s) one"), "{told}");
    cluster.kubectl(&["delete", "pod", "one"]);
    ready("two");
    let read = [vec!["exec", "two", "--"], tool("cat /data/note")].concat();
    assert_eq!(cluster.kubectl(&read), "carried");
    let nodes = "jsonpath={.items[*].spec.nodeName}";
    assert_eq!(cluster.kubectl(&["get", "volumeattachments", "-o", nodes]), "node-2");
    let attached = "jsonpath={.status.volumesAttached[*].name}";
    let told = cluster.until(&["get", "node", "node-2", "-o", attached], |text| !text.is_empty());
    assert!(told.starts_with("kubernetes.io/csi/shared.kintsugi.dev^pvc-"), "{told}");
    cluster.kubectl(&["delete", "pod", "two"]);
    cluster.kubectl(&["delete", "pvc", "data"]);
    cluster.until(&["get", "pv,volumeattachments", "-o", "name"], |names| names.trim().is_empty());
    let left: Vec<_> = std::fs::read_dir(shared.path()).expect("it is there").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}
