//! Who else may prove who users are: an OpenID Connect provider, and a webhook that knows tokens.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::auth::outside::{OidcSettings, Outside, WebhookSettings};
use api::dial::{ClientPair, Dial};
use api::{Credentials, Reader, Token};

use client::{Access, Identity};
use host::Host;

use crate::settings::Strangers;
use crate::tls;

/// Those outside who are asked about tokens, as the settings say.
pub fn outside(host: &Host, dial: Arc<dyn Dial>, settings: &Strangers) -> Result<Option<Arc<Outside>>> {
    let (oidc, webhook) = (oidc(settings)?, webhook(settings)?);
    Outside::new(host, dial, oidc, webhook).map_err(anyhow::Error::msg)
}

fn oidc(settings: &Strangers) -> Result<Option<OidcSettings>> {
    let (Some(issuer), Some(client)) = (&settings.oidc_issuer_url, &settings.oidc_client_id) else {
        return Ok(None);
    };
    let authorities = match &settings.oidc_ca_file {
        Some(file) => fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => Vec::new(),
    };
    let mut required = BTreeMap::new();
    for pair in &settings.oidc_required_claim {
        let (name, value) = pair
            .split_once('=')
            .with_context(|| format!("--oidc-required-claim {pair}: it has the form NAME=VALUE"))?;
        required.insert(name.to_owned(), value.to_owned());
    }
    Ok(Some(OidcSettings {
        issuer_url: issuer.clone(),
        client_id: client.clone(),
        username_claim: settings.oidc_username_claim.clone(),
        username_prefix: settings.oidc_username_prefix.clone(),
        groups_claim: settings.oidc_groups_claim.clone(),
        groups_prefix: settings.oidc_groups_prefix.clone().unwrap_or_default(),
        required_claims: required,
        authorities,
        algorithms: settings.oidc_signing_algs.clone(),
    }))
}

fn webhook(settings: &Strangers) -> Result<Option<WebhookSettings>> {
    let Some(file) = &settings.authentication_token_webhook_config_file else { return Ok(None) };
    let program = Program::read(file)?;
    Ok(Some(WebhookSettings {
        url: program.url,
        authorities: program.authorities,
        credentials: program.credentials,
        cache_time: Duration::from_secs(settings.authentication_token_webhook_cache_seconds),
    }))
}

/// A program outside that a kubeconfig tells of.
pub struct Program {
    /// Its URL.
    pub url: String,
    /// The authorities that may have signed its certificate, as PEM.
    pub authorities: Vec<u8>,
    /// What we show to it.
    pub credentials: Credentials,
}

impl Program {
    /// Reads the kubeconfig.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let using = || format!("cannot use {}", file.display());
        let access =
            Access::from_kubeconfig_with(&text, Some(&|path| beside(file, path))).with_context(using)?;
        let credentials = credentials(file, access.identity).with_context(using)?;
        Ok(Self { url: access.server, authorities: access.authority_pem, credentials })
    }
}

