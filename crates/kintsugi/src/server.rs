//! The server: keys, store, API on its addresses, loops, and the first node.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use api::auth::tokens::Tokens;
use api::auth::{Authenticator, FrontProxy, Identity, Lookup, MASTERS, Warden};
use api::dial::Dial;
use api::{Face, Service};
use client::HttpsPeers;
use etcd::Etcd;
use host::{Host, Task, Tasks};
use model::Object;
use network::links::{Lan, LanSettings};
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::control::{self, Control};
use crate::keeper::Keeper;
use crate::keys::{Keys, write_private};
use crate::place::Place;
use crate::ranges::Ranges;
use crate::rotation::Rotation;
use crate::servers::{self, Presence};
use crate::settings::Cluster;
use crate::tls::{self, Dialer};
use crate::vault::Vault;
use crate::{admission, audit_log, authorization, certificates, joining, shared, strangers};

/// Who issues the tokens of service accounts, as tokens name it.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// A running server; dropping it ends it, and leaves the containers.
pub struct Server {
    /// The control plane.
    pub control: Control,
    /// Where the API is served for users.
    pub address: SocketAddr,
    /// Where the nodes and their pods find it.
    pub inner_address: SocketAddr,
    /// The network of this machine's nodes, where there is one.
    pub lan: Option<Lan>,
    /// The cluster's keys.
    pub keys: Arc<Keys>,
    /// Tells the listeners to stop.
    stop: watch::Sender<bool>,
    faces: Tasks,
    /// Keeps this one among the servers that pods find, where several share the store.
    presence: Option<Presence>,
    /// Signs certificates, serves machines that join, takes part in rotations of the store's key where it is shared, and keeps
    /// those who are asked what may be done as a file says.
    _duties: [Option<Task<()>>; 4],
}

/// Whom a server is for.
#[derive(Debug, Clone, Copy)]
pub enum Reach {
    /// Nodes of this machine, on a link of their own.
    Here,
    /// Other machines, which reach it at this address.
    Outside(IpAddr),
}

/// Where the API is reached.
#[derive(Debug, Clone)]
pub struct Reached {
    /// The addresses it listens on and is behind.
    addresses: Vec<IpAddr>,
    /// The range of Services.
    services: api::Cidr,
}

impl Reached {
    /// Whether an address may be that of the API: nobody else may answer there.
    pub fn is_api(&self, address: IpAddr) -> bool {
        let in_services = matches!(address, IpAddr::V4(address) if self.services.contains(address));
        address.is_loopback() || address.is_unspecified() || in_services || self.addresses.contains(&address)
    }
}

