//! Stories of webhooks through the service: who is asked about what, and what their answers do.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};
use model::Tree;
use serde_json::{Value, json};

use super::tests::{Lab, lab_with};
use crate::settings::Settings;
use crate::testing::{Outside, Way};

const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// Answers by the path: `/allow`, `/deny`, `/add-X` (puts `X: yes` into the data), `/if-X-add-Y`, `/warn`, `/hang`, `/500`,
/// `/moved`, `/other-uid`, `/init` (puts an init container into a pod).
fn answer(path: &str, review: &Tree) -> Option<(u16, Tree)> {
    let request = &review["request"];
    let path = path.split('?').next().unwrap_or_default().trim_start_matches('/');
    let mut response = json!({"uid": request["uid"], "allowed": true});
    let patch = |patch: Tree| (json!(STANDARD.encode(patch.to_string())), json!("JSONPatch"));
    let add = |key: &str| json!([{"op": "add", "path": format!("/data/{key}"), "value": "yes"}]);
    match path.split('-').collect::<Vec<_>>().as_slice() {
        ["allow"] => {}
        ["deny"] => {
            response["allowed"] = json!(false);
            response["status"] = json!({"message": "not here", "code": 403, "reason": "Forbidden"});
        }
        ["add", key] => (response["patch"], response["patchType"]) = patch(add(key)),
        ["if", wanted, "add", key] if request["object"]["data"][*wanted] == "yes" => {
            (response["patch"], response["patchType"]) = patch(add(key));
        }
        ["if", ..] => {}
        ["init"] => {
            let container = json!([{"name": "first", "image": "i"}]);
            let add = json!([{"op": "add", "path": "/spec/initContainers", "value": container}]);
            (response["patch"], response["patchType"]) = patch(add);
        }
        ["warn"] => response["warnings"] = json!(["mind the gap"]),
        ["hang"] => return None,
        ["500"] => return Some((500, json!("sorry"))),
        ["moved"] => return Some((307, json!({}))),
        ["other", "uid"] => response["uid"] = json!("another"),
        _ => return Some((404, json!({}))),
    }
    Some((200, json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})))
}

async fn lab() -> (Lab, Arc<Outside>) {
    let outside = Outside::new(|path, _, review| answer(path, review));
    let settings = Settings { dial: Arc::new(Way(outside.clone())), ..Settings::default() };
    (lab_with(settings).await, outside)
}

fn hook(path: &str, more: Tree) -> Tree {
    let mut hook = json!({
        "name": format!("{path}.hooks.example.com"), "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": format!("https://hooks.example.com/{path}")},
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        hook[key] = value.clone();
    }
    hook
}

async fn configure(lab: &Lab, at: &str, name: &str, hooks: &[Tree]) {
    let (code, made) = lab.post(at, json!({"metadata": {"name": name}, "webhooks": hooks})).await;
    assert_eq!(code, 201, "{made}");
}

fn config_map(name: &str) -> Tree {
    json!({"metadata": {"name": name}, "data": {"k": "v"}})
}

