//! Two hundred watchers, each over a connection of its own, and creates that all of them are told of.
//!
//! The watchers read on a thread of their own, as they come: what they are told is decrypted and searched for the names of
//! objects, and no more is made of it, so that the reading takes little from the server beside it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use client::{Access, Client, Https};
use http::Method;
use memchr::memmem;
use model::kinds;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::api::{RUNS, spread_at};
use crate::cluster::Cluster;
use crate::figures::{Figure, Unit, quantile};
use crate::load::{Target, glancing};
use crate::processes;

/// Watchers, and the events that each is told in a run.
const WATCHERS: usize = 200;
const EVENTS: usize = 1_000;
/// The pause between two creates that tells the watchers of 80,000 events a second.
const PACE: Duration = Duration::from_micros(2_500);
/// What precedes the number in an object's name.
const NAME: &[u8] = b"\"name\":\"e-";
/// The longest digits and the quote behind them: what a read may have cut off.
const NUMBER_LEN_MAX: usize = 8;
/// Bytes that are read at once: two TLS records.
const READ_LEN: usize = 32 * 1024;

/// The rows of a cluster of its own.
pub async fn alone(binary: &Path) -> Result<Vec<Figure>> {
    let (cluster, client) = Cluster::started(binary).await?;
    let server = cluster.server_pid()?;
    fan_out(&cluster.access()?, &client, Some(server)).await.with_context(|| cluster.log())
}

/// The rows of any cluster.
pub async fn rows(access: &Access) -> Result<Vec<Figure>> {
    let client = Client::new(Arc::new(Https::new(access)?), "bench");
    fan_out(access, &client, None).await
}

/// When each create was begun, in nanoseconds since the begin of its run; 0 before it was.
type Begun = Arc<[AtomicU64]>;

/// What came of a run.
struct Told {
    /// How long each event took to each watcher, in milliseconds.
    delays: Vec<f64>,
    /// From the first create until the last watcher had heard of the last one.
    took: Duration,
    /// Processor time of the server meanwhile.
    used: Duration,
}

/// The watchers are told of creates, at full rate and at a pace that they can follow.
async fn fan_out(access: &Access, client: &Client, server: Option<u32>) -> Result<Vec<Figure>> {
    let namespace = format!("bench-watch-{}", std::process::id());
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    client.create(&kinds::NAMESPACE, "", &object).await?;
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    let bench = Bench { access, client, server, path };
    let measured = bench.figures().await;
    bench.ask(Method::DELETE, format!("/api/v1/namespaces/{namespace}")).await?;
    measured
}

struct Bench<'a> {
    access: &'a Access,
    client: &'a Client,
    server: Option<u32>,
    path: String,
}

