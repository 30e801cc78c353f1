//! The node's own https face: logs, exec, attach, port-forward, and what it says of itself.
//!
//! Only clients that TLS let in are served (the API server's certificate authority signs them); it changes nothing but
//! through the runtime's exec and attach.
#![expect(
    clippy::result_large_err,
    reason = "a refusal is the answer itself, made once a request and moved once"
)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use host::Tasks;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use runtime::{AttachSpec, ExecSpec, LogRequest};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;

use crate::agent::{Agent, Shown};
use crate::jobs::spelled;
use crate::settings::{KubeletError, Settings};
use crate::streams::{self, Protocol, Purpose, Wanted};

mod caller;
mod query;
mod report;
mod voters;

use caller::Caller;
use query::Query;

/// How many connections are served at once: a cluster's API servers, each with some hundred logs and shells.
const CONNECTIONS_MAX: usize = 1024;

/// How long a TLS handshake may take before the connection is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// An answer's body.
type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A face that listens and is not served yet.
pub struct Listening {
    listener: TcpListener,
    tls: TlsAcceptor,
    /// The port that it listens on.
    pub port: u16,
}

/// Listens where the settings say; `None` where there is to be no face.
pub async fn listen(settings: &Settings) -> Result<Option<Listening>, KubeletError> {
    let Some(tls) = &settings.tls else { return Ok(None) };
    let failed = |source| KubeletError::Listen { address: settings.listen, source };
    let listener = TcpListener::bind(settings.listen).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok(Some(Listening { listener, tls: tls.clone().into(), port }))
}

/// What serves requests.
struct Face {
    agent: Arc<Agent>,
    /// Guards the group of upgraded connections for the length of one insertion.
    upgraded: Mutex<Tasks>,
}

