//! Longer stories through the service: pods, services, quotas and budgets, many at once.

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request};
use model::Tree;
use serde_json::{Value, json};

use super::tests::{Lab, lab};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn lab_with_account() -> Lab {
    let lab = lab().await;
    let account = json!({"metadata": {"name": "default"}});
    assert_eq!(lab.post("/api/v1/namespaces/default/serviceaccounts", account).await.0, 201);
    lab
}

async fn pod(lab: &Lab, name: &str) -> Tree {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = lab.post(PODS, pod).await;
    assert_eq!(code, 201, "{made}");
    made
}

async fn bind(lab: &Lab, name: &str) -> (u16, Tree) {
    lab.post(&format!("{PODS}/{name}/binding"), json!({"target": {"kind": "Node", "name": "n1"}})).await
}

async fn set_status(lab: &Lab, uri: &str, status: Tree) {
    let (code, told) = lab.ask(Method::PATCH, &format!("{uri}/status"), json!({"status": status})).await;
    assert_eq!(code, 200, "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_admitted_bound_and_leaves_in_its_own_time() {
    let lab = lab_with_account().await;
    let made = pod(&lab, "web").await;
    assert_eq!(
        (&made["status"]["phase"], &made["status"]["qosClass"]),
        (&json!("Pending"), &json!("BestEffort"))
    );
    assert_eq!(made["spec"]["tolerations"].as_array().map(Vec::len), Some(2));
    assert_eq!(bind(&lab, "web").await.0, 201);
    assert_eq!(bind(&lab, "web").await.1["reason"], "Conflict");
    let on_node = lab.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await.1;
    assert_eq!(on_node["items"].as_array().map(Vec::len), Some(1));

    let (code, going) = lab.delete(&format!("{PODS}/web")).await;
    assert_eq!((code, &going["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(30)));
    assert_eq!(going["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
    assert_eq!(going["metadata"]["generation"], 2);
    let (code, _) = lab.ask(Method::DELETE, &format!("{PODS}/web"), json!({"gracePeriodSeconds": 0})).await;
    assert_eq!((code, lab.get(&format!("{PODS}/web")).await.0), (200, 404));
}

#[tokio::test(start_paused = true)]
async fn services_at_once_never_share_an_address_or_a_port() {
    let lab = lab().await;
    let service = |at: usize| json!({"metadata": {"name": format!("s{at}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let all = join_all((0..40).map(|at| lab.post(SERVICES, service(at)))).await;
    let mut addresses: Vec<&str> =
        all.iter().filter_map(|(_, made)| made["spec"]["clusterIP"].as_str()).collect();
    let mut ports: Vec<i64> =
        all.iter().filter_map(|(_, made)| made["spec"]["ports"][0]["nodePort"].as_i64()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!((addresses.len(), ports.len()), (40, 40));
    let taken =
        json!({"metadata": {"name": "x"}, "spec": {"clusterIP": addresses[0], "ports": [{"port": 80}]}});
    assert_eq!(lab.post(SERVICES, taken.clone()).await.0, 422);
    let holder =
        all.iter().find(|(_, made)| made["spec"]["clusterIP"] == addresses[0]).expect("one of them has it");
    lab.delete(&format!("{SERVICES}/{}", holder.1["metadata"]["name"].as_str().unwrap_or_default())).await;
    assert_eq!(lab.post(SERVICES, taken).await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn a_quota_holds_against_many_at_once() {
    let lab = lab().await;
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"configmaps": "5"}}});
    assert_eq!(lab.post("/api/v1/namespaces/default/resourcequotas", quota).await.0, 201);
    let uri = "/api/v1/namespaces/default/configmaps";
    let all =
        join_all((0..20).map(|at| lab.post(uri, json!({"metadata": {"name": format!("c{at}")}})))).await;
    let count = |wanted: u16| all.iter().filter(|(code, _)| *code == wanted).count();
    assert_eq!((count(201), count(403)), (5, 15));
    let (_, quota) = lab.get("/api/v1/namespaces/default/resourcequotas/q").await;
    assert_eq!(quota["status"]["used"]["configmaps"], "5");
}

#[tokio::test(start_paused = true)]
async fn a_budget_holds_against_many_evictions_at_once() {
    let lab = lab_with_account().await;
    for at in 0..4 {
        pod(&lab, &format!("p{at}")).await;
        bind(&lab, &format!("p{at}")).await;
        let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        set_status(&lab, &format!("{PODS}/p{at}"), ready).await;
    }
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}});
    assert_eq!(lab.post(budgets, budget).await.0, 201);
    let status = json!({"observedGeneration": 1, "disruptionsAllowed": 2, "currentHealthy": 4, "desiredHealthy": 2, "expectedPods": 4});
    set_status(&lab, &format!("{budgets}/b"), status).await;
    let evict = async |at: usize| {
        let eviction = json!({"metadata": {"name": format!("p{at}")}});
        lab.post(&format!("{PODS}/p{at}/eviction"), eviction).await
    };
    let all = join_all((0..4).map(evict)).await;
    let mut codes: Vec<u16> = all.iter().map(|(code, _)| *code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [201, 201, 429, 429]);
    let refused = all.iter().find(|(code, _)| *code == 429).expect("two were refused");
    assert_eq!(refused.1["details"]["causes"][0]["reason"], "DisruptionBudget");
}

#[tokio::test(start_paused = true)]
async fn scales_tables_and_metadata_are_other_views_of_an_object() {
    let lab = lab().await;
    let uri = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(lab.post(uri, deployment).await.0, 201);
    let (code, scale) =
        lab.ask(Method::PATCH, &format!("{uri}/web/scale"), json!({"spec": {"replicas": 4}})).await;
    assert_eq!((code, &scale["kind"], &scale["spec"]["replicas"]), (200, &json!("Scale"), &json!(4)));
    assert_eq!(lab.get(&format!("{uri}/web")).await.1["metadata"]["generation"], 2);

    let table = accept(&lab, uri, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(table["rows"][0]["cells"][0], "web");
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    let partial = accept(&lab, uri, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(
        (&partial["kind"], &partial["items"][0]["metadata"]["name"]),
        (&json!("PartialObjectMetadataList"), &json!("web"))
    );
    assert!(partial["items"][0].get("spec").is_none());
    let item = &lab.get(uri).await.1["items"][0];
    assert!(
        item.get("kind").is_none() && item["metadata"]["name"] == "web",
        "the list says the kind once: {item}"
    );
}

async fn accept(lab: &Lab, uri: &str, form: &str) -> Tree {
    let request =
        Request::builder().uri(uri).header("accept", form).body(Bytes::new()).expect("a good request");
    let response = lab.service.call(&lab.admin, request).await;
    serde_json::from_slice(response.body()).unwrap_or(Value::Null)
}

#[tokio::test(start_paused = true)]
async fn events_are_one_store_under_two_names() {
    let lab = lab().await;
    let event = json!({"metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "A", "reason": "R",
        "reportingController": "c", "reportingInstance": "i", "type": "Normal", "note": "hello",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let (code, made) = lab.post("/apis/events.k8s.io/v1/namespaces/default/events", event).await;
    assert_eq!(code, 201, "{made}");
    let (_, core) = lab.get("/api/v1/namespaces/default/events/e").await;
    assert_eq!(
        (&core["apiVersion"], &core["message"], &core["involvedObject"]["name"]),
        (&json!("v1"), &json!("hello"), &json!("p"))
    );
    let by = async |uri: &str| lab.get(uri).await.1["items"].as_array().map(Vec::len);
    assert_eq!(by("/apis/events.k8s.io/v1/events?fieldSelector=reportingController%3Dc").await, Some(1));
    assert_eq!(by("/api/v1/events?fieldSelector=involvedObject.name%3Dp").await, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_start_on_stored_data_changes_nothing() {
    let lab = lab().await;
    let before = lab.service.store().revision();
    crate::bootstrap::run(&lab.service).await.expect("all is there");
    assert_eq!(lab.service.store().revision(), before);
}

fn definition() -> Tree {
    json!({"metadata": {"name": "foos.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo", "shortNames": ["fo"]},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}],
    }})
}

#[tokio::test(start_paused = true)]
async fn a_definition_is_served_as_soon_as_it_is_there_and_until_it_goes() {
    let lab = lab().await;
    let (definitions, foos) = (
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        "/apis/example.com/v1/namespaces/default/foos",
    );
    assert_eq!(lab.get(foos).await.0, 404);
    let (code, made) = lab.post(definitions, definition()).await;
    assert_eq!((code, &made["status"]["acceptedNames"]["kind"]), (201, &json!("Foo")), "{made}");
    let foo = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": {"other": 1},
        "status": {"x": 1}});
    let (code, made) = lab.post(foos, foo).await;
    assert_eq!((code, &made["spec"]), (201, &json!({"size": 3})), "{made}");
    assert!(made.get("status").is_none());
    set_status(&lab, &format!("{foos}/a"), json!({"x": 2})).await;
    assert_eq!(lab.get(&format!("{foos}/a")).await.1["status"], json!({"x": 2}));
    let table = accept(&lab, foos, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    assert_eq!(table["rows"][0]["cells"], json!(["a", 3]));
    assert_eq!(lab.get("/apis/example.com/v1").await.1["resources"][0]["name"], "foos");

    assert_eq!(lab.delete(&format!("{foos}/a")).await.0, 200);
    assert_eq!(lab.delete(&format!("{definitions}/foos.example.com")).await.0, 200);
    assert_eq!(lab.get(foos).await.0, 404);
    assert_eq!(lab.post(definitions, definition()).await.0, 201);
    assert_eq!(lab.get(foos).await.1["items"], json!([]));
}
