//! Stories of custom resources through the service: what is served, refused, published and forgotten.

use http::Method;
use model::Tree;
use serde_json::{Value, json};

use super::tests::{Lab, lab};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/x.example.com/v1/namespaces/default/foos";
const V2: &str = "/apis/x.example.com/v2/namespaces/default/foos";

fn definition() -> Tree {
    let spec = json!({"type": "object", "properties": {
        "host": {"type": "string", "maxLength": 5}, "size": {"type": "integer"}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": schema,
            "selectableFields": [{"jsonPath": ".spec.host"}]})
    };
    json!({"metadata": {"name": "foos.x.example.com"}, "spec": {"group": "x.example.com", "scope": "Namespaced",
        "names": {"plural": "foos", "kind": "Foo"}, "versions": [version("v1", true), version("v2", false)]}})
}

fn foo(name: &str, host: &str) -> Tree {
    json!({"metadata": {"name": name}, "spec": {"host": host}})
}

async fn lab_with_foos() -> Lab {
    let lab = lab().await;
    let (code, made) = lab.post(DEFINITIONS, definition()).await;
    assert_eq!((code, &made["status"]["storedVersions"]), (201, &json!(["v1"])), "{made}");
    lab
}

async fn names(lab: &Lab, uri: &str) -> Vec<String> {
    let (code, list) = lab.get(uri).await;
    assert_eq!(code, 200, "{list}");
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|item| item["metadata"]["name"].as_str()).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn objects_are_held_to_their_schema() {
    let lab = lab_with_foos().await;
    let (code, told) = lab.post(V1, foo("a", "too-long")).await;
    assert_eq!((code, &told["details"]["causes"][0]["field"]), (422, &json!("spec.host")), "{told}");
    let odd = json!({"metadata": {"name": "a"}, "spec": {"odd": 1}});
    let (code, told) = lab.post(&format!("{V1}?fieldValidation=Strict"), odd.clone()).await;
    assert_eq!(
        (code, told["message"].as_str()),
        (400, Some("strict decoding error: unknown field \"spec.odd\""))
    );
    let (code, made) = lab.post(V1, odd).await;
    assert_eq!((code, &made["spec"]), (201, &json!({})));
    let mut broken = definition();
    broken["metadata"]["name"] = json!("bars.x.example.com");
    broken["spec"]["names"] = json!({"plural": "bars", "kind": "Bar"});
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["x"] = json!({});
    assert_eq!(lab.post(DEFINITIONS, broken).await.0, 422);
}

#[tokio::test(start_paused = true)]
async fn versions_show_the_same_objects_whichever_is_stored() {
    let lab = lab_with_foos().await;
    assert_eq!(lab.post(V1, foo("a", "h1")).await.0, 201);
    assert_eq!(lab.post(V2, foo("b", "h2")).await.0, 201);
    let flip = json!({"spec": {"versions": definition()["spec"]["versions"].as_array().map(|versions| {
        let mut versions = versions.clone();
        versions[0]["storage"] = json!(false);
        versions[1]["storage"] = json!(true);
        versions
    })}});
    let one = format!("{DEFINITIONS}/foos.x.example.com");
    let (code, changed) = lab.ask(Method::PATCH, &one, flip).await;
    assert_eq!((code, &changed["status"]["storedVersions"]), (200, &json!(["v1", "v2"])), "{changed}");
    assert_eq!(lab.post(V2, foo("c", "h2")).await.0, 201);
    for uri in [V1, V2] {
        assert_eq!(names(&lab, uri).await, ["a", "b", "c"]);
        assert_eq!(names(&lab, &format!("{uri}?fieldSelector=spec.host%3Dh2")).await, ["b", "c"]);
        let (_, one) = lab.get(&format!("{uri}/a")).await;
        assert_eq!(one["apiVersion"], uri.split('/').skip(2).take(2).collect::<Vec<_>>().join("/"));
    }
    assert_eq!(lab.get(&format!("{V1}?fieldSelector=spec.size%3D1")).await.0, 400);
}

