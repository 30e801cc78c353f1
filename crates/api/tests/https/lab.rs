//! A server on a port of its own, and its clients.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use api::auth::pki::{self, PemPair, Purpose};
use api::auth::tokens::Tokens;
use api::auth::{Authenticator, MASTERS};
use api::dial::{Backend, Dial, Duplex};
use api::{Face, Service, Settings};
use async_trait::async_trait;
use bytes::Bytes;
use host::{Host, Task};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub type Https = Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A server on a port of its own, and what clients need.
pub struct Lab {
    pub base: String,
    pub authority: PemPair,
    admin: PemPair,
    pub stop: watch::Sender<bool>,
    pub server: Task<()>,
    /// What a kubelet heard after it had refused.
    pub heard: Arc<Mutex<Vec<u8>>>,
    _dir: tempfile::TempDir,
}

/// A kubelet that answers every upgrade with an echo, but for a command that is `refused`.
struct Echo {
    /// What it heard after it had refused.
    heard: Arc<Mutex<Vec<u8>>>,
}

#[async_trait]
impl Dial for Echo {
    async fn dial(&self, _backend: &Backend) -> io::Result<Box<dyn Duplex>> {
        let (near, mut far) = tokio::io::duplex(4096);
        let heard = self.heard.clone();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(far.read_u8().await?);
            }
            if head.windows(7).any(|word| word == b"refused") {
                far.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno").await?;
                loop {
                    let byte = far.read_u8().await?;
                    heard.lock().expect("nobody panics").push(byte);
                }
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

pub fn roots(authority: &PemPair) -> rustls::RootCertStore {
    let mut roots = rustls::RootCertStore::empty();
    let certs = CertificateDer::pem_slice_iter(authority.cert.as_bytes());
    certs.for_each(|cert| roots.add(cert.expect("own PEM")).expect("own certificate"));
    roots
}

pub async fn lab() -> Lab {
    // Another test of this process may have been faster.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().expect("a folder");
    let host = Host::real();
    let now = host.now();
    let store = store::Store::open(&host, PathBuf::from(dir.path()), api::tagger(), Default::default()).await;
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let settings = Settings { dial: Arc::new(Echo { heard: heard.clone() }), ..Settings::default() };
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
    Lab { base, authority, admin, stop, server, heard, _dir: dir }
}

impl Lab {
    pub fn tls(&self) -> rustls::ClientConfig {
        let (chain, key) = self.admin.to_der().expect("own PEM");
        let config = rustls::ClientConfig::builder().with_root_certificates(roots(&self.authority));
        config.with_client_auth_cert(chain, key).expect("own certificate")
    }

    pub fn client(&self, http2: bool) -> Https {
        let connector = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(self.tls()).https_only();
        let connector =
            if http2 { connector.enable_http2().build() } else { connector.enable_http1().build() };
        Client::builder(TokioExecutor::new()).http2_only(http2).build(connector)
    }

    pub fn request(&self, method: Method, path: &str, body: &Value) -> Request<Full<Bytes>> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request.body(Full::new(body)).expect("a good request")
    }
}

pub async fn tree(response: Response<Incoming>) -> Value {
    let body = response.into_body().collect().await.expect("a whole body").to_bytes();
    serde_json::from_slice(&body).unwrap_or(Value::Null)
}
