//! What the demo sees of its pods: a watch, and waiting on it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use client::{Client, Select, WatchKind, WatchStream};
use futures_util::StreamExt;
use host::Host;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use model::kinds;

/// How long any step of the story may take before the demo gives up on it: far beyond every promise.
const STEP_PATIENCE: Duration = Duration::from_secs(60);

/// The pods of one label selector, kept fresh by a watch.
pub struct Pods {
    host: Host,
    stream: WatchStream,
    pods: BTreeMap<String, Pod>,
}

impl Pods {
    /// Begins to watch.
    pub async fn follow(client: &Client, host: &Host, namespace: &str, labels: &str) -> Result<Self> {
        let stream = client.watch(&kinds::POD, namespace, &Select::labels(labels), &[]).await?;
        Ok(Self { host: host.clone(), stream, pods: BTreeMap::new() })
    }

    /// Waits until `seen` finds what it looks for among the pods.
    pub async fn until<T>(
        &mut self,
        what: &str,
        seen: impl Fn(&BTreeMap<String, Pod>) -> Option<T>,
    ) -> Result<T> {
        let host = self.host.clone();
        let waiting = async {
            loop {
                if let Some(found) = seen(&self.pods) {
                    return anyhow::Ok(found);
                }
                self.next().await?;
            }
        };
        match host.within(STEP_PATIENCE, waiting).await {
            Some(found) => found.with_context(|| format!("while waiting for {what}")),
            None => bail!("waited {} s in vain for {what}", STEP_PATIENCE.as_secs()),
        }
    }

    async fn next(&mut self) -> Result<()> {
        let event = self.stream.next().await.context("the watch ended")??;
        let object = model::Object::read(event.object)?;
        match event.kind {
            WatchKind::Added | WatchKind::Modified => {
                self.pods.insert(object.name().to_owned(), object.view()?);
            }
            WatchKind::Deleted => {
                self.pods.remove(object.name());
            }
            WatchKind::Bookmark => {}
            WatchKind::Error => bail!("the watch was refused: {}", String::from_utf8_lossy(object.bytes())),
        }
        Ok(())
    }
}

/// The pods that are Ready and not on their way out, by name.
pub fn ready(pods: &BTreeMap<String, Pod>) -> Vec<&Pod> {
    pods.values().filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod)).collect()
}

/// Whether the pod's Ready condition is True.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The status of the pod's one container.
pub fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

/// How often the pod's one container was restarted.
pub fn restarts(pod: &Pod) -> i32 {
    container(pod).map_or(0, |status| status.restart_count)
}

/// The reason for which the pod's one container waits.
pub fn waiting_reason(pod: &Pod) -> Option<&str> {
    container(pod)?.state.as_ref()?.waiting.as_ref()?.reason.as_deref()
}

/// The pod's name.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's address.
pub fn address(pod: &Pod) -> Option<std::net::IpAddr> {
    pod.status.as_ref()?.pod_ip.as_deref()?.parse().ok()
}
