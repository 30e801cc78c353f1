//! The network of one node, in the kernel: routed veth pairs, packet rules, routes to other nodes.
//!
//! Everything is named by the cluster's prefix and found again by it: a restarted agent opens what is there. It
//! lives in the network namespace of the process that opens it.

mod addresses;
mod attach;
mod tunnel;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use host::{Host, Tasks, watch};

use crate::links::{Links, Route, Steps, route_metric};
use crate::policies::Guard;
use crate::services::{Packets, Place};
use crate::{Cidr, Network, NetworkError, NodeRoute, PodNetwork, PolicyRules, ServiceRules, failed};
use addresses::Addresses;
pub(crate) use addresses::pod_addresses;
use tunnel::Tunnel;

/// The largest packet where the way out says nothing else.
const MTU_DEFAULT: u32 = 1500;

/// Where a node is in its cluster, and what its things are called.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The node's folder; the network remembers its pods in `run/network` under it.
    pub data_dir: PathBuf,
    /// The short name of the cluster, see [`crate::links::prefix_of`].
    pub name_prefix: String,
    /// The range this node's pods get their addresses from.
    pub pod_cidr: Cidr,
    /// The range of all pods of the cluster.
    pub cluster_cidr: Cidr,
    /// The range of the Services' virtual addresses.
    pub service_cidr: Cidr,
    /// The node's own address, by which other nodes reach it.
    pub node_ip: Ipv4Addr,
    /// The largest packet of pods; `None` takes that of the way out.
    pub mtu: Option<u32>,
}

/// How often the routes to other nodes are looked at although nobody asked for a change: whoever took one away, or moved
/// a node behind a router, is mended within this. A look is three lists of the kernel's.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long after a change of the rules connections are looked for that nobody answers: by then all are answered that were
/// on their way to an endpoint that lives, and no client's kernel has tried a second time (after a second).
const ANSWERED_WITHIN: Duration = Duration::from_millis(250);

/// The kernel's network. Dropping it leaves everything in place.
pub struct KernelNetwork {
    host: Host,
    inner: Arc<Inner>,
    /// Told when endpoints have left.
    left: watch::Sender<()>,
    /// Mends the routes, and forgets connections; ends with it.
    _mending: Tasks,
}

struct Inner {
    settings: Settings,
    mtu: u32,
    /// The node's address, if it is one of this namespace: the kernel refuses others as a source.
    node_source: Option<Ipv4Addr>,
    /// The way to nodes that share no link with this one.
    tunnel: Tunnel,
    /// The routes that were asked for last; held while they are carried out.
    routes: Mutex<Vec<NodeRoute>>,
    /// Who has which address; held for one allocation or the writing of its file.
    addresses: Mutex<Addresses>,
    /// The links of the node's namespace; held for one pod's exchange with the kernel.
    links: Mutex<Links>,
    /// The packet rules; held while one change is carried out, so that changes come one after another.
    packets: Mutex<Packets>,
    /// What holds pods back; held while one change is carried out.
    guard: Mutex<Guard>,
}

impl KernelNetwork {
    /// Opens the node's network in the calling process's namespace: finds the pods that are there, lets packets be
    /// forwarded, and makes the table of rules (as it was left, until [`Network::serve`] is called).
    pub async fn open(host: Host, settings: Settings) -> Result<Self, NetworkError> {
        let disk = host.disk().clone();
        let inner = Arc::new(host.blocking(move || Inner::open(disk, settings)).await?);
        let left = watch::Sender::new(());
        let mut mending = Tasks::new();
        mending.spawn(mend_routes(host.clone(), inner.clone()));
        mending.spawn(forget_unanswered(host.clone(), inner.clone(), left.subscribe()));
        Ok(Self { host, inner, left, _mending: mending })
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> T {
        let inner = self.inner.clone();
        self.host.blocking(move || work(&inner)).await
    }
}

#[async_trait]
impl Network for KernelNetwork {
    async fn attach(&self, pod: PodNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        self.run(move |inner| inner.attach(&pod)).await
    }

    async fn detach(&self, pod_uid: &str) -> Result<(), NetworkError> {
        let uid = pod_uid.to_owned();
        self.run(move |inner| inner.detach(&uid)).await
    }

    async fn attached(&self) -> Result<Vec<(String, Vec<IpAddr>)>, NetworkError> {
        self.run(Inner::attached).await
    }

    async fn serve(&self, rules: ServiceRules) -> Result<(), NetworkError> {
        let served = self.run(move |inner| {
            let mut packets = inner.packets();
            packets.serve(rules).map(|()| packets.has_left())
        });
        if served.await? {
            self.left.send_replace(());
        }
        Ok(())
    }

    async fn guard(&self, rules: PolicyRules) -> Result<(), NetworkError> {
        self.run(move |inner| inner.guard.lock().unwrap_or_else(PoisonError::into_inner).apply(rules)).await
    }