fn deployment() -> Tree {
    json!({"metadata": {"name": "web"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
        "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

async fn account(lab: &Lab) {
    let (code, made) = lab
        .post("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    assert_eq!(code, 201, "{made}");
}

/// Makes what the ways around admission are tried on.
pub(super) async fn make_victims(lab: &Lab) {
    account(lab).await;
    assert_eq!(lab.post(CONFIG_MAPS, config_map("a")).await.0, 201);
    assert_eq!(lab.post(DEPLOYMENTS, deployment()).await.0, 201);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = lab.post(PODS, pod).await;
    assert_eq!(code, 201, "{made}");
}

/// Writes by other verbs, parts, collections, evictions and connections, and what each of them is.
pub(super) fn ways_around() -> Vec<(Method, String, Tree, &'static str)> {
    let json_patch = json!({"data": {"k": "w"}});
    let scale = json!({"spec": {"replicas": 5}});
    vec![
        (Method::POST, CONFIG_MAPS.to_owned(), config_map("b"), "CREATE configmaps"),
        (Method::PUT, format!("{CONFIG_MAPS}/a"), config_map("a"), "UPDATE configmaps"),
        (Method::PATCH, format!("{CONFIG_MAPS}/a"), json_patch, "UPDATE configmaps"),
        (Method::DELETE, format!("{CONFIG_MAPS}/a"), Value::Null, "DELETE configmaps"),
        (Method::DELETE, CONFIG_MAPS.to_owned(), Value::Null, "DELETE configmaps"),
        (Method::PATCH, format!("{DEPLOYMENTS}/web/scale"), scale, "UPDATE deployments/scale"),
        (
            Method::PATCH,
            format!("{DEPLOYMENTS}/web/status"),
            json!({"status": {"replicas": 1}}),
            "UPDATE deployments/status",
        ),
        (
            Method::PATCH,
            format!("{PODS}/p/ephemeralcontainers"),
            json!({"metadata": {"labels": {"a": "b"}}}),
            "UPDATE pods/ephemeralcontainers",
        ),
        (
            Method::POST,
            format!("{PODS}/p/eviction"),
            json!({"metadata": {"name": "p"}}),
            "CREATE pods/eviction",
        ),
        (Method::POST, format!("{PODS}/p/binding"), json!({"target": {"name": "n"}}), "CREATE pods/binding"),
        (Method::POST, format!("{PODS}/p/exec?command=sh&stdin=true"), Value::Null, "CONNECT pods/exec"),
        (Method::GET, format!("{PODS}/p/attach"), Value::Null, "CONNECT pods/attach"),
        (
            Method::POST,
            "/api/v1/namespaces/default/serviceaccounts/default/token".to_owned(),
            json!({"spec": {}}),
            "CREATE serviceaccounts/token",
        ),
        (
            Method::POST,
            "/apis/authentication.k8s.io/v1/selfsubjectreviews".to_owned(),
            json!({}),
            "CREATE selfsubjectreviews",
        ),
    ]
}

/// No write gets around a webhook that refuses: not by another verb, a part, a collection or an eviction.
#[tokio::test(start_paused = true)]
async fn nothing_gets_around_a_webhook() {
    let (lab, outside) = lab().await;
    make_victims(&lab).await;
    configure(&lab, VALIDATING, "deny", &[hook("deny", json!({}))]).await;
    outside.take();
    for (method, uri, body, wanted) in ways_around() {
        let (code, told) = lab.ask(method.clone(), &uri, body).await;
        let message = "admission webhook \"deny.hooks.example.com\" denied the request: not here";
        assert_eq!((code, told["message"].as_str()), (403, Some(message)), "{method} {uri}: {told}");
        let asked = outside.take();
        let request = &asked.last().expect("it was asked").2["request"];
        let part = request["subResource"].as_str().map(|part| format!("/{part}")).unwrap_or_default();
        let text = |value: &Tree| value.as_str().unwrap_or_default().to_owned();
        let seen =
            format!("{} {}{part}", text(&request["operation"]), text(&request["resource"]["resource"]));
        assert_eq!(seen, wanted);
        assert_eq!(request["userInfo"]["username"], "admin");
        let (object, old) = (&request["object"], &request["oldObject"]);
        match request["operation"].as_str() {
            Some("DELETE") => assert!(object.is_null() && old["kind"] == "ConfigMap", "{request}"),
            Some("UPDATE") => {
                assert!(object["kind"].is_string() && old["kind"] == object["kind"], "{request}")
            }
            _ => assert!(object["kind"].is_string() && old.is_null(), "{request}"),
        }
    }
    // Nothing of all this happened.
    assert_eq!(lab.get(&format!("{CONFIG_MAPS}/a")).await.1["data"]["k"], "v");
    assert_eq!(lab.get(&format!("{CONFIG_MAPS}/b")).await.0, 404);
    assert_eq!(lab.get(&format!("{DEPLOYMENTS}/web")).await.1["spec"]["replicas"], 1);
    assert!(lab.get(&format!("{PODS}/p")).await.1["metadata"].get("deletionTimestamp").is_none());
    // The configuration itself can always be taken away.
    assert_eq!(lab.delete(&format!("{VALIDATING}/deny")).await.0, 200);
    assert_eq!(lab.post(CONFIG_MAPS, config_map("b")).await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn mutating_webhooks_are_asked_in_order_and_defaults_follow() {
    let (lab, outside) = lab().await;
    account(&lab).await;
    let on = |resource: &str| json!({"rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": [resource]}]});
    configure(&lab, MUTATING, "b", &[hook("if-1-add-2", on("configmaps"))]).await;
    configure(&lab, MUTATING, "a", &[hook("add-1", on("configmaps")), hook("init", on("pods"))]).await;
    let (code, made) = lab.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!((code, &made["data"]), (201, &json!({"k": "v", "1": "yes", "2": "yes"})), "{made}");
    let review = &outside.take()[0].2["request"];
    assert!(review["object"]["metadata"].get("uid").is_none(), "{review}");
    assert_eq!(
        (&review["name"], &review["namespace"], &review["dryRun"]),
        (&json!("a"), &json!("default"), &json!(false))
    );
    let pod =
        json!({"metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = lab.post(PODS, pod).await;
    let first = &made["spec"]["initContainers"][0];
    assert_eq!(
        (code, &first["name"], &first["terminationMessagePolicy"]),
        (201, &json!("first"), &json!("File")),
        "{made}"
    );
    // Our own plugins saw it too: it has the account's token.
    assert!(first["volumeMounts"][0]["mountPath"].is_string(), "{first}");
    let review = &outside.take()[0].2["request"];
    assert!(review.get("name").is_none() && review["object"]["metadata"].get("name").is_none(), "{review}");
}

#[tokio::test(start_paused = true)]
async fn who_wants_to_be_asked_again_is_asked_when_others_changed_the_object() {
    let (lab, outside) = lab().await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    configure(
        &lab,
        MUTATING,
        "a",
        &[hook("if-1-add-2", again), hook("if-1-add-3", json!({})), hook("add-1", json!({}))],
    )
    .await;
    let (_, made) = lab.post(CONFIG_MAPS, config_map("a")).await;
    assert_eq!(made["data"], json!({"k": "v", "1": "yes", "2": "yes"}), "{made}");
    let paths = outside.paths();
    assert_eq!(paths.len(), 4, "{paths:?}");
    assert!(paths[3].starts_with("/if-1-add-2"), "{paths:?}");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_cannot_be_asked_stands_in_the_way_or_is_passed_over() {
    let (lab, _outside) = lab().await;
    let check = async |hook: Tree, wanted: Result<(), &str>| {
        configure(&lab, VALIDATING, "one", std::slice::from_ref(&hook)).await;
        let (code, told) = lab.post(CONFIG_MAPS, config_map("a")).await;
        match wanted {
            Ok(()) => assert_eq!(code, 201, "{told}"),
            Err(why) => {
                let message = told["message"].as_str().unwrap_or_default();
                assert!(code == 500 && message.contains(why), "{hook}: {told}");
                assert_eq!(lab.get(&format!("{CONFIG_MAPS}/a")).await.0, 404);
            }
        }
        lab.delete(&format!("{VALIDATING}/one")).await;
        lab.delete(&format!("{CONFIG_MAPS}/a")).await;
    };
    let nobody = |policy: &str| json!({"clientConfig": {"url": "https://nobody/x"}, "failurePolicy": policy});
    let refused = "Internal error occurred: failed calling webhook \"x.hooks.example.com\": failed to call webhook: \
        Post \"https://nobody/x?timeout=10s\": dial tcp nobody:443: connect: connection refused";
    check(hook("x", nobody("Fail")), Err(refused)).await;
    check(hook("x", nobody("Ignore")), Ok(())).await;
    let late = "Post \"https://hooks.example.com/hang?timeout=1s\": context deadline exceeded";
    check(hook("hang", json!({"timeoutSeconds": 1})), Err(late)).await;
    check(hook("hang", json!({"timeoutSeconds": 1, "failurePolicy": "Ignore"})), Ok(())).await;
    check(hook("500", json!({})), Err("an error on the server")).await;
    check(hook("404", json!({})), Err("the server could not find the requested resource")).await;
    check(hook("moved", json!({})), Err("a redirection (307 Temporary Redirect), which is not followed"))
        .await;
    check(hook("other-uid", json!({})), Err("received invalid webhook response: expected response.uid="))
        .await;
    let behind = json!({"clientConfig": {"service": {"namespace": "default", "name": "gone", "path": "/y"}}});
    let gone = "Post \"https://gone.default.svc:443/y?timeout=10s\": service \"gone\" not found";
    check(hook("x", behind), Err(gone)).await;
    let metrics = lab.service.0.metrics();
    assert!(metrics.contains("apiserver_admission_webhook_fail_open_count{name=\"hang.hooks.example.com\",type=\"validating\"} 1"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn dry_runs_are_told_and_warnings_reach_the_user() {
    let (lab, outside) = lab().await;
    configure(&lab, VALIDATING, "a", &[hook("warn", json!({"sideEffects": "NoneOnDryRun"}))]).await;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{CONFIG_MAPS}?dryRun=All&fieldManager=me"))
        .body(config_map("a").to_string().into())
        .expect("a good request");
    let answer = lab.service.call(&lab.admin, request).await;
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["warning"], "299 - \"mind the gap\"");
    let review = &outside.take()[0].2["request"];
    assert_eq!(review["dryRun"], true);
    let options = json!({"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "dryRun": ["All"], "fieldManager": "me"});
    assert_eq!(review["options"], options);
    assert_eq!(lab.get(&format!("{CONFIG_MAPS}/a")).await.0, 404);
}

#[tokio::test(start_paused = true)]
async fn selectors_follow_the_labels_of_this_moment() {
    let (lab, _outside) = lab().await;
    let not = |key: &str| json!({"matchExpressions": [{"key": key, "operator": "NotIn", "values": ["yes"]}]});
    configure(
        &lab,
        VALIDATING,
        "a",
        &[hook("deny", json!({"namespaceSelector": not("skip"), "objectSelector": not("skip-me")}))],
    )
    .await;
    assert_eq!(lab.post(CONFIG_MAPS, config_map("a")).await.0, 403);
    let mut skipped = config_map("a");
    skipped["metadata"]["labels"] = json!({"skip-me": "yes"});
    assert_eq!(lab.post(CONFIG_MAPS, skipped).await.0, 201);
    // Taking the label away is what the webhook is asked about again: it saw the object without it.
    let bare = json!({"metadata": {"labels": {"skip-me": null}}});
    assert_eq!(lab.ask(Method::PATCH, &format!("{CONFIG_MAPS}/a"), bare).await.0, 403);
    let skip = json!({"metadata": {"name": "free", "labels": {"skip": "yes"}}});
    assert_eq!(lab.post("/api/v1/namespaces", skip).await.0, 201);
    assert_eq!(lab.post("/api/v1/namespaces/free/configmaps", config_map("a")).await.0, 201);
}

#[tokio::test(start_paused = true)]
async fn conditions_decide_who_is_asked() {
    let (lab, outside) = lab().await;
    let when = |expression: &str| json!({"matchConditions": [{"name": "when", "expression": expression}]});
    let (code, told) = lab
        .post(VALIDATING, json!({"metadata": {"name": "odd"}, "webhooks": [hook("deny", when("object ["))]}))
        .await;
    let message = told["message"].as_str().unwrap_or_default();
    assert!(
        code == 422
            && message.contains("matchConditions[0].expression")
            && message.contains("compilation failed"),
        "{told}"
    );
    let skip = "request.operation != 'CREATE' || object.metadata.name != 'skip-me'";
    configure(&lab, VALIDATING, "a", &[hook("deny", when(skip))]).await;
    assert_eq!(lab.post(CONFIG_MAPS, config_map("skip-me")).await.0, 201);
    assert_eq!(lab.post(CONFIG_MAPS, config_map("a")).await.0, 403);
    assert_eq!(outside.paths().len(), 1);
    assert_eq!(lab.delete(&format!("{VALIDATING}/a")).await.0, 200);
    // What cannot be told stands in the way, or is passed over.
    let unknown = "object.absent == 'x'";
    configure(&lab, VALIDATING, "b", &[hook("allow", when(unknown))]).await;
    let (code, told) = lab.post(CONFIG_MAPS, config_map("b")).await;
    let message = told["message"].as_str().unwrap_or_default();
    assert!(
        code == 403
            && message.starts_with("configmaps \"b\" is forbidden: ")
            && message.contains("no such key: absent"),
        "{told}"
    );
    assert_eq!(lab.delete(&format!("{VALIDATING}/b")).await.0, 200);
    let mut ignored = when(unknown);
    ignored["failurePolicy"] = json!("Ignore");
    configure(&lab, VALIDATING, "c", &[hook("deny", ignored)]).await;
    assert_eq!(lab.post(CONFIG_MAPS, config_map("b")).await.0, 201);
    assert_eq!(outside.paths(), Vec::<String>::new());
}
