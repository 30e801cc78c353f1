//! Serves connections: HTTP/1.1 and HTTP/2 over TLS, until told to stop.

use std::convert::Infallible;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use host::Tasks;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY,
};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::CipherSuite;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::answer::{Answer, Body};
use crate::audit::Remote;
use crate::auth::{Authenticator, Credentials, Identity, Peer};
use crate::codec::BODY_LEN_MAX;
use crate::refusal::{Reason, Refusal};
use crate::service::Service;

use super::patient::{self, Leisure, Patient};

/// How many connections there are at once; more wait in the listener's queue.
///
/// Clients keep one or two each; this is room for a thousand nodes on one server, at some 30 kB each.
const CONNECTIONS_MAX: usize = 8192;
/// How many requests one HTTP/2 connection has under way: upstream's, enough for an informer of every kind.
const STREAMS_MAX: u32 = 250;
/// The longest head of a request, in bytes; tokens are below 2 KiB, selectors below 64 KiB.
const HEAD_LEN_MAX: usize = 128 * 1024;
/// How many bytes of an answer are encrypted before they are handed to the kernel: for a long list that is a tenth less
/// processor time than with the usual 64 KiB, for fewer calls and turns; twice as many gain nothing more.
pub(crate) const TLS_LEN: usize = 256 * 1024;
/// How long a handshake or a head of a request may take. A client across the world needs one second.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a body may take to arrive: 3 MiB at modem speed would not, at 1 Mbit/s takes half of it.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests that are under way may go on after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// Answers of this many bytes and more are compressed for who can read that: upstream's bound.
const COMPRESS_LEN_MIN: usize = 128 * 1024;

type Out = UnsyncBoxBody<Bytes, io::Error>;

/// What every connection is served with.
#[derive(Clone)]
pub struct Face {
    /// The service.
    pub service: Service,
    /// Proves who asks.
    pub authenticator: Authenticator,
    /// TLS as a server; client certificates are asked for and may be left out.
    pub tls: Arc<rustls::ServerConfig>,
}

/// Serves the connections of `listener` until `stop` turns true; then finishes what is under way, for a few seconds.
pub async fn serve(listener: TcpListener, face: Face, stop: watch::Receiver<bool>) {
    let tls = Tls::new(face.tls.clone());
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = Tasks::new();
    let mut stopped = stop.clone();
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let accepted = tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => {
                let (face, tls, stop) = (face.clone(), tls.clone(), stop.clone());
                connections.spawn(async move {
                    connection(stream, Remote(remote.ip()), face, tls, stop).await;
                    drop(permit);
                });
            }
            Err(why) => {
                // Out of file descriptors, most likely: those that end give some back.
                tracing::warn!(%why, "cannot accept a connection");
                face.service.host().sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let drained = async { while connections.next_end().await.is_some() {} };
    if face.service.host().within(DRAIN, drained).await.is_none() {
        tracing::debug!("some connections were cut off");
    }
}

/// How connections are encrypted: by the server's order of ciphers, but for who asks for ChaCha20 first. That is a machine
/// without instructions for AES, as Go's TLS has it.
#[derive(Clone)]
struct Tls {
    by_ours: Arc<rustls::ServerConfig>,
    by_theirs: Arc<rustls::ServerConfig>,
}

impl Tls {
    fn new(by_ours: Arc<rustls::ServerConfig>) -> Self {
        let mut by_theirs = (*by_ours).clone();
        by_theirs.ignore_client_order = false;
        Self { by_ours, by_theirs: Arc::new(by_theirs) }
    }

    async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let wishes = start.client_hello().cipher_suites().first().copied();
        let config = if wishes.is_some_and(is_chacha) { &self.by_theirs } else { &self.by_ours };
        start.into_stream(config.clone()).await
    }
}

fn is_chacha(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    )
}

