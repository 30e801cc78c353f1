//! What all parts of one agent share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Caches, Follow};
use host::watch;
use k8s_openapi::api::core::v1::{PodStatus, Service};
use model::kinds as gvr;
use model::{Key, World};
use tokio::sync::Notify;

use crate::ask::Asker;
use crate::csi::Csi;
use crate::environment::NodeFacts;
use crate::events::{About, Events};
use crate::farewell::Farewell;
use crate::fence::Fence;
use crate::jobs::Ground;
use crate::pod::PodView;
use crate::resources::Taken;
use crate::settings::{Means, Settings};
use crate::starts::Starts;
use crate::storage::{Health, Patience};
use crate::tokens::Tokens;
use crate::usage::Usages;

/// How long the state of a pod waits for its node to be heard: the lease is renewed within milliseconds where that is
/// possible, and where it is not, a state that is doubted is better than none.
const HEARD_WAIT_MAX: Duration = Duration::from_secs(2);

/// What all parts of one agent share.
pub struct Agent {
    /// What it was told.
    pub settings: Settings,
    /// What it works with.
    pub means: Means,
    /// Where it tells events.
    pub events: Events,
    /// Tokens that were had.
    pub tokens: Tokens,
    /// The pods here, for whoever asks.
    pub registry: Registry,
    /// The ConfigMaps and Secrets that are followed for pods.
    pub wanted: Wanted,
    /// What pods may be told of the node.
    pub node: NodeFacts,
    /// Asks storage that may not answer.
    pub patience: Patience,
    /// Whether the storage that pods use answers.
    pub health: Health,
    /// Drivers of storage, and their volumes.
    pub csi: Csi,
    /// Told when a pod's files are gone: volumes that waited for that may be let go.
    pub unused: Notify,
    /// Whether the lease was renewed when it was last tried.
    pub is_leased: watch::Sender<bool>,
    /// Whether the API tells that nothing is known of this node, as far as is known here.
    pub is_doubted: watch::Sender<bool>,
    /// Whether the node leaves, and how far it is.
    pub farewell: watch::Sender<Farewell>,
    /// What its lease lets it run.
    pub fence: Arc<Fence>,
    /// How full volumes are.
    pub usages: Usages,
    /// Whose turn it is to start.
    pub starts: Arc<Starts>,
}

impl Agent {
    /// Sleeps so long; for ever when there is nothing to wait for.
    pub async fn rest(&self, wait: Option<Duration>) {
        match wait {
            Some(wait) => self.means.host.sleep(wait).await,
            None => std::future::pending().await,
        }
    }

    /// What asks probes and hooks.
    pub fn asker(&self) -> Asker {
        Asker {
            host: self.means.host.clone(),
            runtime: self.means.runtime.clone(),
            dial: self.means.dial.clone(),
        }
    }

    /// What the pods here were given that still run, but for one.
    pub fn taken_by_others(&self, uid: &str) -> Taken {
        let others = self.registry.all();
        let others = others.iter().filter(|shown| {
            let phase = shown.status.phase.as_deref();
            shown.pod.uid != uid && !matches!(phase, Some("Succeeded" | "Failed"))
        });
        others.fold(Taken::default(), |taken, shown| taken.and(&shown.pod))
    }

    /// The Services that a pod of this namespace may be told of.
    pub fn services(&self, namespace: &str) -> Vec<Service> {
        let objects = self.means.caches.read(|world| {
            let mut all = world.list(&gvr::SERVICE, namespace);
            if namespace != "default" {
                all.extend(world.get(&Key::new(&gvr::SERVICE, "default", "kubernetes")));
            }
            all
        });
        objects.iter().filter_map(|object| object.view().ok()).collect()
    }

