//! Requests of ours to the programs that extend the API: webhooks and extension servers.
//!
//! Promises: every request has a deadline and every answer a length; no redirection is followed; a connection is used
//! again only after a whole answer. It knows no objects, and never decides whether somebody is to be asked.

mod callee;
mod credentials;
mod plain;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use host::{Host, Moment, Task};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use crate::dial::{Backend, Dial};

pub use callee::{Callee, ready};
pub use credentials::{Credentials, Introductions, Reader, Token};
pub use plain::exchange;

/// How large an answer may be, in bytes: a review's object is at most 3 MiB, and a few of them go to one conversion.
const ANSWER_LEN_MAX: usize = 32 << 20;
/// How many connections to one backend are kept open without use: as many reviews as a busy cluster has under way.
const IDLE_EACH_MAX: usize = 8;
/// How many connections are kept open without use in all: 32 backends, at some 30 kB a connection.
const IDLE_MAX: usize = 256;
/// How long a connection is kept open without use: what most servers wait for the next request, and not longer.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How we name ourselves.
const AGENT: &str = concat!("kube-apiserver/kintsugi-", env!("CARGO_PKG_VERSION"));

/// Asks programs outside.
pub struct Outbound {
    host: Host,
    dial: Arc<dyn Dial>,
    /// Guards the connections that nobody uses, while one is taken or given back.
    idle: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    by_backend: HashMap<Backend, Vec<Connection>>,
    len: usize,
}

/// An open connection and the task that carries it.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    task: Task<()>,
    since: Moment,
}

/// An answer whose body is still to come; its connection ends with it.
pub struct Answered {
    /// The head and the body.
    pub response: Response<Incoming>,
    /// What carries it.
    pub carrier: Carrier,
}

/// Keeps the connection of an answer.
pub struct Carrier {
    _sender: SendRequest<Full<Bytes>>,
    _task: Task<()>,
}

/// Why a program outside did not answer as it should.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It is named in a way that leads nowhere.
    #[error("{0}")]
    Unresolved(String),
    /// Nobody takes the connection, or it is not who it should be.
    #[error("{}", dial_text(address, source))]
    Dial {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
    /// It took too long.
    #[error("context deadline exceeded")]
    Late,
    /// It said too much.
    #[error("the answer is longer than {ANSWER_LEN_MAX} bytes")]
    TooLong,
    /// It answered with an error of its own.
    #[error("{}", status_text(*status, body))]
    Status {
        /// The HTTP code.
        status: StatusCode,
        /// What it said.
        body: String,
    },
}

/// A way to programs outside, over `dial`.
pub fn outbound(host: &Host, dial: Arc<dyn Dial>) -> Arc<Outbound> {
    Arc::new(Outbound::new(host.clone(), dial))
}

impl Outbound {
    /// Asks over `dial`.
    pub fn new(host: Host, dial: Arc<dyn Dial>) -> Self {
        Self { host, dial, idle: Mutex::default() }
    }

