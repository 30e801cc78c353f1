//! Programs of users that take part in the API: webhooks by URL and behind a Service, converters, API servers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::Space;
use crate::outside::{Outside, certificate};

/// Denies objects that are labelled `bad`, and pods that are attached to; puts a mark on others.
fn review(path: &str, review: &Value) -> Value {
    let request = &review["request"];
    let bad = request["object"]["metadata"]["labels"]["bad"] == "yes" || request["operation"] == "CONNECT";
    let mut response =
        json!({"uid": request["uid"], "allowed": !bad, "status": {"message": "this is bad", "code": 403}});
    if path == "/mark" {
        let patch = json!([{"op": "add", "path": "/metadata/annotations", "value": {"marked": "yes"}}]);
        response["allowed"] = json!(true);
        response["patch"] = json!(STANDARD.encode(patch.to_string()));
        response["patchType"] = json!("JSONPatch");
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

fn configuration(kind: &str, name: &str, client: Value, rule: Value, space: &Space) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [{
        "name": format!("{name}.hooks.example.com"), "clientConfig": client, "rules": [rule], "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "timeoutSeconds": 10,
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name()}}}]})
}

/// A Service without pods whose endpoint is a program on the first node.
fn service(space: &Space, name: &str, port: u16) {
    let node = space.value("node", "{.items[0].status.addresses[?(@.type=='InternalIP')].address}");
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": 443, "targetPort": port}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{name}-outside"), "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": port}], "endpoints": [{"addresses": [node]}]});
    space.apply(service);
    space.apply(slice);
}

#[test]
fn webhooks_by_url_and_behind_a_service_take_part_in_writes() {
    let space = Space::new("hooked");
    let (bundle, pair) = certificate(&["127.0.0.1", "outside.hooked.svc"]);
    let outside = Outside::start(space.cluster(), &pair, review);
    service(&space, "outside", outside.port);
    let any = json!({"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps", "pods/attach"]});
    let by_url = json!({"url": format!("https://127.0.0.1:{}/judge", outside.port), "caBundle": bundle});
    let behind =
        json!({"service": {"namespace": "hooked", "name": "outside", "path": "/mark"}, "caBundle": bundle});
    space.apply(configuration("ValidatingWebhookConfiguration", "judge", by_url, any, &space));
    let made = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]});
    space.apply(configuration("MutatingWebhookConfiguration", "mark", behind, made, &space));
    space.kubectl(&["create", "configmap", "good"]);
    assert_eq!(space.value("configmap/good", "{.metadata.annotations.marked}"), "yes");
    let refused = space.kubectl_refused(&["label", "configmap", "good", "bad=yes"], "");
    let said = "admission webhook \"judge.hooks.example.com\" denied the request: this is bad";
    assert!(refused.contains(said), "{refused}");
    space.start(&crate::harness::web_pod("web"));
    let refused = space.kubectl_refused(&["attach", "web"], "");
    assert!(refused.contains(said), "{refused}");

    // The authority is changed under way, as by a program that renews certificates: first the server, then the bundle.
    drop(outside);
    let (bundle, pair) = certificate(&["127.0.0.1", "outside.hooked.svc"]);
    let outside = Outside::start(space.cluster(), &pair, review);
    let url = format!("https://127.0.0.1:{}/judge", outside.port);
    let patch = |at: &str, value: &str| {
        json!([{"op": "replace", "path": format!("/webhooks/0/clientConfig/{at}"), "value": value}])
            .to_string()
    };
    space.kubectl(&[
        "patch",
        "validatingwebhookconfiguration",
        "judge",
        "--type=json",
        "-p",
        &patch("url", &url),
    ]);
    let refused = space.kubectl_refused(&["label", "configmap", "good", "new=yes"], "");
    assert!(refused.contains("certificate signed by unknown authority"), "{refused}");
    space.kubectl(&[
        "patch",
        "validatingwebhookconfiguration",
        "judge",
        "--type=json",
        "-p",
        &patch("caBundle", &bundle),
    ]);
    space.kubectl(&["label", "configmap", "good", "new=yes"]);
    space.kubectl(&["delete", "validatingwebhookconfiguration/judge", "mutatingwebhookconfiguration/mark"]);
}

/// v1 has `size`, v2 `height`.
fn convert(_: &str, review: &Value) -> Value {
    let request = &review["request"];
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let (from, to) = if wanted.ends_with("v2") { ("size", "height") } else { ("height", "size") };
    let objects = request["objects"].as_array().cloned().unwrap_or_default();
    let made = objects.into_iter().map(|mut object| {
        let value = object.as_object_mut().and_then(|map| map.remove(from)).unwrap_or_default();
        object[to] = value;
        object["apiVersion"] = json!(wanted);
        object
    });
    let made: Vec<Value> = made.collect();
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": made}})
}

