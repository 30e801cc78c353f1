//! Stories of custom resources whose versions a webhook converts.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use http::{Method, Request};
use model::Tree;
use serde_json::{Value, json};

use super::tests::{Lab, lab_with};
use crate::settings::Settings;
use crate::testing::{Outside, Way};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/x.example.com/v1/namespaces/default/foos";
const V2: &str = "/apis/x.example.com/v2/namespaces/default/foos";

/// v1 says `hostPort`, v2 `host` and `port`. `/rename` gives objects other names, `/few` forgets one, `/fail` refuses.
fn answer(path: &str, review: &Tree) -> Option<(u16, Tree)> {
    let request = &review["request"];
    if path.starts_with("/admit") {
        // It is asked in v2, and has every port be 90.
        let (port, patch) = (&request["object"]["port"], r#"[{"op":"replace","path":"/port","value":"90"}]"#);
        let mut response = json!({"uid": request["uid"], "allowed": true});
        if port.is_string() && port != "90" {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(STANDARD.encode(patch));
        }
        return Some((
            200,
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}),
        ));
    }
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let mut made: Vec<Tree> =
        request["objects"].as_array().into_iter().flatten().map(|old| convert(old, wanted)).collect();
    let mut result = json!({"status": "Success"});
    match path.split('?').next().unwrap_or_default() {
        "/rename" => made.iter_mut().for_each(|object| object["metadata"]["name"] = json!("other")),
        "/few" => drop(made.pop()),
        "/fail" => result = json!({"status": "Failure", "message": "no such port"}),
        "/touch" => made.iter_mut().for_each(|object| {
            object["metadata"]["labels"] = json!({"touched": "yes"});
            object["metadata"]["finalizers"] = json!(["x.io/y"]);
        }),
        _ => {}
    }
    let response = json!({"uid": request["uid"], "result": result, "convertedObjects": made});
    Some((
        200,
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response}),
    ))
}

fn convert(old: &Tree, wanted: &str) -> Tree {
    let mut new = old.clone();
    new["apiVersion"] = json!(wanted);
    let text = |name: &str| old[name].as_str().unwrap_or_default().to_owned();
    let Some(map) = new.as_object_mut() else { return new };
    if wanted.ends_with("v2") {
        let joined = text("hostPort");
        let (host, port) = joined.split_once(':').unwrap_or((&joined, ""));
        map.remove("hostPort");
        map.insert("host".into(), json!(host));
        map.insert("port".into(), json!(port));
    } else {
        let joined = format!("{}:{}", text("host"), text("port"));
        map.remove("host");
        map.remove("port");
        map.insert("hostPort".into(), json!(joined));
    }
    new
}

fn definition(path: &str, stored: &str) -> Tree {
    let version = |name: &str, fields: &[&str]| {
        let properties: serde_json::Map<String, Value> =
            fields.iter().map(|field| ((*field).to_owned(), json!({"type": "string"}))).collect();
        let selectable: Vec<Value> =
            fields.iter().map(|field| json!({"jsonPath": format!(".{field}")})).collect();
        json!({"name": name, "served": true, "storage": name == stored, "selectableFields": selectable,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    json!({"metadata": {"name": "foos.x.example.com"}, "spec": {"group": "x.example.com", "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo"},
        "versions": [version("v1", &["hostPort"]), version("v2", &["host", "port"])],
        "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://hooks.example.com/{path}")}}}}})
}

async fn lab(path: &str) -> (Lab, Arc<Outside>) {
    let outside = Outside::new(|path, _, review| answer(path, review));
    let settings = Settings { dial: Arc::new(Way(outside.clone())), ..Settings::default() };
    let lab = lab_with(settings).await;
    let (code, made) = lab.post(DEFINITIONS, definition(path, "v1")).await;
    assert_eq!(code, 201, "{made}");
    (lab, outside)
}

fn old(name: &str, host_port: &str) -> Tree {
    json!({"metadata": {"name": name}, "hostPort": host_port})
}

fn new(name: &str, host: &str, port: &str) -> Tree {
    json!({"metadata": {"name": name}, "host": host, "port": port})
}