/// Reads a file that a kubeconfig names: by its whole path, or by that from the kubeconfig's folder.
pub fn beside(kubeconfig: &Path, path: &str) -> io::Result<Vec<u8>> {
    let dir = kubeconfig.parent().unwrap_or(Path::new(""));
    let path = dir.join(path);
    fs::read(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// What we show as this user of a kubeconfig; a certificate and a key that do not fit together are refused.
pub fn credentials(kubeconfig: &Path, identity: Identity) -> Result<Credentials> {
    Ok(match identity {
        Identity::Anonymous => Credentials::default(),
        Identity::Token(token) => Credentials { token: Some(Token::Fixed(token)), client: None },
        Identity::TokenFile(path) => {
            let kubeconfig = kubeconfig.to_owned();
            let read = move || read_token(&kubeconfig, &path);
            // What cannot be read now is told now; what it becomes is read each time.
            read().map_err(anyhow::Error::msg).context("tokenFile")?;
            Credentials { token: Some(Token::Changing(Reader(Arc::new(read)))), client: None }
        }
        Identity::Certificate { chain_pem, key_pem } => {
            let pair = ClientPair { chain: chain_pem, key: key_pem };
            tls::check_client(&pair)?;
            Credentials { token: None, client: Some(Arc::new(pair)) }
        }
    })
}

/// The token in a file that a kubeconfig names: whoever renews it writes the file anew.
fn read_token(kubeconfig: &Path, path: &str) -> Result<String, String> {
    let bytes = beside(kubeconfig, path).map_err(|error| error.to_string())?;
    let token = String::from_utf8_lossy(&bytes).trim().to_owned();
    if token.is_empty() { Err(format!("{path}: there is no token in it")) } else { Ok(token) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex;

    use api::auth::pki::{self, PemPair, Purpose};
    use api::auth::tokens::{Bound, Claims, Tokens};
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use jiff::Timestamp;
    use rustls::ServerConfig;
    use rustls::server::WebPkiClientVerifier;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::tls::Dialer;

    type Handler = Arc<dyn Fn(&str, Option<&str>, Value) -> Option<Value> + Send + Sync>;

    /// A server on loopback, with a certificate of an authority of its own.
    struct Other {
        url: String,
        authority: PemPair,
        asked: Arc<Mutex<Vec<String>>>,
        _serving: host::Task<()>,
    }

    async fn serve(host: &Host, answer: impl FnOnce(&str) -> Handler) -> Other {
        serve_known(host, None, answer).await
    }

    /// One that takes clients with a certificate of `clients` alone, where that is given.
    async fn serve_known(
        host: &Host,
        clients: Option<&PemPair>,
        answer: impl FnOnce(&str) -> Handler,
    ) -> Other {
        let authority = pki::new_authority("theirs", host.now()).expect("keys can be drawn");
        let purpose = Purpose::Server(vec!["127.0.0.1".into()]);
        let own = pki::issue(&authority, "them", "", &purpose, host.now()).expect("own authority");
        Other { authority, ..serve_by(host, clients, own, answer).await }
    }

    /// One that shows a certificate which nobody else signed.
    async fn serve_as(host: &Host, own: PemPair, answer: Handler) -> Other {
        serve_by(host, None, own, |_| answer).await
    }

    /// One that shows this certificate.
    async fn serve_by(
        host: &Host,
        clients: Option<&PemPair>,
        own: PemPair,
        answer: impl FnOnce(&str) -> Handler,
    ) -> Other {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("https://{}", listener.local_addr().expect("it is bound"));
        let (chain, key) = own.to_der().expect("own PEM");
        let config = match clients {
            None => {
                let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
                Arc::new(config.expect("own certificate"))
            }
            Some(clients) => {
                let mut known = rustls::RootCertStore::empty();
                known.add(clients.to_der().expect("own PEM").0.remove(0)).expect("an authority");
                let verifier = WebPkiClientVerifier::builder(Arc::new(known)).build().expect("an authority");
                let config = ServerConfig::builder().with_client_cert_verifier(verifier);
                Arc::new(config.with_single_cert(chain, key).expect("own certificate"))
            }
        };
        let acceptor = TlsAcceptor::from(config);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (handler, noted, spawner) = (answer(&url), asked.clone(), host.clone());
        let serving = host.spawn(async move {
            let mut connections = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handler, noted) = (acceptor.clone(), handler.clone(), noted.clone());
                connections.push(spawner.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let one = service_fn(move |request: http::Request<Incoming>| {
                        let (handler, noted) = (handler.clone(), noted.clone());
                        async move { Ok::<_, Infallible>(respond(&handler, &noted, request).await) }
                    });
                    // It ends with the client.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), one)
                        .await;
                }));
            }
        });
        Other { url, authority: own, asked, _serving: serving }
    }

    async fn respond(
        handler: &Handler,
        noted: &Mutex<Vec<String>>,
        request: http::Request<Incoming>,
    ) -> http::Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let path = head.uri.path().to_owned();
        let bearer = head.headers.get("authorization").and_then(|value| value.to_str().ok());
        noted.lock().expect("nobody panics").push(path.clone());
        let answer = handler(&path, bearer, serde_json::from_slice(&body).unwrap_or_default());
        let mut response =
            http::Response::new(Full::new(Bytes::from(answer.clone().unwrap_or_default().to_string())));
        if answer.is_none() {
            *response.status_mut() = http::StatusCode::NOT_FOUND;
        }
        response
    }

    fn api() -> [String; 1] {
        ["api".to_owned()]
    }

    fn dial(host: &Host) -> Arc<dyn Dial> {
        let authority = pki::new_authority("ours", host.now()).expect("keys can be drawn");
        let own = pki::issue(&authority, "api", "", &Purpose::Client, host.now()).expect("own authority");
        Arc::new(Dialer::new(&own, &authority.cert, own.clone()).expect("own certificates"))
    }

    fn claims(now: Timestamp, subject: &str) -> Claims {
        let second = now.as_second();
        Claims {
            aud: vec!["kube".into()],
            exp: second + 600,
            iat: second,
            nbf: second,
            iss: String::new(),
            jti: "1".into(),
            sub: subject.into(),
            bound: Bound::default(),
        }
    }

    fn settings(dir: &Path, other: &Other) -> Strangers {
        let file = dir.join("ca.crt");
        fs::write(&file, &other.authority.cert).expect("a folder of our own");
        Strangers {
            oidc_issuer_url: Some(other.url.clone()),
            oidc_client_id: Some("kube".into()),
            oidc_username_claim: "sub".into(),
            oidc_username_prefix: Some("oidc:".into()),
            oidc_signing_algs: vec!["ES256".into()],
            oidc_ca_file: Some(file),
            ..Strangers::default()
        }
    }

    #[tokio::test]
    async fn tokens_of_a_provider_are_taken_by_the_keys_that_it_publishes() {
        let host = Host::real();
        let dir = tempfile::tempdir().expect("a folder of our own");
        let key = pki::new_token_key().expect("keys can be drawn");
        let provider = serve(&host, |url| {
            let tokens = Tokens::new(&key, url).expect("own key");
            Arc::new(move |path, _, _| match path {
                "/.well-known/openid-configuration" => Some(tokens.discovery()),
                "/openid/v1/jwks" => Some(tokens.key_set()),
                _ => None,
            })
        })
        .await;
        let settings = settings(dir.path(), &provider);
        let outside =
            outside(&host, dial(&host), &settings).expect("good settings").expect("somebody to ask");
        let tokens = Tokens::new(&key, provider.url.as_str()).expect("own key");
        for user in ["ann", "bob"] {
            let token = tokens.sign(claims(host.now(), user)).expect("own key");
            let (who, _) = outside.identify(&token, &api(), &api()).await.expect("the provider knows them");
            assert_eq!(who.name, format!("oidc:{user}"));
        }
        let asked = || provider.asked.lock().expect("nobody panics").len();
        assert_eq!(asked(), 2, "the keys are read once");
        let stranger = Tokens::new(&pki::new_token_key().expect("keys can be drawn"), provider.url.as_str())
            .expect("a key");
        let forged = stranger.sign(claims(host.now(), "ann")).expect("a key");
        assert!(outside.identify(&forged, &api(), &api()).await.is_err());
        let elsewhere = Tokens::new(&key, "https://other").expect("own key");
        let token = elsewhere.sign(claims(host.now(), "ann")).expect("own key");
        assert!(outside.identify(&token, &api(), &api()).await.is_err());
        assert_eq!(asked(), 2, "made-up tokens make nobody ask again and again");
    }

    #[tokio::test]
    async fn a_provider_that_another_authority_vouches_for_is_not_believed() {
        let host = Host::real();
        let dir = tempfile::tempdir().expect("a folder of our own");
        let provider = serve(&host, |_| Arc::new(|_, _, _| Some(json!({})))).await;
        let settings = settings(dir.path(), &provider);
        let other = pki::new_authority("theirs", host.now()).expect("keys can be drawn");
        fs::write(dir.path().join("ca.crt"), &other.cert).expect("a folder of our own");
        let outside =
            outside(&host, dial(&host), &settings).expect("good settings").expect("somebody to ask");
        let key = pki::new_token_key().expect("keys can be drawn");
        let token =
            Tokens::new(&key, provider.url.as_str()).expect("own key").sign(claims(host.now(), "ann"));
        assert!(outside.identify(&token.expect("own key"), &api(), &api()).await.is_err());
        assert!(provider.asked.lock().expect("nobody panics").is_empty());
    }

    #[tokio::test]
    async fn a_certificate_that_is_trusted_itself_vouches_for_itself_and_for_its_own_names() {
        let host = Host::real();
        let dir = tempfile::tempdir().expect("a folder of our own");
        // As `openssl req -x509` makes it: marked as an authority's, and shown by a server.
        let own = pki::new_self_signed(&["127.0.0.1"], host.now()).expect("keys can be drawn");
        let answer = || -> Handler {
            Arc::new(|_, _, _| {
                let status = json!({"authenticated": true, "user": {"username": "ann"}});
                Some(
                    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}),
                )
            })
        };
        let mut webhook = serve_as(&host, own.clone(), answer()).await;
        let identify = async |webhook: &Other, url: &str| {
            let mut settings = asking(dir.path(), webhook, json!({}));
            let file = settings.authentication_token_webhook_config_file.take().expect("it names one");
            let text = fs::read_to_string(&file).expect("a folder of our own").replace(&webhook.url, url);
            fs::write(&file, text).expect("a folder of our own");
            settings.authentication_token_webhook_config_file = Some(file);
            let outside =
                outside(&host, dial(&host), &settings).expect("good settings").expect("somebody to ask");
            outside.identify("t", &api(), &api()).await.map(|(who, _)| who.name)
        };
        assert_eq!(identify(&webhook, &webhook.url).await, Ok("ann".to_owned()));
        let other_name = webhook.url.replace("127.0.0.1", "localhost");
        assert!(identify(&webhook, &other_name).await.is_err(), "it is not good for that name");
        webhook.authority = pki::new_self_signed(&["127.0.0.1"], host.now()).expect("keys can be drawn");
        assert!(identify(&webhook, &webhook.url).await.is_err(), "another one is trusted");
    }

    /// Settings whose kubeconfig leads to the webhook, as this user.
    fn asking(dir: &Path, webhook: &Other, user: Value) -> Strangers {
        fs::write(dir.join("ca.crt"), &webhook.authority.cert).expect("a folder of our own");
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "w", "cluster": {"server": format!("{}/review", webhook.url), "certificate-authority": "ca.crt"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "c", "context": {"cluster": "w", "user": "u"}}],
        });
        let file = dir.join("webhook");
        fs::write(&file, config.to_string()).expect("a folder of our own");
        Strangers {
            authentication_token_webhook_config_file: Some(file),
            authentication_token_webhook_cache_seconds: 120,
            ..Strangers::default()
        }
    }

    #[tokio::test]
    async fn a_webhook_that_wants_a_certificate_is_shown_the_one_of_its_kubeconfig() {
        let host = Host::real();
        let dir = tempfile::tempdir().expect("a folder of our own");
        let clients = pki::new_authority("clients", host.now()).expect("keys can be drawn");
        let webhook = serve_known(&host, Some(&clients), |_| {
            Arc::new(|_, _, _| {
                let status = json!({"authenticated": true, "user": {"username": "ann"}});
                Some(json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}))
            })
        })
        .await;
        let own = pki::issue(&clients, "api", "", &Purpose::Client, host.now()).expect("own authority");
        let other = pki::issue(&clients, "other", "", &Purpose::Client, host.now()).expect("own authority");
        for (name, text) in [("own.crt", &own.cert), ("own.key", &own.key), ("other.key", &other.key)] {
            fs::write(dir.path().join(name), text).expect("a folder of our own");
        }
        let user = |key: &str| json!({"client-certificate": "own.crt", "client-key": key});
        let identified = async |user: Value| {
            let settings = asking(dir.path(), &webhook, user);
            let outside = outside(&host, dial(&host), &settings).expect("good settings").expect("somebody");
            outside.identify("t", &api(), &api()).await
        };
        assert_eq!(identified(user("own.key")).await.expect("it knows us").0.name, "ann");
        assert!(identified(json!({})).await.is_err());
        assert!(identified(json!({"token": "ours"})).await.is_err());
        let unfit = asking(dir.path(), &webhook, user("other.key"));
        assert!(outside(&host, dial(&host), &unfit).is_err(), "the key is another certificate's");
    }

    #[tokio::test]
    async fn a_webhook_is_asked_once_and_sees_our_token() {
        let host = Host::real();
        let dir = tempfile::tempdir().expect("a folder of our own");
        let webhook = serve(&host, |_| {
            Arc::new(|path, bearer, review| {
                let known = path == "/review" && bearer == Some("Bearer ours") && review["kind"] == "TokenReview";
                let status = match review["spec"]["token"].as_str() {
                    Some("good") => json!({"authenticated": true, "user": {"username": "ann", "uid": "7", "groups": ["a"], "extra": {"k": ["v"]}}}),
                    _ => json!({"authenticated": false}),
                };
                known.then(|| json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}))
            })
        })
        .await;
        let settings = asking(dir.path(), &webhook, json!({"token": "ours"}));
        let outside =
            outside(&host, dial(&host), &settings).expect("good settings").expect("somebody to ask");
        for _ in 0..3 {
            let (who, _) = outside.identify("good", &api(), &api()).await.expect("the webhook knows them");
            assert_eq!((who.name.as_str(), who.uid.as_str(), who.extra["k"][0].as_str()), ("ann", "7", "v"));
            assert!(outside.identify("bad", &api(), &api()).await.is_err());
        }
        assert_eq!(webhook.asked.lock().expect("nobody panics").len(), 2, "what it said is remembered");
    }
}
