//! What pods may and may not be, in the API's words.

use serde_json::json;

use super::*;
use crate::Tree;
use crate::kinds::Faults;

/// A small pod's spec, filled in, with something else in it.
fn with(path: &str, value: Tree) -> Tree {
    let mut spec =
        json!({"containers": [{"name": "a", "image": "a:1"}], "volumes": [{"name": "v", "emptyDir": {}}]});
    if let Some(name) = path.strip_prefix("container.") {
        spec["containers"][0][name] = value;
    } else if !path.is_empty() {
        spec[path] = value;
    }
    fill(&mut spec);
    spec
}

fn check_spec(path: &str, value: Tree, faults: &[&str]) {
    let mut found = Faults::default();
    check(&with(path, value), "spec", Place::Pod, &mut found);
    let found: Vec<String> = found.0.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), faults.len(), "{path}: {found:?}");
    found
        .iter()
        .zip(faults)
        .for_each(|(fault, start)| assert!(fault.starts_with(start), "{fault}\nnot {start}"));
}

#[test]
fn a_small_pod_is_accepted() {
    check_spec("", json!(null), &[]);
    check_spec("container.volumeMounts", json!([{"name": "v", "mountPath": "/v"}]), &[]);
    check_spec(
        "container.env",
        json!([{"name": "A", "value": "b"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}}]),
        &[],
    );
    check_spec(
        "initContainers",
        json!([{"name": "i", "image": "i", "restartPolicy": "Always",
        "readinessProbe": {"tcpSocket": {"port": "http"}}}]),
        &[],
    );
    check_spec("container.lifecycle", json!({"preStop": {"sleep": {"seconds": 5}}}), &[]);
}

#[test]
fn sysctls_are_named_by_segments_in_lower_case() {
    let name = |name: &str| json!({"sysctls": [{"name": name, "value": "1"}]});
    for good in ["kernel.shmmax", "net/ipv4/tcp_rmem", "safe-and-unsafe"] {
        check_spec("securityContext", name(good), &[]);
    }
    for bad in ["foo-", "bar..", "A", "", "/net"] {
        check_spec("securityContext", name(bad), &["spec.securityContext.sysctls[0].name: "]);
    }
}