    /// Posts JSON to the first of a callee's `backends` that takes a connection; gives the JSON that it answers with success.
    ///
    /// # Errors
    /// When there is no such answer within `limit`.
    pub async fn post(
        &self,
        callee: &Callee,
        backends: &[Backend],
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, CallError> {
        let build = || {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = path.parse().map_err(|why| CallError::Unresolved(format!("{why}")))?;
            let headers = request.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            callee.name_both(headers)?;
            Ok(request)
        };
        let asked = async {
            let (status, body) = self.ask(backends, &build).await?;
            match status.is_success() {
                true => Ok(body),
                false => Err(CallError::Status { status, body: String::from_utf8_lossy(&body).into_owned() }),
            }
        };
        self.host.within(limit, asked).await.unwrap_or(Err(CallError::Late))
    }

    /// Asks, and reads the whole answer. The caller bounds the time.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn ask(
        &self,
        backends: &[Backend],
        build: &(dyn Fn() -> Result<Request<Full<Bytes>>, CallError> + Sync),
    ) -> Result<(StatusCode, Bytes), CallError> {
        let (backend, connection, response) = self.send(backends, build).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_LEN_MAX).collect().await;
        let body = body.map_err(|why| match why.is::<LengthLimitError>() {
            true => CallError::TooLong,
            false => CallError::Broken(why.to_string()),
        })?;
        self.give_back(backend, connection);
        Ok((head.status, body.to_bytes()))
    }

    /// Asks over a connection that serves this request alone, and gives the answer as it comes.
    ///
    /// # Errors
    /// When there is no head of an answer.
    pub async fn open(
        &self,
        backends: &[Backend],
        request: Request<Full<Bytes>>,
    ) -> Result<Answered, CallError> {
        let (_, mut connection) = self.connect(backends).await?;
        let response = connection.sender.send_request(request).await.map_err(broken)?;
        let Connection { sender, task, .. } = connection;
        Ok(Answered { response, carrier: Carrier { _sender: sender, _task: task } })
    }

    /// The head of the answer, over a connection that was kept or a new one.
    async fn send(
        &self,
        backends: &[Backend],
        build: &(dyn Fn() -> Result<Request<Full<Bytes>>, CallError> + Sync),
    ) -> Result<(Backend, Connection, Response<Incoming>), CallError> {
        while let Some((backend, mut connection)) = self.take(backends) {
            // One that was closed meanwhile takes nothing; one that closes now has not answered: both are let go.
            if connection.sender.ready().await.is_ok()
                && let Ok(response) = connection.sender.send_request(build()?).await
            {
                return Ok((backend, connection, response));
            }
        }
        let (backend, mut connection) = self.connect(backends).await?;
        let response = connection.sender.send_request(build()?).await.map_err(broken)?;
        Ok((backend, connection, response))
    }

    /// A new connection to the first backend that takes one.
    async fn connect(&self, backends: &[Backend]) -> Result<(Backend, Connection), CallError> {
        let mut last = CallError::Unresolved("there is nobody to ask".to_owned());
        for backend in backends {
            match self.dial.dial(backend).await {
                Ok(io) => {
                    let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
                    let task = self.host.spawn(async move {
                        if let Err(why) = connection.with_upgrades().await {
                            tracing::debug!(%why, "a connection to an extension ended");
                        }
                    });
                    let since = self.host.moment();
                    return Ok((backend.clone(), Connection { sender, task, since }));
                }
                Err(source) => {
                    let address = format!("{}:{}", backend.host, backend.port);
                    last = CallError::Dial { address, source };
                }
            }
        }
        Err(last)
    }

    fn take(&self, backends: &[Backend]) -> Option<(Backend, Connection)> {
        let now = self.host.moment();
        let mut pool = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        pool.forget_old(now);
        for backend in backends {
            if let Some(connection) = pool.by_backend.get_mut(backend).and_then(Vec::pop) {
                pool.len -= 1;
                return Some((backend.clone(), connection));
            }
        }
        None
    }

    /// Keeps a connection for the next request, where there is room.
    fn give_back(&self, backend: Backend, mut connection: Connection) {
        connection.since = self.host.moment();
        let mut pool = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let all = pool.len;
        let own = pool.by_backend.entry(backend).or_default();
        if all < IDLE_MAX && own.len() < IDLE_EACH_MAX && !connection.sender.is_closed() {
            own.push(connection);
            pool.len += 1;
        }
    }
}

impl Pool {
    fn forget_old(&mut self, now: Moment) {
        self.by_backend.retain(|_, connections| {
            connections.retain(|one| !one.task.is_ended() && now.since(one.since) < IDLE_TIME);
            !connections.is_empty()
        });
        self.len = self.by_backend.values().map(Vec::len).sum();
    }
}

fn broken(why: hyper::Error) -> CallError {
    // What closes a connection without a word is known by this one.
    CallError::Broken(if why.is_incomplete_message() || why.is_closed() {
        "EOF".into()
    } else {
        why.to_string()
    })
}

/// What went wrong with a connection, in the words that users of webhooks know.
fn dial_text(address: &str, source: &io::Error) -> String {
    use rustls::{CertificateError, Error};
    let certificate = source.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match (source.kind(), certificate) {
        (_, Some(Error::InvalidCertificate(why))) => {
            let why = match why {
                // A bad signature is one of another authority of the same name.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    "certificate signed by unknown authority".to_owned()
                }
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    format!("certificate is not valid for the name it is asked for: {why}")
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "certificate has expired or is not yet valid".to_owned()
                }
                other => other.to_string(),
            };
            format!("tls: failed to verify certificate: x509: {why}")
        }
        (_, Some(other)) => format!("tls: {other}"),
        (io::ErrorKind::ConnectionRefused, _) => format!("dial tcp {address}: connect: connection refused"),
        (io::ErrorKind::TimedOut, _) => format!("dial tcp {address}: i/o timeout"),
        _ => format!("dial tcp {address}: {source}"),
    }
}

/// What an error of the other side comes to.
fn status_text(status: StatusCode, body: &str) -> String {
    match status.as_u16() {
        300..400 => format!("the server answered with a redirection ({status}), which is not followed"),
        400 => format!("the server rejected our request for an unknown reason: {body}"),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        404 => "the server could not find the requested resource".to_owned(),
        405 => "the server does not allow this method on the requested resource".to_owned(),
        429 => "the server has received too many requests and has asked us to try again later".to_owned(),
        503 => "the server is currently unable to handle the request".to_owned(),
        500.. => format!("an error on the server ({body:?}) has prevented the request from succeeding"),
        _ => format!(
            "the server responded with the status code {} but did not return more information",
            status.as_u16()
        ),
    }
}
