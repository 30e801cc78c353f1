//! Requests over https: HTTP/2 where the server offers it, so that many watches share one connection.
//!
//! Promises: the server is verified by the authority given and by no other; every wait has an end. Its connections
//! end with it.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use host::Tasks;
use http::header::{AUTHORIZATION, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioTimer;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::access::{Access, AccessError, Identity};
use crate::lines::Lines;
use crate::{Transport, TransportError, WatchStream};

/// How long a TCP connection may take to open.
///
/// Within one site it takes a millisecond; one lost SYN is sent again after 1 s, a second after 3 s.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(4);

/// How long an answer may take, from the request to the last byte (for a watch: to the head of the answer).
///
/// Half would cut off big lists on a slow link; Kubernetes' own servers give up after 60 s.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// How often a connection is asked whether it lives, idle or not, and how long it may take to say so.
///
/// A server that lost its power says nothing: a node finds out within 4 s, and goes to another.
pub const PING_INTERVAL: Duration = Duration::from_secs(2);

/// See [`PING_INTERVAL`].
pub const PING_ANSWER_MAX: Duration = Duration::from_secs(2);

/// How large an answer may be: a page of 500 objects of 128 kB each.
pub const ANSWER_LEN_MAX: usize = 64 << 20;

/// How many connections are kept open without use: with HTTP/2 one is enough, with HTTP/1.1 a few calls run at once.
const IDLE_CONNECTIONS_MAX: usize = 4;

/// A [`Transport`] over https.
pub struct Https {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    authority: Authority,
    token: Option<HeaderValue>,
    /// The connections; they end when this goes. Guards them while one is added.
    _connections: Arc<Mutex<Tasks>>,
}

impl Https {
    /// A transport to `access.server`, as `access.identity`. Opens no connection before the first request.
    pub fn new(access: &Access) -> Result<Self, AccessError> {
        let server: Uri = access.server.parse().map_err(|error| AccessError::unusable("server", error))?;
        let authority = match (server.scheme(), server.authority()) {
            (Some(scheme), Some(authority)) if *scheme == Scheme::HTTPS => authority.clone(),
            _ => return Err(AccessError::unusable("server", "it is no https URL")),
        };
        let connections = Arc::new(Mutex::new(Tasks::new()));
        let client = Client::builder(Scope::of(&connections))
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_ANSWER_MAX)
            .http2_keep_alive_while_idle(true)
            .http2_adaptive_window(true)
            .build(connector(access)?);
        Ok(Self { client, authority, token: bearer(&access.identity)?, _connections: connections })
    }

    /// A transport by the current context of a kubeconfig, in YAML or JSON.
    pub fn from_kubeconfig(bytes: &[u8]) -> Result<Self, AccessError> {
        Self::new(&Access::from_kubeconfig(bytes)?)
    }

    /// Sends a request and gives the head of its answer.
    async fn send<B>(&self, request: Request<B>, body: Bytes) -> Result<Response<Incoming>, TransportError> {
        let (mut parts, _) = request.into_parts();
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        parts.uri = Uri::from_parts(uri).map_err(unreachable)?;
        if let Some(token) = &self.token {
            parts.headers.insert(AUTHORIZATION, token.clone());
        }
        self.client.request(Request::from_parts(parts, Full::new(body))).await.map_err(unreachable)
    }
}

#[async_trait]
impl Transport for Https {
    async fn call(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, TransportError> {
        let body = std::mem::take(request.body_mut());
        in_time(async {
            let (head, body) = self.send(request, body).await?.into_parts();
            Ok(Response::from_parts(head, whole(body).await?))
        })
        .await
    }

    async fn watch(&self, request: Request<()>) -> Result<WatchStream, TransportError> {
        let answer = in_time(self.send(request, Bytes::new())).await?;
        let status = answer.status();
        if !status.is_success() {
            let body = in_time(whole(answer.into_body())).await?;
            return Err(TransportError::Refused { status, body });
        }
        let lines = Lines::new(answer.into_body().into_data_stream());
        Ok(stream::try_unfold(lines, |mut lines| async {
            Ok(lines.next().await.map_err(TransportError::Unreachable)?.map(|event| (event, lines)))
        })
        .boxed())
    }
}

async fn in_time<T>(answer: impl Future<Output = Result<T, TransportError>>) -> Result<T, TransportError> {
    match tokio::time::timeout(ANSWER_TIME_MAX, answer).await {
        Ok(answer) => answer,
        Err(late) => Err(unreachable(late)),
    }
}

async fn whole(body: Incoming) -> Result<Bytes, TransportError> {
    let body = Limited::new(body, ANSWER_LEN_MAX).collect().await.map_err(|error| match error
        .downcast::<LengthLimitError>()
    {
        Ok(too_long) => unreachable(too_long),
        Err(cut) => TransportError::Unreachable(cut),
    })?;
    Ok(body.to_bytes())
}

fn unreachable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TransportError {
    TransportError::Unreachable(error.into())
}

fn connector(access: &Access) -> Result<HttpsConnector<HttpConnector>, AccessError> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIME_MAX));
    tcp.set_keepalive(Some(PING_INTERVAL));
    let tls = tls_config(&access.authority_pem, &access.identity)?;
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_only();
    let builder = match &access.server_name {
        None => builder,
        Some(name) => {
            let name = ServerName::try_from(name.clone());
            let name = name.map_err(|error| AccessError::unusable("tls-server-name", error))?;
            builder.with_server_name_resolver(FixedServerNameResolver::new(name))
        }
    };
    Ok(builder.enable_http1().enable_http2().wrap_connector(tcp))
}

/// How a server of this authority is spoken to over TLS, as whom.
///
/// # Errors
/// When the certificates or the key cannot be used.
pub fn tls_config(authority_pem: &[u8], identity: &Identity) -> Result<ClientConfig, AccessError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority_pem, "the authority's certificate")? {
        roots
            .add(certificate)
            .map_err(|error| AccessError::unusable("the authority's certificate", error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| AccessError::unusable("TLS", error))?
        .with_root_certificates(roots);
    match identity {
        Identity::Anonymous | Identity::Token(_) => Ok(config.with_no_client_auth()),
        // Those who read files ask elsewhere.
        Identity::TokenFile(_) => Err(AccessError::Unsupported { field: "tokenFile" }),
        Identity::Certificate { chain_pem, key_pem } => {
            let chain = certificates(chain_pem, "the client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(key_pem)
                .map_err(|error| AccessError::unusable("the client's key", error))?;
            let unusable = |error| AccessError::unusable("the client certificate", error);
            config.with_client_auth_cert(chain, key).map_err(unusable)
        }
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| AccessError::unusable(what, error))?;
    match certificates.is_empty() {
        true => Err(AccessError::unusable(what, "there is none")),
        false => Ok(certificates),
    }
}

fn bearer(identity: &Identity) -> Result<Option<HeaderValue>, AccessError> {
    let Identity::Token(token) = identity else {
        return Ok(None);
    };
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|error| AccessError::unusable("the token", error))?;
    value.set_sensitive(true);
    Ok(Some(value))
}

/// Runs connections within the scope of their transport: when that goes, they end.
#[derive(Clone)]
pub(crate) struct Scope(Weak<Mutex<Tasks>>);

impl Scope {
    /// The scope that ends with these tasks.
    pub(crate) fn of(tasks: &Arc<Mutex<Tasks>>) -> Scope {
        Scope(Arc::downgrade(tasks))
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Scope {
    fn execute(&self, connection: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(connection);
        }
    }
}