    async fn route(&self, routes: Vec<NodeRoute>) -> Result<(), NetworkError> {
        self.run(move |inner| inner.route(routes)).await
    }
}

async fn mend_routes(host: Host, inner: Arc<Inner>) {
    loop {
        host.sleep(LOOK_EVERY).await;
        let mended = inner.clone();
        if let Err(error) = host.blocking(move || mended.mend_routes()).await {
            tracing::warn!(%error, "the routes to other nodes could not be mended");
        }
    }
}

async fn forget_unanswered(host: Host, inner: Arc<Inner>, mut left: watch::Receiver<()>) {
    while left.changed().await.is_ok() {
        host.sleep(ANSWERED_WITHIN).await;
        let inner = inner.clone();
        host.blocking(move || inner.packets().forget_unanswered()).await;
    }
}

impl Inner {
    fn open(disk: Arc<dyn host::Disk>, settings: Settings) -> Result<Self, NetworkError> {
        let links = Links::open().map_err(failed("open a netlink socket"))?;
        links.raise_loopback()?;
        let mtu = match settings.mtu {
            Some(mtu) => mtu,
            None => way_out_mtu(&links)?,
        };
        let mut addresses = Addresses::open(disk, &settings)?;
        attach::forget_lost(&links, &settings, &mut addresses)?;
        let mut packets = Packets::open(place(&settings))?;
        packets.set_host_ports(addresses.host_ports())?;
        let guard = Guard::open(format!("{}-policies", place(&settings).table))?;
        let node_ip = settings.node_ip;
        let node_source = links.addresses()?.iter().any(|(_, here)| *here == node_ip).then_some(node_ip);
        let ranges = (settings.cluster_cidr, settings.service_cidr);
        let tunnel = Tunnel::new(&settings.name_prefix, ranges, node_ip, mtu);
        let inner = Self {
            settings,
            tunnel,
            routes: Mutex::default(),
            mtu,
            node_source,
            addresses: Mutex::new(addresses),
            links: Mutex::new(links),
            packets: Mutex::new(packets),
            guard: Mutex::new(guard),
        };
        inner.route_services()?;
        Ok(inner)
    }

    /// Makes the node's own packets to virtual addresses leave with the node's address, also where there is no
    /// default route. They never travel this route: they are translated first, or refused.
    fn route_services(&self) -> Result<(), NetworkError> {
        const LOOPBACK: u32 = 1;
        let links = self.links();
        let mut steps = Steps::default();
        let is_old = |route: &&Route| {
            route.metric == self.metric() && route.link == LOOPBACK && route.to != self.settings.service_cidr
        };
        links.routes()?.iter().filter(is_old).for_each(|route| steps.remove_route(route));
        steps.route(&Route {
            to: self.settings.service_cidr,
            via: None,
            link: LOOPBACK,
            source: self.node_source,
            metric: self.metric(),
            mtu: self.mtu,
        });
        links.carry_out(steps)
    }

    fn route(&self, wanted: Vec<NodeRoute>) -> Result<(), NetworkError> {
        let mut known = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        *known = wanted;
        self.carry_out_routes(&known)
    }

    /// Makes the routes be as they were asked for last.
    fn mend_routes(&self) -> Result<(), NetworkError> {
        let known = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_empty() { Ok(()) } else { self.carry_out_routes(&known) }
    }

    fn carry_out_routes(&self, wanted: &[NodeRoute]) -> Result<(), NetworkError> {
        let metric = self.metric();
        let wanted: Vec<Route> =
            wanted.iter().map(|route| kernel_route(route, metric)).collect::<Result<_, _>>()?;
        let links = self.links();
        let mut far = Vec::new();
        for route in &wanted {
            let via = route.via.unwrap_or(Ipv4Addr::UNSPECIFIED);
            far.push(!links.is_next_door(via)?);
        }
        let tunnel = self.tunnel.open(&links, far.contains(&true))?;
        let mut steps = Steps::default();
        let mut through = Vec::new();
        for (route, far) in wanted.into_iter().zip(far) {
            match (far, tunnel, route.via) {
                (true, Some(link), Some(via)) => {
                    self.tunnel.lead(&mut steps, link, via);
                    through.push(self.tunnel.route(&route, link, self.node_source));
                }
                _ => through.push(route),
            }
        }
        links.carry_out(steps)?;
        let here = links.routes()?;
        let here = here
            .iter()
            .filter(|route| route.metric == metric && route.via.is_some() && route.to.prefix() > 0);
        let steps = routes_difference(&here.cloned().collect::<Vec<_>>(), &through, tunnel);
        links.carry_out(steps)
    }

    fn metric(&self) -> u32 {
        route_metric(&self.settings.name_prefix)
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn packets(&self) -> MutexGuard<'_, Packets> {
        self.packets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What turns the routes that are here into those wanted.
fn routes_difference(here: &[Route], wanted: &[Route], tunnel: Option<u32>) -> Steps {
    let tunneled = |route: &Route| tunnel == Some(route.link);
    let same = |a: &Route, b: &Route| a.to == b.to && a.via == b.via && tunneled(a) == tunneled(b);
    let mut steps = Steps::default();
    for route in here.iter().filter(|route| !wanted.iter().any(|other| other.to == route.to)) {
        steps.remove_route(route);
    }
    for route in wanted.iter().filter(|route| !here.iter().any(|other| same(other, route))) {
        steps.route(route);
    }
    steps
}

fn kernel_route(route: &NodeRoute, metric: u32) -> Result<Route, NetworkError> {
    let doing = || format!("route to node {}", route.node);
    let to = route.pod_cidr.parse::<Cidr>().map_err(failed(doing()))?;
    let IpAddr::V4(via) = route.via else {
        return Err(failed(doing())(format!("{} is no IPv4 address", route.via)));
    };
    Ok(Route { to, via: Some(via), link: 0, source: None, metric, mtu: 0 })
}

fn way_out_mtu(links: &Links) -> Result<u32, NetworkError> {
    let Some(out) = links.default_link()? else { return Ok(MTU_DEFAULT) };
    let found = links.list()?.into_iter().find(|link| link.index == out);
    Ok(found.map_or(MTU_DEFAULT, |link| link.mtu).min(MTU_DEFAULT))
}

fn place(settings: &Settings) -> Place {
    Place {
        table: format!("kintsugi-{}", settings.name_prefix),
        pods: settings.pod_cidr,
        cluster: settings.cluster_cidr,
        services: settings.service_cidr,
        node: settings.node_ip,
    }
}