/// Serves until the agent ends.
pub async fn serve(agent: Arc<Agent>, listening: Listening) {
    let face = Arc::new(Face { agent: agent.clone(), upgraded: Mutex::default() });
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = Tasks::new();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        match listening.listener.accept().await {
            Ok((stream, peer)) => {
                let (face, tls, host) = (face.clone(), listening.tls.clone(), agent.means.host.clone());
                connections.spawn(async move {
                    let _ = stream.set_nodelay(true);
                    match host.within(HANDSHAKE_MAX, tls.accept(stream)).await {
                        Some(Ok(stream)) => {
                            let who = Caller::of(stream.get_ref().1.peer_certificates());
                            connection(face, TokioIo::new(stream), peer, who).await;
                        }
                        Some(Err(error)) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
                        None => tracing::debug!(%peer, "a TLS handshake took too long"),
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of descriptors, most likely: others have to end first.
                agent.means.host.sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(
    face: Arc<Face>,
    io: impl hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    peer: SocketAddr,
    who: Caller,
) {
    let answer = service_fn(move |request| {
        let face = face.clone();
        async move { Ok::<_, Infallible>(answer(&face, request, who).await) }
    });
    if let Err(error) = Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(io, answer).await {
        tracing::debug!(error, %peer, "a connection ended badly");
    }
}

async fn answer(face: &Arc<Face>, request: Request<Incoming>, who: Caller) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if !who.may_ask(&parts) {
        return refusal(StatusCode::FORBIDDEN, format!("{path} is not for whoever this certificate names"));
    }
    let is_get = request.method() == Method::GET;
    let done = match parts.as_slice() {
        ["healthz"] if is_get => Ok(text(StatusCode::OK, "ok")),
        ["pods" | "runningpods"] if is_get => Ok(report::pods(&face.agent)),
        ["stats", "summary"] if is_get => Ok(report::summary(&face.agent).await),
        ["metrics"] if is_get => Ok(report::metrics(&face.agent).await),
        ["metrics", "resource"] if is_get => Ok(report::resource_metrics(&face.agent).await),
        ["containerLogs", namespace, pod, container] if is_get => {
            logs(face, (namespace, pod, container), request).await
        }
        ["exec", namespace, pod, .., container] => {
            command(face, (namespace, pod, container), request, true).await
        }
        ["attach", namespace, pod, .., container] => {
            command(face, (namespace, pod, container), request, false).await
        }
        ["fence", wish] if request.method() == Method::POST => {
            voters::answer(&face.agent, wish, request).await
        }
        ["portForward", namespace, pod, ..] => forward(face, namespace, pod, request),
        _ => Err(refusal(StatusCode::NOT_FOUND, "404 page not found")),
    };
    done.unwrap_or_else(|refused| refused)
}

type Answered = Result<Response<Body>, Response<Body>>;

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

fn text(status: StatusCode, text: impl Into<String>) -> Response<Body> {
    let mut response = Response::new(whole(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// An error as the API words it, so that whoever asked through it can read why.
fn refusal(status: StatusCode, why: impl Into<String>) -> Response<Body> {
    let reason = match status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::FORBIDDEN => "Forbidden",
        _ => "InternalError",
    };
    let mut response = json_of(&serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": why.into(), "reason": reason, "code": status.as_u16(),
    }));
    *response.status_mut() = status;
    response
}

fn find(face: &Face, namespace: &str, pod: &str) -> Result<Arc<Shown>, Response<Body>> {
    let missing = || refusal(StatusCode::NOT_FOUND, format!("pod {namespace}/{pod} is not on this node"));
    face.agent.registry.find(namespace, pod).ok_or_else(missing)
}

async fn logs(
    face: &Face,
    (namespace, pod, container): (&str, &str, &str),
    mut request: Request<Incoming>,
) -> Answered {
    let query = Query::of(request.uri());
    let shown = find(face, namespace, pod)?;
    if shown.pod.member(container).is_none() {
        let why = format!("container {container:?} is not in pod {pod:?}");
        return Err(refusal(StatusCode::NOT_FOUND, why));
    }
    let wanted = log_request(face, &shown, container, &query)?;
    let lines = face.agent.means.runtime.log(wanted).await;
    let lines = lines.map_err(|error| refusal(StatusCode::INTERNAL_SERVER_ERROR, spelled(&error)))?;
    if request.headers().contains_key(http::header::UPGRADE) {
        return log_messages(face, &mut request, lines);
    }
    let frames = stream::unfold(lines, |mut lines| async move {
        lines.recv().await.map(|part| (Ok::<_, Infallible>(Frame::data(part)), lines))
    });
    let mut response = text(StatusCode::OK, "");
    *response.body_mut() = StreamBody::new(frames).boxed_unsync();
    Ok(response)
}

/// A log in the messages of a WebSocket.
fn log_messages(face: &Face, request: &mut Request<Incoming>, lines: mpsc::Receiver<Bytes>) -> Answered {
    let bad = |why: String| refusal(StatusCode::BAD_REQUEST, why);
    let agreement = streams::negotiate(request.headers(), Purpose::Log).map_err(bad)?;
    let Protocol::Pieces { coding } = agreement.protocol else {
        return Err(bad("unable to upgrade: a log is told over WebSockets alone".into()));
    };
    let upgrade = hyper::upgrade::on(request);
    keep(face, async move {
        match upgrade.await {
            Ok(io) => streams::serve_log(Box::new(TokioIo::new(io)), coding, lines).await,
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
    Ok(switching(agreement.headers))
}

/// What is read of a container's log: of which run, and from where.
fn log_request(
    face: &Face,
    shown: &Shown,
    container: &str,
    query: &Query,
) -> Result<LogRequest, Response<Body>> {
    let runs: Vec<u32> =
        shown.runs.iter().filter(|(name, ..)| name == container).map(|(_, attempt, _)| *attempt).collect();
    let is_previous = query.flag("previous");
    let attempt = if is_previous { runs.iter().rev().nth(1) } else { runs.last() };
    let Some(attempt) = attempt.copied() else {
        let pod = &shown.pod.name;
        let why = if is_previous {
            format!("previous terminated container {container:?} in pod {pod:?} not found")
        } else {
            format!(
                "container {container:?} in pod {pod:?} is waiting to start: {}",
                waiting(shown, container)
            )
        };
        return Err(refusal(StatusCode::BAD_REQUEST, why));
    };
    let since_seconds = query.number("sinceSeconds").map(|seconds| {
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        model::time::after_seconds(face.agent.means.host.now(), -seconds)
    });
    let since_time = query.value("sinceTime").and_then(|text| model::time::parse(&text).ok());
    Ok(LogRequest {
        pod_uid: shown.pod.uid.clone(),
        name: container.to_owned(),
        attempt: Some(attempt),
        follow: query.flag("follow"),
        timestamps: query.flag("timestamps"),
        tail_lines: query.number("tailLines"),
        since: since_time.or(since_seconds),
        limit_bytes: query.number("limitBytes"),
    })
}

fn waiting(shown: &Shown, container: &str) -> String {
    let status = &shown.status;
    let lists =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let mut all = lists.into_iter().flatten().flatten();
    let state = all.find(|status| status.name == container).and_then(|status| status.state.as_ref());
    let reason = state.and_then(|state| state.waiting.as_ref()?.reason.clone());
    reason.unwrap_or_else(|| "ContainerCreating".into())
}

/// exec and attach.
async fn command(
    face: &Arc<Face>,
    (namespace, pod, container): (&str, &str, &str),
    mut request: Request<Incoming>,
    is_exec: bool,
) -> Answered {
    let query = Query::of(request.uri());
    let shown = find(face, namespace, pod)?;
    let run = shown.runs.iter().rev().find(|(name, ..)| name == container).map(|(.., run)| run.clone());
    let run =
        run.ok_or_else(|| refusal(StatusCode::NOT_FOUND, format!("container not found (\"{container}\")")))?;
    let bad = |why: String| refusal(StatusCode::BAD_REQUEST, why);
    let agreement = streams::negotiate(request.headers(), Purpose::Command).map_err(bad)?;
    let wanted = Wanted {
        stdin: query.flag("input") || query.flag("stdin"),
        stdout: query.flag("output") || query.flag("stdout"),
        stderr: query.flag("error") || query.flag("stderr"),
        tty: query.flag("tty"),
    };
    let runtime = &face.agent.means.runtime;
    let joined = if is_exec {
        let command = query.values("command");
        if command.is_empty() {
            return Err(bad("you must specify at least one command for the container".into()));
        }
        runtime.exec_stream(&run, ExecSpec { command, tty: wanted.tty, stdin: wanted.stdin }).await
    } else {
        runtime.attach(&run, AttachSpec { stdin: wanted.stdin, tty: wanted.tty }).await
    };
    let joined = joined.map_err(|error| refusal(StatusCode::INTERNAL_SERVER_ERROR, spelled(&error)))?;
    let upgrade = hyper::upgrade::on(&mut request);
    let host = face.agent.means.host.clone();
    keep(face, async move {
        match upgrade.await {
            Ok(io) => {
                let io = Box::new(TokioIo::new(io));
                streams::serve_command(&host, io, agreement.protocol, wanted, joined).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
    Ok(switching(agreement.headers))
}

fn forward(face: &Arc<Face>, namespace: &str, pod: &str, mut request: Request<Incoming>) -> Answered {
    let shown = find(face, namespace, pod)?;
    let bad = |why: String| refusal(StatusCode::BAD_REQUEST, why);
    let agreement = streams::negotiate(request.headers(), Purpose::PortForward).map_err(bad)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let (runtime, uid) = (face.agent.means.runtime.clone(), shown.pod.uid.clone());
    keep(face, async move {
        match upgrade.await {
            Ok(io) => {
                let io = Box::new(TokioIo::new(io));
                streams::serve_port_forward(io, agreement.protocol, &uid, runtime).await;
            }
            Err(error) => tracing::debug!(%error, "an upgrade failed"),
        }
    });
    Ok(switching(agreement.headers))
}

fn keep(face: &Face, task: impl Future<Output = ()> + Send + 'static) {
    face.upgraded.lock().unwrap_or_else(PoisonError::into_inner).spawn(task);
}

fn switching(headers: http::HeaderMap) -> Response<Body> {
    let mut response = Response::new(whole(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    response
}

fn json_of(tree: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(whole(tree.to_string()));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}
