//! The cluster's names on a node, wired: records from the caches, and the rules that lead the name server's address here.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use async_trait::async_trait;
use client::{Caches, Changes, Follow};
use host::{Host, Task};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use model::{Key, World, kinds};
use network::names::{Names, NamesSettings, Records, rules};
use network::{
    KernelNetwork, Network, NetworkError, NodeRoute, PodNetwork, PolicyRules, ServicePort, ServiceRules,
};

/// The label by which an EndpointSlice names its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";
/// Changes that are taken into one new snapshot: a burst is one copy, and no answer waits for more than this.
const BURST_MAX: usize = 256;

/// Serves names and keeps them fresh until it is dropped.
pub struct NameService {
    /// The rules that lead here.
    rules: Vec<ServicePort>,
    _keeping: Task<()>,
}

impl NameService {
    /// Listens on the node's address, and follows Services and EndpointSlices.
    pub async fn start(
        host: &Host,
        node: IpAddr,
        dns: IpAddr,
        domain: &str,
        caches: &Caches,
    ) -> Result<Self> {
        for gvr in [&kinds::SERVICE, &kinds::ENDPOINT_SLICE] {
            caches.follow(Follow::all(gvr));
        }
        let settings = NamesSettings {
            listen: vec![SocketAddr::new(node, 0)],
            upstreams: None,
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
        };
        let records = Records::new(domain);
        let changes = caches.changes();
        let names = Names::open(host, settings, records.clone()).await.context("cannot serve names")?;
        let listener = *names.listening().first().context("no address to serve names on")?;
        let keeping = host.spawn(keep(names, records, caches.clone(), changes));
        Ok(Self { rules: rules(dns, listener), _keeping: keeping })
    }
}

/// Takes changes into the records, a burst at a time.
async fn keep(names: Names, mut records: Records, caches: Caches, mut changes: Changes) {
    caches.synced().await;
    let mut touched: BTreeSet<(String, String)> = caches.read(|world| {
        let all = world.list(&kinds::SERVICE, "");
        all.iter().map(|service| (service.namespace().to_owned(), service.name().to_owned())).collect()
    });
    loop {
        caches.read(|world| {
            touched.iter().for_each(|(namespace, name)| renew(&mut records, world, namespace, name))
        });
        names.set(records.clone());
        touched.clear();
        touched.extend(service_of(&changes.next().await));
        while touched.len() < BURST_MAX
            && let Some(changed) = changes.try_next()
        {
            touched.extend(service_of(&changed));
        }
    }
}

/// The Service that a change is about.
fn service_of(changed: &client::Changed) -> Option<(String, String)> {
    let key: &Key = &changed.key;
    if key.gvr == kinds::SERVICE {
        return Some((key.namespace.clone(), key.name.clone()));
    }
    let object =
        changed.new.as_ref().or(changed.old.as_ref()).filter(|_| key.gvr == kinds::ENDPOINT_SLICE)?;
    let service = object.meta().labels.get(SERVICE_LABEL)?;
    Some((key.namespace.clone(), service.to_owned()))
}

fn renew(records: &mut Records, world: &dyn World, namespace: &str, name: &str) {
    let service = world.get(&Key::new(&kinds::SERVICE, namespace, name));
    let Some(service) = service.and_then(|service| service.view::<Service>().ok()) else {
        records.remove(namespace, name);
        return;
    };
    let slices: Vec<EndpointSlice> = world
        .list(&kinds::ENDPOINT_SLICE, namespace)
        .iter()
        .filter(|slice| slice.meta().labels.get(SERVICE_LABEL).is_some_and(|label| label == name))
        .filter_map(|slice| slice.view().ok())
        .collect();
    records.put(&service, &slices.iter().collect::<Vec<_>>());
}

/// The kernel's network, with the name server's address among the Services it serves.
pub struct NamedNetwork {
    /// The network itself.
    pub network: KernelNetwork,
    /// The names.
    pub names: NameService,
}

#[async_trait]
impl Network for NamedNetwork {
    async fn attach(&self, pod: PodNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        self.network.attach(pod).await
    }
    async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        self.network.detach(pod_uid).await
    }
    async fn attached(&self) -> Result<Vec<(String, Vec<IpAddr>)>, NetworkError> {
        self.network.attached().await
    }
    async fn serve(&self, mut rules: ServiceRules) -> Result<(), NetworkError> {
        rules.ports.extend(self.names.rules.iter().cloned());
        rules.ports.sort();
        self.network.serve(rules).await
    }
    async fn guard(&self, rules: PolicyRules) -> Result<(), NetworkError> {
        self.network.guard(rules).await
    }
    async fn route(&self, routes: Vec<NodeRoute>) -> Result<(), NetworkError> {
        self.network.route(routes).await
    }
}
