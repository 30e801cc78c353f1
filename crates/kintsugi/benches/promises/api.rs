//! Ten thousand pods: what the API server carries, and what it takes for that.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use client::{Access, Client, Https};
use http::Method;
use http_body_util::BodyExt;
use model::kinds;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::cluster::Cluster;
use crate::figures::{Figure, Unit, quantile};
use crate::load::{Sender, Target, glancing};
use crate::{flood, processes};

/// Pods that are there in the end.
const PODS: usize = 10_000;
/// Requests at once, and how many gets are measured in each of so many runs.
pub const AT_ONCE: usize = 64;
const GETS: usize = 20_000;
/// Lists that are measured: so many that the kernel's hundredths of a second are none of the figure.
const LISTS: usize = 100;
pub const RUNS: usize = 5;
/// How long a server rests before its memory is looked at.
const REST: Duration = Duration::from_secs(5);
/// The node that the pods are bound to: nobody runs them.
const NODE: &str = "bench-nowhere";

/// The rows of a cluster of its own, those of a start on what is stored included.
pub async fn alone(binary: &Path) -> Result<Vec<Figure>> {
    let (mut cluster, client) = Cluster::started(binary).await?;
    let server = cluster.server_pid()?;
    let mut bench = Bench::begin(&cluster.access()?, client, Some(server)).await?;
    let mut figures = bench.figures().await.with_context(|| cluster.log())?;
    drop(bench);
    tokio::time::sleep(REST).await;
    let loaded = processes::resident(server)?;
    let (mut starts, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        cluster.end_server(libc::SIGTERM)?;
        let began = cluster.up()?;
        let client = cluster.answering(began).await?;
        starts.push(began.elapsed());
        drop(client);
        tokio::time::sleep(REST).await;
        resident.push(processes::resident(cluster.server_pid()?)?);
    }
    figures.push(
        Figure::new("resident memory with 10,000 pods, after the load", Unit::Mebibytes, vec![loaded])
            .aim(150.0)
            .stock(2860.0),
    );
    figures.push(Figure::new("… after a restart", Unit::Mebibytes, resident).aim(120.0).stock(933.0));
    figures.push(Figure::times("start with 10,000 pods stored → API answers", &starts).aim(500.0));
    Ok(figures)
}

/// The rows of any cluster.
pub async fn rows(access: &Access) -> Result<Vec<Figure>> {
    let client = Client::new(Arc::new(Https::new(access)?), "bench");
    let mut bench = Bench::begin(access, client, None).await?;
    let measured = bench.figures().await;
    bench.end().await?;
    measured
}

struct Bench {
    access: Access,
    client: Client,
    server: Option<u32>,
    namespace: String,
}

