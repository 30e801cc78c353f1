//! Whether the storage that pods here use answers: looked at all the time, since nobody tells when it falls silent.
//!
//! A look asks what a program would: how full the file system is, and whether it takes a change, by taking away an
//! attribute that is not there. Nothing is changed by it. One that does not come back says so by staying away, and no
//! other is sent after it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use host::watch;

use crate::agent::Agent;

/// How often storage is looked at: a silence is found within twice this. Double would show in how long users wonder;
/// half would find disks asleep no better.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// How long an answer may take before the storage counts as silent: far more than a loaded disk needs.
const SILENT_AFTER: Duration = Duration::from_secs(2);

/// The storage that pods use, and which of it is silent.
#[derive(Default)]
pub struct Health {
    /// The places that pods use, by the pods' uids. Guards them for one look or change.
    used: Mutex<BTreeMap<String, BTreeSet<PathBuf>>>,
    /// The pods whose storage is silent, and what is to be said of it.
    pub silent: watch::Sender<BTreeMap<String, String>>,
}

impl Health {
    /// A pod is about to use this.
    pub fn uses(&self, pod_uid: &str, place: PathBuf) {
        self.used().entry(pod_uid.to_owned()).or_default().insert(place);
    }

    /// A pod uses nothing any more.
    pub fn forget(&self, pod_uid: &str) {
        self.used().remove(pod_uid);
    }

    fn used(&self) -> MutexGuard<'_, BTreeMap<String, BTreeSet<PathBuf>>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks until the agent ends.
pub async fn keep(agent: Arc<Agent>) {
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    loop {
        agent.means.host.sleep(LOOK_EVERY).await;
        let used = agent.health.used().clone();
        let places: BTreeSet<PathBuf> = used.values().flatten().cloned().collect();
        join_all(places.iter().map(|place| look(&agent, place))).await;
        let now = agent.means.host.now();
        let silences: BTreeMap<PathBuf, String> = places
            .into_iter()
            .filter_map(|place| {
                let why = agent.patience.silent(&place, SILENT_AFTER, now)?.to_string();
                Some((place, why))
            })
            .collect();
        let silent: BTreeSet<PathBuf> = silences.keys().cloned().collect();
        if silent == known {
            continue;
        }
        for place in silent.difference(&known) {
            tracing::warn!(place = %place.display(), "storage is silent");
        }
        for place in known.difference(&silent) {
            tracing::info!(place = %place.display(), "storage answers again, or nobody uses it any more");
        }
        let of_pod = |(uid, places): (String, BTreeSet<PathBuf>)| {
            let why = places.iter().find_map(|place| silences.get(place))?;
            Some((uid, why.clone()))
        };
        agent.health.silent.send_replace(used.into_iter().filter_map(of_pod).collect());
        known = silent;
    }
}

/// Asks one place, unless it is asked already.
async fn look(agent: &Agent, place: &Path) {
    if agent.patience.is_waiting(place) {
        return;
    }
    let (files, at) = (agent.means.files.clone(), place.to_path_buf());
    // What it says is not of interest: that it says something is.
    let _ = agent.patience.ask(&agent.means.host, place, SILENT_AFTER, move || files.touch(&at)).await;
}
