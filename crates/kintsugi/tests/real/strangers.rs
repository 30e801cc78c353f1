//! Users that others vouch for: an OpenID Connect provider, and a webhook that knows tokens.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::auth::pki;
use api::auth::tokens::Tokens;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::Cluster;
use crate::outside::{Outside, certificate};

/// A provider of OpenID Connect, and what signs its tokens.
struct Provider {
    key: String,
    url: String,
    _outside: Outside,
}

impl Provider {
    fn start(cluster: &Cluster, pair: &pki::PemPair) -> Self {
        let key = pki::new_token_key().expect("keys can be drawn");
        let url = |port: u16| format!("https://127.0.0.1:{port}");
        let outside = Outside::start_at(cluster, pair, |port| {
            let tokens = Tokens::new(&key, url(port)).expect("own key");
            move |path: &str, _: &Value| match path {
                "/.well-known/openid-configuration" => tokens.discovery(),
                "/openid/v1/jwks" => tokens.key_set(),
                _ => Value::Null,
            }
        });
        Self { key, url: url(outside.port), _outside: outside }
    }

    /// A token with these claims beside those that all have.
    fn token(&self, claims: Value) -> String {
        let now = jiff::Timestamp::now().as_second();
        let mut all = json!({"iss": self.url, "aud": "kubectl", "iat": now, "exp": now + 600});
        all.as_object_mut().expect("just made").extend(claims.as_object().expect("claims").clone());
        let tokens = Tokens::new(&self.key, self.url.as_str()).expect("own key");
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        header.kid = tokens.key_set()["keys"][0]["kid"].as_str().map(str::to_owned);
        let key = jsonwebtoken::EncodingKey::from_ec_pem(self.key.as_bytes()).expect("own key");
        jsonwebtoken::encode(&header, &all, &key).expect("own key")
    }
}

/// Knows one token, whose user it calls Wendy, and which it means for the API and for a database.
fn know(path: &str, review: &Value) -> Value {
    let known = path == "/review" && review["spec"]["token"] == "known-to-the-webhook";
    let user = json!({"username": "wendy", "uid": "w7", "groups": ["web"], "extra": {"k": ["v"]}});
    let status = match known {
        true => json!({"authenticated": true, "user": user, "audiences": review["spec"]["audiences"]}),
        false => json!({"authenticated": false, "error": "nobody I know"}),
    };
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
}

