//! Rights that a webhook gives, by the file that says who is asked and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::{Cluster, until_true};
use crate::outside::{Outside, certificate};

/// Lets everybody it is asked about list ConfigMaps, refuses Secrets for good, and shows the RuntimeClasses of one
/// team alone.
fn judge(review: &Value) -> Value {
    let what = &review["spec"]["resourceAttributes"];
    let status = match (what["resource"].as_str(), what["verb"].as_str()) {
        (Some("configmaps"), Some("list" | "create")) => json!({"allowed": true, "reason": "all may"}),
        (Some("runtimeclasses"), Some("list")) => {
            let of_team = json!({"requirements": [{"key": "team", "operator": "In", "values": ["a"]}]});
            json!({"allowed": what["labelSelector"] == of_team})
        }
        (Some("secrets"), _) => json!({"allowed": false, "denied": true, "reason": "never secrets"}),
        // A policy asks this of whoever makes a ConfigMap.
        (Some("widgets"), Some("admire")) => json!({"allowed": what["name"] == "nice"}),
        _ => json!({"allowed": false, "reason": "no opinion"}),
    };
    json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "status": status})
}

#[test]
fn a_webhook_gives_and_takes_rights_where_the_file_says_so() {
    let (bundle, pair) = certificate(&["127.0.0.1"]);
    let asked = Arc::new(AtomicUsize::new(0));
    let is_ill = Arc::new(AtomicBool::new(false));
    let mut webhook = None;
    let cluster = Cluster::start_beside(1, |cluster| {
        let (counting, ill) = (asked.clone(), is_ill.clone());
        let outside = Outside::start(cluster, &pair, move |_, review| {
            counting.fetch_add(1, Ordering::Relaxed);
            if ill.load(Ordering::Relaxed) { json!("rubbish") } else { judge(review) }
        });
        let file = |name: &str, text: String| {
            let path = cluster.dir().join(name);
            std::fs::write(&path, text).expect("the folder is ours");
            path.display().to_string()
        };
        file("token", "ours\n".to_owned());
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "w", "cluster": {"server": format!("https://127.0.0.1:{}/rights", outside.port),
                "certificate-authority-data": bundle}}],
            "users": [{"name": "u", "user": {"tokenFile": "token"}}],
            "contexts": [{"name": "c", "context": {"cluster": "w", "user": "u"}}]});
        let config = file("webhook", config.to_string());
        let authorization = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
            "authorizers": [
                {"type": "Webhook", "name": "rights", "webhook": {
                    "timeout": "3s", "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1",
                    "failurePolicy": "Deny", "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": config},
                    "matchConditions": [{"expression": "request.user.startsWith('system:serviceaccount:default:')"}]}},
                {"type": "Node", "name": "node"},
                {"type": "RBAC", "name": "rbac"}]});
        let path = file("authorization.yaml", authorization.to_string());
        webhook = Some(outside);
        vec!["--authorization-config".to_owned(), path]
    });
    let _webhook = webhook.expect("it was started");
    assert_eq!(asked.load(Ordering::Relaxed), 0, "nobody of the cluster's own meets its condition");

    let token = cluster.kubectl(&["create", "token", "default"]);
    let ann = token.trim();
    // What it allows needs no role, and is remembered.
    let (out, err) = cluster.kubectl_as(ann, &["get", "configmaps", "-o", "name"]);
    assert!(out.contains("configmap/kube-root-ca.crt"), "{out}{err}");
    let before = asked.load(Ordering::Relaxed);
    cluster.kubectl_as(ann, &["get", "configmaps", "-o", "name"]);
    assert_eq!(asked.load(Ordering::Relaxed), before);
    // Where it has no opinion, roles say; what it denies, no role gives.
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        "all",
        "--clusterrole=admin",
        "--serviceaccount=default:default",
    ]);
    let (_, err) = cluster.kubectl_as(ann, &["get", "pods"]);
    assert!(err.contains("No resources found"), "{err}");
    let (_, err) = cluster.kubectl_as(ann, &["get", "secrets"]);
    assert!(err.contains("cannot list resource \"secrets\"") && err.contains("never secrets"), "{err}");
    assert_eq!(cluster.kubectl_as(ann, &["auth", "can-i", "get", "secrets"]).0.trim(), "no - never secrets");
    // It is shown selectors.
    let (_, err) = cluster.kubectl_as(ann, &["get", "runtimeclasses", "-l", "team=a"]);
    assert!(err.contains("No resources found"), "{err}");
    let (_, err) = cluster.kubectl_as(ann, &["get", "runtimeclasses", "-l", "team=b"]);
    assert!(err.contains("cannot list resource \"runtimeclasses\""), "{err}");

    // Policies ask it as well, while nothing is written.
    let policy = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "nice"}, "spec": {"failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]},
            "validations": [{"expression": "authorizer.group('x.io').resource('widgets').name(object.metadata.name).check('admire').allowed()"}]}});
    let binding = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "nice"}, "spec": {"policyName": "nice", "validationActions": ["Deny"]}});
    cluster.apply(&policy.to_string());
    cluster.apply(&binding.to_string());
    let (_, err) = cluster.kubectl_as(ann, &["create", "configmap", "ugly"]);
    assert!(err.contains("failed expression"), "{err}");
    let (out, err) = cluster.kubectl_as(ann, &["create", "configmap", "nice"]);
    assert!(out.contains("configmap/nice created"), "{out}{err}");

    // Whoever cannot be asked stands in the way, for the file says so; those it is not asked about go on.
    is_ill.store(true, Ordering::Relaxed);
    let (_, err) = cluster.kubectl_as(ann, &["get", "services"]);
    assert!(err.contains("Internal error occurred"), "{err}");
    assert!(cluster.kubectl(&["get", "services", "-o", "name"]).contains("service/kubernetes"));
}