impl Bench<'_> {
    async fn figures(&self) -> Result<Vec<Figure>> {
        let (mut costs, mut backlog, mut rates) = (Vec::new(), Vec::new(), Vec::new());
        let (mut middles, mut tails) = (Vec::new(), Vec::new());
        let told = (WATCHERS * EVENTS) as f64;
        for run in 0..RUNS {
            let first = 3 * run * EVENTS;
            // What the creates take by themselves is not what the watchers take.
            let alone = self.tell(first, 0, Duration::ZERO).await?.used;
            let full = self.tell(first + EVENTS, WATCHERS, Duration::ZERO).await?;
            rates.push(told / full.took.as_secs_f64());
            costs.push(full.used.saturating_sub(alone).as_secs_f64() * 1000.0 / told);
            backlog.push(quantile(&full.delays, 0.99));
            let paced = self.tell(first + 2 * EVENTS, WATCHERS, PACE).await?;
            middles.push(quantile(&paced.delays, 0.5));
            tails.push(quantile(&paced.delays, 0.99));
        }
        let mut figures = vec![
            Figure::new(
                "watch fan-out to 200 watchers, more than they can take: events told",
                Unit::PerSecond,
                rates,
            )
            .aim(80_000.0)
            .stock(32_000.0),
            Figure::new(
                "… p99 from the create's begin to the watcher, the backlog included",
                Unit::Milliseconds,
                backlog,
            ),
            Figure::new("… median of the same at 80,000 events/s", Unit::Milliseconds, middles),
            Figure::new("… its p99", Unit::Milliseconds, tails).aim(5.0).stock(20.0),
        ];
        if self.server.is_some() {
            let what = "… processor time of the server for each, beside the creates'";
            figures.push(Figure::new(what, Unit::Milliseconds, costs).aim(0.003).stock(0.035));
        }
        Ok(figures)
    }

    /// Creates objects from the number `first` on, so long apart, while so many watch.
    async fn tell(&self, first: usize, watchers: usize, pause: Duration) -> Result<Told> {
        let begun: Begun = (0..EVENTS).map(|_| AtomicU64::new(0)).collect();
        let (begin, ready, heard) = self.watchers(first, watchers, begun.clone()).await?;
        ready.await.map_err(|_| anyhow!("the watchers ended"))?;
        let used = || self.server.map(processes::time_used).unwrap_or_default();
        let before = used();
        let at = self.path.clone();
        let create = move |number: usize| {
            let name = format!("e-{}", first + number);
            let object = json!({"metadata": {"name": name}, "data": {"text": "x".repeat(1024)}});
            let body = Bytes::from(object.to_string());
            begun[number].store(nanoseconds(begin), Ordering::Relaxed);
            (Method::POST, at.clone(), body)
        };
        let began = Instant::now();
        spread_at(self.access, &self.path, EVENTS, pause, create).await?;
        let delays = heard.await.map_err(|_| anyhow!("the watchers ended"))??;
        Ok(Told { delays, took: began.elapsed(), used: used() - before })
    }

    /// Begins to watch, on a thread of its own: when that was, who says that all are there, and what they will have heard.
    async fn watchers(&self, first: usize, count: usize, begun: Begun) -> Result<Watchers> {
        let target = Arc::new(Target::new(self.access, &self.path)?);
        let head = target.head(&format!("{}?watch=1&resourceVersion={}", self.path, self.revision().await?));
        let (tell_ready, ready) = oneshot::channel();
        let (tell_heard, heard) = oneshot::channel();
        let begin = Instant::now();
        let runtime = glancing()?;
        thread::spawn(move || {
            let hear = async {
                let mut watching = JoinSet::new();
                for _ in 0..count {
                    let watcher = Watcher::begin(&target, &head).await?;
                    watching.spawn(watcher.hear(begin, first, begun.clone()));
                }
                // Whoever began this waits for it.
                let _ = tell_ready.send(());
                let mut delays = Vec::new();
                while let Some(ended) = watching.join_next().await {
                    delays.extend(ended??);
                }
                Ok(delays)
            };
            let _ = tell_heard.send(runtime.block_on(hear));
        });
        Ok((begin, ready, heard))
    }

    async fn ask(&self, method: Method, path: String) -> Result<Bytes> {
        Ok(self.client.call(self.client.request(method, path, None, Bytes::new())?).await?)
    }

    async fn revision(&self) -> Result<String> {
        let list = self.ask(Method::GET, format!("{}?limit=1", self.path)).await?;
        let list: Value = serde_json::from_slice(&list)?;
        Ok(list["metadata"]["resourceVersion"].as_str().context("a list has a revision")?.to_owned())
    }
}

type Watchers = (Instant, oneshot::Receiver<()>, oneshot::Receiver<Result<Vec<f64>>>);

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// One who watches: a connection, and what came over it and was not looked at yet.
struct Watcher {
    stream: TlsStream<TcpStream>,
    rest: Vec<u8>,
}

impl Watcher {
    async fn begin(target: &Target, head: &str) -> Result<Self> {
        let mut stream = target.connect_plainly().await?;
        stream.write_all(head.as_bytes()).await?;
        let mut rest = Vec::with_capacity(READ_LEN);
        loop {
            ensure!(stream.read_buf(&mut rest).await? > 0, "the connection of a watch ended");
            if let Some(end) = memmem::find(&rest, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&rest[..end]);
                ensure!(head.starts_with("HTTP/1.1 200 "), "a watch is refused: {head}");
                rest.drain(..end);
                return Ok(Self { stream, rest });
            }
        }
    }

    /// Hears the events of a run; says after how many milliseconds each came.
    async fn hear(mut self, begin: Instant, first: usize, begun: Begun) -> Result<Vec<f64>> {
        let mut delays = Vec::with_capacity(EVENTS);
        let finder = memmem::Finder::new(NAME);
        while delays.len() < EVENTS {
            ensure!(self.stream.read_buf(&mut self.rest).await? > 0, "a watch ended");
            let now = nanoseconds(begin);
            let mut done = self.rest.len().saturating_sub(NAME.len() + NUMBER_LEN_MAX);
            for at in finder.find_iter(&self.rest) {
                let digits = &self.rest[at + NAME.len()..];
                let Some(len) = digits.iter().position(|byte| !byte.is_ascii_digit()) else {
                    // The rest of the name is yet to come.
                    done = done.min(at);
                    break;
                };
                let number = std::str::from_utf8(&digits[..len])?.parse::<usize>()?;
                let place = number.checked_sub(first).and_then(|number| begun.get(number));
                let sent = place.context("an event of another run")?.load(Ordering::Relaxed);
                delays.push(now.saturating_sub(sent) as f64 / 1e6);
                done = done.max(at + NAME.len() + len);
            }
            self.rest.drain(..done);
        }
        Ok(delays)
    }
}
