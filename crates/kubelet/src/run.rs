//! One agent: takes over what runs here, gives each pod of this node an owner, and hands on what happens.
//!
//! Nothing is polled: pods come by watch, ends of containers from the runtime. When it stops, containers run on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use client::{Changed, Follow};
use host::Tasks;
use host::watch;
use model::fence::pod_epoch;
use model::kinds as gvr;
use model::{Key, Object, World};
use runtime::{RuntimeEvent, Sandbox};

use crate::agent::Agent;
use crate::environment::NodeFacts;
use crate::events::Events;
use crate::farewell::{self, Farewell, Stop};
use crate::fence::{self, Fence};
use crate::memory::PodMemory;
use crate::pod::PodView;
use crate::settings::{KubeletError, Means, Settings};
use crate::worker::{self, Handle, Message};
use crate::{csi, image_space, jobs, lease, node, policies, server, services, starts, storage};

/// How often a sandbox without a pod is tried to be removed before it is left to the next start of an agent.
const SWEEPS_MAX: u32 = 20;

/// Runs an agent until `shutdown` ends; what that says decides whether the containers stay.
pub async fn run(
    settings: Settings,
    means: Means,
    shutdown: impl Future<Output = Stop> + Send,
) -> Result<(), KubeletError> {
    let told = client::Events::new(means.client.clone(), "kubelet", &settings.node_name, means.host.clone());
    let listening = server::listen(&settings).await?;
    let port = listening.as_ref().map_or(0, |listening| listening.port);
    let fence = {
        let (host, dir) = (means.host.clone(), settings.data_dir.clone());
        let (name, boot, terms) =
            (settings.node_name.clone(), settings.machine.boot_id.clone(), settings.terms);
        let open = move || Fence::open(&host, &dir, &name, &boot, terms);
        Arc::new(means.host.blocking(open).await.map_err(KubeletError::Fence)?)
    };
    let facts = NodeFacts {
        name: settings.node_name.clone(),
        addresses: settings.node_addresses.clone(),
        allocatable: settings.machine.allocatable,
    };
    let agent = Arc::new(Agent {
        settings,
        means,
        events: Events::new(told),
        tokens: Default::default(),
        registry: Default::default(),
        wanted: Default::default(),
        node: facts,
        patience: Default::default(),
        health: Default::default(),
        csi: Default::default(),
        unused: Default::default(),
        is_leased: watch::Sender::new(false),
        is_doubted: watch::Sender::new(false),
        farewell: watch::Sender::new(Farewell::Stays),
        fence,
        usages: Default::default(),
        starts: Default::default(),
    });
    agent.means.voice.send_replace(Some(Arc::downgrade(&agent)));
    let mut tasks = Tasks::new();
    if let Some(listening) = listening {
        tasks.spawn(server::serve(agent.clone(), listening));
    }
    let kept = keep(agent.clone(), port, &mut tasks);
    tokio::pin!(shutdown, kept);
    let stop = tokio::select! {
        biased;
        stop = &mut shutdown => stop,
        ended = &mut kept => return ended,
    };
    if stop == Stop::Stay {
        return Ok(());
    }
    tokio::select! {
        biased;
        () = farewell::leave(&agent) => Ok(()),
        ended = &mut kept => ended,
    }
}

/// The owners of the pods here.
struct Pods {
    agent: Arc<Agent>,
    handles: BTreeMap<String, Handle>,
    /// Sandboxes found at the start that no pod has claimed yet.
    unclaimed: BTreeMap<String, Found>,
}

struct Found {
    sandbox: Sandbox,
    addresses: Vec<std::net::IpAddr>,
}