#[test]
fn a_file_that_changes_takes_effect_while_the_server_runs() {
    let (bundle, pair) = certificate(&["127.0.0.1"]);
    let mut webhook = None;
    let cluster = Cluster::start_beside(1, |cluster| {
        webhook = Some(Outside::start(cluster, &pair, |_, review| judge(review)));
        let path = cluster.dir().join("authorization.yaml");
        std::fs::write(&path, configuration(&[])).expect("the folder is ours");
        vec!["--authorization-config".to_owned(), path.display().to_string()]
    });
    let webhook = webhook.expect("it was started");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "w", "cluster": {"server": format!("https://127.0.0.1:{}/rights", webhook.port),
            "certificate-authority-data": bundle}}],
        "contexts": [{"name": "c", "context": {"cluster": "w"}}]});
    let kubeconfig = cluster.dir().join("webhook");
    std::fs::write(&kubeconfig, config.to_string()).expect("the folder is ours");
    let write = |text: String| {
        std::fs::write(cluster.dir().join("authorization.yaml"), text).expect("the folder is ours");
    };
    let token = cluster.kubectl(&["create", "token", "default"]);
    let lists =
        || cluster.kubectl_as(token.trim(), &["get", "configmaps", "-o", "name"]).0.contains("configmap/");
    let counted = |status: &str, count: u32| {
        let line = format!("reloads_total{{status=\"{status}\"}} {count}\n");
        until_true(&line, || cluster.kubectl(&["get", "--raw", "/metrics"]).contains(&line));
    };
    assert!(!lists(), "no role lets it");
    let rights = json!({"type": "Webhook", "name": "rights", "webhook": {
        "timeout": "3s", "subjectAccessReviewVersion": "v1", "failurePolicy": "NoOpinion",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": kubeconfig}}});
    write(configuration(&[rights]));
    counted("success", 1);
    assert!(lists(), "the webhook lets it");
    // What is broken, or takes away what is there since the start, changes nothing.
    write("authorizers: [".to_owned());
    counted("failure", 1);
    write(configuration(&[]).replace("RBAC", "AlwaysDeny"));
    counted("failure", 2);
    assert!(lists(), "the webhook still lets it");
    write(configuration(&[]));
    counted("success", 2);
    assert!(!lists(), "no role lets it");
    assert!(cluster.kubectl(&["get", "nodes", "-o", "name"]).contains("node/"), "others go on");
}

/// A file with these authorizers before nodes' own and the roles.
fn configuration(first: &[Value]) -> String {
    let own = [json!({"type": "Node", "name": "node"}), json!({"type": "RBAC", "name": "rbac"})];
    let authorizers = [first, &own].concat();
    json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": authorizers})
        .to_string()
}