impl Server {
    /// Starts everything but nodes.
    pub async fn start(
        host: &Host,
        place: &Place,
        cluster: &Cluster,
        ranges: &Ranges,
        reach: Reach,
    ) -> Result<Self> {
        let terms = cluster.healing.terms().context("these settings make no fence")?;
        let lan = LanSettings {
            data_dir: place.dir().to_owned(),
            prefix: network::links::prefix_of(place.dir()),
            subnet: ranges.nodes,
            cluster_cidr: ranges.pods,
        };
        let lan = async {
            match reach {
                Reach::Here => Lan::open(host.clone(), lan).await.map(Some),
                Reach::Outside(_) => Ok(None),
            }
        };
        let vault = Arc::new(Vault::open(&place.store_keys())?);
        let (lan, opened) = tokio::join!(lan, open(host, place, cluster, vault.clone()));
        let (lan, (store, keys, etcd)) =
            (lan.context("cannot make the network of this machine's nodes")?, opened?);
        let (outer, inner) = listen(cluster.listen, lan.as_ref().map(Lan::server_address)).await?;
        let address = outer.local_addr()?;
        let inner_address = match (reach, &inner) {
            (Reach::Outside(advertised), _) => SocketAddr::new(advertised, address.port()),
            (Reach::Here, Some(inner)) => inner.local_addr()?,
            (Reach::Here, None) => address,
        };
        let tokens = Arc::new(Tokens::new(&keys.token_key, ISSUER)?);
        let audiences = vec![ISSUER.to_owned(), "kubernetes".to_owned()];
        let front_proxy = FrontProxy::new(&keys.front_proxy.cert, &["front-proxy-client"])?;
        let own = keys.client("kube-apiserver-kubelet-client", MASTERS, host.now())?;
        let front_client = keys.front_proxy_client(host.now())?;
        let dial = Arc::new(Dialer::new(&own, &keys.authority.cert, front_client)?);
        let authenticator = Authenticator::new(tokens.clone(), audiences, lookup(store.clone()))
            .believing(front_proxy)
            .asking(strangers::outside(host, dial.clone(), &cluster.strangers)?);
        let said = admission::said(cluster.admission_control_config_file.as_deref())?;
        let (chain, reloader) =
            authorization::chain(host, &(dial.clone() as Arc<dyn Dial>), &cluster.rights)?;
        let rotation = etcd.map(|etcd| {
            let (store, name) = (store.clone(), servers::name_of(inner_address));
            Arc::new(Rotation::new(host, etcd, store, vault.clone(), keys.clone(), Some(name)))
        });
        let settings = api::Settings {
            service_cidr: ranges.services,
            advertise: inner_address,
            client_ca: keys.authority.cert.clone(),
            front_proxy_ca: keys.front_proxy.cert.clone(),
            has_shared_storage: cluster.shared_dir.is_some(),
            guard: Arc::new(Warden::new(host, store.clone(), authenticator.clone(), chain)),
            introduced: said.introduced,
            security: said.security,
            audit: audit_log::begin(host, dial.clone(), &cluster.audit)?,
            dial,
            upkeep: Arc::new(Keeper { vault, tokens, dir: place.keys(), rotation: rotation.clone() }),
        };
        let identity = client::Identity::Certificate {
            chain_pem: own.cert.clone().into_bytes(),
            key_pem: own.key.clone().into_bytes(),
        };
        let peers = HttpsPeers::new(keys.authority.cert.clone().into_bytes(), identity);
        let control = control::start(host, store, settings, Arc::new(peers), terms).await?;
        let names = names(cluster, ranges, &[address.ip(), inner_address.ip()]);
        let certificate = keys.server("kube-apiserver", "", names, host.now())?;
        // Which of the two signed a client's certificate tells a user from a front proxy.
        let authorities = format!("{}\n{}", keys.authority.cert, keys.front_proxy.cert);
        let tls = tls::server(&certificate, &authorities, false, &[b"h2", b"http/1.1"])?;
        let face = Face { service: control.service.clone(), authenticator, tls };
        let (stop, stopped) = watch::channel(false);
        let mut faces = Tasks::new();
        for listener in [Some(outer), inner].into_iter().flatten() {
            faces.spawn(api::serve(listener, face.clone(), stopped.clone()));
        }
        // After them comes what looks after the API servers behind this one: it ends with them.
        faces.spawn(until(stop.subscribe(), api::watch_extensions(control.service.clone())));
        let reached =
            Reached { addresses: vec![address.ip(), inner_address.ip()], services: ranges.services };
        let signer = certificates::start(host, &control.service, keys.clone(), reached);
        let public = match reach {
            Reach::Here => format!("https://{}", shown(address)),
            Reach::Outside(_) => format!("https://{inner_address}"),
        };
        let joining = joining::start(host, &control.service, &keys, ranges, cluster, &public);
        let rotating = rotation.map(|rotation| host.spawn(rotation.run()));
        let reloading = reloader.map(|reloader| host.spawn(reloader.run()));
        let _duties = [Some(signer), Some(joining), rotating, reloading];
        let presence = control.service.store().is_shared().then(|| {
            let client =
                control::client(&control.service, Identity::user("kubernetes-admin", &[MASTERS]), "presence");
            Presence::start(host, client, inner_address)
        });
        let server = Self { control, address, inner_address, lan, keys, stop, faces, presence, _duties };
        server.write_kubeconfig(host, place)?;
        Ok(server)
    }

    /// The API.
    pub fn service(&self) -> &Service {
        &self.control.service
    }

