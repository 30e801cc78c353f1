//! Durable creates over https: so many at once, each over a connection of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use client::{Access, Client, Https, Identity};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use model::kinds;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::cluster::Cluster;
use crate::figures::{Figure, Unit, quantile};
use crate::processes;

/// How often each load is measured.
const RUNS: usize = 5;
/// How many at once, and how many in all: a few seconds, and no more than a small disk takes.
const LOADS: [(usize, usize); 3] = [(1, 1_000), (16, 5_000), (64, 10_000)];
/// Bytes of each ConfigMap's data.
const DATA_LEN: usize = 1024;
/// Bytes of a long list that are read at once, and of those that may be its end.
const SKIM_LEN: usize = 64 * 1024;
const END_LEN: usize = 7;
/// How long whoever reads much rests when there is nothing to read. To be woken for each event, or each part of a list,
/// would take more from the server beside it than the reading does; this is a part of what is measured.
const GLANCE: Duration = Duration::from_micros(250);
/// Objects that one request removes.
const REMOVE_MAX: usize = 500;

/// What those read on who read much, on a thread of their own: it looks now and then, and is not woken.
pub fn glancing() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().on_thread_park(|| thread::sleep(GLANCE)).build()
}

/// The rows of a cluster of its own.
pub async fn alone(binary: &Path) -> Result<Vec<Figure>> {
    let (cluster, _) = Cluster::started(binary).await?;
    let server = cluster.server_pid()?;
    loads_of(&cluster.access()?, Some(server)).await.with_context(|| cluster.log())
}

/// The rows of any cluster.
pub async fn rows(access: &Access) -> Result<Vec<Figure>> {
    loads_of(access, None).await
}

/// `server`: the process whose time is counted, where it is known.
async fn loads_of(access: &Access, server: Option<u32>) -> Result<Vec<Figure>> {
    let client = Client::new(Arc::new(Https::new(access)?), "bench");
    let namespace = format!("bench-{}", std::process::id());
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    client.create(&kinds::NAMESPACE, "", &object).await?;
    let measured = loads(access, &client, &namespace, server).await;
    let request =
        client.request(Method::DELETE, format!("/api/v1/namespaces/{namespace}"), None, Bytes::new())?;
    client.call(request).await?;
    measured
}

async fn loads(
    access: &Access,
    client: &Client,
    namespace: &str,
    server: Option<u32>,
) -> Result<Vec<Figure>> {
    let used = || server.map(processes::time_used).unwrap_or_default();
    let mut figures = Vec::new();
    for (at_once, count) in LOADS {
        let (mut rates, mut tails, mut costs) = (Vec::new(), Vec::new(), Vec::new());
        // One more than is counted: the first warms up.
        for run in 0..=RUNS {
            let before = used();
            let (rate, tail) = load(access, namespace, at_once, count).await?;
            let cost = (used() - before).as_secs_f64() / count as f64;
            clear(client, namespace).await?;
            if run > 0 {
                rates.push(rate);
                tails.push(tail);
                costs.push(cost * 1000.0);
            }
        }
        let what = format!("durable creates of 1 KiB ConfigMaps over https, {at_once} at once");
        let (rates, tails) = (
            Figure::new(what, Unit::PerSecond, rates),
            Figure::new("… p99 of their answers", Unit::Milliseconds, tails),
        );
        let (rate_aim, tail_aim, rate_stock, tail_stock) = match at_once {
            1 => (1500.0, 2.0, 488.0, 6.0),
            16 => (8000.0, 8.0, 1612.0, 26.0),
            _ => (12_000.0, 15.0, 2078.0, 75.0),
        };
        figures.push(rates.aim(rate_aim).stock(rate_stock));
        figures.push(tails.aim(tail_aim).stock(tail_stock));
        if server.is_some() {
            figures.push(Figure::new("… processor time of the server for each", Unit::Milliseconds, costs));
        }
    }
    Ok(figures)
}

/// So many creates, so many at once: how many a second, and the 99th percentile of their times in milliseconds.
async fn load(access: &Access, namespace: &str, at_once: usize, count: usize) -> Result<(f64, f64)> {
    let target = Arc::new(Target::new(access, &format!("/api/v1/namespaces/{namespace}/configmaps"))?);
    let mut senders = Vec::new();
    for _ in 0..at_once {
        senders.push(target.connect().await?);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (number, sender) in senders.into_iter().enumerate() {
        let target = target.clone();
        tasks.spawn(async move { target.create(sender, number, count / at_once).await });
    }
    let mut times = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times.extend(ended??);
    }
    let rate = times.len() as f64 / began.elapsed().as_secs_f64();
    let times: Vec<f64> = times.iter().map(|time: &Duration| time.as_secs_f64() * 1000.0).collect();
    Ok((rate, quantile(&times, 0.99)))
}

