//! Asks containers: probes and hooks by exec, http, tcp and grpc. It has no opinion on the answers.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};
use host::Host;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPHeader, LifecycleHandler, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use runtime::{ContainerRef, Duplex, Runtime};

mod tls;

/// How much of an answer is read: as much as upstream, enough for a health page.
const ANSWER_LEN_MAX: usize = 10 * 1024;

/// How many redirects are followed, as browsers and upstream do.
const REDIRECTS_MAX: usize = 10;

/// Opens connections to pods.
#[async_trait]
pub trait Dial: Send + Sync + 'static {
    /// Connects to a port at a host name or address; `pod_uid` says whose it is.
    async fn connect(&self, pod_uid: &str, host: &str, port: u16) -> io::Result<Box<dyn Duplex>>;
}

/// Connects over the node's network.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDial;

#[async_trait]
impl Dial for TcpDial {
    async fn connect(&self, _pod_uid: &str, host: &str, port: u16) -> io::Result<Box<dyn Duplex>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = tokio::net::TcpStream::connect((host, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Connects through the runtime, where there is no network to cross (the simulator).
#[derive(Clone)]
pub struct RuntimeDial(pub Arc<dyn Runtime>);

#[async_trait]
impl Dial for RuntimeDial {
    async fn connect(&self, pod_uid: &str, _host: &str, port: u16) -> io::Result<Box<dyn Duplex>> {
        self.0.connect(pod_uid, port).await.map_err(io::Error::other)
    }
}

/// What to ask.
#[derive(Debug, Clone, PartialEq)]
pub enum Question {
    /// Run a command; 0 is good.
    Exec(Vec<String>),
    /// Get a page; 200 to 399 is good.
    Http {
        /// Whether over TLS (whose certificate is not checked).
        is_https: bool,
        /// The host; empty for the pod's address.
        host: String,
        /// The port.
        port: u16,
        /// The path, with a query perhaps.
        path: String,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
    /// Connect; being let in is good.
    Tcp {
        /// The host; empty for the pod's address.
        host: String,
        /// The port.
        port: u16,
    },
    /// Ask the health service; `SERVING` is good.
    Grpc {
        /// The port.
        port: u16,
        /// The service that is asked about.
        service: String,
    },
    /// Wait, and find it good.
    Sleep(Duration),
    /// There is nothing to ask, or nothing that can be: the reason.
    Nothing(String),
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether it was good.
    pub is_good: bool,
    /// What to tell the user.
    pub output: String,
}

impl Answer {
    fn good(output: impl Into<String>) -> Answer {
        Answer { is_good: true, output: output.into() }
    }

    fn bad(output: impl Into<String>) -> Answer {
        Answer { is_good: false, output: output.into() }
    }
}

impl Question {
    /// What a probe of a container asks.
    pub fn of_probe(probe: &Probe, container: &Container) -> Question {
        if let Some(exec) = &probe.exec {
            return Question::Exec(exec.command.clone().unwrap_or_default());
        }
        if let Some(get) = &probe.http_get {
            let headers = get.http_headers.as_deref();
            return http(
                container,
                get.scheme.as_deref(),
                get.host.as_deref(),
                &get.port,
                get.path.as_deref(),
                headers,
            );
        }
        if let Some(tcp) = &probe.tcp_socket {
            return match port(&tcp.port, container) {
                Some(port) => Question::Tcp { host: tcp.host.clone().unwrap_or_default(), port },
                None => Question::Nothing("the port has no such name".into()),
            };
        }
        match &probe.grpc {
            Some(grpc) => match u16::try_from(grpc.port) {
                Ok(port) => Question::Grpc { port, service: grpc.service.clone().unwrap_or_default() },
                Err(_) => Question::Nothing("the port is out of range".into()),
            },
            None => Question::Nothing("the probe names nothing to ask".into()),
        }
    }

    /// What a hook of a container does.
    pub fn of_hook(hook: &LifecycleHandler, container: &Container) -> Question {
        if let Some(exec) = &hook.exec {
            return Question::Exec(exec.command.clone().unwrap_or_default());
        }
        if let Some(get) = &hook.http_get {
            let headers = get.http_headers.as_deref();
            return http(
                container,
                get.scheme.as_deref(),
                get.host.as_deref(),
                &get.port,
                get.path.as_deref(),
                headers,
            );
        }
        match &hook.sleep {
            Some(sleep) => Question::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))),
            None => Question::Nothing("the hook names nothing to do".into()),
        }
    }
}

fn http(
    container: &Container,
    scheme: Option<&str>,
    host: Option<&str>,
    number: &IntOrString,
    path: Option<&str>,
    headers: Option<&[HTTPHeader]>,
) -> Question {
    let Some(port) = port(number, container) else {
        return Question::Nothing("the port has no such name".into());
    };
    let path = path.filter(|path| !path.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    Question::Http {
        is_https: scheme == Some("HTTPS"),
        host: host.unwrap_or("").to_owned(),
        port,
        path: format!("{slash}{path}"),
        headers: headers.unwrap_or_default().iter().map(|h| (h.name.clone(), h.value.clone())).collect(),
    }
}

fn port(number: &IntOrString, container: &Container) -> Option<u16> {
    match number {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named =
                container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name.as_str()));
            match named {
                Some(port) => u16::try_from(port.container_port).ok(),
                None => name.parse().ok(),
            }
        }
    }
}