#[test]
fn a_webhook_converts_custom_objects_between_versions() {
    let space = Space::new("converted");
    let (bundle, pair) = certificate(&["127.0.0.1"]);
    let outside = Outside::start(space.cluster(), &pair, convert);
    let version = |name: &str, field: &str, stored: bool| {
        json!({"name": name, "served": true, "storage": stored,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {field: {"type": "integer"}}}}})
    };
    let url = format!("https://127.0.0.1:{}/convert", outside.port);
    space.apply(json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "trees.converted.example.com"}, "spec": {"group": "converted.example.com", "scope": "Namespaced",
        "names": {"plural": "trees", "kind": "Tree"}, "versions": [version("v1", "size", true), version("v2", "height", false)],
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"url": url, "caBundle": bundle}}}}}));
    space.until(&["get", "trees.v1.converted.example.com", "-o", "name"], |out| out.is_empty());
    let tree = json!({"apiVersion": "converted.example.com/v1", "kind": "Tree", "metadata": {"name": "oak"}, "size": 7});
    space.apply(tree);
    assert_eq!(space.value("trees.v2.converted.example.com/oak", "{.height}"), "7");
    space.kubectl(&[
        "patch",
        "trees.v2.converted.example.com",
        "oak",
        "--type=merge",
        "-p",
        "{\"height\": 8}",
    ]);
    assert_eq!(space.value("trees.v1.converted.example.com/oak", "{.size}"), "8");
    space.kubectl(&["delete", "crd", "trees.converted.example.com"]);
}

/// An API server of one kind.
fn serve(path: &str, asked: &Value) -> Value {
    let kind = json!({"name": "birds", "singularName": "bird", "namespaced": true, "kind": "Bird", "verbs": ["get", "list"]});
    match path {
        "/apis/birds.example.com/v1" => json!({"kind": "APIResourceList", "apiVersion": "v1",
            "groupVersion": "birds.example.com/v1", "resources": [kind]}),
        _ => json!({"kind": "BirdList", "apiVersion": "birds.example.com/v1", "metadata": {}, "items": [{
            "kind": "Bird", "apiVersion": "birds.example.com/v1", "metadata": {"name": "owl", "namespace": "behind",
            "annotations": {"user": asked["user"]}}}]}),
    }
}

#[test]
fn an_api_server_behind_this_one_is_found_and_asked() {
    let space = Space::new("behind");
    let (bundle, pair) = certificate(&["birds.behind.svc"]);
    let outside = Outside::start(space.cluster(), &pair, serve);
    service(&space, "birds", outside.port);
    space.apply(json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.birds.example.com"},
        "spec": {"group": "birds.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
        "caBundle": bundle, "service": {"namespace": "behind", "name": "birds", "port": 443}}}));
    let reason = "{.status.conditions[?(@.type=='Available')].reason}";
    space.until_value("apiservice/v1.birds.example.com", reason, |reason| reason == "Passed");
    let owl = space.until(&["get", "birds", "-o", "jsonpath={.items[0].metadata.annotations.user}"], |out| {
        !out.is_empty()
    });
    assert_eq!(owl, "kubernetes-admin");
    assert_eq!(space.value("apiservice/v1.apps", reason), "Local");
    drop(outside);
    space.until_value("apiservice/v1.birds.example.com", reason, |reason| reason == "FailedDiscoveryCheck");
    let refused = space.kubectl_refused(&["get", "--raw", "/apis/birds.example.com/v1/birds"], "");
    assert!(refused.contains("unable to handle the request"), "{refused}");
    space.kubectl(&["delete", "apiservice", "v1.birds.example.com"]);
}

#[test]
fn what_a_policy_denies_is_invalid_unless_the_policy_says_otherwise() {
    let space = Space::new("policed");
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["configmaps"]});
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "policed"}});
    space.apply(json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "policed"}, "spec": {"matchConstraints": {"resourceRules": [rule], "namespaceSelector": selector},
        "validations": [{"expression": "!has(object.data) || !('bad' in object.data)", "message": "bad is not good"},
            {"expression": "!has(object.data) || !('worse' in object.data)", "message": "worse is worse", "reason": "Forbidden"}]}}));
    space.apply(
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "policed"}, "spec": {"policyName": "policed", "validationActions": ["Deny"]}}),
    );
    let said = "ValidatingAdmissionPolicy 'policed' with binding 'policed' denied request";
    let refused = |key: &str| {
        let made =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {key: "1"}});
        space.kubectl_refused(&["create", "-f", "-"], &made.to_string())
    };
    let (invalid, forbidden) = (refused("bad"), refused("worse"));
    let wanted = format!("The configmaps \"a\" is invalid: : {said}: bad is not good");
    assert!(invalid.contains(&wanted), "{invalid}");
    let wanted = format!("configmaps \"a\" is forbidden: {said}: worse is worse");
    assert!(forbidden.contains("(Forbidden)") && forbidden.contains(&wanted), "{forbidden}");
    space.kubectl(&[
        "delete",
        "validatingadmissionpolicybinding/policed",
        "validatingadmissionpolicy/policed",
    ]);
}
