//! The story: five faults, what was done about each, and how long it took.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::{Client, Deletion, PatchKind};
use host::Host;
use k8s_openapi::api::core::v1::{Pod, Service};
use model::{Key, Precondition, Tree, kinds};
use serde_json::json;

use crate::faults::Faults;

use super::database::Database;
use super::load::{Answer, Load, get, parse, post};
use super::pods::{Pods, address, is_ready, name, ready, restarts, waiting_reason};

/// The port on which the demo's web server listens in its pods.
const PORT: u16 = 8080;
/// The pause between two looks at what a single pod answers.
const GLANCE: Duration = Duration::from_millis(1);
/// How long a single pod may take to answer again.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);
/// How often the crash-looping container fails before it is mended: once more than restarts come at once.
const CRASHES: i32 = 4;

/// One row of the table: a fault and its mending.
#[derive(Debug)]
pub struct Row {
    /// What broke.
    pub broke: &'static str,
    /// What was done.
    pub done: String,
    /// From the fault to the first sign of it in the API.
    pub detected: Duration,
    /// From the fault to everything well again.
    pub recovered: Duration,
    /// Requests that failed meanwhile, of how many.
    pub failed: (u64, u64),
    /// Which requests failed, and when, in words.
    pub failures: Vec<String>,
    /// Writes of the database's that were made beside those of another, since it is there; none without a database.
    pub doubled: Option<u64>,
}

/// Where the story plays.
pub struct Stage {
    /// Speaks to the API over https, as any user would.
    pub client: Client,
    /// Time.
    pub host: Host,
    /// Kills containers behind the cluster's back.
    faults: Faults,
    /// The image of the web server.
    pub image: String,
    /// The namespace of its pods.
    namespace: &'static str,
    /// The requests that run all the while.
    load: Option<Load>,
    pods: Option<Pods>,
    /// The database, where there are nodes for it to move between.
    pub database: Option<Database>,
}

/// Where the counts stood, and when.
pub type Count = (Instant, u64, u64);

impl Stage {
    /// An empty stage.
    pub fn new(client: Client, host: Host, faults: Faults, image: String, namespace: &'static str) -> Self {
        Self { client, host, faults, image, namespace, load: None, pods: None, database: None }
    }

