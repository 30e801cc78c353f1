//! The demo's database: a StatefulSet of one whose volume follows it from node to node, and the write oracle behind it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use client::Client;
use host::Host;
use k8s_openapi::api::core::v1::Pod;
use model::{Tree, fence, kinds};
use serde_json::json;

use super::oracle::{self, Verdict};
use super::pods::{Pods, ready};

/// The name of the set, and the label of its pod.
const NAME: &str = "db";
/// The oracle's file on the volume.
const FILE: &str = "writes";
/// The folder of a shared volume that holds what is in it.
const DATA: &str = "data";
/// How long the next writer may take: beyond every promise.
const WRITES_PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks at the file.
const GLANCE: Duration = Duration::from_millis(2);

/// A running database.
pub struct Database {
    host: Host,
    /// Where the storage is that all nodes share.
    shared: PathBuf,
    pods: Pods,
}

impl Database {
    /// Sets it up, and waits until it writes. Its node is never the server's: whatever takes that down takes the lease of
    /// everything there with it.
    pub async fn set_up(
        client: &Client,
        host: &Host,
        namespace: &str,
        image: &str,
        shared: &Path,
    ) -> Result<Self> {
        client.create(&kinds::SERVICE, namespace, &service()).await?;
        client.create(&kinds::STATEFUL_SET, namespace, &set(image)).await?;
        let pods = Pods::follow(client, host, namespace, &format!("app={NAME}")).await?;
        let mut database = Self { host: host.clone(), shared: shared.to_owned(), pods };
        database.node().await?;
        database.writer_unlike("").await?;
        Ok(database)
    }

    /// Goes on with another client: the server was started again.
    pub async fn begin_anew(&mut self, client: &Client, namespace: &str) -> Result<()> {
        self.pods = Pods::follow(client, &self.host, namespace, &format!("app={NAME}")).await?;
        Ok(())
    }

    /// Waits until its pod is Ready; the node on which it is.
    pub async fn node(&mut self) -> Result<String> {
        self.ready_where(|_| true).await
    }

    /// Waits until it is Ready on another node, and writes there.
    pub async fn moved(&mut self, from: &str, writer: &str) -> Result<String> {
        let node = self.ready_where(|node| node != from).await?;
        self.writer_unlike(writer).await?;
        Ok(node)
    }

    async fn ready_where(&mut self, is_it: impl Fn(&str) -> bool) -> Result<String> {
        let node = |pod: &Pod| model::pod::node(pod).to_owned();
        self.pods
            .until("the database to be Ready", |pods| {
                ready(pods).into_iter().map(node).find(|node| is_it(node))
            })
            .await
    }

    /// Who wrote last; nobody before the first write.
    pub fn writer(&self) -> String {
        oracle::last_writer(&self.text()).unwrap_or_default()
    }

    /// Waits until somebody else than this one has written last.
    async fn writer_unlike(&self, before: &str) -> Result<()> {
        let writing = async {
            while [before, ""].contains(&self.writer().as_str()) {
                self.host.sleep(GLANCE).await;
            }
        };
        self.host.within(WRITES_PATIENCE, writing).await.context("the database does not write")
    }

    /// What its file says of its writes.
    pub fn verdict(&self) -> Verdict {
        oracle::judge(&self.text())
    }

    /// The file, whoever has the volume; empty before there is one.
    fn text(&self) -> String {
        let volumes = std::fs::read_dir(&self.shared).into_iter().flatten().flatten();
        let mut files = volumes.map(|volume| volume.path().join(DATA).join(FILE));
        files.find_map(|file| std::fs::read_to_string(file).ok()).unwrap_or_default()
    }
}

fn service() -> Tree {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": NAME},
        "spec": {"clusterIP": "None", "selector": {"app": NAME}},
    })
}

fn set(image: &str) -> Tree {
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let epoch = format!("metadata.annotations['{}']", fence::FENCE);
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": NAME},
        "spec": {
            "serviceName": NAME, "replicas": 1, "selector": {"matchLabels": {"app": NAME}},
            "template": {
                "metadata": {"labels": {"app": NAME}},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [
                            {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["node-1"]},
                        ]}],
                    }}},
                    "containers": [{
                        "name": NAME, "image": image, "imagePullPolicy": "IfNotPresent",
                        "command": ["/kintsugi", "tool", "oracle", format!("/data/{FILE}")],
                        "env": [
                            {"name": "EPOCH", "valueFrom": field(&epoch)},
                            {"name": "NODE", "valueFrom": field("spec.nodeName")},
                        ],
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }],
                },
            },
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "storageClassName": "shared", "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "16Mi"}},
            }}],
        },
    })
}
