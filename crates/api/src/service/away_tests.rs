//! Stories of API servers behind this one: who is asked as whom, what is shown of them, and what they may not do.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request};
use model::Tree;
use serde_json::{Value, json};

use super::tests::{Lab, lab_with};
use crate::answer::Body;
use crate::settings::Settings;
use crate::testing::{Outside, Way};

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUP: &str = "/apis/wardle.example.com/v1alpha1";
const FLUNDERS: &str = "/apis/wardle.example.com/v1alpha1/namespaces/default/flunders";

fn answer(path: &str, headers: &HeaderMap) -> Option<(u16, Tree)> {
    let all = |name: &str| -> Vec<&str> {
        headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok()).collect()
    };
    Some(match path.split('?').next().unwrap_or_default() {
        GROUP => (
            200,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1alpha1",
            "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]}]}),
        ),
        "/openapi/v3" => (
            200,
            json!({"paths": {"apis/wardle.example.com/v1alpha1": {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=1"}}}),
        ),
        "/openapi/v2" => (
            200,
            json!({"paths": {"/apis/wardle.example.com/v1alpha1/flunders": {}}, "definitions": {"Flunder": {}}}),
        ),
        "/openapi/v3/apis/wardle.example.com/v1alpha1" => (200, json!({"openapi": "3.0.0"})),
        FLUNDERS => (
            200,
            json!({"path": path, "user": all("x-remote-user"), "groups": all("x-remote-group"),
            "extra": all("x-remote-extra-a%2fb"), "uid": all("x-remote-uid"), "authorization": all("authorization")}),
        ),
        path if path.ends_with("/moved") => (302, json!({})),
        path if path.ends_with("/switched") => (101, json!({})),
        path if path.ends_with("/exec") => (403, json!({"message": "not you"})),
        _ => (404, json!({})),
    })
}

async fn lab() -> (Lab, Arc<Outside>) {
    lab_with_answers(answer).await
}

async fn lab_with_answers(answer: fn(&str, &HeaderMap) -> Option<(u16, Tree)>) -> (Lab, Arc<Outside>) {
    let outside = Outside::new(move |path, headers, _| answer(path, headers));
    let settings = Settings { dial: Arc::new(Way(outside.clone())), ..Settings::default() };
    (lab_with(settings).await, outside)
}

/// Registers the server, and the Service and endpoints behind which it is.
async fn register(lab: &Lab) {
    let service =
        json!({"metadata": {"name": "sample"}, "spec": {"ports": [{"port": 7443, "targetPort": 443}]}});
    let slice = json!({"metadata": {"name": "sample-1", "labels": {"kubernetes.io/service-name": "sample"}}, "addressType": "IPv4",
        "ports": [{"name": "", "port": 443, "protocol": "TCP"}], "endpoints": [{"addresses": ["10.1.2.3"]}]});
    for (at, object) in [
        ("/api/v1/namespaces/default/services", service),
        ("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice),
        (API_SERVICES, registration()),
    ] {
        let (code, made) = lab.post(at, object).await;
        assert_eq!(code, 201, "{made}");
    }
}

fn registration() -> Tree {
    json!({"metadata": {"name": "v1alpha1.wardle.example.com"}, "spec": {"group": "wardle.example.com", "version": "v1alpha1",
        "groupPriorityMinimum": 2000, "versionPriority": 200, "insecureSkipTLSVerify": true,
        "service": {"namespace": "default", "name": "sample", "port": 7443}}})
}

async fn condition(lab: &Lab) -> String {
    crate::aggregate::look(&lab.service).await;
    let (_, object) = lab.get(&format!("{API_SERVICES}/v1alpha1.wardle.example.com")).await;
    let condition = &object["status"]["conditions"][0];
    format!("{} {}", condition["status"].as_str().unwrap_or("-"), condition["reason"].as_str().unwrap_or("-"))
}

/// The code and the body of an answer that comes in pieces.
async fn ask(lab: &Lab, method: Method, uri: &str, headers: &[(&str, &str)]) -> (u16, Bytes) {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = lab.service.handle(&lab.admin, request.body(Bytes::new()).expect("a good request")).await;
    let body = match answer.body {
        Body::Whole(bytes) => bytes,
        Body::Pieces(pieces) => pieces.whole(),
        Body::Stream(mut pieces) | Body::Relayed(mut pieces) => {
            let mut all = Vec::new();
            while let Some(piece) = pieces.next().await {
                all.extend_from_slice(&piece.expect("no cut"));
            }
            all.into()
        }
        Body::Upgrade(_) => panic!("an upgrade"),
    };
    (answer.status.as_u16(), body)
}

#[tokio::test(start_paused = true)]
async fn a_server_is_asked_as_who_asks_and_nobody_else() {
    let (lab, _outside) = lab().await;
    register(&lab).await;
    assert_eq!(ask(&lab, Method::GET, FLUNDERS, &[]).await, (503, "service unavailable\n".into()));
    assert_eq!(condition(&lab).await, "True Passed");
    let lies =
        [("x-remote-user", "root"), ("x-remote-group", "system:masters"), ("authorization", "Bearer secret")];
    let (code, body) = ask(&lab, Method::GET, &format!("{FLUNDERS}?watch=true"), &lies).await;
    let told: Tree = serde_json::from_slice(&body).expect("JSON");
    let groups = json!(lab.admin.groups);
    assert_eq!(
        (code, &told["user"], &told["groups"], &told["authorization"]),
        (200, &json!(["admin"]), &groups, &json!([]))
    );
    assert_eq!(told["path"], format!("{FLUNDERS}?watch=true"));
    let other = [("impersonate-user", "ann"), ("impersonate-extra-a%2fb", "c"), ("impersonate-uid", "7")];
    let (_, body) = ask(&lab, Method::GET, FLUNDERS, &other).await;
    let told: Tree = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(
        (&told["user"], &told["groups"], &told["uid"]),
        (&json!(["ann"]), &json!(["system:authenticated"]), &json!(["7"]))
    );
}

/// What was done to clusters through their extension servers (CVE-2018-1002105, CVE-2022-3172).
#[tokio::test(start_paused = true)]
async fn a_server_can_neither_redirect_nor_keep_a_connection() {
    let (lab, outside) = lab().await;
    register(&lab).await;
    assert_eq!(condition(&lab).await, "True Passed");
    let (code, body) = ask(&lab, Method::GET, &format!("{FLUNDERS}/moved"), &[]).await;
    let why = "the backend attempted to redirect this request, which is not permitted";
    assert_eq!((code, &body[..]), (502, why.as_bytes()));
    // A protocol that nobody asked for is not switched to.
    assert_eq!(ask(&lab, Method::GET, &format!("{FLUNDERS}/switched"), &[]).await.0, 502);
    // One that was asked for and refused leaves an answer, and no way to say more on that connection.
    outside.take();
    let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
    let (code, body) = ask(&lab, Method::POST, &format!("{FLUNDERS}/x/exec"), &upgrade).await;
    assert_eq!((code, &body[..]), (403, &br#"{"message":"not you"}"#[..]));
    assert_eq!(outside.paths(), [format!("{FLUNDERS}/x/exec")]);
}

#[tokio::test(start_paused = true)]
async fn what_a_server_serves_is_shown_with_ours() {
    let (lab, _outside) = lab().await;
    register(&lab).await;
    assert_eq!(condition(&lab).await, "True Passed");
    let (_, groups) = lab.get("/apis").await;
    let groups = groups["groups"].as_array().expect("a list").clone();
    assert!(groups.iter().any(|group| group["name"] == "wardle.example.com"), "{groups:?}");
    let (_, group) = lab.get("/apis/wardle.example.com").await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1", "{group}");
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let (_, body) = ask(&lab, Method::GET, "/apis", &accept).await;
    let all: Tree = serde_json::from_slice(&body).expect("JSON");
    let mut items = all["items"].as_array().into_iter().flatten();
    let own = items.find(|group| group["metadata"]["name"] == "wardle.example.com").expect("it is shown");
    assert_eq!(
        (&own["versions"][0]["resources"][0]["resource"], &own["versions"][0]["freshness"]),
        (&json!("flunders"), &json!("Current"))
    );
    let (_, two) = lab.get("/openapi/v2").await;
    assert!(
        two["definitions"]["Flunder"].is_object()
            && two["paths"]["/apis/wardle.example.com/v1alpha1/flunders"].is_object()
    );
    let (_, three) = lab.get("/openapi/v3").await;
    assert!(three["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"].is_string());
    let (code, body) = ask(&lab, Method::GET, "/openapi/v3/apis/wardle.example.com/v1alpha1", &[]).await;
    assert_eq!((code, &body[..]), (200, &br#"{"openapi":"3.0.0"}"#[..]));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_in_openapi_two_alone_is_said_in_three_here() {
    let (lab, outside) = lab_with_answers(|path, headers| match path.starts_with("/openapi/v3") {
        true => Some((404, json!({}))),
        false => answer(path, headers),
    })
    .await;
    register(&lab).await;
    assert_eq!(condition(&lab).await, "True Passed");
    outside.take();
    let (_, index) = lab.get("/openapi/v3").await;
    let url = index["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"].clone();
    let (code, three) = lab.get(url.as_str().unwrap_or_default()).await;
    assert_eq!((code, &three["openapi"]), (200, &json!("3.0.0")), "{three}");
    assert!(three["components"]["schemas"]["Flunder"].is_object(), "{three}");
    assert_eq!(outside.paths(), Vec::<String>::new(), "nobody is asked again");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_gone_is_found_out() {
    let (lab, _outside) = lab().await;
    register(&lab).await;
    assert_eq!(condition(&lab).await, "True Passed");
    lab.delete("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/sample-1").await;
    assert_eq!(condition(&lab).await, "False EndpointsNotFound");
    lab.delete("/api/v1/namespaces/default/services/sample").await;
    assert_eq!(condition(&lab).await, "False ServiceNotFound");
    assert_eq!(ask(&lab, Method::GET, FLUNDERS, &[]).await.0, 503);
    lab.delete(&format!("{API_SERVICES}/v1alpha1.wardle.example.com")).await;
    assert_eq!(lab.get(FLUNDERS).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn our_own_groups_are_registered_and_those_of_definitions_go_with_them() {
    let (lab, _outside) = lab().await;
    let definition = json!({"metadata": {"name": "foos.x.example.com"}, "spec": {"group": "x.example.com", "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo"}, "versions": [{"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(lab.post(definitions, definition).await.0, 201);
    crate::aggregate::look(&lab.service).await;
    for name in ["v1.", "v1.apps", "v1.x.example.com"] {
        let (code, object) = lab.get(&format!("{API_SERVICES}/{name}")).await;
        let condition = &object["status"]["conditions"][0];
        assert_eq!(
            (code, &condition["status"], &condition["reason"]),
            (200, &json!("True"), &json!("Local")),
            "{object}"
        );
    }
    assert_eq!(lab.delete(&format!("{definitions}/foos.x.example.com")).await.0, 200);
    crate::aggregate::look(&lab.service).await;
    assert_eq!(lab.get(&format!("{API_SERVICES}/v1.x.example.com")).await.0, 404);
    let mut odd = registration();
    odd["metadata"]["name"] = json!("odd");
    odd["spec"]["versionPriority"] = Value::from(0);
    let (code, told) = lab.post(API_SERVICES, odd).await;
    assert_eq!((code, told["details"]["causes"].as_array().map(Vec::len)), (422, Some(2)), "{told}");
}