#[tokio::test(start_paused = true)]
async fn schemas_are_published_and_forgotten_with_their_definition() {
    let lab = lab_with_foos().await;
    let hash = async || lab.get("/openapi/v3").await.1["paths"]["apis/x.example.com/v1"].clone();
    let published = async || {
        let (_, document) = lab.get("/openapi/v2").await;
        document["definitions"]["com.example.x.v1.Foo"]["properties"]["spec"]["properties"].clone()
    };
    assert_eq!(published().await["host"], json!({"type": "string", "maxLength": 5}));
    let (before, one) = (hash().await, format!("{DEFINITIONS}/foos.x.example.com"));
    let mut changed = definition();
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]
        ["default"] = json!(3);
    assert_eq!(lab.post(V1, foo("a", "h")).await.0, 201);
    assert_eq!(lab.ask(Method::PATCH, &one, json!({"spec": changed["spec"]})).await.0, 200);
    assert_ne!(hash().await, before);
    assert_eq!(lab.get(&format!("{V1}/a")).await.1["spec"]["size"], 3);
    assert_eq!((lab.delete(&format!("{V1}/a")).await.0, lab.delete(&one).await.0), (200, 200));
    assert_eq!((published().await, hash().await, lab.get(V1).await.0), (Value::Null, Value::Null, 404));
}

/// What the controller says of an ending definition.
async fn say_completed(lab: &Lab) -> u16 {
    let said = json!({"type": "Terminating", "status": "False", "reason": "InstanceDeletionCompleted"});
    let status = format!("{DEFINITIONS}/foos.x.example.com/status");
    lab.ask(Method::PATCH, &status, json!({"status": {"conditions": [said]}})).await.0
}

#[tokio::test(start_paused = true)]
async fn a_definition_stays_until_its_objects_are_gone_and_nothing_is_made_of_it() {
    let lab = lab_with_foos().await;
    assert_eq!((lab.post(V1, foo("a", "h")).await.0, lab.post(V1, foo("b", "h")).await.0), (201, 201));
    let one = format!("{DEFINITIONS}/foos.x.example.com");
    let (code, going) = lab.delete(&one).await;
    assert_eq!(
        (code, &going["metadata"]["finalizers"][0]),
        (200, &json!("customresourcecleanup.apiextensions.k8s.io")),
        "{going}"
    );
    let conditions = going["status"]["conditions"].as_array().expect("conditions");
    assert!(conditions.iter().any(|said| said["reason"] == "InstanceDeletionPending"), "{going}");
    assert_eq!(lab.post(V1, foo("late", "h")).await.0, 405);
    assert_eq!(names(&lab, V1).await, ["a", "b"]);
    assert_eq!((lab.delete(&format!("{V1}/a")).await.0, say_completed(&lab).await), (200, 409));
    assert_eq!((lab.delete(&format!("{V1}/b")).await.0, say_completed(&lab).await), (200, 200));
    let free = json!({"metadata": {"finalizers": null}});
    assert_eq!(lab.ask(Method::PATCH, &one, free).await.0, 200);
    assert_eq!((lab.get(&one).await.0, lab.get(V1).await.0), (404, 404));
}

#[tokio::test(start_paused = true)]
async fn a_definition_without_objects_goes_at_once_and_one_that_is_held_gets_its_finalizer_too() {
    let lab = lab_with_foos().await;
    let one = format!("{DEFINITIONS}/foos.x.example.com");
    assert_eq!(lab.post(V1, foo("a", "h")).await.0, 201);
    let hold = json!({"metadata": {"finalizers": ["x.example.com/hold"]}});
    assert_eq!(lab.ask(Method::PATCH, &one, hold).await.0, 200);
    let (_, going) = lab.delete(&one).await;
    let held = json!(["x.example.com/hold", "customresourcecleanup.apiextensions.k8s.io"]);
    assert_eq!(going["metadata"]["finalizers"], held);
    let lab = lab_with_foos().await;
    assert_eq!((lab.delete(&one).await.0, lab.get(&one).await.0), (200, 404));
}

