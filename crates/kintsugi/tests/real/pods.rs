//! What a container finds: volumes, environment, user, limits, the API and names.

use serde_json::json;

use crate::harness::{IMAGE, Space, tool, tool_pod, web_pod};

#[test]
fn config_maps_and_secrets_arrive_and_change_in_a_running_pod() {
    let space = Space::new("volumes");
    space.kubectl(&["create", "configmap", "settings", "--from-literal=greeting=hello"]);
    space.kubectl(&["create", "secret", "generic", "keys", "--from-literal=token=one"]);
    let mut pod = web_pod("web");
    pod["spec"]["volumes"] = json!([
        {"name": "settings", "configMap": {"name": "settings"}}, {"name": "keys", "secret": {"secretName": "keys"}},
    ]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "settings", "mountPath": "/settings"}, {"name": "keys", "mountPath": "/keys", "readOnly": true},
    ]);
    space.start(&pod);
    let read = |file: &str| [vec!["exec", "web", "--"], tool("cat"), vec![file]].concat().join(" ");
    let reads = |file: &str, text: &str| {
        let words = read(file);
        space.until(&words.split(' ').collect::<Vec<_>>(), |out| out == text);
    };
    reads("/settings/greeting", "hello");
    reads("/keys/token", "one");
    space.kubectl(&["patch", "configmap", "settings", "-p", r#"{"data":{"greeting":"servus"}}"#]);
    space.kubectl(&["patch", "secret", "keys", "-p", r#"{"stringData":{"token":"two"}}"#]);
    reads("/settings/greeting", "servus");
    reads("/keys/token", "two");
    assert_eq!(space.value("pod/web", "{.status.containerStatuses[0].restartCount}"), "0");
}

#[test]
fn init_containers_run_first_and_in_order() {
    let space = Space::new("inits");
    let mut pod = tool_pod("main", "cat /work/a then cat /work/b");
    let mounts = json!([{"name": "work", "mountPath": "/work"}]);
    let init = |name: &str, steps: &str| json!({"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": tool(steps), "volumeMounts": mounts});
    pod["spec"]["volumes"] = json!([{"name": "work", "emptyDir": {}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = mounts.clone();
    pod["spec"]["initContainers"] =
        json!([init("one", "write /work/a first"), init("two", "cat /work/a then write /work/b second")]);
    assert_eq!(space.run(&pod), "firstsecond");
    assert_eq!(space.kubectl(&["logs", "main", "-c", "two"]), "first");
}

#[test]
fn the_environment_tells_of_the_pod_its_node_and_its_settings() {
    let space = Space::new("environment");
    space.kubectl(&["create", "configmap", "settings", "--from-literal=COLOUR=gold"]);
    let mut pod =
        tool_pod("env", "env NAME then env IP then env NODE then env COLOUR then env MEMORY then env SUM");
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let container = &mut pod["spec"]["containers"][0];
    container["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    container["resources"] = json!({"limits": {"memory": "64Mi"}});
    container["env"] = json!([
        field("NAME", "metadata.name"), field("IP", "status.podIP"), field("NODE", "spec.nodeName"),
        {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        {"name": "SUM", "value": "$(NAME) on $(NODE)"},
    ]);
    let said = space.run(&pod);
    let ip = space.value("pod/env", "{.status.podIP}");
    assert_eq!(said, format!("env\n{ip}\nnode-1\ngold\n67108864\nenv on node-1\n"));
}

#[test]
fn a_container_that_would_run_as_root_against_its_word_is_refused_clearly() {
    let space = Space::new("root");
    let mut pod = tool_pod("proud", "echo never");
    pod["spec"]["containers"][0]["securityContext"] = json!({"runAsNonRoot": true});
    space.apply(&pod);
    let waiting = "{.status.containerStatuses[0].state.waiting}";
    let said = space.until_value("pod/proud", waiting, |said| said.contains("CreateContainerConfigError"));
    assert!(said.contains("runAsNonRoot"), "{said}");
    let mut pod = tool_pod("humble", "cat /proc/self/status");
    pod["spec"]["containers"][0]["securityContext"] = json!({
        "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 2000, "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
    });
    let status = space.run(&pod);
    let line = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel tells");
        line.split_whitespace().nth(1).expect("with a value").to_owned()
    };
    let seen = (line("Uid:"), line("Gid:"), line("CapBnd:"), line("NoNewPrivs:"), line("Seccomp:"));
    assert_eq!(seen, ("1000".into(), "2000".into(), "0000000000000000".into(), "0".into(), "2".into()));
}

#[test]
fn a_container_beyond_its_memory_is_said_to_be_oom_killed() {
    let space = Space::new("memory");
    let mut pod = tool_pod("glutton", "eat 256");
    pod["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "32Mi"}});
    space.apply(&pod);
    let ended = "{.status.containerStatuses[0].state.terminated.reason}";
    space.until_value("pod/glutton", ended, |reason| reason == "OOMKilled");
    assert_eq!(space.value("pod/glutton", "{.status.containerStatuses[0].state.terminated.exitCode}"), "137");
}

#[test]
fn a_pod_reaches_the_api_with_its_token_and_resolves_services() {
    let space = Space::new("inside");
    space.kubectl(&["create", "service", "clusterip", "web", "--tcp=80:8080"]);
    space.start(&web_pod("web"));
    let ip = space.value("service/web", "{.spec.clusterIP}");
    let steps =
        "resolve web then resolve web.inside.svc.cluster.local then api /api/v1/namespaces/inside/pods";
    let said = space.run(&tool_pod("first", steps));
    assert!(said.starts_with(&format!("{ip}\n{ip}\n403 ")), "{said}");
    assert!(said.contains("system:serviceaccount:inside:default"), "{said}");
    space.kubectl(&[
        "create",
        "rolebinding",
        "view",
        "--clusterrole=view",
        "--serviceaccount=inside:default",
    ]);
    let said = space.run(&tool_pod("second", "api /api/v1/namespaces/inside/pods then get web:80"));
    assert!(said.starts_with("200 ") && said.contains("PodList") && said.contains("\nweb "), "{said}");
}
