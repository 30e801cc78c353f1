//! What a node does for volumes beside mounting them: removes the data of those that are given up, attaches shared
//! storage under its epoch, and lets it go on its own word.
//!
//! Promises: nothing is removed that a claim still has; nothing is let go that a pod here still uses; storage that
//! does not answer holds up nothing but what asks for it.

use std::sync::Arc;
use std::time::Duration;

use client::{ClientError, PatchKind};
use futures_util::future::join_all;
use host::watch;
use model::kinds as gvr;
use model::storage::{DATA_FINALIZER, LOCAL, SHARED};
use model::{EventNote, Key, Object, Precondition};
use serde_json::json;

use crate::agent::Agent;
use crate::backoff;
use crate::jobs::spelled;

mod duties;
pub mod folder;
pub mod health;
mod patience;
pub mod shared;

pub use health::Health;
pub use patience::Patience;

use duties::Duty;

/// How long storage may take for one small act before it counts as silent: far more than a loaded disk needs.
pub const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long the removal of a volume's data is waited for before others are looked at; it goes on meanwhile.
const REMOVAL_MAX: Duration = Duration::from_secs(60);

/// Does what is due until the agent ends.
pub async fn keep(agent: Arc<Agent>, mut news: watch::Receiver<()>) {
    let mut failures = 0;
    loop {
        let due = agent.means.caches.read(|world| {
            let in_use = |handle: &str| shared::is_in_use(&agent, handle);
            duties::due(world, &agent.settings.node_name, in_use)
        });
        let ends = join_all(due.iter().map(|duty| perform(&agent, duty))).await;
        let has_failed = ends.contains(&false);
        failures = if has_failed { failures + 1 } else { 0 };
        let wait = has_failed.then(|| backoff::trouble_wait(failures));
        tokio::select! {
            biased;
            changed = news.changed() => if changed.is_err() { return },
            () = agent.unused.notified() => {}
            () = agent.rest(wait) => {}
        }
    }
}

/// Does one thing; says whether it is done.
async fn perform(agent: &Agent, duty: &Duty) -> bool {
    match duty {
        Duty::Remove { volume } => remove(agent, volume).await,
        Duty::Attach { attachment, handle } => shared::attach(agent, attachment, handle).await,
        Duty::Detach { attachment } => shared::detach(agent, attachment).await,
    }
}

async fn remove(agent: &Agent, volume: &Object) -> bool {
    let done = match remove_data(agent, volume).await {
        Ok(()) => {
            let_go(agent, &Key::new(&gvr::PERSISTENT_VOLUME, "", volume.name()), volume, DATA_FINALIZER)
                .await
                .map_err(|error| spelled(&error))
        }
        Err(why) => Err(why),
    };
    if let Err(why) = &done {
        let note = EventNote::normal(
            volume,
            &gvr::PERSISTENT_VOLUME,
            "PersistentVolume",
            "VolumeFailedDelete",
            why.clone(),
        );
        agent.events.note(note.warning());
    }
    done.is_ok()
}

async fn remove_data(agent: &Agent, volume: &Object) -> Result<(), String> {
    let tree = volume.tree().map_err(|error| spelled(&error))?;
    let spec = &tree["spec"];
    if spec["persistentVolumeReclaimPolicy"] != "Delete" {
        return Ok(());
    }
    let handle = spec["csi"]["volumeHandle"].as_str().unwrap_or_default().to_owned();
    let root = match spec["csi"]["driver"].as_str() {
        Some(LOCAL) => folder::local_root(agent),
        Some(SHARED) => shared::root(agent)?,
        _ => return Err("not a volume of a built-in driver".to_owned()),
    };
    let (files, place) = (agent.means.files.clone(), root.clone());
    let work = move || folder::remove(&*files, &place, &handle);
    agent
        .patience
        .ask(&agent.means.host, &root, REMOVAL_MAX, work)
        .await
        .map_err(|silent| silent.to_string())?
}

/// Takes a finalizer away from an object, as it was seen.
async fn let_go(agent: &Agent, key: &Key, object: &Object, finalizer: &str) -> Result<(), ClientError> {
    let left: Vec<&String> = object.meta().finalizers.iter().filter(|held| *held != finalizer).collect();
    let patch = json!({"metadata": {"finalizers": left}});
    let when = Precondition::exactly(object);
    match agent.means.client.patch(key, "", PatchKind::Merge, &patch, &when).await {
        Err(error) if !matches!(error, ClientError::NotFound { .. }) => Err(error),
        _ => Ok(()),
    }
}
