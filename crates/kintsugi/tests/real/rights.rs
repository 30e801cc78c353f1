//! Who may do what, as users of `kubectl` notice it.

use std::process::Command;

use serde_json::json;

use crate::harness::{Cluster, Space, tool_pod};

#[test]
fn a_namespace_holds_its_pods_to_its_level() {
    let space = Space::new("strict");
    let label = |cluster: &Cluster, level: &str| {
        let label = format!("pod-security.kubernetes.io/enforce={level}");
        cluster.kubectl_output(&["label", "--overwrite", "namespace", "strict", &label], "")
    };
    assert!(label(space.cluster(), "restricted").status.success());
    let pod = tool_pod("loose", "sleep 1");
    let why = space.kubectl_refused(&["apply", "-f", "-"], &pod.to_string());
    assert!(why.contains("violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"main\" must set securityContext.allowPrivilegeEscalation=false)"), "{why}");
    let mut tight = tool_pod("tight", "echo good");
    tight["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}});
    tight["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    space.apply(tight);
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    let made = space.kubectl_output(&["apply", "-f", "-"], &deployment.to_string());
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success() && said.contains("Warning: would violate PodSecurity"), "{said}");
    let bad = label(space.cluster(), "typo");
    let said = String::from_utf8_lossy(&bad.stderr);
    assert!(
        !bad.status.success() && said.contains("must be one of privileged, baseline, restricted"),
        "{said}"
    );
}

#[test]
fn nobody_gives_themselves_more_than_they_have() {
    let space = Space::new("grants");
    space.kubectl(&["create", "serviceaccount", "bob"]);
    space.kubectl(&["create", "rolebinding", "bob", "--clusterrole=admin", "--serviceaccount=grants:bob"]);
    let bob = "--as=system:serviceaccount:grants:bob";
    space.kubectl(&[bob, "create", "role", "reader", "--verb=get", "--resource=pods"]);
    for grant in [
        &["create", "role", "more", "--verb=*", "--resource=nodes"][..],
        &["create", "rolebinding", "more", "--clusterrole=cluster-admin", "--user=bob"][..],
    ] {
        let why = space.kubectl_refused(&[&[bob], grant].concat(), "");
        assert!(why.contains("is attempting to grant RBAC permissions not currently held"), "{why}");
    }
    let node = ["--as=system:node:node-9", "--as-group=system:nodes"];
    space.kubectl(&["create", "secret", "generic", "s", "--from-literal=a=b"]);
    let why = space.kubectl_refused(&[&node[..], &["get", "secret", "s"]].concat(), "");
    assert!(why.contains("no relationship found between node 'node-9' and this object"), "{why}");
}

#[test]
fn a_user_asks_for_a_certificate_and_is_who_it_names() {
    let cluster = Cluster::start(1);
    let (key, request) = api::auth::signing::new_request("carl", "dev", &[]).expect("keys can be drawn");
    let ask = |name: &str, request: &str| {
        use base64::Engine;
        let request = base64::engine::general_purpose::STANDARD.encode(request);
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
            "spec": {"request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
                "expirationSeconds": 3600}})
        .to_string()
    };
    let (_, evil) =
        api::auth::signing::new_request("carl", "system:masters", &[]).expect("keys can be drawn");
    let refused = cluster.kubectl_output(&["apply", "-f", "-"], &ask("evil", &evil));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("system:masters group is not allowed"), "{said}");
    cluster.apply(&ask("carl", &request));
    cluster.kubectl(&["certificate", "approve", "carl"]);
    let cert = cluster
        .until(&["get", "csr", "carl", "-o", "jsonpath={.status.certificate}"], |cert| !cert.is_empty());
    let file = |name: &str| cluster.dir().join(name).display().to_string();
    use base64::Engine;
    let cert = base64::engine::general_purpose::STANDARD.decode(cert).expect("base64");
    std::fs::write(file("carl.crt"), cert).expect("the folder is ours");
    std::fs::write(file("carl.key"), key).expect("the folder is ours");
    let mut whoami: Command = cluster.inside(std::path::Path::new("kubectl"));
    let server = cluster.kubectl(&["config", "view", "-o", "jsonpath={.clusters[0].cluster.server}"]);
    let authority = cluster.data_dir().join("pki/ca.crt").display().to_string();
    whoami.args(["--kubeconfig", "/dev/null", "--server", &server, "--certificate-authority", &authority]);
    whoami.args([
        "--client-certificate",
        &file("carl.crt"),
        "--client-key",
        &file("carl.key"),
        "get",
        "pods",
    ]);
    let output = whoami.output().expect("kubectl is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("User \"carl\" cannot list resource \"pods\""), "{said}");

    // What the authority has signed for a user opens no node.
    let node = cluster.value("node/node-1", "{.status.addresses[?(@.type=='InternalIP')].address}");
    let mut curl = cluster.inside(std::path::Path::new("kubectl"));
    let kubelet = format!("https://{node}:10250");
    curl.args(["--kubeconfig", "/dev/null", "--server", &kubelet, "--certificate-authority", &authority]);
    curl.args([
        "--client-certificate",
        &file("carl.crt"),
        "--client-key",
        &file("carl.key"),
        "get",
        "--raw",
        "/pods",
    ]);
    let output = curl.output().expect("kubectl is installed");
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
