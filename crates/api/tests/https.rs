//! The API over real TLS: HTTP/1.1 and HTTP/2, certificates, streams and upgrades.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use api::auth::pki::{self, PemPair, Purpose};
use api::auth::tokens::Tokens;
use api::auth::{Authenticator, MASTERS};
use api::dial::{Backend, Dial, Duplex};
use api::{Face, Service, Settings};
use async_trait::async_trait;
use bytes::Bytes;
use host::{Host, Task};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

type Https = Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A server on a port of its own, and what clients need.
struct Lab {
    base: String,
    authority: PemPair,
    admin: PemPair,
    stop: watch::Sender<bool>,
    server: Task<()>,
    _dir: tempfile::TempDir,
}

/// A kubelet that answers every upgrade with an echo.
struct Echo;

#[async_trait]
impl Dial for Echo {
    async fn dial(&self, _backend: &Backend) -> io::Result<Box<dyn Duplex>> {
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await?);
            }
            far.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .await?;
            let mut buffer = [0; 64];
            loop {
                let len = far.read(&mut buffer).await?;
                if len == 0 {
                    return Ok::<(), io::Error>(());
                }
                far.write_all(&buffer[..len]).await?;
            }
        });
        Ok(Box::new(near))
    }
}

fn roots(authority: &PemPair) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let certs = CertificateDer::pem_slice_iter(authority.cert.as_bytes());
    certs.for_each(|cert| roots.add(cert.expect("own PEM")).expect("own certificate"));
    roots
}

async fn lab() -> Lab {
    // Another test of this process may have been faster.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().expect("a folder");
    let host = Host::real();
    let now = host.now();
    let store = store::Store::open(&host, PathBuf::from(dir.path()), api::tagger(), Default::default()).await;
    let settings = Settings { dial: Arc::new(Echo), ..Settings::default() };
    let service =
        Service::open(host.clone(), store.expect("an empty folder"), settings).await.expect("a new cluster");
    let authority = pki::new_authority("ca", now).expect("keys can be drawn");
    let names = Purpose::Server(vec!["127.0.0.1".into()]);
    let own = pki::issue(&authority, "api", "", &names, now).expect("a good authority");
    let admin = pki::issue(&authority, "admin", MASTERS, &Purpose::Client, now).expect("a good authority");
    let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots(&authority)));
    let verifier = verifier.allow_unauthenticated().build().expect("one authority");
    let (chain, key) = own.to_der().expect("own PEM");
    let tls =
        rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key);
    let mut tls = tls.expect("own certificate");
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tokens =
        Tokens::new(&pki::new_token_key().expect("keys can be drawn"), "https://k").expect("own key");
    let authenticator = Authenticator::new(Arc::new(tokens), vec!["api".into()], Arc::new(|_, _, _| None));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("https://{}", listener.local_addr().expect("bound"));
    let (stop, stopped) = watch::channel(false);
    let face = Face { service, authenticator, tls: Arc::new(tls) };
    let server = host.spawn(api::serve(listener, face, stopped));
    Lab { base, authority, admin, stop, server, _dir: dir }
}

impl Lab {
    fn tls(&self) -> rustls::ClientConfig {
        let (chain, key) = self.admin.to_der().expect("own PEM");
        let config = rustls::ClientConfig::builder().with_root_certificates(roots(&self.authority));
        config.with_client_auth_cert(chain, key).expect("own certificate")
    }

    fn client(&self, http2: bool) -> Https {
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(self.tls()).https_only();
        let connector =
            if http2 { connector.enable_http2().build() } else { connector.enable_http1().build() };
        Client::builder(TokioExecutor::new()).http2_only(http2).build(connector)
    }

    fn request(&self, method: Method, path: &str, body: &Value) -> Request<Full<Bytes>> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request.body(Full::new(body)).expect("a good request")
    }
}