    /// Sets up a Deployment of three behind a Service, and starts the requests. Gives the time until all were Ready. Where
    /// there is storage that all nodes share, each pod has a volume on it, and there is a database.
    pub async fn set_up(&mut self, shared: Option<&Path>) -> Result<Duration> {
        let began = Instant::now();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": PORT}]},
        });
        let service: Service = self.client.create(&kinds::SERVICE, self.namespace, &service).await?.view()?;
        let args = json!([PORT.to_string()]);
        let mut web = deployment("web", 3, &self.image, args, true);
        if let Some(shared) = shared {
            give_volumes(&mut web);
            let database = Database::set_up(&self.client, &self.host, self.namespace, &self.image, shared);
            self.database = Some(database.await?);
        }
        self.client.create(&kinds::DEPLOYMENT, self.namespace, &web).await?;
        let mut pods = Pods::follow(&self.client, &self.host, self.namespace, "app=web").await?;
        pods.until("three Ready pods", |pods| (ready(pods).len() == 3).then_some(())).await?;
        let took = began.elapsed();
        let ip = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
        let target = SocketAddr::new(ip.parse()?, 80);
        self.first_answer(target).await?;
        self.load = Some(Load::start(&self.host, target));
        self.pods = Some(pods);
        Ok(took)
    }

    /// Goes on with another client: the server was started again.
    pub async fn begin_anew(&mut self, client: Client) -> Result<()> {
        self.pods = Some(Pods::follow(&client, &self.host, self.namespace, "app=web").await?);
        if let Some(database) = &mut self.database {
            database.begin_anew(&client, self.namespace).await?;
        }
        self.client = client;
        Ok(())
    }

    /// A container's process is killed with SIGKILL; its replacement answers.
    pub async fn kill_container(&mut self) -> Result<Row> {
        let pod = self.some_pod().await?;
        let target = SocketAddr::new(address(&pod).context("a Ready pod has an address")?, PORT);
        let before = self.answer(target).await?;
        let (count, began) = (self.counts()?, Instant::now());
        self.faults.kill_containers(pod.metadata.uid.as_deref().context("the pod has no uid")?)?;
        self.answer_unlike(target, &before).await?;
        let recovered = began.elapsed();
        let restarted = restarts(&pod) + 1;
        let seen = name(&pod).to_owned();
        self.pods()?
            .until("the restart in the pod's status", |pods| {
                pods.get(&seen).filter(|pod| restarts(pod) >= restarted).map(|_| ())
            })
            .await?;
        let detected = began.elapsed().min(recovered);
        self.all_ready().await?;
        Ok(self.row("a container killed (SIGKILL)", "restarted in place".into(), detected, recovered, count))
    }

    /// A pod is deleted; its replacement is Ready.
    pub async fn delete_pod(&mut self) -> Result<Row> {
        let pod = self.some_pod().await?;
        let gone = name(&pod).to_owned();
        let known: Vec<String> =
            self.pods()?.until("the pods", |pods| Some(pods.keys().cloned().collect())).await?;
        let (count, began) = (self.counts()?, Instant::now());
        self.client.delete(&Key::new(&kinds::POD, self.namespace, &gone), &Deletion::default()).await?;
        let replacement = self
            .pods()?
            .until("a replacement", |pods| pods.keys().find(|name| !known.contains(name)).cloned())
            .await?;
        let detected = began.elapsed();
        self.pods()?
            .until("the replacement to be Ready", |pods| {
                pods.get(&replacement).filter(|pod| is_ready(pod)).map(|_| ())
            })
            .await?;
        let recovered = began.elapsed();
        Ok(self.row("a pod deleted", "replaced".into(), detected, recovered, count))
    }

    /// A pod's readiness probe begins to fail; the last request has reached it; then it returns.
    pub async fn fail_readiness(&mut self) -> Result<Row> {
        let pod = self.some_pod().await?;
        let target = SocketAddr::new(address(&pod).context("a Ready pod has an address")?, PORT);
        let sick = name(&pod).to_owned();
        let (count, began) = (self.counts()?, Instant::now());
        anyhow::ensure!(post(target, "/unready").await, "the pod did not take the order to be unready");
        self.pods()?
            .until("the pod to be unready", |pods| pods.get(&sick).filter(|pod| !is_ready(pod)).map(|_| ()))
            .await?;
        let detected = began.elapsed();
        // Long enough for a request on its way to show up.
        self.host.sleep(Duration::from_millis(500)).await;
        let last = self.load.as_ref().and_then(|load| load.last_answer_of(&sick));
        let recovered = last.map_or(Duration::ZERO, |at| at.saturating_duration_since(began));
        anyhow::ensure!(post(target, "/ready").await, "the pod did not take the order to be ready");
        self.all_ready().await?;
        let done = "taken out of the Service, and back".into();
        Ok(self.row("a readiness probe failing", done, detected, recovered, count))
    }

    /// A container that crashes again and again is held back, seen as CrashLoopBackOff, and mended by its owner.
    pub async fn crash_loop(&mut self) -> Result<Row> {
        let began = Instant::now();
        let count = self.counts()?;
        let broken = deployment("crasher", 1, &self.image, json!(["crash"]), false);
        self.client.create(&kinds::DEPLOYMENT, self.namespace, &broken).await?;
        let mut pods = Pods::follow(&self.client, &self.host, self.namespace, "app=crasher").await?;
        pods.until("CrashLoopBackOff", |pods| {
            pods.values().find(|pod| waiting_reason(pod) == Some("CrashLoopBackOff")).map(|_| ())
        })
        .await?;
        let detected = began.elapsed();
        let crashes = pods
            .until("more crashes", |pods| pods.values().map(restarts).find(|&count| count >= CRASHES))
            .await?;
        let crashing: Vec<String> =
            pods.until("its pods", |pods| Some(pods.keys().cloned().collect())).await?;
        let mended = Instant::now();
        let container = json!({"name": "web", "args": [PORT.to_string()]});
        let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        let key = Key::new(&kinds::DEPLOYMENT, self.namespace, "crasher");
        self.client.patch(&key, "", PatchKind::Strategic, &patch, &Precondition::default()).await?;
        pods.until("the mended pod to be Ready", |pods| {
            let well = ready(pods).into_iter().any(|pod| !crashing.iter().any(|old| old == name(pod)));
            (well && pods.len() == 1).then_some(())
        })
        .await?;
        let done = format!("held back after {crashes} crashes, rolled forward once corrected");
        Ok(self.row("a container crash-looping", done, detected, mended.elapsed(), count))
    }

    /// A pod's liveness probe begins to fail; its container is restarted.
    pub async fn fail_liveness(&mut self) -> Result<Row> {
        let pod = self.some_pod().await?;
        let target = SocketAddr::new(address(&pod).context("a Ready pod has an address")?, PORT);
        let before = self.answer(target).await?;
        let sick = name(&pod).to_owned();
        let restarted = restarts(&pod) + 1;
        let (count, began) = (self.counts()?, Instant::now());
        anyhow::ensure!(post(target, "/sick").await, "the pod did not take the order to be sick");
        self.answer_unlike(target, &before).await?;
        let recovered = began.elapsed();
        self.pods()?
            .until("the restart in the pod's status", |pods| {
                pods.get(&sick).filter(|pod| restarts(pod) >= restarted).map(|_| ())
            })
            .await?;
        let detected = began.elapsed().min(recovered);
        self.all_ready().await?;
        Ok(self.row("a liveness probe failing", "container restarted".into(), detected, recovered, count))
    }

    /// A row of the table, with the requests that failed since `count` was read.
    pub fn row(
        &self,
        broke: &'static str,
        done: String,
        detected: Duration,
        recovered: Duration,
        (began, sent, failed): Count,
    ) -> Row {
        let (sent_now, failed_now) = self.load.as_ref().map_or((0, 0), Load::counts);
        let failures = self.load.as_ref().map_or_else(Vec::new, |load| load.failures_since(began));
        let doubled = self.database.as_ref().map(|database| database.verdict().doubled);
        let failed = (failed_now - failed, sent_now - sent);
        Row { broke, done, detected, recovered, failed, failures, doubled }
    }

    /// How many requests were sent and how many failed, so far.
    pub fn counts(&self) -> Result<Count> {
        let (sent, failed) = self.load.as_ref().context("no requests run")?.counts();
        Ok((Instant::now(), sent, failed))
    }

    /// The stage's pods.
    pub fn pods(&mut self) -> Result<&mut Pods> {
        self.pods.as_mut().context("the pods are not watched")
    }

    /// Waits until three pods are Ready.
    pub async fn all_ready(&mut self) -> Result<()> {
        self.pods()?.until("three Ready pods", |pods| (ready(pods).len() == 3).then_some(())).await
    }

    async fn some_pod(&mut self) -> Result<Pod> {
        self.pods()?
            .until("three Ready pods", |pods| match ready(pods).as_slice() {
                [first, _, _] => Some((*first).clone()),
                _ => None,
            })
            .await
    }

    async fn answer(&self, target: SocketAddr) -> Result<Answer> {
        let body = get(target, "/").await.with_context(|| format!("{target} does not answer"))?;
        parse(&body).with_context(|| format!("{target} answers {body:?}"))
    }

    async fn first_answer(&self, target: SocketAddr) -> Result<()> {
        let until = self.host.moment().plus(ANSWER_PATIENCE);
        while self.host.moment() < until {
            if self.answer(target).await.is_ok() {
                return Ok(());
            }
            self.host.sleep(GLANCE).await;
        }
        bail!("the Service at {target} does not answer")
    }

    async fn answer_unlike(&self, target: SocketAddr, before: &Answer) -> Result<()> {
        let until = self.host.moment().plus(ANSWER_PATIENCE);
        while self.host.moment() < until {
            match self.answer(target).await {
                Ok(answer) if answer != *before => return Ok(()),
                _ => self.host.sleep(GLANCE).await,
            }
        }
        bail!("no other process answers at {target}")
    }
}

/// Gives each pod of a Deployment a volume of its own, on storage that all nodes share: it comes and goes with the pod.
fn give_volumes(deployment: &mut Tree) {
    let claim = json!({"spec": {
        "storageClassName": "shared", "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "16Mi"}},
    }});
    let pod = &mut deployment["spec"]["template"]["spec"];
    pod["volumes"] = json!([{"name": "data", "ephemeral": {"volumeClaimTemplate": claim}}]);
    pod["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
}

fn deployment(name: &str, replicas: u32, image: &str, args: Tree, probes: bool) -> Tree {
    let probe = |path: &str, threshold: u32| json!({"httpGet": {"path": path, "port": PORT}, "periodSeconds": 1, "failureThreshold": threshold});
    let mut web = json!({
        "name": "web", "image": image, "args": args, "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": PORT}],
    });
    if probes {
        web["readinessProbe"] = probe("/readyz", 1);
        web["livenessProbe"] = probe("/healthz", 1);
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "terminationGracePeriodSeconds": 1, "containers": [web],
                    // Where there are several nodes, each has its share.
                    "topologySpreadConstraints": [{
                        "maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"app": name}},
                    }],
                },
            },
        },
    })
}
