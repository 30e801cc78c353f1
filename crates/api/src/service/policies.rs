//! Stories of policies through the service: what they refuse, warn of and change.

use http::Method;
use model::Tree;
use serde_json::{Value, json};

use super::hooked_tests::{make_victims, ways_around};
use super::tests::{Lab, lab};

const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn deployment(name: &str, replicas: i64) -> Tree {
    json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {"replicas": replicas,
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn rules(group: &str, resource: &str) -> Tree {
    json!({"resourceRules": [{"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [resource]}]})
}

impl Lab {
    /// Puts up a policy with a binding.
    async fn policy(&self, kind: &str, spec: Tree, binding: Tree) {
        let (code, told) =
            self.post(&format!("{GROUP}/{kind}"), json!({"metadata": {"name": "p"}, "spec": spec})).await;
        assert_eq!(code, 201, "{told}");
        let mut bound = json!({"policyName": "p"});
        for (key, value) in binding.as_object().into_iter().flatten() {
            bound[key] = value.clone();
        }
        let of = kind.replace("policies", "policybindings");
        let (code, told) =
            self.post(&format!("{GROUP}/{of}"), json!({"metadata": {"name": "b"}, "spec": bound})).await;
        assert_eq!(code, 201, "{told}");
    }

    async fn validating(&self, spec: Tree) {
        self.policy("validatingadmissionpolicies", spec, json!({"validationActions": ["Deny"]})).await;
    }

    async fn mutating(&self, spec: Tree) {
        self.policy("mutatingadmissionpolicies", spec, json!({})).await;
    }
}

const BY: &str = "ValidatingAdmissionPolicy 'p' with binding 'b' denied request";

#[tokio::test(start_paused = true)]
async fn what_a_policy_forbids_is_refused_as_invalid() {
    let lab = lab().await;
    let validations = json!([{"expression": "object.spec.replicas <= 5"}]);
    lab.validating(json!({"matchConstraints": rules("apps", "deployments"), "validations": validations}))
        .await;
    assert_eq!(lab.post(DEPLOYMENTS, deployment("a", 5)).await.0, 201);
    let (code, told) = lab.post(DEPLOYMENTS, deployment("b", 6)).await;
    assert_eq!((code, &told["reason"]), (422, &json!("Invalid")));
    let message = format!("{BY}: failed expression: object.spec.replicas <= 5");
    assert_eq!(told["message"], format!("deployments.apps \"b\" is forbidden: {message}"));
    let details =
        json!({"name": "b", "group": "apps", "kind": "deployments", "causes": [{"message": message}]});
    assert_eq!(told["details"], details);
    let (code, _) =
        lab.ask(Method::PATCH, &format!("{DEPLOYMENTS}/a"), json!({"spec": {"replicas": 9}})).await;
    assert_eq!(code, 422);
    assert_eq!(
        lab.ask(Method::PATCH, &format!("{DEPLOYMENTS}/a"), json!({"spec": {"replicas": 2}})).await.0,
        200
    );
    // Without its binding a policy holds nowhere.
    assert_eq!(lab.delete(&format!("{GROUP}/validatingadmissionpolicybindings/b")).await.0, 200);
    assert_eq!(lab.post(DEPLOYMENTS, deployment("b", 6)).await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn who_is_refused_is_warned_all_the_same() {
    let lab = lab().await;
    let validations = json!([{"expression": "has(object.data)", "message": "say something"}]);
    lab.validating(json!({"matchConstraints": rules("", "configmaps"), "validations": validations})).await;
    let binding =
        json!({"metadata": {"name": "w"}, "spec": {"policyName": "p", "validationActions": ["Warn"]}});
    let (code, told) = lab.post(&format!("{GROUP}/validatingadmissionpolicybindings"), binding).await;
    assert_eq!(code, 201, "{told}");
    let request = http::Request::post(MAPS).body(json!({"metadata": {"name": "a"}}).to_string().into());
    let answer = lab.service.call(&lab.admin, request.expect("a good request")).await;
    assert_eq!(answer.status(), 422);
    let wanted =
        "299 - \"Validation failed for ValidatingAdmissionPolicy 'p' with binding 'w': say something\"";
    assert_eq!(answer.headers()["warning"], wanted);
}

#[tokio::test(start_paused = true)]
async fn messages_reasons_and_variables() {
    let lab = lab().await;
    let spec = json!({"matchConstraints": rules("", "configmaps"),
        "variables": [{"name": "team", "expression": "has(object.metadata.labels) ? object.metadata.labels[?'team'].orValue('') : ''"},
            {"name": "known", "expression": "variables.team in ['red', 'blue']"}],
        "matchConditions": [{"name": "not-the-system", "expression": "!request.userInfo.username.startsWith('system:')"}],
        "validations": [{"expression": "variables.known", "reason": "Forbidden",
            "messageExpression": "'team ' + variables.team + ' is not known in ' + namespaceObject.metadata.name"}]});
    lab.validating(spec).await;
    let (code, told) = lab.post(MAPS, json!({"metadata": {"name": "a", "labels": {"team": "green"}}})).await;
    assert_eq!((code, &told["reason"]), (403, &json!("Forbidden")), "{told}");
    assert!(
        told["message"]
            .as_str()
            .is_some_and(|told| told.ends_with(&format!("{BY}: team green is not known in default"))),
        "{told}"
    );
    assert_eq!(lab.post(MAPS, json!({"metadata": {"name": "a", "labels": {"team": "red"}}})).await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn parameters_are_found_by_name() {
    let lab = lab().await;
    let spec = json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "matchConstraints": rules("apps", "deployments"),
        "validations": [{"expression": "object.spec.replicas <= int(params.data.maxReplicas)",
            "messageExpression": "'object.spec.replicas must be no greater than ' + params.data.maxReplicas"}]});
    let binding = json!({"validationActions": ["Deny"],
        "paramRef": {"name": "limits", "namespace": "default", "parameterNotFoundAction": "Deny"}});
    lab.policy("validatingadmissionpolicies", spec, binding).await;
    let (code, told) = lab.post(DEPLOYMENTS, deployment("a", 4)).await;
    assert_eq!(code, 422);
    let missing = format!(
        "{BY}: failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    );
    assert!(told["message"].as_str().is_some_and(|told| told.ends_with(&missing)), "{told}");
    assert_eq!(
        lab.post(MAPS, json!({"metadata": {"name": "limits"}, "data": {"maxReplicas": "3"}})).await.0,
        201
    );
    let (_, told) = lab.post(DEPLOYMENTS, deployment("a", 4)).await;
    assert!(
        told["message"].as_str().is_some_and(|told| told.ends_with("must be no greater than 3")),
        "{told}"
    );
    assert_eq!(lab.post(DEPLOYMENTS, deployment("a", 3)).await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_cannot_tell_fails_as_it_says() {
    for (policy, wanted) in [("Fail", 422), ("Ignore", 201)] {
        let lab = lab().await;
        let validations = json!([{"expression": "object.data.absent == 'a'"}]);
        lab.validating(json!({"failurePolicy": policy, "matchConstraints": rules("", "configmaps"), "validations": validations})).await;
        let (code, told) = lab.post(MAPS, json!({"metadata": {"name": "a"}, "data": {"b": "c"}})).await;
        assert_eq!(code, wanted, "{told}");
        let why = "expression 'object.data.absent == 'a'' resulted in error: no such key: absent";
        assert!(code == 201 || told["message"].as_str().is_some_and(|told| told.ends_with(why)), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn deletions_are_asked_about_with_what_was_there() {
    let lab = lab().await;
    let constraints = json!({"resourceRules": [{"apiGroups": [""], "apiVersions": ["*"], "operations": ["DELETE"], "resources": ["configmaps"]}]});
    let validations =
        json!([{"expression": "object == null && oldObject.metadata.name != 'kept'", "message": "is kept"}]);
    lab.validating(json!({"matchConstraints": constraints, "validations": validations})).await;
    for (name, wanted) in [("kept", 422), ("other", 200)] {
        lab.config_map(name, "x").await;
        assert_eq!(lab.delete(&format!("{MAPS}/{name}")).await.0, wanted);
    }
}

#[tokio::test(start_paused = true)]
async fn apply_configurations_and_json_patches_change_objects() {
    let lab = lab().await;
    let mutations = json!([
        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression":
            "Object{metadata: Object.metadata{annotations: {'by': request.operation}}, spec: Object.spec{replicas: 1337}}"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('example.com/env'), value: 'test'}]"}},
    ]);
    lab.mutating(json!({"reinvocationPolicy": "Never", "matchConstraints": rules("apps", "deployments"), "mutations": mutations})).await;
    let (code, made) = lab.post(DEPLOYMENTS, deployment("a", 1)).await;
    assert_eq!((code, &made["spec"]["replicas"]), (201, &json!(1337)), "{made}");
    assert_eq!(made["metadata"]["annotations"]["by"], "CREATE");
    assert_eq!(made["metadata"]["labels"], json!({"app": "a", "example.com/env": "test"}));
    // What was there stays.
    assert_eq!(made["spec"]["template"]["spec"]["containers"][0]["image"], "i");
}

#[tokio::test(start_paused = true)]
async fn containers_are_added_by_name() {
    let lab = lab().await;
    let expression = "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{name: 'mesh-proxy', image: 'mesh/proxy:v1', restartPolicy: 'Always'}]}}";
    let spec = json!({"reinvocationPolicy": "IfNeeded", "matchConstraints": rules("", "pods"),
        "matchConditions": [{"name": "no-sidecar", "expression": "!object.spec.?initContainers.orValue([]).exists(c, c.name == 'mesh-proxy')"}],
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]});
    lab.mutating(spec).await;
    lab.post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}],
        "initContainers": [{"name": "first", "image": "i"}]}});
    let (code, made) = lab.post("/api/v1/namespaces/default/pods", pod).await;
    assert_eq!(code, 201, "{made}");
    let names: Vec<&Value> =
        made["spec"]["initContainers"].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
    assert_eq!(names, ["first", "mesh-proxy"]);
}

#[tokio::test(start_paused = true)]
async fn changes_that_make_no_sense_are_refused() {
    let check = async |expression: &str, wanted: &str| {
        let lab = lab().await;
        let mutations =
            json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]);
        lab.mutating(json!({"reinvocationPolicy": "Never", "matchConstraints": rules("apps", "deployments"), "mutations": mutations})).await;
        let (code, told) = lab.post(DEPLOYMENTS, deployment("a", 1)).await;
        assert_eq!(code, 422, "{told}");
        assert!(told["message"].as_str().is_some_and(|told| told.contains(wanted)), "{told}");
    };
    check("Object{spec: Object.spec{odd: 1}}", "policy 'p' with binding 'b' denied request: error applying patch: failed to convert patch object to typed object").await;
    check(
        "Object{spec: Object.metadata{replicas: 1}}",
        "unexpected type name \"Object.metadata\", expected \"Object.spec\"",
    )
    .await;
    check(
        "Object{spec: Object.spec{selector: Object.spec.selector{matchLabels: {'a': 'b'}}}}",
        "may not mutate atomic arrays, maps or structs: .spec.selector",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn policies_are_checked_when_they_are_written() {
    let lab = lab().await;
    let refused = async |spec: Tree, wanted: &str| {
        let object = json!({"metadata": {"name": "p"}, "spec": spec});
        let (code, told) = lab.post(&format!("{GROUP}/validatingadmissionpolicies"), object).await;
        assert_eq!(code, 422, "{told}");
        assert!(told["message"].as_str().is_some_and(|told| told.contains(wanted)), "{told}");
    };
    let with = |expression: &str| json!({"matchConstraints": rules("", "pods"), "validations": [{"expression": expression}]});
    refused(with("object.metadata.name == "), "spec.validations[0].expression: Invalid value: \"object.metadata.name == \": compilation failed: ERROR: <input>:1:25").await;
    refused(with("'a'"), "must evaluate to bool").await;
    refused(with("params.a == 1"), "undeclared reference to 'params'").await;
    refused(json!({"validations": [{"expression": "true"}]}), "spec.matchConstraints: Required value").await;
    let hook = json!({"metadata": {"name": "h"}, "webhooks": [{"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://a.example/"}, "matchConditions": [{"name": "c", "expression": "object ["}]}]});
    let (code, told) = lab.post(&format!("{GROUP}/validatingwebhookconfigurations"), hook).await;
    assert!(
        code == 422 && told["message"].as_str().is_some_and(|told| told.contains("compilation failed")),
        "{told}"
    );
}

#[tokio::test(start_paused = true)]
async fn types_are_told_in_the_status() {
    let lab = lab().await;
    let spec = json!({"matchConstraints": rules("apps", "deployments"),
        "validations": [{"expression": "object.spec.replicas > 1"}, {"expression": "object.replicas > 1"}]});
    let (code, made) = lab
        .post(
            &format!("{GROUP}/validatingadmissionpolicies"),
            json!({"metadata": {"name": "p"}, "spec": spec}),
        )
        .await;
    assert_eq!((code, &made["status"]["observedGeneration"]), (201, &json!(1)), "{made}");
    let warning = "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^\n";
    let wanted =
        json!({"expressionWarnings": [{"fieldRef": "spec.validations[1].expression", "warning": warning}]});
    assert_eq!(made["status"]["typeChecking"], wanted);
    let mended = json!({"spec": {"validations": [{"expression": "object.spec.replicas > 1"}]}});
    let (_, made) = lab.ask(Method::PATCH, &format!("{GROUP}/validatingadmissionpolicies/p"), mended).await;
    assert_eq!(
        (&made["status"]["observedGeneration"], &made["status"]["typeChecking"]),
        (&json!(2), &json!({}))
    );
}

/// No write gets around a policy that refuses. Reviews of who somebody is and may do are none of a policy's business.
#[tokio::test(start_paused = true)]
async fn nothing_gets_around_a_policy() {
    let lab = lab().await;
    make_victims(&lab).await;
    let all = json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*/*"]});
    let validations = json!([{"expression": "request.operation + ' ' + request.resource.resource == ''",
        "messageExpression": "request.operation + ' ' + request.resource.resource + (has(request.subResource) && request.subResource != '' ? '/' + request.subResource : '')"}]);
    lab.validating(json!({"matchConstraints": {"resourceRules": [all]}, "validations": validations})).await;
    for (method, uri, body, wanted) in ways_around() {
        let (code, told) = lab.ask(method.clone(), &uri, body).await;
        if wanted.ends_with("reviews") {
            assert_eq!(code, 201, "{told}");
            continue;
        }
        assert_eq!(
            (code, told["details"]["causes"][0]["message"].as_str()),
            (422, Some(format!("{BY}: {wanted}").as_str())),
            "{method} {uri}: {told}"
        );
    }
}