#[test]
fn containers_have_good_names_images_and_ports() {
    check_spec("containers", json!([]), &["spec.containers: Required value"]);
    check_spec("container.image", json!(""), &["spec.containers[0].image: Required value"]);
    check_spec(
        "container.image",
        json!(" a"),
        &["spec.containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace"],
    );
    check_spec(
        "container.name",
        json!("A"),
        &["spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must"],
    );
    check_spec(
        "initContainers",
        json!([{"name": "a", "image": "i"}]),
        &["spec.initContainers[0].name: Duplicate value: \"a\""],
    );
    check_spec(
        "container.imagePullPolicy",
        json!("Often"),
        &[
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ],
    );
    check_spec(
        "container.ports",
        json!([{"containerPort": 0}, {"containerPort": 70000, "name": "8"}]),
        &[
            "spec.containers[0].ports[0].containerPort: Required value",
            "spec.containers[0].ports[1].name: Invalid value: \"8\": must contain at least one letter",
            "spec.containers[0].ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
    check_spec(
        "container.ports",
        json!([{"containerPort": 1, "hostPort": 5}, {"containerPort": 2, "hostPort": 5}]),
        &["spec.containers[0].ports[1].hostPort: Duplicate value: \"TCP//5\""],
    );
}

#[test]
fn what_is_referred_to_is_there() {
    check_spec(
        "container.volumeMounts",
        json!([{"name": "w", "mountPath": "/w"}]),
        &["spec.containers[0].volumeMounts[0].name: Not found: \"w\""],
    );
    check_spec(
        "container.volumeMounts",
        json!([{"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/v", "subPath": "../x"}]),
        &[
            "spec.containers[0].volumeMounts[1].mountPath: Invalid value: \"/v\": must be unique",
            "spec.containers[0].volumeMounts[1].subPath: Invalid value: \"../x\": must not contain '..'",
        ],
    );
    check_spec(
        "volumes",
        json!([{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}}, {"name": "v", "configMap": {}}]),
        &[
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].name: Duplicate value: \"v\"",
            "spec.volumes[1].configMap.name: Required value",
        ],
    );
    let claims = [json!({"metadata": {"name": "w"}})];
    let spec = with("container.volumeMounts", json!([{"name": "w", "mountPath": "/w"}]));
    let mut faults = Faults::default();
    check(&with_claims(&spec, &claims), "spec", Place::Template, &mut faults);
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn resources_are_asked_for_within_their_limits() {
    check_spec(
        "container.resources",
        json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
        &[
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ],
    );
    check_spec(
        "container.resources",
        json!({"requests": {"memory": "-1"}}),
        &[
            "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    check_spec(
        "container.resources",
        json!({"requests": {"example.com/gpu": "1"}}),
        &[
            "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources",
        ],
    );
    check_spec(
        "container.resources",
        json!({"requests": {"gpu": "1"}}),
        &[
            "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
        ],
    );
}

#[test]
fn probes_have_one_way_of_asking() {
    check_spec(
        "container.livenessProbe",
        json!({}),
        &["spec.containers[0].livenessProbe: Required value: must specify a handler type"],
    );
    check_spec(
        "container.livenessProbe",
        json!({"exec": {"command": ["a"]}, "tcpSocket": {"port": 1}, "successThreshold": 2}),
        &[
            "spec.containers[0].livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ],
    );
    check_spec(
        "container.readinessProbe",
        json!({"httpGet": {"port": 0}}),
        &[
            "spec.containers[0].readinessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ],
    );
    check_spec(
        "initContainers",
        json!([{"name": "i", "image": "i", "startupProbe": {"tcpSocket": {"port": 1}}}]),
        &[
            "spec.initContainers[0].startupProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ],
    );
}

#[test]
fn environment_comes_from_one_place() {
    check_spec(
        "container.env",
        json!([{"name": "A=B"}, {"name": "C", "value": "d", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
        &[
            "spec.containers[0].env[0].name: Invalid value: \"A=B\": a valid environment variable name must consist only of printable",
            "spec.containers[0].env[1].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ],
    );
    check_spec(
        "container.env",
        json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.phase"}}}]),
        &[
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\"",
        ],
    );
}

#[test]
fn places_are_chosen_in_ways_that_make_sense() {
    check_spec(
        "tolerations",
        json!([{"value": "a"}, {"key": "k", "operator": "Exists", "tolerationSeconds": 5}]),
        &[
            "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty",
            "spec.tolerations[1].effect: Invalid value: \"\": effect must be 'NoExecute' when `tolerationSeconds` is set",
        ],
    );
    let required = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "In"}]}]});
    check_spec(
        "affinity",
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}),
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values: Required value",
        ],
    );
    check_spec(
        "topologySpreadConstraints",
        json!([{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]),
        &["spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero"],
    );
    check_spec(
        "dnsPolicy",
        json!("None"),
        &["spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"],
    );
}

#[test]
fn of_a_pod_that_exists_little_may_change() {
    let check_change = |path: &str, old: Tree, new: Tree, faults: &[&str]| {
        let mut found = Faults::default();
        change(&with(path, old), &with(path, new), &mut found);
        let found: Vec<String> = found.0.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), faults.len(), "{path}: {found:?}");
        found
            .iter()
            .zip(faults)
            .for_each(|(fault, start)| assert!(fault.starts_with(start), "{fault}\nnot {start}"));
    };
    check_change("container.image", json!("a:1"), json!("a:2"), &[]);
    check_change("activeDeadlineSeconds", json!(5), json!(4), &[]);
    check_change(
        "activeDeadlineSeconds",
        json!(5),
        json!(6),
        &["spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal"],
    );
    check_change("tolerations", json!([]), json!([{"operator": "Exists"}]), &[]);
    check_change(
        "tolerations",
        json!([{"operator": "Exists"}]),
        json!([]),
        &["spec.tolerations: Forbidden: existing toleration can not be modified"],
    );
    check_change(
        "container.command",
        json!(["a"]),
        json!(["b"]),
        &["spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`"],
    );
    check_change(
        "containers",
        json!([{"name": "a", "image": "a"}]),
        json!([]),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
    check_change(
        "schedulingGates",
        json!([]),
        json!([{"name": "g"}]),
        &["spec.schedulingGates[0].name: Forbidden: only deletion is allowed"],
    );
    check_change("schedulingGates", json!([{"name": "g"}]), json!([]), &[]);
}