/// Removes what a load has made.
async fn clear(client: &Client, namespace: &str) -> Result<()> {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    loop {
        let uri = format!("{path}?limit={REMOVE_MAX}&labelSelector=bench%3Dload");
        client.call(client.request(Method::DELETE, uri, None, Bytes::new())?).await?;
        let uri = format!("{path}?limit=1&labelSelector=bench%3Dload");
        let left = client.call(client.request(Method::GET, uri, None, Bytes::new())?).await?;
        let left: serde_json::Value = serde_json::from_slice(&left)?;
        if left["items"].as_array().is_none_or(Vec::is_empty) {
            return Ok(());
        }
    }
}

/// Asks over a connection of its own.
pub type Sender = SendRequest<Full<Bytes>>;

/// Where the load goes.
pub struct Target {
    tls: TlsConnector,
    name: ServerName<'static>,
    address: String,
    path: String,
    token: Option<String>,
}

impl Target {
    /// A collection of a cluster.
    pub fn new(access: &Access, path: &str) -> Result<Self> {
        let server: Uri = access.server.parse()?;
        let host = server.host().context("the server has no host")?.trim_matches(['[', ']']);
        let address = format!("{}:{}", server.host().unwrap_or(host), server.port_u16().unwrap_or(443));
        let name = access.server_name.clone().unwrap_or_else(|| host.to_owned());
        let token = match &access.identity {
            Identity::Token(token) => Some(format!("Bearer {token}")),
            _ => None,
        };
        Ok(Self {
            tls: TlsConnector::from(Arc::new(tls(access)?)),
            name: ServerName::try_from(name)?,
            address,
            path: path.to_owned(),
            token,
        })
    }

    /// One more connection that speaks TLS, and nothing over it yet.
    pub async fn connect_plainly(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        Ok(self.tls.connect(self.name.clone(), stream).await?)
    }

    /// A request without a body as HTTP/1.1 writes it.
    pub fn head(&self, path: &str) -> String {
        let token = self.token.as_ref().map(|token| format!("authorization: {token}\r\n"));
        format!("GET {path} HTTP/1.1\r\nhost: {}\r\n{}\r\n", self.address, token.unwrap_or_default())
    }

    /// Gets something large over a connection that speaks TLS, reads every byte of it, and keeps none: what else a client
    /// does takes memory and processors from the server beside it.
    pub async fn skim(&self, stream: &mut TlsStream<TcpStream>, path: &str) -> Result<Duration> {
        let began = Instant::now();
        stream.write_all(self.head(path).as_bytes()).await?;
        let mut buffer = Vec::with_capacity(SKIM_LEN);
        let head_len = loop {
            ensure!(stream.read_buf(&mut buffer).await? > 0, "the connection of a list ended");
            if let Some(end) = memmem::find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_len]).to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200 "), "refused: {}", String::from_utf8_lossy(&buffer));
        let len = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let mut read = buffer.len() - head_len;
        // JSON has no such bytes in it.
        while len.map_or(!buffer.ends_with(b"\r\n0\r\n\r\n"), |len| read < len) {
            let kept = buffer.len().min(END_LEN);
            buffer.drain(..buffer.len() - kept);
            let more = stream.read_buf(&mut buffer).await?;
            ensure!(more > 0, "the connection of a list ended");
            read += more;
        }
        Ok(began.elapsed())
    }

    /// One more connection.
    pub async fn connect(&self) -> Result<Sender> {
        let (sender, connection) = handshake(TokioIo::new(self.connect_plainly().await?)).await?;
        // It ends with its sender.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// A request with who asks.
    pub fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>> {
        let request = Request::builder().method(method).uri(path).header(HOST, &self.address);
        let request = request.header(CONTENT_TYPE, "application/json");
        let request = match &self.token {
            Some(token) => request.header(AUTHORIZATION, token),
            None => request,
        };
        Ok(request.body(Full::new(body))?)
    }

    async fn create(&self, mut sender: Sender, number: usize, count: usize) -> Result<Vec<Duration>> {
        let data: String = "kintsugi".chars().cycle().take(DATA_LEN).collect();
        let mut times = Vec::with_capacity(count);
        for at in 0..count {
            let body = format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"c-{number}-{at}","labels":{{"bench":"load"}}}},"data":{{"text":"{data}"}}}}"#
            );
            let request = self.request(Method::POST, &self.path, Bytes::from(body))?;
            let began = Instant::now();
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            times.push(began.elapsed());
            ensure!(status == 201, "refused with {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(times)
    }
}

fn tls(access: &Access) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&access.authority_pem) {
        roots.add(certificate?)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots);
    Ok(match &access.identity {
        Identity::Certificate { chain_pem, key_pem } => {
            let chain = CertificateDer::pem_slice_iter(chain_pem).collect::<Result<Vec<_>, _>>()?;
            config.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key_pem)?)?
        }
        _ => config.with_no_client_auth(),
    })
}