    fn write_kubeconfig(&self, host: &Host, place: &Place) -> Result<()> {
        let admin = self.keys.client("kubernetes-admin", MASTERS, host.now())?;
        let shown = shown(self.address);
        let text = self.keys.kubeconfig(&format!("https://{shown}"), "kubernetes-admin", &admin);
        write_private(&place.kubeconfig(), &text)
    }

    /// Finishes the requests under way and closes the store.
    pub async fn stop(mut self) {
        self.control.rest().await;
        if let Some(presence) = self.presence.take() {
            presence.end().await;
        }
        // The listeners may have ended already.
        let _ = self.stop.send(true);
        while self.faces.next_end().await.is_some() {}
        self.control.service.store().close().await;
        if let Some(trail) = &self.control.service.settings().audit {
            trail.close().await;
        }
    }
}

/// An address at which this machine itself reaches what listens there.
fn shown(address: SocketAddr) -> SocketAddr {
    match address.ip().is_unspecified() {
        true => SocketAddr::new([127, 0, 0, 1].into(), address.port()),
        false => address,
    }
}

/// Opens the store, and the keys of the cluster in it.
async fn open(
    host: &Host,
    place: &Place,
    cluster: &Cluster,
    vault: Arc<Vault>,
) -> Result<(Store, Arc<Keys>, Option<Etcd>)> {
    let dir = place.keys();
    match shared::open(host, &cluster.store, &vault).await? {
        None => {
            let keys = Keys::open(&dir, host.now())?;
            let store = control::open_sealed(host, place.store(), vault.clone()).await?;
            vault.save()?;
            vault.settle(host, &store).await?;
            Ok((store, Arc::new(keys), None))
        }
        Some((store, etcd)) => {
            shared::check_before_keys(&etcd, &dir).await?;
            let keys = Keys::open(&dir, host.now())?;
            vault.save()?;
            // Before anything is written.
            shared::agree_on_keys(host, &etcd, place, &keys, &vault).await?;
            shared::agree_on_ranges(&etcd, cluster).await?;
            Ok((store, Arc::new(keys), Some(etcd)))
        }
    }
}

/// Opens the address for users, and the same port on the nodes' own link where there is one.
async fn listen(outer: SocketAddr, lan: Option<IpAddr>) -> Result<(TcpListener, Option<TcpListener>)> {
    let open = async |address: SocketAddr| {
        TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
    };
    let listener = open(outer).await?;
    let port = listener.local_addr()?.port();
    let Some(lan) = lan else { return Ok((listener, None)) };
    // Where users are served on all addresses, the nodes' link is one of them: it takes a port of its own.
    let inner =
        if outer.ip().is_unspecified() { SocketAddr::new(lan, 0) } else { SocketAddr::new(lan, port) };
    Ok((listener, Some(open(inner).await?)))
}

/// The names and addresses under which the API is reached.
fn names(cluster: &Cluster, ranges: &Ranges, addresses: &[IpAddr]) -> Vec<String> {
    let domain = &cluster.cluster_domain;
    let mut names: Vec<String> = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        .map(str::to_owned)
        .to_vec();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.extend(["127.0.0.1", "::1"].map(str::to_owned));
    names.push(ranges.services.first().to_string());
    names.extend(cluster.tls_san.iter().cloned());
    names.extend(addresses.iter().filter(|address| !address.is_unspecified()).map(IpAddr::to_string));
    names.extend(std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()));
    names.sort();
    names.dedup();
    names.retain(|name| !name.is_empty());
    names
}

/// Looks objects up in the store.
fn lookup(store: Store) -> Lookup {
    Arc::new(move |resource, namespace, name| {
        let record = store.get(&format!("/{resource}/{namespace}/{name}"))?;
        Object::read(record.value.clone()).ok()
    })
}

/// Does something until told to stop.
async fn until(mut stop: watch::Receiver<bool>, doing: impl Future<Output = ()>) {
    tokio::select! {
        _ = stop.wait_for(|stop| *stop) => {}
        () = doing => {}
    }
}

/// The user as which a node's agent acts.
pub fn node_identity(name: &str) -> Identity {
    Identity::user(format!("system:node:{name}"), &["system:nodes"])
}