async fn keep(agent: Arc<Agent>, port: u16, tasks: &mut Tasks) -> Result<(), KubeletError> {
    let caches = agent.means.caches.clone();
    let mut changes = caches.changes();
    let mut events = agent.means.runtime.events();
    for what in [
        Follow::fields(&gvr::POD, format!("spec.nodeName={}", agent.settings.node_name)),
        Follow::all(&gvr::SERVICE),
        Follow::all(&gvr::ENDPOINT_SLICE),
        Follow::all(&gvr::NODE),
        Follow::all(&gvr::VOTER_SET),
        Follow::all(&gvr::PERSISTENT_VOLUME),
        Follow::all(&gvr::VOLUME_ATTACHMENT),
        Follow::all(&gvr::CSI_DRIVER),
    ] {
        caches.follow(what);
    }
    let (node_news, node_seen) = watch::channel(());
    let (rule_news, rules_seen) = watch::channel(());
    tasks.spawn(node::keep(agent.clone(), port, node_seen));
    let (volume_news, volumes_seen) = watch::channel(());
    let unclaimed = find(&agent).await?;
    // Not before what runs here is known: the monitors are told by it.
    tasks.spawn(lease::keep(agent.clone()));
    tasks.spawn(fence::keep(agent.clone()));
    let mut epochs = agent.fence.epochs();
    let mut pods = Pods { agent: agent.clone(), handles: BTreeMap::new(), unclaimed };
    caches.synced().await;
    tasks.spawn(services::keep(agent.clone(), rules_seen));
    if let Some(marks) = agent.settings.image_marks {
        tasks.spawn(image_space::keep(agent.clone(), marks));
    }
    if agent.settings.has_policies {
        tasks.spawn(policies::keep(agent.clone()));
    }
    tasks.spawn(starts::keep(agent.clone()));
    tasks.spawn(storage::keep(agent.clone(), volumes_seen));
    tasks.spawn(storage::health::keep(agent.clone()));
    tasks.spawn(csi::keep(agent.clone()));
    tasks.spawn(csi::node::keep(agent.clone()));
    tasks.spawn(csi::register::keep(agent.clone()));
    let mut drivers = agent.csi.drivers.subscribe();
    let mut silences = agent.health.silent.subscribe();
    let mut farewells = agent.farewell.subscribe();
    pods.begin(tasks);
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Some(event) => pods.take_event(event).await,
                // The runtime feeds somebody else now: there is nobody left to serve here.
                None => std::future::pending().await,
            },
            Ok(()) = epochs.changed() => pods.begin(tasks),
            // Without its lease, say, an agent is worse than none: it goes wrong as a whole, and is started again.
            () = tasks.failed() => {}
            Ok(()) = drivers.changed() => pods.take_volume().await,
            Ok(()) = silences.changed() => pods.take_silence().await,
            Ok(()) = farewells.changed() => pods.take_farewell().await,
            changed = changes.next() => {
                if changed.key.gvr == gvr::POD {
                    pods.take_pod(changed).await;
                } else if changed.key.gvr == gvr::CONFIG_MAP || changed.key.gvr == gvr::SECRET {
                    pods.take_source(&changed).await;
                } else if changed.key.gvr == gvr::NODE {
                    if changed.key.name == agent.settings.node_name {
                        agent.look_at_node();
                        node_news.send_replace(());
                    }
                    rule_news.send_replace(());
                } else if changed.key.gvr == gvr::PERSISTENT_VOLUME || changed.key.gvr == gvr::VOLUME_ATTACHMENT {
                    volume_news.send_replace(());
                    pods.take_volume().await;
                } else {
                    rule_news.send_replace(());
                }
            }
        }
    }
}

/// What runs here, by the uid of its pod.
async fn find(agent: &Agent) -> Result<BTreeMap<String, Found>, KubeletError> {
    let sandboxes = agent.means.runtime.sandboxes().await.map_err(KubeletError::Runtime)?;
    agent.fence.adopt(&sandboxes);
    let attached = match agent.means.network.attached().await {
        Ok(attached) => attached.into_iter().collect::<BTreeMap<_, _>>(),
        Err(error) => {
            tracing::warn!(%error, "the network does not say which pods have addresses");
            BTreeMap::new()
        }
    };
    let found = sandboxes.into_iter().map(|sandbox| {
        let uid = sandbox.spec.pod_uid.clone();
        let addresses = match sandbox.spec.host_network {
            true => agent.settings.node_addresses.clone(),
            false => attached.get(&uid).cloned().unwrap_or_default(),
        };
        (uid, Found { sandbox, addresses })
    });
    Ok(found.collect())
}

impl Pods {
    /// Gives every pod its owner, and removes what belongs to none.
    fn begin(&mut self, tasks: &mut Tasks) {
        for object in self.agent.means.caches.list(&gvr::POD, "") {
            if !self.handles.contains_key(object.uid()) {
                self.own(&object);
            }
        }
        let mut left: BTreeSet<String> = std::mem::take(&mut self.unclaimed).into_keys().collect();
        // After a boot there are files of pods without a sandbox, too. Those of a pod whose epoch may yet turn out to go
        // on are left to its owner.
        let known = self.agent.fence.epoch();
        let may_go_on =
            |pod: &Object| pod_epoch(pod).is_some_and(|epoch| known.is_none_or(|known| known <= epoch));
        let bound = self.agent.means.caches.list(&gvr::POD, "");
        let waiting: BTreeSet<&str> =
            bound.iter().filter(|pod| may_go_on(pod)).map(|pod| pod.uid()).collect();
        let files = self.agent.means.files.list(&self.agent.settings.root().pods());
        let files = files.unwrap_or_default().into_iter();
        left.extend(files.filter(|uid| !self.handles.contains_key(uid) && !waiting.contains(uid.as_str())));
        for uid in left {
            tasks.spawn(sweep(self.agent.clone(), uid));
        }
    }

