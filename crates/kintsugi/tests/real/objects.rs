//! What `kubectl` does with objects: rollouts, edits, patches, server-side apply, and its questions.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Space, web_pod};
use crate::{READY, WEB};

#[test]
fn a_deployment_is_rolled_forward_back_and_anew() {
    let space = Space::new("rollout");
    space.apply(WEB);
    let rolled_out = || space.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]);
    let done = rolled_out();
    assert!(done.contains("successfully rolled out"), "{done}");
    space.kubectl(&["set", "image", "deployment/web", "web=kintsugi.dev/demo/web:missing"]);
    space.until(&["get", "pods"], |out| out.contains("ErrImagePull") || out.contains("ImagePullBackOff"));
    let history = space.kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    space.kubectl(&["rollout", "undo", "deployment/web"]);
    rolled_out();
    let image = "{.spec.template.spec.containers[0].image}";
    assert_eq!(space.value("deployment/web", image), "kintsugi.dev/demo/web:latest");
    let before = space.kubectl(&["get", "pods", "-o", "name"]);
    space.kubectl(&["rollout", "restart", "deployment/web"]);
    rolled_out();
    space.until(&["get", "pods", "-o", "name"], |now| {
        now.lines().count() == 3 && now.lines().all(|pod| !before.contains(pod))
    });
    space.kubectl(&["rollout", "pause", "deployment/web"]);
    space.kubectl(&["rollout", "resume", "deployment/web"]);
    space.kubectl(&["scale", "deployment/web", "--replicas=1"]);
    space.until(&["get", "deployment", "web", "-o", READY], |ready| ready == "1");
    let described = space.kubectl(&["describe", "deployment", "web"]);
    assert!(described.contains("ScalingReplicaSet") && described.contains("1 desired"), "{described}");
}

#[test]
fn an_object_is_edited_patched_in_every_way_and_labelled() {
    let space = Space::new("edits");
    space.apply(WEB);
    let editor = space.cluster().dir().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/replicas: 3/replicas: 2/' \"$1\"\n").expect("our folder");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).expect("our file");
    let editor = format!("KUBE_EDITOR={}", editor.display());
    let kubeconfig = space.cluster().data_dir().join("kubeconfig").display().to_string();
    let mut edit = space.cluster().inside("env".as_ref());
    edit.args([&editor, "kubectl", "--kubeconfig", &kubeconfig, "-n", "edits", "edit", "deployment", "web"]);
    let edited = edit.output().expect("env is there");
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    assert_eq!(space.value("deployment/web", "{.spec.replicas}"), "2");

    space.kubectl(&["create", "configmap", "x", "--from-literal=a=1"]);
    space.kubectl(&["patch", "configmap", "x", "-p", r#"{"data":{"strategic":"1"}}"#]);
    space.kubectl(&["patch", "configmap", "x", "--type=merge", "-p", r#"{"data":{"merge":"1","a":null}}"#]);
    let json =
        r#"[{"op":"test","path":"/data/merge","value":"1"},{"op":"add","path":"/data/json","value":"1"}]"#;
    space.kubectl(&["patch", "configmap", "x", "--type=json", "-p", json]);
    assert_eq!(space.value("configmap/x", "{.data}"), r#"{"json":"1","merge":"1","strategic":"1"}"#);
    let failing = r#"[{"op":"test","path":"/data/merge","value":"2"}]"#;
    space.kubectl_refused(&["patch", "configmap", "x", "--type=json", "-p", failing], "");

    space.kubectl(&["label", "configmap", "x", "tier=gold"]);
    let said = space.kubectl_refused(&["label", "configmap", "x", "tier=silver"], "");
    assert!(said.contains("already has a value"), "{said}");
    space.kubectl(&["annotate", "configmap", "x", "why=because"]);
    assert_eq!(space.kubectl(&["get", "configmaps", "-l", "tier=gold", "-o", "name"]), "configmap/x\n");
}

#[test]
fn server_side_apply_names_who_holds_a_field() {
    let space = Space::new("ssa");
    let with = |value: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: x}}\ndata: {{a: '{value}'}}\n")
    };
    let apply = ["apply", "--server-side", "-f", "-", "--field-manager"];
    space.kubectl_with(&[&apply[..], &["one"]].concat(), &with("1"));
    let said = space.kubectl_refused(&[&apply[..], &["two"]].concat(), &with("2"));
    assert!(said.contains("conflict with \"one\"") && said.contains(".data.a"), "{said}");
    assert_eq!(space.value("configmap/x", "{.data.a}"), "1");
    space.kubectl_with(&[&apply[..], &["two", "--force-conflicts"]].concat(), &with("2"));
    assert_eq!(space.value("configmap/x", "{.data.a}"), "2");
    let dry = space.kubectl_with(
        &["apply", "--server-side", "--dry-run=server", "-f", "-"],
        &with("2").replace("name: x", "name: other"),
    );
    assert!(dry.contains("dry run"), "{dry}");
    space.kubectl_refused(&["get", "configmap", "other"], "");
}

#[test]
fn changes_are_applied_and_shown_before_they_are_made() {
    let space = Space::new("diffs");
    space.apply(WEB);
    assert_eq!(space.kubectl_with(&["diff", "-f", "-"], WEB), "");
    let changed = WEB.replace("replicas: 3", "replicas: 2");
    let output = space.kubectl_output(&["diff", "-f", "-"], &changed);
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.code() == Some(1) && out.contains("-  replicas: 3\n+  replicas: 2"), "{out}");
    let dry = space.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &changed);
    assert!(dry.contains("deployment.apps/web configured (server dry run)"), "{dry}");
    assert_eq!(space.value("deployment/web", "{.spec.replicas}"), "3");
    space.apply(&changed);
    assert_eq!(space.value("deployment/web", "{.spec.replicas}"), "2");
    space.kubectl_with(&["delete", "-f", "-", "--wait=true", "--timeout=120s"], WEB);
    space.until(&["get", "pods", "-o", "name"], str::is_empty);
}

