//! Programs outside the cluster that it asks over https.

use std::net::TcpListener;
use std::sync::Arc;

use api::auth::pki::{self, PemPair, Purpose};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use crate::harness::Cluster;

/// What such a program answers, by the path and the body that it is sent; for a body that is none, the user that a front proxy
/// names.
type Answer = Arc<dyn Fn(&str, &Value) -> Value + Send + Sync>;

/// A program outside on https, in the cluster's network; it ends when it is dropped.
pub struct Outside {
    pub port: u16,
    _runtime: tokio::runtime::Runtime,
}

impl Outside {
    /// Starts one on a free port.
    pub fn start(
        cluster: &Cluster,
        pair: &PemPair,
        answer: impl Fn(&str, &Value) -> Value + Send + Sync + 'static,
    ) -> Self {
        Self::start_at(cluster, pair, |_| answer)
    }

    /// The same, where what it answers tells of its port.
    pub fn start_at<A>(cluster: &Cluster, pair: &PemPair, answer: impl FnOnce(u16) -> A) -> Self
    where
        A: Fn(&str, &Value) -> Value + Send + Sync + 'static,
    {
        // Another test of this process may have been faster.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = cluster.within(|| TcpListener::bind("0.0.0.0:0").expect("a free port"));
        listener.set_nonblocking(true).expect("a socket of ours");
        let port = listener.local_addr().expect("bound").port();
        let answer: Answer = Arc::new(answer(port));
        let (chain, key) = pair.to_der().expect("own PEM");
        let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
        let acceptor = TlsAcceptor::from(Arc::new(tls.expect("own certificate")));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("inside the runtime");
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    // Who does not trust us goes away at once.
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let one = service_fn(move |request| reply(request, answer.clone()));
                    let builder = hyper::server::conn::http1::Builder::new();
                    let _ = builder.serve_connection(TokioIo::new(stream), one).await;
                });
            }
        });
        Self { port, _runtime: runtime }
    }
}

async fn reply(request: Request<Incoming>, answer: Answer) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let who = request.headers().get("x-remote-user").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = request.into_body().collect().await?.to_bytes();
    let mut body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if let Some(who) = who {
        body = json!({"user": who});
    }
    let mut response = Response::new(Full::new(Bytes::from(answer(&path, &body).to_string())));
    response
        .headers_mut()
        .insert("content-type", hyper::header::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// An authority (its PEM in base64, as objects hold it), and a certificate of it for these names.
pub fn certificate(names: &[&str]) -> (String, PemPair) {
    let now = jiff::Timestamp::now();
    let authority = pki::new_authority("outside", now).expect("keys can be drawn");
    let names = Purpose::Server(names.iter().map(|name| (*name).to_owned()).collect());
    let pair = pki::issue(&authority, "outside", "", &names, now).expect("a good authority");
    (STANDARD.encode(authority.cert), pair)
}