async fn connection(
    stream: TcpStream,
    remote: Remote,
    face: Face,
    tls: Tls,
    mut stop: watch::Receiver<bool>,
) {
    // Answers are written whole; waiting for more would only delay them.
    let _ = stream.set_nodelay(true);
    if let Err(why) = patient::keep_alive(&stream) {
        tracing::debug!(%why, "a connection without keepalive");
    }
    let host = face.service.host().clone();
    let leisure = Leisure::default();
    let stream = Patient::new(stream, host.clone(), leisure.clone());
    let Some(Ok(mut stream)) = host.within(HEAD_TIMEOUT, tls.accept(stream)).await else { return };
    stream.get_mut().1.set_buffer_limit(Some(TLS_LEN));
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = face.authenticator.peer(chain, host.now());
    let stop_streams = stop.clone();
    let one = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(remote);
        let (face, peer, stop) = (face.clone(), peer.clone(), stop_streams.clone());
        let leisure = leisure.clone();
        async move { Ok::<_, Infallible>(one(face, peer, request, stop, leisure).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LEN_MAX)
        .keep_alive(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_LEN_MAX as u32)
        .adaptive_window(true)
        .keep_alive_interval(Duration::from_secs(30));
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), one);
    tokio::pin!(serving);
    let stopping = async move { drop(stop.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => Some(ended),
        () = stopping => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(why) = ended {
        tracing::debug!(why, "a connection ended");
    }
}

/// One request: who asks, the body, the answer.
async fn one(
    face: Face,
    peer: Peer,
    mut request: Request<Incoming>,
    mut stop: watch::Receiver<bool>,
    leisure: Leisure,
) -> Response<Out> {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let gzip = accepts_gzip(request.headers());
    let is_head = request.method() == http::Method::HEAD;
    let accept = request.headers().get_all(ACCEPT).iter().cloned().collect::<Vec<_>>();
    let mut answer = match admitted(&face, peer, request).await {
        // In a place of its own: what is large is not moved with the connection's state.
        Ok((identity, request)) => Box::pin(face.service.handle(&identity, request)).await,
        Err(Turned { refusal, head }) => {
            let accept = accept.into_iter().map(|value| (ACCEPT, value));
            let mut answer = Answer::refused(refusal, &accept.collect());
            if let Some(id) = head.and_then(|head| face.service.note_stranger(&head, &answer)) {
                answer.headers.insert("audit-id", header(&id));
            }
            answer
        }
    };
    // Watches and logs have no end of their own: they end with the server.
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    answer.body = match answer.body {
        Body::Stream(pieces) => Body::Stream(pieces.take_until(Box::pin(stopped)).boxed()),
        Body::Relayed(pieces) => {
            leisure.grant();
            Body::Relayed(pieces.take_until(Box::pin(stopped)).boxed())
        }
        Body::Upgrade(backend) => {
            leisure.grant();
            Body::Upgrade(backend)
        }
        whole => whole,
    };
    // A long list goes out without its length being counted: HEAD asks for just that.
    let len = match &answer.body {
        Body::Pieces(pieces) if is_head && !gzip => Some(pieces.len()),
        _ => None,
    };
    let mut response = respond(&face, answer, on_upgrade, gzip);
    if is_head {
        leave_out_body(&mut response, len);
    }
    response
}

/// What HEAD is answered: the head alone, with the length that the body would have had.
fn leave_out_body(response: &mut Response<Out>, len: Option<usize>) {
    let body = std::mem::replace(response.body_mut(), boxed(Empty::new()));
    if let Some(len) = len.map(|len| len as u64).or_else(|| body.size_hint().exact()) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(HeaderValue::from(len));
    }
}

/// A request that did not get as far as the service.
struct Turned {
    refusal: Refusal,
    /// What is known of it, where its author did not prove who they are.
    head: Option<Request<Bytes>>,
}

impl From<Refusal> for Turned {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, head: None }
    }
}

/// Proves who asks and reads the body.
async fn admitted(
    face: &Face,
    peer: Peer,
    request: Request<Incoming>,
) -> Result<(Identity, Request<Bytes>), Turned> {
    let bearer = bearer(request.headers());
    let now = face.service.host().now();
    let identity = match face.authenticator.named(peer, request.headers()) {
        Ok(certificate) => {
            face.authenticator.authenticate_by_all(&Credentials { certificate, bearer }, now).await
        }
        Err(refused) => Err(refused),
    };
    let identity = identity.map_err(|_| Refusal::new(Reason::Unauthorized, "Unauthorized"));
    let (parts, body) = request.into_parts();
    let identity = match identity {
        Ok(identity) => identity,
        Err(refusal) => return Err(Turned { refusal, head: Some(Request::from_parts(parts, Bytes::new())) }),
    };
    let too_large = || {
        let message = format!("Request entity too large: limit is {BODY_LEN_MAX}");
        Refusal::new(Reason::TooLarge, message)
    };
    let said = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|len| len > BODY_LEN_MAX) {
        return Err(too_large().into());
    }
    let read = face.service.host().within(BODY_TIMEOUT, Limited::new(body, BODY_LEN_MAX).collect()).await;
    let body = match read {
        Some(Ok(body)) => body.to_bytes(),
        Some(Err(why)) if why.is::<LengthLimitError>() => return Err(too_large().into()),
        Some(Err(why)) => return Err(Refusal::bad_request(format!("the body cannot be read: {why}")).into()),
        None => return Err(Refusal::new(Reason::Timeout, "the body did not arrive in time").into()),
    };
    Ok((identity, Request::from_parts(parts, body)))
}

/// The token of `Authorization: Bearer`, or of the subprotocol by which browsers send one with a WebSocket.
fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| token.trim().to_owned())
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| coding.trim() == "gzip")
}