/// What asking needs.
#[derive(Clone)]
pub struct Asker {
    /// Time and tasks.
    pub host: Host,
    /// For commands.
    pub runtime: Arc<dyn Runtime>,
    /// For connections.
    pub dial: Arc<dyn Dial>,
}

impl Asker {
    /// Asks once, and waits for at most `limit`.
    pub async fn ask(
        &self,
        container: &ContainerRef,
        addresses: &[IpAddr],
        question: &Question,
        limit: Duration,
    ) -> Answer {
        let own = addresses.first().map(IpAddr::to_string).unwrap_or_default();
        let uid = container.pod_uid.as_str();
        let asking = async {
            match question {
                Question::Exec(command) => self.exec(container, command).await,
                Question::Sleep(duration) => {
                    self.host.sleep(*duration).await;
                    Answer::good("")
                }
                Question::Nothing(why) => Answer::bad(why.clone()),
                Question::Tcp { host, port } => {
                    let host = if host.is_empty() { &own } else { host };
                    match self.dial.connect(uid, host, *port).await {
                        Ok(_) => Answer::good(""),
                        Err(error) => Answer::bad(format!("dial tcp {host}:{port}: {error}")),
                    }
                }
                Question::Grpc { port, service } => {
                    let asked = self.grpc(uid, &own, *port, service).await;
                    asked.unwrap_or_else(|error| Answer::bad(format!("error: {error}")))
                }
                Question::Http { .. } => {
                    let asked = self.http(uid, &own, question).await;
                    asked.unwrap_or_else(|error| Answer::bad(error.to_string()))
                }
            }
        };
        match self.host.within(limit, asking).await {
            Some(answer) => answer,
            None => Answer::bad(format!("timed out after {limit:?}")),
        }
    }

    async fn exec(&self, container: &ContainerRef, command: &[String]) -> Answer {
        match self.runtime.exec(container, command.to_vec(), ANSWER_LEN_MAX).await {
            Ok(done) => {
                Answer { is_good: done.code == 0, output: String::from_utf8_lossy(&done.output).into_owned() }
            }
            Err(error) => Answer::bad(crate::jobs::spelled(&error)),
        }
    }

    async fn http(&self, uid: &str, own: &str, question: &Question) -> Result<Answer, BoxError> {
        let Question::Http { is_https, host, port, path, headers } = question else {
            return Ok(Answer::bad("not a page"));
        };
        let host = if host.is_empty() { own } else { host };
        let authority = if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let scheme = if *is_https { "https" } else { "http" };
        let mut uri: Uri = format!("{scheme}://{authority}{path}").parse()?;
        for _ in 0..REDIRECTS_MAX {
            let (status, location, body) = self.get(uid, &uri, headers).await?;
            if !(300..400).contains(&status) || location.is_empty() {
                return Ok(judged(status, &body));
            }
            let next = redirected(&uri, &location)?;
            if next.host() != uri.host() {
                return Ok(Answer::good(format!("Probe terminated redirects, Response body: {body}")));
            }
            uri = next;
        }
        Ok(Answer::bad("stopped after 10 redirects"))
    }