    fn own(&mut self, object: &Object) {
        // Whoever bound it had not heard yet that the node leaves. Another one will have it when this one is silent.
        if *self.agent.farewell.borrow() != Farewell::Stays {
            return;
        }
        let pod = match PodView::read(object) {
            Ok(pod) => pod,
            Err(error) => {
                tracing::warn!(%error, pod = object.name(), "a pod cannot be read");
                return;
            }
        };
        if pod.spec().node_name.as_deref() != Some(self.agent.settings.node_name.as_str()) {
            return;
        }
        // Bound to an epoch that is over, or that has not begun as far as is known: it is not run, and what is left of it
        // goes. Whoever leads releases it.
        if fence::epoch_of(&pod).is_some_and(|epoch| self.agent.fence.epoch() != Some(epoch)) {
            return;
        }
        let mut memory = PodMemory::default();
        match self.unclaimed.remove(&pod.uid) {
            Some(found) => memory.adopt(&pod, &found.sandbox, found.addresses, self.agent.means.host.now()),
            None => recall(&pod, &mut memory, self.agent.means.host.now()),
        }
        let uid = pod.uid.clone();
        self.handles.insert(uid, worker::start(self.agent.clone(), pod, memory));
    }

    async fn take_pod(&mut self, changed: Changed) {
        let (old, new) = (changed.old, changed.new);
        if let Some(old) = old.filter(|old| new.as_ref().is_none_or(|new| new.uid() != old.uid())) {
            self.tell(old.uid(), Message::Vanished).await;
        }
        self.handles.retain(|_, handle| !handle.task.is_ended() || !handle.is_forgotten);
        let Some(object) = new else { return };
        match self.handles.get(object.uid()) {
            None => self.own(&object),
            Some(_) => {
                if let Ok(view) = PodView::read(&object) {
                    self.tell(object.uid(), Message::Pod(Box::new(view))).await;
                }
            }
        }
    }

    async fn take_event(&mut self, event: RuntimeEvent) {
        let uid = match &event {
            RuntimeEvent::Exited { container, .. } => container.pod_uid.clone(),
            RuntimeEvent::MonitorLost { pod_uid } => pod_uid.clone(),
        };
        self.tell(&uid, Message::Runtime(event)).await;
    }

    async fn take_source(&mut self, changed: &Changed) {
        let all: BTreeSet<String> = self.handles.keys().cloned().collect();
        for uid in all {
            self.tell(&uid, Message::Source(changed.key.clone(), changed.new.clone())).await;
        }
    }

    /// A volume or an attachment changed: pods that could not have theirs may try again.
    async fn take_volume(&mut self) {
        let all: Vec<String> = self.handles.keys().cloned().collect();
        for uid in all {
            self.tell(&uid, Message::Volumes).await;
        }
    }

    /// The storage of some pods fell silent, or answers again.
    async fn take_silence(&mut self) {
        let silent = self.agent.health.silent.borrow().clone();
        let all: Vec<String> = self.handles.keys().cloned().collect();
        for uid in all {
            self.tell(&uid, Message::Silence(silent.get(&uid).cloned())).await;
        }
    }

    /// The node leaves: its pods are to end.
    async fn take_farewell(&mut self) {
        let all: Vec<String> = self.handles.keys().cloned().collect();
        for uid in all {
            self.tell(&uid, Message::Farewell).await;
        }
    }

    async fn tell(&mut self, uid: &str, message: Message) {
        if let Some(handle) = self.handles.get_mut(uid) {
            handle.is_forgotten |= matches!(message, Message::Vanished);
            // An owner that has ended has nothing left to learn.
            let _ = handle.sender.send(message).await;
        }
    }
}

/// Takes from the API what ran of a pod before this machine started anew: nothing of it is here.
fn recall(pod: &PodView, memory: &mut PodMemory, now: host::Time) {
    if matches!(pod.phase(), "Succeeded" | "Failed") {
        memory.is_settled = true;
        return;
    }
    let Some(status) = &pod.pod.status else { return };
    memory.started_at = status.start_time.as_ref().map(|time| time.0);
    memory.recall(pod, now);
}

/// Removes what belongs to no pod.
async fn sweep(agent: Arc<Agent>, uid: String) {
    for failures in 1..=SWEEPS_MAX {
        match jobs::remove(&agent, &uid).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(error, uid, "a sandbox without a pod could not be removed"),
        }
        agent.means.host.sleep(crate::backoff::trouble_wait(failures)).await;
    }
}

/// The key of this agent's Node.
pub fn node_key(agent: &Agent) -> Key {
    Key::new(&gvr::NODE, "", agent.settings.node_name.clone())
}
