//! What the https transport promises, against a real TLS server on a loopback port of its own.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use client::{Access, Client, ClientError, Https, Identity, Select, WatchKind};
use futures_util::{StreamExt, TryStreamExt, stream};
use host::{Host, Task, Tasks};
use http::{Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::{Gvr, Key};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const PODS: Gvr = Gvr::new("", "v1", "pods");

/// An authority, and what it signs.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate and its key, both PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("an address");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

/// A server that says who asked and how; it ends with its task.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _task: Task<()>,
}

async fn serve(authority: &Authority, alpn: &[&str]) -> Server {
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM")).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.allow_unauthenticated().build().expect("a verifier");
    let (chain, key) = authority.sign("server");
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the usual versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(chain.as_bytes()).expect("PEM")],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM"),
        )
        .expect("a certificate");
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::new(AtomicUsize::new(0));
    let accept = accept(listener, TlsAcceptor::from(Arc::new(config)), connections.clone());
    Server { address, connections, _task: Host::real().spawn(accept) }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, connections: Arc<AtomicUsize>) {
    let mut tasks = Tasks::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        tasks.spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            connections.fetch_add(1, Ordering::SeqCst);
            let certified = stream.get_ref().1.peer_certificates().is_some();
            let service =
                service_fn(move |request| async move { Ok::<_, Infallible>(answer(&request, certified)) });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

fn answer(request: &Request<Incoming>, certified: bool) -> Response<BoxBody<Bytes, Infallible>> {
    let query = request.uri().query().unwrap_or_default();
    if query.contains("watch=true") && query.contains("resourceVersion=0") {
        return Response::builder()
            .status(410)
            .body(Full::new(Bytes::from("{}")).boxed())
            .expect("an answer");
    }
    if query.contains("watch=true") {
        let line = "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"x\"}}}\n";
        let first = stream::iter([Ok(Frame::data(Bytes::from(line)))]);
        return Response::new(BodyExt::boxed(StreamBody::new(first.chain(stream::pending()))));
    }
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let said = serde_json::json!({"metadata": {"name": "x", "annotations": {
        "version": format!("{:?}", request.version()),
        "agent": header("user-agent"),
        "token": header("authorization"),
        "certified": certified.to_string(),
    }}});
    Response::new(Full::new(Bytes::from(said.to_string())).boxed())
}

fn client(server: &Server, authority: &Authority, identity: Identity) -> Client {
    let access = Access {
        server: format!("https://{}", server.address),
        authority_pem: authority.pem.clone().into_bytes(),
        server_name: None,
        identity,
    };
    Client::new(Arc::new(Https::new(&access).expect("an access")), "test/1")
}

async fn said(client: &Client, name: &str) -> String {
    let object = client.get(&Key::new(&PODS, "a", "x")).await.expect("an answer");
    object.meta().annotations.get(name).expect("the annotation").to_owned()
}

#[tokio::test]
async fn the_newest_protocol_that_the_server_offers_is_spoken() {
    let authority = Authority::new();
    for (alpn, spoken) in
        [(&["h2", "http/1.1"][..], "HTTP/2.0"), (&["http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")]
    {
        let server = serve(&authority, alpn).await;
        let client = client(&server, &authority, Identity::Anonymous);
        assert_eq!(said(&client, "version").await, spoken);
        assert_eq!(said(&client, "agent").await, "test/1");
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate_or_its_token() {
    let authority = Authority::new();
    let server = serve(&authority, &["h2"]).await;
    let (chain, key) = authority.sign("admin");
    let identity = Identity::Certificate { chain_pem: chain.into_bytes(), key_pem: key.into_bytes() };
    assert_eq!(said(&client(&server, &authority, identity), "certified").await, "true");
    let identity = Identity::Token("abc".into());
    assert_eq!(said(&client(&server, &authority, identity), "token").await, "Bearer abc");
}

#[tokio::test]
async fn a_server_of_another_authority_is_nobody() {
    let server = serve(&Authority::new(), &["h2"]).await;
    let client = client(&server, &Authority::new(), Identity::Anonymous);
    let answer = client.get(&Key::new(&PODS, "a", "x")).await;
    assert!(matches!(answer, Err(ClientError::Unreachable(_))), "{answer:?}");
}

#[tokio::test]
async fn many_watches_and_requests_share_one_connection() {
    let authority = Authority::new();
    let server = serve(&authority, &["h2"]).await;
    let client = client(&server, &authority, Identity::Anonymous);
    said(&client, "version").await;
    let mut watches = Vec::new();
    for _ in 0..50 {
        let mut watch = client.watch(&PODS, "", &Select::all(), &[]).await.expect("a watch");
        let first = watch.try_next().await.expect("no error").expect("an event");
        assert_eq!(
            (first.kind, &first.object[..]),
            (WatchKind::Added, &b"{\"metadata\":{\"name\":\"x\"}}"[..])
        );
        watches.push(watch);
    }
    said(&client, "version").await;
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_watch_that_is_refused_says_so() {
    let authority = Authority::new();
    let server = serve(&authority, &["h2"]).await;
    let client = client(&server, &authority, Identity::Anonymous);
    let refused = client.watch(&PODS, "", &Select::all(), &[("resourceVersion", "0")]).await;
    assert!(matches!(refused.map(|_| ()), Err(ClientError::Expired { .. })));
}

#[tokio::test]
async fn a_server_that_is_gone_is_unreachable_and_its_watches_end() {
    let authority = Authority::new();
    let server = serve(&authority, &["h2"]).await;
    let client = client(&server, &authority, Identity::Anonymous);
    said(&client, "version").await;
    let mut watch = client.watch(&PODS, "", &Select::all(), &[]).await.expect("a watch");
    watch.try_next().await.expect("no error");
    drop(server);
    assert!(matches!(watch.try_next().await, Err(_) | Ok(None)), "the watch ends with its server");
    let answer = client.get(&Key::new(&PODS, "a", "x")).await;
    assert!(matches!(answer, Err(ClientError::Unreachable(_))), "{answer:?}");
}