    async fn get(
        &self,
        uid: &str,
        uri: &Uri,
        headers: &[(String, String)],
    ) -> Result<(u16, String, String), BoxError> {
        let is_https = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or("");
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let stream = self.dial.connect(uid, host, port).await?;
        let stream: Box<dyn Duplex> =
            if is_https { Box::new(tls::unchecked(stream, host).await?) } else { stream };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let _driver = self.host.spawn(async move {
            // Its end shows in the request's.
            let _ = connection.await;
        });
        let target = uri.path_and_query().map_or("/", |path| path.as_str());
        let named = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        let mut request = Request::get(target);
        if !named("host") {
            request = request.header("Host", uri.authority().map_or(host, |all| all.as_str()));
        }
        if !named("user-agent") {
            request = request.header("User-Agent", "kube-probe/1.36");
        }
        if !named("accept") {
            request = request.header("Accept", "*/*");
        }
        request = request.header("Connection", "close");
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(name.as_str(), value.as_str());
        }
        let answer = sender.send_request(request.body(Full::new(Bytes::new()))?).await?;
        let status = answer.status().as_u16();
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok()).unwrap_or("");
        let location = location.to_owned();
        let body = match Limited::new(answer.into_body(), ANSWER_LEN_MAX).collect().await {
            Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            // A page that is too long, or cut off, still has its status.
            Err(_) => String::new(),
        };
        Ok((status, location, body))
    }

    async fn grpc(&self, uid: &str, host: &str, port: u16, service: &str) -> Result<Answer, BoxError> {
        let stream = self.dial.connect(uid, host, port).await?;
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        let _driver = self.host.spawn(async move {
            // Its end shows in the request's.
            let _ = connection.await;
        });
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let request = Request::post(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", "kube-probe/1.36")
            .body(Full::new(health_request(service)))?;
        let answer = sender.send_request(request).await?;
        let early = answer.headers().get("grpc-status").cloned();
        let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        let late = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
        let code = early.or(late);
        let code = code.as_ref().and_then(|code| code.to_str().ok()).unwrap_or("");
        if code != "0" {
            return Ok(Answer::bad(format!("health check failed with grpc status {code}")));
        }
        match serving(&body.to_bytes()) {
            1 => Ok(Answer::good("service is healthy")),
            state => Ok(Answer::bad(format!("service unhealthy (responded with {:?})", health_word(state)))),
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn judged(status: u16, body: &str) -> Answer {
    if (200..400).contains(&status) {
        Answer::good(body)
    } else {
        Answer::bad(format!("HTTP probe failed with statuscode: {status}"))
    }
}

fn redirected(from: &Uri, location: &str) -> Result<Uri, BoxError> {
    if location.contains("://") {
        return Ok(location.parse()?);
    }
    let mut parts = from.clone().into_parts();
    let path = if location.starts_with('/') { location.to_owned() } else { format!("/{location}") };
    parts.path_and_query = Some(path.parse()?);
    Ok(Uri::from_parts(parts)?)
}

/// A `HealthCheckRequest` in a gRPC frame.
fn health_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut len = service.len();
        while len >= 0x80 {
            message.put_u8((len & 0x7f) as u8 | 0x80);
            len >>= 7;
        }
        message.put_u8(len as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(0));
    frame.put(message);
    frame.freeze()
}

/// The status in a `HealthCheckResponse` in a gRPC frame; 0 is "unknown".
fn serving(frame: &[u8]) -> u8 {
    match frame.get(5..) {
        Some([0x08, status, ..]) => *status,
        _ => 0,
    }
}

fn health_word(status: u8) -> &'static str {
    match status {
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "UNKNOWN",
    }
}

/// TLS that takes any certificate; made once.
static UNCHECKED: LazyLock<Option<Arc<rustls::ClientConfig>>> = LazyLock::new(tls::config);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(probe: Value, expected: Question) {
        let probe: Probe = serde_json::from_value(probe).expect("a probe");
        let container = json!({"name": "a", "ports": [{"name": "web", "containerPort": 8080}]});
        let container: Container = serde_json::from_value(container).expect("a container");
        assert_eq!(Question::of_probe(&probe, &container), expected);
    }

    #[test]
    fn probes_are_read_with_their_defaults_and_named_ports() {
        let page = |is_https, path: &str| Question::Http {
            is_https,
            host: String::new(),
            port: 8080,
            path: path.into(),
            headers: vec![],
        };
        check(json!({"httpGet": {"port": "web"}}), page(false, "/"));
        check(json!({"httpGet": {"port": 8080, "path": "ok?x=1", "scheme": "HTTPS"}}), page(true, "/ok?x=1"));
        check(json!({"tcpSocket": {"port": "web"}}), Question::Tcp { host: String::new(), port: 8080 });
        check(json!({"grpc": {"port": 5}}), Question::Grpc { port: 5, service: String::new() });
        check(json!({"tcpSocket": {"port": "no"}}), Question::Nothing("the port has no such name".into()));
    }

    #[test]
    fn redirects_stay_relative_to_where_they_came_from() {
        let from: Uri = "http://10.0.0.1:80/a?b=c".parse().expect("an address");
        let check = |location: &str, expected: &str| {
            assert_eq!(redirected(&from, location).expect("an address").to_string(), expected);
        };
        check("/x?y", "http://10.0.0.1:80/x?y");
        check("https://other/z", "https://other/z");
    }

    #[test]
    fn the_health_service_is_asked_and_understood() {
        assert_eq!(health_request("ab").as_ref(), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(health_request("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!((serving(&[0, 0, 0, 0, 2, 8, 1]), serving(&[0, 0, 0, 0, 0])), (1, 0));
    }
}