async fn tree(response: Response<Incoming>) -> Value {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    serde_json::from_slice(&body).unwrap_or(Value::Null)
}

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn both_versions_of_http_write_read_and_watch() {
    let lab = lab().await;
    for http2 in [false, true] {
        let client = lab.client(http2);
        let watching = client.request(lab.request(
            Method::GET,
            &format!("{CONFIG_MAPS}?watch=1&resourceVersion=0"),
            &Value::Null,
        ));
        let mut events = watching.await.expect("an answer").into_body();
        let name = format!("a{http2}");
        let made = client
            .request(lab.request(Method::POST, CONFIG_MAPS, &json!({"metadata": {"name": name}})))
            .await;
        assert_eq!(made.expect("an answer").status(), StatusCode::CREATED);
        let mut seen = String::new();
        while !seen.contains(&format!("\"name\":\"{name}\"")) {
            let frame = events.frame().await.expect("the watch goes on").expect("a frame");
            seen.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default()));
        }
        assert!(seen.starts_with("{\"type\":\"ADDED\",\"object\":{"), "{seen}");
        let got =
            client.request(lab.request(Method::GET, &format!("{CONFIG_MAPS}/{name}"), &Value::Null)).await;
        assert_eq!(tree(got.expect("an answer")).await["metadata"]["name"], name);
    }
}

#[tokio::test]
async fn bad_tokens_and_large_bodies_are_refused() {
    let lab = lab().await;
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(
            rustls::ClientConfig::builder()
                .with_root_certificates(roots(&lab.authority))
                .with_no_client_auth(),
        )
        .https_only()
        .enable_http1()
        .build();
    let stranger: Https = Client::builder(TokioExecutor::new()).build(connector);
    let mut request = lab.request(Method::GET, "/api", &Value::Null);
    request.headers_mut().insert("authorization", "Bearer x.y.z".parse().expect("a header"));
    let refused = stranger.request(request).await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(tree(refused).await["reason"], "Unauthorized");

    let large = json!({"metadata": {"name": "l"}, "data": {"x": "y".repeat(3 * 1024 * 1024)}});
    let refused = lab.client(false).request(lab.request(Method::POST, CONFIG_MAPS, &large)).await;
    assert_eq!(refused.expect("an answer").status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn an_upgrade_is_piped_to_the_kubelet() {
    let lab = lab().await;
    let client = lab.client(false);
    let ask = async |method, path: &str, body: Value| {
        let answer = client.request(lab.request(method, path, &body)).await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", tree(answer).await);
    };
    let namespaced = |plural: &str| format!("/api/v1/namespaces/default/{plural}");
    ask(Method::POST, &namespaced("serviceaccounts"), json!({"metadata": {"name": "default"}})).await;
    let node = json!({"metadata": {"name": "n1"}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}});
    ask(Method::POST, "/api/v1/nodes", node).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    ask(Method::POST, &namespaced("pods"), pod).await;

    let mut request =
        lab.request(Method::GET, &namespaced("pods/p/exec?command=sh&stdin=true"), &Value::Null);
    for (name, value) in [("connection", "Upgrade"), ("upgrade", "websocket")] {
        request.headers_mut().insert(name, value.parse().expect("a header"));
    }
    let answer = client.request(request).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    let mut pipe = TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"));
    pipe.write_all(b"hello").await.expect("the pipe is open");
    let mut back = [0; 5];
    pipe.read_exact(&mut back).await.expect("the echo");
    assert_eq!(&back, b"hello");
}

#[tokio::test]
async fn the_server_finishes_when_it_is_told_to_stop() {
    let lab = lab().await;
    let client = lab.client(true);
    let answer = client.request(lab.request(Method::GET, "/livez", &Value::Null)).await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let watching = client.request(lab.request(Method::GET, &format!("{CONFIG_MAPS}?watch=1"), &Value::Null));
    let events = watching.await.expect("an answer").into_body();
    lab.stop.send(true).expect("the server listens");
    assert!(lab.server.join().await.is_some());
    assert!(events.collect().await.is_ok(), "the watch has ended in order");
    let late = client
        .request(Request::builder().uri(format!("{}/livez", lab.base)).body(Full::default()).expect("good"));
    assert!(late.await.is_err());
}
