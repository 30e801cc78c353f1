//! How full the volumes of pods' claims are, and whether their drivers call them well: asked when somebody looks, and
//! remembered for a minute. Storage that does not answer is left out, and holds up nobody.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use host::Moment;

use crate::agent::{Agent, Shown};
use crate::csi;
use crate::files::Space;
use crate::storage::ANSWER_MAX;
use crate::volumes::{self, Claimed};

/// How long an answer is good: upstream's minute, for a driver may have to count files for it.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// How much there is of something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// What may still be used.
    pub available: u64,
    /// In all.
    pub total: u64,
    /// What is used.
    pub used: u64,
}

/// What is known of a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Its bytes.
    pub bytes: Option<Amount>,
    /// Its inodes.
    pub inodes: Option<Amount>,
    /// Whether it is abnormal, where its driver says anything of that, and what it says.
    pub condition: Option<(bool, String)>,
}

/// A volume of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// Its name in the pod.
    pub name: String,
    /// The claim behind it.
    pub claim: Option<String>,
    /// What is known of it.
    pub usage: Usage,
}

/// What was told within the last minute, by the pod's uid and the volume's name.
#[derive(Default)]
pub struct Usages {
    /// Guards what was told, for one look or change.
    told: Mutex<BTreeMap<(String, String), (Moment, Usage)>>,
}

impl Usages {
    fn known(&self, of: &(String, String), now: Moment) -> Option<Usage> {
        let told = self.told();
        let (at, usage) = told.get(of)?;
        (now.since(*at) < KEPT_FOR).then(|| usage.clone())
    }

    fn keep(&self, of: (String, String), now: Moment, usage: Usage) {
        let mut told = self.told();
        told.retain(|_, (at, _)| now.since(*at) < KEPT_FOR);
        told.insert(of, (now, usage));
    }

    fn told(&self) -> MutexGuard<'_, BTreeMap<(String, String), (Moment, Usage)>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of a pod's volumes, all asked at once.
pub async fn of(agent: &Agent, shown: &Shown) -> Vec<Volume> {
    // One that is over has given them back.
    if matches!(shown.status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Vec::new();
    }
    let claims = volumes::claimed(&shown.pod);
    let asked = shown.ground.claims.iter().map(|(name, leads)| {
        let claim = claims.get(name).cloned();
        async move {
            let usage = one(agent, shown, name, leads).await?;
            Some(Volume { name: name.clone(), claim, usage })
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

async fn one(agent: &Agent, shown: &Shown, name: &str, leads: &Claimed) -> Option<Usage> {
    let (of, now) = ((shown.pod.uid.clone(), name.to_owned()), agent.means.host.moment());
    if let Some(known) = agent.usages.known(&of, now) {
        return Some(known);
    }
    let usage = match &leads.driver {
        Some(wish) => csi::usage(agent, &shown.pod.uid, wish).await?,
        // How full a device is only its user knows.
        None if leads.is_block => return None,
        None => look(agent, &leads.path).await?,
    };
    if let Some((true, message)) = &usage.condition {
        let message = format!("Volume {name}: {message}");
        agent.events.warning(Agent::about(&shown.pod, None), "VolumeConditionAbnormal", message);
    }
    agent.usages.keep(of, now, usage.clone());
    Some(usage)
}

/// How full the file system is that a folder is on.
async fn look(agent: &Agent, path: &Path) -> Option<Usage> {
    let (files, place) = (agent.means.files.clone(), path.to_path_buf());
    let work = move || files.space(&place);
    let asked = agent.patience.ask(&agent.means.host, path, ANSWER_MAX, work).await;
    Some(of_space(&asked.ok()?.ok()?))
}

fn of_space(space: &Space) -> Usage {
    let amount = |total: u64, free: u64| Amount { available: free, total, used: total.saturating_sub(free) };
    // Some file systems make inodes as they are needed, and have no number of them.
    let inodes = (space.inodes > 0).then(|| amount(space.inodes, space.inodes_free));
    Usage { bytes: Some(amount(space.total, space.free)), inodes, condition: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_free_is_used_and_inodes_may_have_no_number() {
        let space = Space { total: 100, free: 40, inodes: 10, inodes_free: 9 };
        let amount = |available, total, used| Some(Amount { available, total, used });
        let usage = of_space(&space);
        assert_eq!((usage.bytes, usage.inodes), (amount(40, 100, 60), amount(9, 10, 1)));
        assert_eq!(of_space(&Space { inodes: 0, ..space }).inodes, None);
    }

    #[test]
    fn an_answer_is_good_for_a_minute() {
        let (usages, of) = (Usages::default(), ("u".to_owned(), "data".to_owned()));
        let at = |seconds| Moment(Duration::from_secs(seconds));
        usages.keep(of.clone(), at(10), Usage::default());
        assert_eq!(usages.known(&of, at(69)), Some(Usage::default()));
        assert_eq!(usages.known(&of, at(70)), None);
        usages.keep(("u".to_owned(), "other".to_owned()), at(90), Usage::default());
        assert_eq!(usages.told().len(), 1, "what is old is forgotten");
    }
}