#[tokio::test(start_paused = true)]
async fn what_the_stored_version_does_not_know_is_not_kept() {
    let lab = lab().await;
    let mut definition = definition();
    definition["spec"]["versions"][1]["schema"]["openAPIV3Schema"] =
        json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    definition["spec"]["versions"][1].as_object_mut().map(|version| version.remove("selectableFields"));
    assert_eq!(lab.post(DEFINITIONS, definition).await.0, 201);
    let odd = json!({"metadata": {"name": "a"}, "spec": {"host": "h", "odd": 1}, "more": 1});
    assert_eq!(lab.post(V2, odd).await.0, 201);
    let (_, made) = lab.get(&format!("{V2}/a")).await;
    assert_eq!((&made["spec"], made.get("more")), (&json!({"host": "h"}), None));
}

#[tokio::test(start_paused = true)]
async fn objects_are_held_to_the_rules_of_their_schema() {
    let lab = lab().await;
    let with = |rules: Tree| {
        let mut made = definition();
        for at in 0..2 {
            let schema = &mut made["spec"]["versions"][at]["schema"]["openAPIV3Schema"]["properties"]["spec"];
            schema["x-kubernetes-validations"] = rules.clone();
        }
        made
    };
    let (code, told) = lab.post(DEFINITIONS, with(json!([{"rule": "self.absent == 'a'"}]))).await;
    assert!(
        code == 422 && told["message"].as_str().is_some_and(|told| told.contains("undefined field 'absent'")),
        "{told}"
    );
    let kept =
        json!({"rule": "self.host == oldSelf.host", "message": "host is immutable", "fieldPath": ".host"});
    let rules = json!([{"rule": "self.size <= 10", "messageExpression": "'at most 10, not ' + string(self.size)"}, kept]);
    assert_eq!(lab.post(DEFINITIONS, with(rules)).await.0, 201);
    let sized = |size: i64| json!({"metadata": {"name": "a"}, "spec": {"host": "h", "size": size}});
    let (code, told) = lab.post(V1, sized(11)).await;
    assert_eq!(code, 422);
    assert_eq!(
        told["message"],
        "Foo.x.example.com \"a\" is invalid: spec: Invalid value: at most 10, not 11"
    );
    assert_eq!(lab.post(V1, sized(10)).await.0, 201);
    let (code, told) = lab.ask(Method::PATCH, &format!("{V1}/a"), json!({"spec": {"host": "other"}})).await;
    assert_eq!((code, &told["details"]["causes"][0]["field"]), (422, &json!("spec.host")), "{told}");
    assert_eq!(lab.ask(Method::PATCH, &format!("{V1}/a"), json!({"spec": {"size": 1}})).await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_a_version_that_goes_out_of_use_is_warned() {
    let lab = lab().await;
    let mut made = definition();
    made["spec"]["versions"][0]["deprecated"] = json!(true);
    assert_eq!(lab.post(DEFINITIONS, made.clone()).await.0, 201);
    let warning = async |uri: &str| {
        let request = http::Request::get(uri).body(bytes::Bytes::new()).expect("a good request");
        let answer = lab.service.handle(&lab.admin, request).await;
        answer.headers.get("warning").and_then(|told| told.to_str().ok()).map(str::to_owned)
    };
    let told = "299 - \"x.example.com/v1 Foo is deprecated; use x.example.com/v2 Foo\"";
    assert_eq!(warning(V1).await.as_deref(), Some(told));
    assert_eq!(warning(&format!("{V1}/none")).await.as_deref(), Some(told));
    assert_eq!(warning(V2).await, None);
    let said = json!({"spec": {"versions": made["spec"]["versions"].as_array().map(|versions| {
        let mut versions = versions.clone();
        versions[0]["deprecationWarning"] = json!("v1 is no more");
        versions
    })}});
    assert_eq!(lab.ask(Method::PATCH, &format!("{DEFINITIONS}/foos.x.example.com"), said).await.0, 200);
    assert_eq!(warning(V1).await.as_deref(), Some("299 - \"v1 is no more\""));
    let endpoints = warning("/api/v1/namespaces/default/endpoints").await.unwrap_or_default();
    assert!(
        endpoints.contains("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    );
}