impl Bench {
    async fn begin(access: &Access, client: Client, server: Option<u32>) -> Result<Self> {
        let namespace = format!("bench-pods-{}", std::process::id());
        let named =
            |kind: &str, name: &str| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}});
        client.create(&kinds::NAMESPACE, "", &named("Namespace", &namespace)).await?;
        let mut node = named("Node", NODE);
        node["spec"] = json!({"unschedulable": true});
        client.create(&kinds::NODE, "", &node).await?;
        let bench = Self { access: access.clone(), client, server, namespace };
        // Pods are refused until the namespace has its service account.
        let began = Instant::now();
        let path = format!("/api/v1/namespaces/{}/serviceaccounts/default", bench.namespace);
        while bench.ask(Method::GET, path.clone()).await.is_err() {
            ensure!(began.elapsed() < Duration::from_secs(60), "the namespace gets no service account");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(bench)
    }

    /// Removes what was made.
    async fn end(&self) -> Result<()> {
        let pods = format!("/api/v1/namespaces/{}/pods?gracePeriodSeconds=0", self.namespace);
        self.ask(Method::DELETE, pods).await?;
        self.ask(Method::DELETE, format!("/api/v1/namespaces/{}", self.namespace)).await?;
        self.ask(Method::DELETE, format!("/api/v1/nodes/{NODE}")).await?;
        Ok(())
    }

    async fn ask(&self, method: Method, path: String) -> Result<Bytes> {
        Ok(self.client.call(self.client.request(method, path, None, Bytes::new())?).await?)
    }

    fn used(&self) -> Duration {
        self.server.map(processes::time_used).unwrap_or_default()
    }

    fn costs(&self, what: &str, costs: Vec<f64>) -> Option<Figure> {
        self.server.map(|_| Figure::new(what, Unit::Milliseconds, costs))
    }

    async fn figures(&mut self) -> Result<Vec<Figure>> {
        let mut figures = self.creates().await?;
        figures.extend(self.gets().await?);
        figures.extend(self.lists()?);
        figures.extend(flood::rows(&self.access, &self.client, &self.namespace).await?);
        Ok(figures)
    }

    async fn creates(&self) -> Result<Vec<Figure>> {
        let (mut rates, mut tails, mut costs) = (Vec::new(), Vec::new(), Vec::new());
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let part = PODS / RUNS;
        for run in 0..RUNS {
            let before = self.used();
            let at = path.clone();
            let made = move |number: usize| {
                (Method::POST, at.clone(), Bytes::from(pod(run * part + number).to_string()))
            };
            let (rate, times) = spread_at(&self.access, &path, part, Duration::ZERO, made).await?;
            rates.push(rate);
            tails.push(quantile(&times, 0.99));
            costs.push((self.used() - before).as_secs_f64() * 1000.0 / part as f64);
        }
        let mut figures = vec![
            Figure::new("creates of pods on a node of nobody, 64 at once", Unit::PerSecond, rates)
                .aim(6000.0)
                .stock(1125.0),
            Figure::new("… p99 of their answers", Unit::Milliseconds, tails).aim(25.0).stock(132.0),
        ];
        figures.extend(self.costs("… processor time of the server for each", costs));
        Ok(figures)
    }

    async fn gets(&self) -> Result<Vec<Figure>> {
        let (mut rates, mut tails, mut costs) = (Vec::new(), Vec::new(), Vec::new());
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        for _ in 0..RUNS {
            let before = self.used();
            let at = path.clone();
            let got = move |number: usize| (Method::GET, format!("{at}/p-{}", number % PODS), Bytes::new());
            let (rate, times) = spread_at(&self.access, &path, GETS, Duration::ZERO, got).await?;
            rates.push(rate);
            tails.push(quantile(&times, 0.99));
            costs.push((self.used() - before).as_secs_f64() * 1000.0 / GETS as f64);
        }
        let mut figures = vec![
            Figure::new("gets of a pod, 64 at once", Unit::PerSecond, rates).aim(20_000.0).stock(3856.0),
            Figure::new("… p99 of their answers", Unit::Milliseconds, tails).aim(12.0).stock(47.0),
        ];
        figures.extend(self.costs("… processor time of the server for each", costs));
        Ok(figures)
    }

    fn lists(&self) -> Result<Vec<Figure>> {
        let (mut times, mut costs) = (Vec::new(), Vec::new());
        // On a thread of its own: this one has a runtime already.
        thread::scope(|scope| {
            let reader = scope.spawn(|| glancing()?.block_on(self.list(&mut times, &mut costs)));
            reader.join().map_err(|_| anyhow!("whoever reads lists panicked"))?
        })?;
        let mut figures =
            vec![Figure::new("list of 10,000 pods", Unit::Milliseconds, times).aim(30.0).stock(196.0)];
        // The kernel counts in hundredths of a second: the mean of all says more than any one of them.
        let mean = costs.iter().sum::<f64>() / costs.len() as f64;
        figures.extend(
            self.costs("… processor time of the server for each", vec![mean])
                .map(|row| row.aim(20.0).stock(190.0)),
        );
        Ok(figures)
    }

    /// Lists one time after the other: how long each takes, and what it costs the server, in milliseconds.
    async fn list(&self, times: &mut Vec<f64>, costs: &mut Vec<f64>) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let target = Target::new(&self.access, &path)?;
        let mut stream = target.connect_plainly().await?;
        for _ in 0..LISTS {
            let before = self.used();
            times.push(target.skim(&mut stream, &path).await?.as_secs_f64() * 1000.0);
            costs.push((self.used() - before).as_secs_f64() * 1000.0);
        }
        Ok(())
    }
}

/// A pod with what pods usually say, about 1.5 kB when it is stored.
fn pod(number: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("p-{number}"), "labels": {"app": "bench", "number": format!("n{}", number % 100)}},
        "spec": {
            "nodeName": NODE,
            "containers": [{
                "name": "web", "image": "registry.example/web:1.2.3", "args": ["--port", "8080"],
                "ports": [{"containerPort": 8080}], "env": [{"name": "LEVEL", "value": "info"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}, "periodSeconds": 10},
            }],
        },
    })
}

/// Each of [`AT_ONCE`] connections takes its part of the numbers below `count`, with a pause between the begins of two
/// requests: their rate and the times of each.
pub async fn spread_at(
    access: &Access,
    path: &str,
    count: usize,
    pause: Duration,
    ask: impl Fn(usize) -> (Method, String, Bytes) + Clone + Send + 'static,
) -> Result<(f64, Vec<f64>)> {
    let target = Arc::new(Target::new(access, path)?);
    let mut senders = Vec::new();
    for _ in 0..AT_ONCE {
        senders.push(target.connect().await?);
    }
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for (first, mut sender) in senders.into_iter().enumerate() {
        let (target, ask) = (target.clone(), ask.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            for number in (first..count).step_by(AT_ONCE) {
                tokio::time::sleep_until((began + pause * number as u32).into()).await;
                let (method, path, body) = ask(number);
                times.push(exchange(&target, &mut sender, method, &path, body).await?);
            }
            Ok::<_, anyhow::Error>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times.extend(ended??);
    }
    Ok((times.len() as f64 / began.elapsed().as_secs_f64(), times))
}

/// A request and its whole answer: how long both took, in milliseconds.
pub async fn exchange(
    target: &Target,
    sender: &mut Sender,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<f64> {
    let request = target.request(method, path, body)?;
    let began = Instant::now();
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let mut body = answer.into_body();
    let mut kept = Vec::new();
    while let Some(frame) = body.frame().await {
        let data = frame?.into_data().unwrap_or_default();
        // The text of a refusal is of interest, the fifteenth megabyte of a list is not.
        if kept.len() < 2048 {
            kept.extend_from_slice(&data);
        }
    }
    let took = began.elapsed().as_secs_f64() * 1000.0;
    ensure!(status.is_success(), "refused with {status}: {}", String::from_utf8_lossy(&kept));
    Ok(took)
}