fn respond(face: &Face, answer: Answer, on_upgrade: Option<OnUpgrade>, gzip: bool) -> Response<Out> {
    let mut response = Response::new(boxed(Empty::new()));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    let headers = response.headers_mut();
    headers.entry("audit-id").or_insert_with(|| header(&face.service.host().chance().uuid()));
    headers.entry("cache-control").or_insert(HeaderValue::from_static("no-cache, private"));
    match answer.body {
        Body::Pieces(pieces) if !gzip => *response.body_mut() = boxed(pieces),
        Body::Pieces(pieces) => *response.body_mut() = boxed(Full::new(compress(headers, pieces.whole()))),
        Body::Whole(bytes) => {
            let bytes =
                if gzip && bytes.len() >= COMPRESS_LEN_MIN { compress(headers, bytes) } else { bytes };
            *response.body_mut() = boxed(Full::new(bytes));
        }
        Body::Stream(pieces) | Body::Relayed(pieces) => {
            *response.body_mut() = StreamBody::new(pieces.map(|piece| piece.map(Frame::data))).boxed_unsync();
        }
        Body::Upgrade(mut backend) => {
            let Some(on_upgrade) = on_upgrade else {
                return respond(face, Refusal::bad_request("Upgrade request required").into(), None, gzip);
            };
            // The copying ends with either side; it belongs to the backend's connection, which nothing else holds.
            let copy = face.service.host().spawn(async move {
                let Ok(upgraded) = on_upgrade.await else { return };
                let mut client = TokioIo::new(upgraded);
                if let Err(why) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
                    tracing::debug!(%why, "an upgraded connection ended");
                }
            });
            face.service.keep_pipe(copy);
        }
    }
    response
}

fn compress(headers: &mut HeaderMap, bytes: Bytes) -> Bytes {
    let textual =
        headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/"));
    if !textual || headers.contains_key(CONTENT_ENCODING) {
        return bytes;
    }
    // The fastest level: most of the gain, at a fraction of the time.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let Ok(packed) = encoder.write_all(&bytes).and_then(|()| encoder.finish()) else { return bytes };
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    Bytes::from(packed)
}

fn boxed<B>(body: B) -> Out
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    body.map_err(|never| match never {}).boxed_unsync()
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use rustls::SupportedCipherSuite;
    use rustls::crypto::aws_lc_rs::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    use rustls::crypto::{CryptoProvider, aws_lc_rs};
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::auth::pki::{self, Purpose};

    #[test]
    fn bearer_tokens_are_found() {
        let check = |value: &str, wanted: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().expect("a good header"));
            assert_eq!(bearer(&headers).as_deref(), wanted, "{value}");
        };
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Basic abc", None);
        check("Bearer ", None);
    }

    /// What a client is encrypted with that offers these.
    async fn agreed(offered: Vec<SupportedCipherSuite>) -> CipherSuite {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let authority = pki::new_authority("ca", now).expect("keys can be drawn");
        let purpose = Purpose::Server(vec!["127.0.0.1".into()]);
        let own = pki::issue(&authority, "us", "", &purpose, now).expect("own authority");
        let (chain, key) = own.to_der().expect("own PEM");
        let with = |suites: Vec<SupportedCipherSuite>| {
            Arc::new(CryptoProvider { cipher_suites: suites, ..aws_lc_rs::default_provider() })
        };
        let ours = vec![TLS13_AES_128_GCM_SHA256, TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_256_GCM_SHA384];
        let server = rustls::ServerConfig::builder_with_provider(with(ours));
        let server = server.with_safe_default_protocol_versions().expect("TLS 1.3");
        let mut server = server.with_no_client_auth().with_single_cert(chain, key).expect("own certificate");
        server.ignore_client_order = true;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.to_der().expect("own PEM").0.remove(0)).expect("an authority");
        let client = rustls::ClientConfig::builder_with_provider(with(offered));
        let client = client.with_safe_default_protocol_versions().expect("TLS 1.3");
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.time_provider = Arc::new(Then(now.as_second().unsigned_abs()));
        let (near, far) = tokio::io::duplex(64 * 1024);
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let tls = Tls::new(Arc::new(server));
        let (ours, theirs) = tokio::join!(tls.accept(near), connector.connect(name, far));
        theirs.expect("a server that is trusted");
        let stream = ours.expect("a client that says the truth");
        stream.get_ref().1.negotiated_cipher_suite().expect("it is agreed").suite()
    }

    /// A clock that stands still.
    #[derive(Debug)]
    struct Then(u64);

    impl rustls::time_provider::TimeProvider for Then {
        fn current_time(&self) -> Option<UnixTime> {
            Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0)))
        }
    }

    #[tokio::test]
    async fn our_order_of_ciphers_counts_but_for_who_has_no_instructions_for_aes() {
        let (longer, shorter) = (TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256);
        let chacha = TLS13_CHACHA20_POLY1305_SHA256;
        assert_eq!(agreed(vec![longer, shorter, chacha]).await, shorter.suite());
        assert_eq!(agreed(vec![longer]).await, longer.suite());
        assert_eq!(agreed(vec![chacha, shorter, longer]).await, chacha.suite());
    }

    #[test]
    fn large_answers_are_compressed() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let packed = compress(&mut headers, Bytes::from(vec![b'a'; COMPRESS_LEN_MIN]));
        assert!(packed.len() < COMPRESS_LEN_MIN / 100);
        assert_eq!(headers[CONTENT_ENCODING], "gzip");
    }
}
