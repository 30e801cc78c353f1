//! What the tests of this crate share: a fixed draw and the built-in resources.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use model::{Gvr, Tree};

use crate::dial::{Backend, Dial, Duplex};
use crate::registry::{Registry, Resource};
use crate::verbs::Drawn;

/// A fixed time, uid and suffix.
pub fn drawn() -> Drawn {
    let now = "2026-01-01T00:00:00Z".parse().expect("a fixed time");
    Drawn { now, uid: "uid-1".into(), suffix: "abcde".into() }
}

/// A built-in resource.
pub fn resource(gvr: &Gvr) -> Arc<Resource> {
    Registry::built_in().get(gvr).expect("a built-in resource").clone()
}

/// What a program outside answers to a path, its headers and a body: a code and JSON; `None`: nothing, ever.
pub type Answers = dyn Fn(&str, &http::HeaderMap, &Tree) -> Option<(u16, Tree)> + Send + Sync;

/// A program that extends the API, reached without a network.
pub struct Outside {
    answers: Box<Answers>,
    /// What it was asked: the host, the path, the body.
    pub asked: Mutex<Vec<(String, String, Tree)>>,
    connections: Mutex<host::Tasks>,
}

impl Outside {
    /// One that answers by a function; nobody answers on the host `nobody`.
    pub fn new(
        answers: impl Fn(&str, &http::HeaderMap, &Tree) -> Option<(u16, Tree)> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self { answers: Box::new(answers), asked: Mutex::default(), connections: Mutex::default() })
    }

    /// The paths that were asked since the last time.
    pub fn paths(&self) -> Vec<String> {
        self.take().into_iter().map(|(_, path, _)| path).collect()
    }

    /// What was asked since the last time.
    pub fn take(&self) -> Vec<(String, String, Tree)> {
        std::mem::take(&mut *self.asked.lock().expect("no panic while it is held"))
    }

    async fn answer(
        self: Arc<Self>,
        host: String,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Tree::Null);
        let path = parts.uri.to_string();
        let answer = (self.answers)(&path, &parts.headers, &body);
        self.asked.lock().expect("no panic while it is held").push((host, path, body));
        let Some((code, answer)) = answer else { return std::future::pending().await };
        let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
        *response.status_mut() = http::StatusCode::from_u16(code).expect("a good code");
        if (300..400).contains(&code) {
            let elsewhere = http::HeaderValue::from_static("https://elsewhere/");
            response.headers_mut().insert(http::header::LOCATION, elsewhere);
        }
        Ok(response)
    }
}

/// The way to a program outside.
pub struct Way(pub Arc<Outside>);

#[async_trait::async_trait]
impl Dial for Way {
    async fn dial(&self, backend: &Backend) -> std::io::Result<Box<dyn Duplex>> {
        if backend.host == "nobody" {
            return Err(std::io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = tokio::io::duplex(1 << 16);
        let (outside, host) = (self.0.clone(), backend.host.clone());
        let service =
            hyper::service::service_fn(move |request| outside.clone().answer(host.clone(), request));
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), service);
        let mut connections = self.0.connections.lock().expect("no panic while it is held");
        connections.spawn(async move { drop(serving.await) });
        Ok(Box::new(near))
    }
}