#[test]
fn users_of_a_provider_and_of_a_webhook_come_with_a_token() {
    let (bundle, pair) = certificate(&["127.0.0.1"]);
    let asked = Arc::new(AtomicUsize::new(0));
    let mut servers = None;
    let cluster = Cluster::start_beside(1, |cluster| {
        let provider = Provider::start(cluster, &pair);
        let counting = asked.clone();
        let webhook = Outside::start(cluster, &pair, move |path, review| {
            counting.fetch_add(1, Ordering::Relaxed);
            know(path, review)
        });
        let file = |name: &str, text: &[u8]| {
            let path = cluster.dir().join(name);
            std::fs::write(&path, text).expect("the folder is ours");
            path.display().to_string()
        };
        let ca = file("outside.crt", &STANDARD.decode(&bundle).expect("base64"));
        let server = format!("https://127.0.0.1:{}/review", webhook.port);
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "w", "cluster": {"server": server, "certificate-authority-data": bundle}}],
            "users": [{"name": "u", "user": {"token": "ours"}}],
            "contexts": [{"name": "c", "context": {"cluster": "w", "user": "u"}}]});
        let config = file("webhook", config.to_string().as_bytes());
        let settings = [
            ["--oidc-issuer-url", &provider.url],
            ["--oidc-client-id", "kubectl"],
            ["--oidc-ca-file", &ca],
            ["--oidc-signing-algs", "ES256"],
            ["--oidc-username-claim", "email"],
            ["--oidc-username-prefix", "oidc:"],
            ["--oidc-groups-claim", "groups"],
            ["--oidc-groups-prefix", "oidc:"],
            ["--authentication-token-webhook-config-file", &config],
        ];
        let settings = settings.concat().into_iter().map(str::to_owned).collect();
        servers = Some((provider, webhook));
        settings
    });
    let (provider, _webhook) = servers.expect("both were started");
    let ann = provider.token(json!({"email": "ann@example.com", "groups": ["dev"]}));
    let said = cluster.kubectl_as(&ann, &["auth", "whoami", "-o", "json"]).0;
    let said: Value = serde_json::from_str(&said).expect("a review");
    let user = &said["status"]["userInfo"];
    assert_eq!(user["username"], "oidc:ann@example.com", "{said}");
    assert_eq!(user["groups"], json!(["oidc:dev", "system:authenticated"]), "{said}");

    // What a role gives to a group of the provider's, its members may.
    let refused = cluster.kubectl_as(&ann, &["get", "pods"]).1;
    assert!(refused.contains("User \"oidc:ann@example.com\" cannot list resource \"pods\""), "{refused}");
    cluster.kubectl(&["create", "rolebinding", "dev", "--clusterrole=view", "--group=oidc:dev"]);
    let (out, err) = cluster.kubectl_as(&ann, &["get", "pods"]);
    assert!(err.contains("No resources found"), "{out}{err}");

    let late = provider.token(json!({"email": "ann@example.com", "exp": 1}));
    let other = provider.token(json!({"email": "ann@example.com", "aud": "somebody else"}));
    let unverified = provider.token(json!({"email": "ann@example.com", "email_verified": false}));
    let master = provider.token(json!({"email": "x", "groups": ["system:masters"]}));
    let forged = format!("{}x", &ann[..ann.len() - 1]);
    for bad in [&late, &other, &unverified, &forged] {
        let refused = cluster.kubectl_as(bad, &["get", "pods"]).1;
        assert!(refused.contains("You must be logged in to the server"), "{refused}");
    }
    let refused = cluster.kubectl_as(&master, &["get", "nodes"]).1;
    assert!(refused.contains("cannot list resource \"nodes\""), "{refused}");
    let said = cluster.kubectl_as("known-to-the-webhook", &["auth", "whoami"]).0;
    assert!(
        said.contains("wendy") && said.contains("w7") && said.contains("[web system:authenticated]"),
        "{said}"
    );

    // Whoever reviews tokens is told of those of all.
    let account = cluster.kubectl(&["create", "token", "default"]);
    cluster.kubectl(&[
        "-n",
        "kube-system",
        "create",
        "secret",
        "generic",
        "bootstrap-token-abcdef",
        "--type=bootstrap.kubernetes.io/token",
        "--from-literal=token-id=abcdef",
        "--from-literal=token-secret=0123456789abcdef",
        "--from-literal=usage-bootstrap-authentication=true",
    ]);
    for (token, name) in [
        (ann.as_str(), "oidc:ann@example.com"),
        ("known-to-the-webhook", "wendy"),
        (account.trim(), "system:serviceaccount:default:default"),
        ("abcdef.0123456789abcdef", "system:bootstrap:abcdef"),
    ] {
        let status = review(&cluster, token, &[]);
        assert_eq!(status["user"]["username"], name, "{status}");
        assert!(status["authenticated"] == true && status["audiences"][0].is_string(), "{status}");
    }
    let status = review(&cluster, "known-to-the-webhook", &["database"]);
    assert_eq!(status["audiences"], json!(["database"]), "{status}");
    let status = review(&cluster, &ann, &["database"]);
    assert_ne!(status["authenticated"], true, "{status}");
    let status = review(&cluster, &late, &[]);
    let why = status["error"].as_str().unwrap_or_default();
    assert!(why.contains("token is expired") && why.contains("nobody I know"), "{status}");
    let before = asked.load(Ordering::Relaxed);
    review(&cluster, "known-to-the-webhook", &["database"]);
    assert_eq!(asked.load(Ordering::Relaxed), before, "what the webhook said is remembered");
}

/// The status of a review of a token for these audiences.
fn review(cluster: &Cluster, token: &str, audiences: &[&str]) -> Value {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token, "audiences": audiences}});
    let made = cluster.kubectl_with(&["create", "-o", "json", "-f", "-"], &review.to_string());
    let made: Value = serde_json::from_str(&made).expect("a review");
    made["status"].clone()
}
