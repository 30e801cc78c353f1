//! Writes a pod's status to the API: the newest one only, promptly, and again until it is there.
//!
//! The worker hands over what is to be told and never waits; what changes meanwhile replaces it. Each write names the
//! revision that it was made for: one that comes late, or twice, takes nothing back. While the node is doubted, whoever
//! doubts it says whether its pods are ready ([`status::doubted`]); when it is believed again, it tells anew.

use std::sync::Arc;
use std::time::Duration;

use client::{ClientError, PatchKind};
use host::watch;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use model::kinds as gvr;
use model::{Key, Object, Precondition, Tree};
use tokio::sync::mpsc;

use crate::agent::Agent;
use crate::status;
use crate::worker::Message;

/// The first wait after a write failed; it doubles.
const RETRY_FIRST: Duration = Duration::from_millis(50);

/// The longest wait between writes that fail: as long as anybody should have to wait after the API came back.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// After how long a status is told again over what others wrote as if for the first time.
const INSISTED_FOR: Duration = Duration::from_secs(10);

/// What is to be told.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The status; `None`: nothing yet.
    pub status: Option<Arc<PodStatus>>,
    /// Counts what was handed over.
    pub sequence: u64,
    /// The status that the API showed last, and its revision.
    pub seen: (u64, Arc<Tree>),
}

/// Whose status it is.
pub struct Whose {
    /// The pod.
    pub key: Key,
    /// Its uid.
    pub uid: String,
}

/// Writes until the worker is gone.
pub async fn run(
    agent: Arc<Agent>,
    whose: Whose,
    mut wanted: watch::Receiver<Wanted>,
    told: mpsc::Sender<Message>,
) {
    let mut acked: (u64, Arc<Tree>) = Default::default();
    let mut written: Option<Arc<PodStatus>> = None;
    let (mut insistence, mut insisted_at) = (RETRY_FIRST, agent.means.host.moment());
    let mut doubt = agent.is_doubted.subscribe();
    loop {
        tokio::select! {
            biased;
            wanted = wanted.changed() => if wanted.is_err() { return },
            // The sender is in the agent: it cannot be gone.
            Ok(()) = doubt.changed() => {}
        }
        let mut wait = RETRY_FIRST;
        loop {
            agent.heard().await;
            let is_doubted = *doubt.borrow_and_update();
            let now = wanted.borrow_and_update().clone();
            let Some(own) = &now.status else { break };
            let (revision, base) = if now.seen.0 >= acked.0 { &now.seen } else { &acked };
            let status = &match is_doubted {
                true => Arc::new(status::doubted(own, base, agent.means.host.now())),
                false => own.clone(),
            };
            // What the API made of the same words before is its way of writing them, not a difference.
            let is_known = written.as_ref() == Some(status) && **base == *acked.1;
            let Some(patch) = status::patch(base, status).filter(|_| !is_known) else {
                report(&told, now.sequence, false).await;
                break;
            };
            if written.as_ref() == Some(status) {
                // Somebody else wrote something else. Two that insist at once write in a circle, while one of them has old news.
                if agent.means.host.moment().since(insisted_at) > INSISTED_FOR {
                    insistence = RETRY_FIRST;
                }
                agent.means.host.sleep(insistence).await;
                insistence = (insistence * 2).min(RETRY_MAX);
                insisted_at = agent.means.host.moment();
                if wanted.has_changed().unwrap_or(false) || doubt.has_changed().unwrap_or(false) {
                    continue;
                }
            }
            let when = Precondition {
                uid: Some(whose.uid.clone()),
                resource_version: (*revision > 0).then(|| revision.to_string()),
            };
            let writing = agent.means.client.patch(&whose.key, "status", PatchKind::Strategic, &patch, &when);
            match writing.await {
                Ok(object) => {
                    acked = (object.revision(), Arc::new(status_of(&object)));
                    written = Some(status.clone());
                    report(&told, now.sequence, false).await;
                    break;
                }
                Err(ClientError::NotFound { .. }) => {
                    report(&told, now.sequence, true).await;
                    break;
                }
                Err(ClientError::Conflict { .. }) => match agent.means.client.get(&whose.key).await {
                    // Somebody else changed it: the same again, on what there is now.
                    Ok(object) if object.uid() == whose.uid => {
                        acked = (object.revision(), Arc::new(status_of(&object)));
                        written = None;
                    }
                    // The name leads to another object now, or to none.
                    Ok(_) | Err(ClientError::NotFound { .. }) => {
                        report(&told, now.sequence, true).await;
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(%error, pod = %whose.key, "a pod could not be read");
                        agent.means.host.sleep(wait).await;
                        wait = (wait * 2).min(RETRY_MAX);
                    }
                },
                Err(error) => {
                    tracing::debug!(%error, pod = %whose.key, "a status could not be written");
                    let refused = !error.is_passing();
                    agent.means.host.sleep(if refused { RETRY_MAX } else { wait }).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
            }
        }
    }
}

/// The status of a pod as this crate reads it.
fn status_of(object: &Object) -> Tree {
    let pod = object.view::<Pod>().unwrap_or_default();
    serde_json::to_value(&pod.status).unwrap_or_default()
}

async fn report(told: &mpsc::Sender<Message>, sequence: u64, is_gone: bool) {
    // A worker that is gone has no use for it.
    let _ = told.send(Message::Written { sequence, is_gone }).await;
}

/// The key of a pod.
pub fn pod_key(namespace: &str, name: &str) -> Key {
    Key::new(&gvr::POD, namespace, name)
}
