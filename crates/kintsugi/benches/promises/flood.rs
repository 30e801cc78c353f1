//! A user who lists all pods over many connections without end, and how long an administrator waits meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use client::{Access, Client, Identity};
use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::api::exchange;
use crate::figures::{Figure, Unit};
use crate::load::{Sender, Target};

/// The user's connections: each asks again as soon as it has its answer.
const CONNECTIONS: usize = 32;
/// What the administrator asks for, a get and a create in turn, and how long they think between.
const ASKS: usize = 500;
const THINKING: Duration = Duration::from_millis(5);
/// The user.
const USER: &str = "bench-flood";

/// Floods, and asks: the rows of it.
pub async fn rows(access: &Access, client: &Client, namespace: &str) -> Result<Vec<Figure>> {
    let user = Access { identity: Identity::Token(reader(client, namespace).await?), ..access.clone() };
    let flood = Flood::begin(&user, format!("/api/v1/namespaces/{namespace}/pods"))?;
    let lists = flood.lists.clone();
    // It is measured in full flood, not in its begin.
    while lists.load(Ordering::Relaxed) < CONNECTIONS && !flood.lists_end.load(Ordering::Relaxed) {
        tokio::time::sleep(THINKING).await;
    }
    let (began, before) = (Instant::now(), lists.load(Ordering::Relaxed));
    let asked = ask(access, namespace).await;
    let rate = (lists.load(Ordering::Relaxed) - before) as f64 / began.elapsed().as_secs_f64();
    flood.end().await?;
    Ok(vec![
        Figure::new(
            "an administrator's gets and creates while a user lists 10,000 pods over 32 connections without end",
            Unit::Milliseconds,
            asked?,
        )
        .tail_aim(1000.0),
        Figure::new("… lists that the user gets meanwhile", Unit::PerSecond, vec![rate]),
    ])
}

/// Makes a user who may read what is in a namespace; their token.
async fn reader(client: &Client, namespace: &str) -> Result<String> {
    let post = async |path: String, object: Value| {
        let body = Bytes::from(object.to_string());
        anyhow::Ok(client.call(client.request(Method::POST, path, Some("application/json"), body)?).await?)
    };
    let accounts = format!("/api/v1/namespaces/{namespace}/serviceaccounts");
    post(accounts.clone(), json!({"metadata": {"name": USER}})).await?;
    let binding = json!({
        "metadata": {"name": USER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": USER, "namespace": namespace}],
    });
    post(format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings"), binding).await?;
    let told = post(format!("{accounts}/{USER}/token"), json!({"spec": {}})).await?;
    let told: Value = serde_json::from_slice(&told)?;
    Ok(told["status"]["token"].as_str().context("a token request has a token")?.to_owned())
}

/// Each get and create of the administrator's, in milliseconds.
async fn ask(access: &Access, namespace: &str) -> Result<Vec<f64>> {
    let pods = format!("/api/v1/namespaces/{namespace}/pods");
    let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
    let target = Target::new(access, &pods)?;
    let mut sender = target.connect().await?;
    let mut times = Vec::with_capacity(ASKS);
    for number in 0..ASKS {
        tokio::time::sleep(THINKING).await;
        let (method, path, body) = match number % 2 {
            0 => (Method::GET, format!("{pods}/p-{number}"), Bytes::new()),
            _ => {
                let object = json!({"metadata": {"name": format!("flooded-{number}")}, "data": {"a": "b"}});
                (Method::POST, maps.clone(), Bytes::from(object.to_string()))
            }
        };
        times.push(exchange(&target, &mut sender, method, &path, body).await?);
    }
    Ok(times)
}

/// The user's connections, on a thread of their own so that they do not hold up who measures.
struct Flood {
    lists: Arc<AtomicUsize>,
    /// Whether it is to end, or has.
    lists_end: Arc<AtomicBool>,
    ended: oneshot::Receiver<Result<()>>,
}

impl Flood {
    fn begin(user: &Access, path: String) -> Result<Self> {
        let target = Arc::new(Target::new(user, &path)?);
        let (lists, lists_end) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (tell, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (counted, end) = (lists.clone(), lists_end.clone());
        thread::spawn(move || {
            let all = async {
                let mut connections = JoinSet::new();
                for _ in 0..CONNECTIONS {
                    let sender = target.connect().await?;
                    connections.spawn(list(
                        target.clone(),
                        sender,
                        path.clone(),
                        counted.clone(),
                        end.clone(),
                    ));
                }
                while let Some(ended) = connections.join_next().await {
                    ended??;
                }
                Ok(())
            };
            let outcome = runtime.block_on(all);
            end.store(true, Ordering::Relaxed);
            // Whoever began it waits for it.
            let _ = tell.send(outcome);
        });
        Ok(Self { lists, lists_end, ended })
    }

    async fn end(self) -> Result<()> {
        self.lists_end.store(true, Ordering::Relaxed);
        self.ended.await.map_err(|_| anyhow!("the flood ended"))?
    }
}

/// Lists until told to end; who is turned away asks again at once.
async fn list(
    target: Arc<Target>,
    mut sender: Sender,
    path: String,
    lists: Arc<AtomicUsize>,
    end: Arc<AtomicBool>,
) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        let answer = sender.send_request(target.request(Method::GET, &path, Bytes::new())?).await?;
        let is_list = answer.status().is_success();
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        lists.fetch_add(usize::from(is_list), Ordering::Relaxed);
    }
    Ok(())
}