    /// Waits until this node is heard, or it is known that it is doubted. But not for long.
    ///
    /// Told between the two, the state of its pods would be doubted at once.
    pub async fn heard(&self) {
        let (mut leased, mut doubted) = (self.is_leased.subscribe(), self.is_doubted.subscribe());
        let heard = async {
            // The senders are in this very agent: they cannot be gone.
            tokio::select! {
                biased;
                _ = leased.wait_for(|is_leased| *is_leased) => {}
                _ = doubted.wait_for(|is_doubted| *is_doubted) => {}
            }
        };
        self.means.host.within(HEARD_WAIT_MAX, heard).await;
    }

    /// Takes note of whether this node is doubted.
    pub fn look_at_node(&self) {
        let is_doubted = self.is_told_unknown();
        if *self.is_doubted.borrow() != is_doubted {
            self.is_doubted.send_replace(is_doubted);
        }
    }

    fn is_told_unknown(&self) -> bool {
        let node = self.means.caches.get(&crate::run::node_key(self));
        let told = node.and_then(|node| node.seen::<ToldNode>());
        told.is_some_and(|told| {
            told.status.conditions.iter().any(|one| one.kind == "Ready" && one.status == "Unknown")
        })
    }

    /// Whom an event about a pod, or one of its containers, is about.
    pub fn about(pod: &PodView, container: Option<&str>) -> About {
        let field = container.map(|name| {
            let list = match pod.member(name).map(|member| member.role) {
                Some(crate::pod::Role::Init | crate::pod::Role::Sidecar) => "initContainers",
                Some(crate::pod::Role::Ephemeral) => "ephemeralContainers",
                _ => "containers",
            };
            format!("spec.{list}{{{name}}}")
        });
        About {
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            field: field.unwrap_or_default(),
        }
    }
}

/// What is read of this agent's own Node.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct ToldNode {
    status: ToldStatus,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct ToldStatus {
    conditions: Vec<ToldCondition>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct ToldCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

/// The ConfigMaps and Secrets that pods here use, each followed as long as one does.
#[derive(Default)]
pub struct Wanted {
    /// Guards the counts for the length of one change.
    counts: Mutex<BTreeMap<Key, usize>>,
}

impl Wanted {
    /// One more pod uses it.
    pub fn add(&self, caches: &Caches, key: &Key) {
        let mut counts = self.counts();
        let count = counts.entry(key.clone()).or_default();
        *count += 1;
        if *count == 1 {
            caches.follow(Follow::one(key));
        }
    }

    /// One pod less uses it.
    pub fn drop(&self, caches: &Caches, key: &Key) {
        let mut counts = self.counts();
        if let Some(count) = counts.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(key);
                caches.unfollow(&Follow::one(key));
            }
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Key, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pods here, as their workers last showed them.
#[derive(Default)]
pub struct Registry {
    /// Guards the pods for the length of one look or insertion.
    pods: Mutex<BTreeMap<String, Arc<Shown>>>,
}

/// A pod as its worker last showed it.
pub struct Shown {
    /// The pod.
    pub pod: PodView,
    /// Its status.
    pub status: Arc<PodStatus>,
    /// What its containers stand on.
    pub ground: Arc<Ground>,
    /// The runs of its containers: name, number, id, oldest first.
    pub runs: Vec<(String, u32, runtime::ContainerRef)>,
}

impl Registry {
    /// Shows a pod.
    pub fn show(&self, shown: Shown) {
        self.pods().insert(shown.pod.uid.clone(), Arc::new(shown));
    }

    /// Shows a pod no longer.
    pub fn hide(&self, uid: &str) {
        self.pods().remove(uid);
    }

    /// The pod of this name; of several, the one that is not being deleted.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Shown>> {
        let pods = self.pods();
        let named = pods.values().filter(|shown| shown.pod.namespace == namespace && shown.pod.name == name);
        named.min_by_key(|shown| shown.pod.deleted_at.is_some()).cloned()
    }

    /// All pods, in the order of their uids.
    pub fn all(&self) -> Vec<Arc<Shown>> {
        self.pods().values().cloned().collect()
    }

    fn pods(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Shown>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