fn shown(list: &Tree) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .map(|item| {
            let text = |name: &str| item[name].as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {}/{}",
                item["metadata"]["name"].as_str().unwrap_or_default(),
                text("hostPort"),
                text("host"),
                text("port")
            )
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn objects_are_shown_in_every_version_whichever_they_are_stored_in() {
    let (lab, outside) = lab("convert").await;
    assert_eq!(lab.post(V1, old("a", "h1:80")).await.0, 201);
    let (code, made) = lab.post(V2, new("b", "h2", "81")).await;
    assert_eq!(
        (code, &made["host"], &made["apiVersion"]),
        (201, &json!("h2"), &json!("x.example.com/v2")),
        "{made}"
    );
    let flip = json!({"spec": {"versions": definition("convert", "v2")["spec"]["versions"]}});
    let one = format!("{DEFINITIONS}/foos.x.example.com");
    assert_eq!(lab.ask(Method::PATCH, &one, flip).await.0, 200);
    assert_eq!(lab.post(V2, new("c", "h3", "82")).await.0, 201);
    let (one, two) = (["a h1:80 -/-", "b h2:81 -/-", "c h3:82 -/-"], ["a - h1/80", "b - h2/81", "c - h3/82"]);
    assert_eq!(shown(&lab.get(V1).await.1), one);
    assert_eq!(shown(&lab.get(V2).await.1), two);
    // What was converted once is known.
    outside.take();
    assert_eq!(
        (shown(&lab.get(V1).await.1), shown(&lab.get(V2).await.1)),
        (one.map(str::to_owned).into(), two.map(str::to_owned).into())
    );
    assert_eq!(outside.paths(), Vec::<String>::new());
    // A write brings an object into the stored version; nothing but the version's words changes.
    let (code, patched) = lab.ask(Method::PATCH, &format!("{V2}/a"), json!({"port": "90"})).await;
    assert_eq!((code, &patched["host"], &patched["port"]), (200, &json!("h1"), &json!("90")), "{patched}");
    let (_, seen) = lab.get(&format!("{V1}/a")).await;
    assert_eq!(
        (&seen["hostPort"], &seen["metadata"]["uid"]),
        (&json!("h1:90"), &patched["metadata"]["uid"]),
        "{seen}"
    );
    let (code, scoped) = lab.ask(Method::PATCH, &format!("{V1}/c"), json!({"hostPort": "h4:1"})).await;
    assert_eq!((code, &scoped["hostPort"]), (200, &json!("h4:1")), "{scoped}");
    assert_eq!(lab.get(&format!("{V2}/c")).await.1["host"], "h4");
}

#[tokio::test(start_paused = true)]
async fn admission_in_another_version_sees_and_changes_the_converted_object() {
    let (lab, outside) = lab("convert").await;
    let hook = json!({"metadata": {"name": "ports"}, "webhooks": [{"name": "ports.example.com", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://hooks.example.com/admit"},
        "rules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["x.example.com"], "apiVersions": ["v2"], "resources": ["foos"]}]}]});
    let (code, made) =
        lab.post("/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", hook).await;
    assert_eq!(code, 201, "{made}");
    let (code, made) = lab.post(V1, old("a", "h1:80")).await;
    assert_eq!((code, &made["hostPort"]), (201, &json!("h1:90")), "{made}");
    outside.take();
    let (code, patched) = lab.ask(Method::PATCH, &format!("{V1}/a"), json!({"hostPort": "h2:81"})).await;
    assert_eq!((code, &patched["hostPort"]), (200, &json!("h2:90")), "{patched}");
    assert_eq!(outside.paths().iter().filter(|path| path.starts_with("/admit")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn policies_in_another_version_judge_the_converted_object() {
    const ADMISSION: &str = "/apis/admissionregistration.k8s.io/v1";
    let (lab, _) = lab("convert").await;
    let policy = json!({"metadata": {"name": "ports"}, "spec": {"validations": [{"expression": "object.port != '13'"}],
        "matchConstraints": {"resourceRules": [{"operations": ["CREATE", "UPDATE"], "apiGroups": ["x.example.com"],
            "apiVersions": ["v2"], "resources": ["foos"]}]}}});
    assert_eq!(lab.post(&format!("{ADMISSION}/validatingadmissionpolicies"), policy).await.0, 201);
    let binding = json!({"metadata": {"name": "ports"}, "spec": {"policyName": "ports", "validationActions": ["Deny"]}});
    assert_eq!(lab.post(&format!("{ADMISSION}/validatingadmissionpolicybindings"), binding).await.0, 201);
    assert_eq!(lab.post(V1, old("a", "h1:80")).await.0, 201);
    let (code, refused) = lab.post(V1, old("b", "h1:13")).await;
    assert_eq!((code, &refused["reason"]), (422, &json!("Invalid")), "{refused}");
    let (code, refused) = lab.ask(Method::PATCH, &format!("{V1}/a"), json!({"hostPort": "h2:13"})).await;
    assert_eq!(code, 422, "{refused}");
    let (code, patched) = lab.ask(Method::PATCH, &format!("{V1}/a"), json!({"hostPort": "h2:14"})).await;
    assert_eq!((code, &patched["hostPort"]), (200, &json!("h2:14")), "{patched}");
}

#[tokio::test(start_paused = true)]
async fn watches_and_selectors_see_the_version_that_is_asked_for() {
    let (lab, _outside) = lab("convert").await;
    assert_eq!(lab.post(V1, old("a", "h1:80")).await.0, 201);
    assert_eq!(lab.post(V1, old("b", "h2:80")).await.0, 201);
    assert_eq!(shown(&lab.get(&format!("{V2}?fieldSelector=host%3Dh1")).await.1), ["a - h1/80"]);
    assert_eq!(shown(&lab.get(&format!("{V1}?fieldSelector=hostPort%3Dh2:80")).await.1), ["b h2:80 -/-"]);
    let request = Request::builder().uri(format!("{V2}?watch=true&fieldSelector=host%3Dh1")).body(());
    let mut events =
        lab.service.watch(&lab.admin, request.expect("a good request")).await.expect("a good watch");
    lab.ask(Method::PATCH, &format!("{V1}/b"), json!({"hostPort": "h1:81"})).await;
    lab.ask(Method::PATCH, &format!("{V1}/a"), json!({"hostPort": "h3:80"})).await;
    let mut told = Vec::new();
    for _ in 0..3 {
        let (kind, bytes) = events.next().await.expect("the watch goes on");
        let object: Tree = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(object["apiVersion"], "x.example.com/v2", "{object}");
        let text = |value: &Tree| value.as_str().unwrap_or_default().to_owned();
        told.push(format!(
            "{} {} {}",
            kind.as_str(),
            text(&object["metadata"]["name"]),
            text(&object["host"])
        ));
    }
    assert_eq!(told, ["ADDED a h1", "ADDED b h1", "DELETED a h1"]);
    assert_eq!(lab.delete(&format!("{V2}?fieldSelector=host%3Dh1")).await.0, 200);
    assert_eq!(shown(&lab.get(V1).await.1), ["a h3:80 -/-"]);
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_does_otherwise_is_told_off() {
    let check = async |path: &str, wanted: &str| {
        let (lab, _outside) = lab(path).await;
        assert_eq!(lab.post(V1, old("a", "h1:80")).await.0, 201);
        for uri in [V2.to_owned(), format!("{V2}/a")] {
            let (code, told) = lab.get(&uri).await;
            let message = told["message"].as_str().unwrap_or_default();
            assert_eq!(
                (code, message),
                (500, format!("conversion webhook for x.example.com/v1, Kind=Foo {wanted}").as_str()),
                "{told}"
            );
        }
        // The stored version needs nobody.
        assert_eq!(lab.get(V1).await.0, 200);
    };
    check("rename", "returned invalid converted object at index 0: must have the same name: a != other")
        .await;
    check("few", "returned 0 objects, expected 1").await;
    check("fail", "failed: no such port").await;
}

#[tokio::test(start_paused = true)]
async fn a_webhook_may_change_labels_and_no_other_metadata() {
    let (lab, _outside) = lab("touch").await;
    assert_eq!(lab.post(V1, old("a", "h1:80")).await.0, 201);
    let (_, seen) = lab.get(&format!("{V2}/a")).await;
    assert_eq!(
        (&seen["metadata"]["labels"]["touched"], seen["metadata"].get("finalizers")),
        (&json!("yes"), None),
        "{seen}"
    );
    // Selectors see the labels of the version that is asked for.
    let found = async |uri: &str| lab.get(uri).await.1["items"].as_array().map_or(0, Vec::len);
    assert_eq!(found(&format!("{V2}?labelSelector=touched%3Dyes")).await, 1);
    assert_eq!(found(&format!("{V1}?labelSelector=touched%3Dyes")).await, 0);
    assert_eq!(found(&format!("{V2}?labelSelector=!touched")).await, 0);
    assert_eq!(found(&format!("{V1}?labelSelector=!touched")).await, 1);
}