#[test]
fn a_user_learns_what_is_there_and_what_happens() {
    let space = Space::new("questions");
    space.start(&web_pod("web"));
    space.kubectl(&["wait", "--for=condition=Ready", "pod/web", "--timeout=120s"]);
    let refused =
        space.kubectl_refused(&["wait", "--for=condition=Ready=false", "pod/web", "--timeout=1s"], "");
    assert!(refused.contains("timed out"), "{refused}");
    let asks: [(&[&str], &[&str]); 9] = [
        (&["get", "pods"], &["NAME", "READY", "STATUS", "RESTARTS", "AGE", "web", "1/1", "Running"]),
        (&["get", "pods", "-o", "wide"], &["NODE", "node-1", "10.244."]),
        (&["describe", "pod", "web"], &["Scheduled", "Started", "Ready             True", "QoS Class"]),
        (&["events"], &["Successfully assigned questions/web to node-1", "Pulled", "Created", "Started"]),
        (&["explain", "pod.spec.containers.image"], &["Container image name"]),
        (&["api-resources"], &["deployments", "deploy", "apps/v1", "configmaps", "cm"]),
        (&["api-versions"], &["apps/v1", "batch/v1", "v1"]),
        (&["auth", "can-i", "delete", "nodes"], &["yes"]),
        (&["version"], &["Server Version: v1.36"]),
    ];
    for (ask, wanted) in asks {
        let said = space.kubectl(ask);
        for word in wanted {
            assert!(said.contains(word), "{ask:?} lacks {word:?}:\n{said}");
        }
    }
    let output = space.kubectl_output(
        &["auth", "can-i", "delete", "pods", "--as=system:serviceaccount:questions:default"],
        "",
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "no\n");
    space.kubectl(&["delete", "pod", "web", "--timeout=120s"]);
    assert_eq!(space.kubectl(&["get", "pods", "-o", "name"]), "");
}
