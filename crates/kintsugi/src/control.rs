//! The control plane, wired: store, API, controllers and scheduler. The simulator wires the very same.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use api::Service;
use api::auth::Identity;
use client::{Caches, Client, Peers};
use engine::Elector;
use host::{Host, Task, watch};
use model::fence::Terms;
use store::{Form, Limits, Store};
use tokio::sync::oneshot;

use crate::local::Local;
use crate::vault::Vault;

/// The user as which the controllers act.
pub const CONTROLLERS: &str = "kube-controller-manager";
/// The user as which the scheduler acts.
const SCHEDULER: &str = "kube-scheduler";

/// A running control plane; it ends when it is dropped.
pub struct Control {
    /// The API.
    pub service: Service,
    /// What the loops see.
    pub caches: Caches,
    /// The loops; `None` once they rest.
    engine: Option<Task<()>>,
    election: Option<Election>,
}

/// Taking part in the election of who runs the loops.
struct Election {
    resign: oneshot::Sender<()>,
    elector: Task<()>,
}

impl Control {
    /// Ends the loops, and lets another server have them at once where there is one; the API is served as before.
    ///
    /// A server that stops does this before anything else: while it finishes what is under way its own node is silent already,
    /// and nobody may judge it for that.
    pub async fn rest(&mut self) {
        self.engine = None;
        if let Some(Election { resign, elector }) = self.election.take() {
            // An elector that has ended has nothing to let go of.
            let _ = resign.send(());
            elector.join().await;
        }
    }
}

/// Opens the store of a control plane.
pub async fn open_store(host: &Host, dir: PathBuf) -> Result<Store> {
    let doing = format!("cannot open the store in {}", dir.display());
    Store::open(host, dir, api::tagger(), Limits::default()).await.context(doing)
}

/// Opens the store of a control plane, in which what is secret is sealed on the disk.
pub async fn open_sealed(host: &Host, dir: PathBuf, vault: Arc<Vault>) -> Result<Store> {
    let doing = format!("cannot open the store in {}", dir.display());
    Store::open(host, dir, form(vault), Limits::default()).await.context(doing)
}

/// How the store of a control plane lies on the disk.
pub fn form(vault: Arc<Vault>) -> Form {
    Form { tagger: api::tagger(), sealer: Some(vault) }
}

/// Starts the API over a store and the loops over the API.
pub fn start(
    host: &Host,
    store: Store,
    settings: api::Settings,
    peers: Arc<dyn Peers>,
    terms: Terms,
) -> impl Future<Output = Result<Control>> {
    let candidate = store.is_shared().then(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim().to_owned()
    });
    start_as(host, store, settings, peers, terms, candidate)
}

/// The same, where others may run the loops over this store: as this candidate.
pub async fn start_as(
    host: &Host,
    store: Store,
    settings: api::Settings,
    peers: Arc<dyn Peers>,
    terms: Terms,
    candidate: Option<String>,
) -> Result<Control> {
    let service =
        Service::open(host.clone(), store, settings).await.context("cannot begin to serve the API")?;
    let (election, leads) = candidate.map(|name| stand(host, &service, &name)).unzip();
    let (caches, engine) = lead(host, &service, peers, terms, leads);
    Ok(Control { service, caches, engine: Some(engine), election })
}

/// Takes part in the election of who runs the loops.
fn stand(host: &Host, service: &Service, name: &str) -> (Election, watch::Receiver<bool>) {
    let client = client(service, Identity::component(CONTROLLERS), "leader-election");
    let (elector, leads) = Elector::new(client, host.clone(), name);
    let (resign, resigned) = oneshot::channel();
    let resigned = async {
        // Nobody left who could say so: it ends as well.
        let _ = resigned.await;
    };
    (Election { resign, elector: host.spawn(elector.run(resigned)) }, leads)
}

/// Starts the loops over the API, and the caches that they see it by; where others may lead, they run while `leads` says so.
/// They end when the task is dropped.
pub fn lead(
    host: &Host,
    service: &Service,
    peers: Arc<dyn Peers>,
    terms: Terms,
    leads: Option<watch::Receiver<bool>>,
) -> (Caches, Task<()>) {
    let clients = {
        let service = service.clone();
        Arc::new(move |component: &str| {
            let user = if component == engine::SCHEDULER { SCHEDULER } else { CONTROLLERS };
            client(&service, Identity::component(user), component)
        })
    };
    let caches = Caches::new(client(service, Identity::component(CONTROLLERS), CONTROLLERS), host.clone());
    let mut setup = engine::Setup::new(clients, caches.clone(), host.clone(), peers, terms);
    if let Some(leads) = leads {
        setup.lead = leads;
    }
    let metrics = setup.metrics.clone();
    service.tell_metrics(Box::new(move || metrics.text()));
    // Whoever holds the other end sees when the loops end, for whatever reason.
    let (running, runs) = watch::channel(());
    service.tell_loops(Box::new(move || match runs.has_changed() {
        Ok(_) => Ok(()),
        Err(_) => Err("the loops of this server have ended".to_owned()),
    }));
    let engine = async move {
        engine::run(setup, std::future::pending()).await;
        drop(running);
    };
    (caches, host.spawn(engine))
}

/// A client in this process.
pub fn client(service: &Service, identity: Identity, agent: &str) -> Client {
    Client::new(Arc::new(Local::new(service.clone(), identity)), agent)
}
