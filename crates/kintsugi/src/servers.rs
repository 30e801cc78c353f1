//! Which servers of a shared store live, and that pods find all of them: each keeps a Lease of its own, and writes those that
//! are renewed into the endpoints of the Service `kubernetes`, as upstream's servers do.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use client::{Client, ClientError, Select};
use host::{Host, Moment, Task};
use model::kinds::{LEASE, of};
use model::tree::{items, text};
use model::{Gvr, Key, Time, Tree};
use serde_json::json;
use tokio::sync::oneshot;

/// Where the leases of servers are.
const NAMESPACE: &str = "kube-system";
/// How the paths of those leases in the store begin.
pub const LEASES: &str = "/leases.coordination.k8s.io/kube-system/apiserver-";
/// The label by which they are found: upstream's.
const LABEL: &str = "apiserver.kubernetes.io/identity";
const LABELLED: &str = "kube-apiserver";
/// The annotation that says at which address the server is reached.
const ADDRESS: &str = "kintsugi.dev/address";

/// How often a server renews its lease and looks at those of the others.
pub const RENEW_EVERY: Duration = Duration::from_secs(3);
/// How long a server is taken to live without a renewal. A dead one is no endpoint any more after that; upstream takes 15 s.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long one round may take, and the last one of a server that stops.
const ROUND_MAX: Duration = Duration::from_secs(2);

/// Keeps a server among those that live.
pub struct Presence {
    leave: oneshot::Sender<()>,
    task: Task<()>,
}

impl Presence {
    /// Begins to.
    pub fn start(host: &Host, client: Client, address: SocketAddr) -> Self {
        let (leave, left) = oneshot::channel();
        let keeper = Keeper { host: host.clone(), client, address, seen: BTreeMap::new() };
        Self { leave, task: host.spawn(keeper.run(left)) }
    }

    /// Takes the server out at once.
    pub async fn end(self) {
        // One that has ended has nothing to take out.
        let _ = self.leave.send(());
        self.task.join().await;
    }
}

struct Keeper {
    host: Host,
    client: Client,
    address: SocketAddr,
    /// The leases, with what was last seen of each, and since when.
    seen: BTreeMap<String, (String, Moment)>,
}

impl Keeper {
    async fn run(mut self, left: oneshot::Receiver<()>) {
        let mut left = std::pin::pin!(left);
        let host = self.host.clone();
        loop {
            match host.within(ROUND_MAX, self.round(false)).await {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::debug!(%error, "cannot keep this server among the endpoints"),
                None => tracing::debug!("keeping this server among the endpoints takes too long"),
            }
            tokio::select! {
                biased;
                _ = &mut left => break,
                () = host.sleep(RENEW_EVERY) => {}
            }
        }
        // What it cannot take out, the others will.
        let _ = host.within(ROUND_MAX, self.round(true)).await;
    }

    async fn round(&mut self, leaving: bool) -> Result<(), ClientError> {
        match leaving {
            false => self.renew().await?,
            true => {
                let gone = self.client.delete(&key(self.address), &client::Deletion::default()).await;
                gone.map(drop).or_else(|error| match error {
                    ClientError::NotFound { .. } => Ok(()),
                    error => Err(error),
                })?;
            }
        }
        let living = self.living().await?;
        // A loopback address leads pods to themselves: then there is no way for them to tell.
        let living: Vec<SocketAddr> =
            living.into_iter().filter(|address| !address.ip().is_loopback()).collect();
        if living.is_empty() {
            return Ok(());
        }
        self.put(&of::ENDPOINTS, endpoints(&living)).await?;
        self.put(&of::ENDPOINT_SLICE, slice(&living)).await
    }

    async fn renew(&self) -> Result<(), ClientError> {
        let (key, now) = (key(self.address), self.host.now());
        match self.client.get(&key).await {
            Ok(lease) => {
                let mut lease = lease.tree().map_err(|error| ClientError::malformed("a lease", error))?;
                lease["spec"]["renewTime"] = json!(model::time::micros(now));
                self.client.replace(&key, "", &lease).await?;
            }
            Err(ClientError::NotFound { .. }) => {
                self.client.create(&LEASE, NAMESPACE, &lease(&key.name, self.address, now)).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Those whose leases were renewed lately, as this server saw it.
    async fn living(&mut self) -> Result<Vec<SocketAddr>, ClientError> {
        let select = Select::labels(format!("{LABEL}={LABELLED}"));
        let (leases, _) = self.client.list(&LEASE, NAMESPACE, &select).await?;
        let now = self.host.moment();
        let mut seen = BTreeMap::new();
        let mut living = Vec::new();
        for lease in leases {
            let revision = lease.meta().resource_version().to_owned();
            let since = match self.seen.get(lease.name()) {
                Some((before, since)) if *before == revision => *since,
                _ => now,
            };
            let tree = lease.tree().unwrap_or_default();
            if now.since(since) < SILENCE_MAX
                && let Some(address) = tree["metadata"]["annotations"][ADDRESS].as_str()
            {
                living.extend(address.parse::<SocketAddr>());
            }
            seen.insert(lease.name().to_owned(), (revision, since));
        }
        self.seen = seen;
        living.sort();
        Ok(living)
    }

    /// Writes an object where it is missing or says something else.
    async fn put(&self, gvr: &Gvr, wanted: Tree) -> Result<(), ClientError> {
        let key = Key::new(gvr, "default", "kubernetes");
        let lying = match self.client.get(&key).await {
            Ok(lying) => lying.tree().map_err(|error| ClientError::malformed("endpoints", error))?,
            Err(ClientError::NotFound { .. }) => {
                return self.client.create(gvr, "default", &wanted).await.map(drop);
            }
            Err(error) => return Err(error),
        };
        if addresses(&lying) == addresses(&wanted) {
            return Ok(());
        }
        let mut new = wanted;
        new["metadata"]["resourceVersion"] = lying["metadata"]["resourceVersion"].clone();
        match self.client.replace(&key, "", &new).await {
            // Another server was faster, with the same in mind.
            Err(ClientError::Conflict { .. }) => Ok(()),
            done => done.map(drop),
        }
    }
}

/// The name of a server's lease.
pub fn name_of(address: SocketAddr) -> String {
    key(address).name.to_string()
}

fn key(address: SocketAddr) -> Key {
    let spelled = address.to_string().replace([':', '[', ']', '.'], "-");
    Key::new(&LEASE, NAMESPACE, format!("apiserver-{}", spelled.trim_matches('-')))
}

fn lease(name: &str, address: SocketAddr, now: Time) -> Tree {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {LABEL: LABELLED},
            "annotations": {ADDRESS: address.to_string()}},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": SILENCE_MAX.as_secs(),
            "renewTime": model::time::micros(now)},
    })
}

/// What Endpoints or a slice of them lead to.
fn addresses(object: &Tree) -> Vec<String> {
    let mut all = Vec::new();
    for subset in items(object, "subsets") {
        let ports = subset["ports"].to_string();
        all.extend(
            items(subset, "addresses").iter().map(|address| format!("{}{ports}", text(address, "ip"))),
        );
    }
    for endpoint in items(object, "endpoints") {
        all.push(format!("{}{}", endpoint["addresses"], object["ports"]));
    }
    all
}

/// The addresses of each port, since servers need not all listen at the same.
fn by_port(living: &[SocketAddr]) -> BTreeMap<u16, Vec<String>> {
    let mut ports: BTreeMap<u16, Vec<String>> = BTreeMap::new();
    for address in living {
        ports.entry(address.port()).or_default().push(address.ip().to_string());
    }
    ports
}

fn endpoints(living: &[SocketAddr]) -> Tree {
    let subsets: Vec<Tree> = by_port(living)
        .into_iter()
        .map(|(port, ips)| {
            let addresses: Vec<Tree> = ips.into_iter().map(|ip| json!({"ip": ip})).collect();
            json!({"addresses": addresses, "ports": [{"name": "https", "port": port, "protocol": "TCP"}]})
        })
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": subsets,
    })
}

/// The slice has one port: that of most servers, and of the lowest number among equals.
fn slice(living: &[SocketAddr]) -> Tree {
    let ports = by_port(living);
    let most = ports.iter().max_by_key(|(port, ips)| (ips.len(), std::cmp::Reverse(**port)));
    let (port, ips) = most.map(|(port, ips)| (*port, ips.clone())).unwrap_or_default();
    let endpoints: Vec<Tree> =
        ips.into_iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    let family = if living.iter().all(SocketAddr::is_ipv4) { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": family,
        "endpoints": endpoints,
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(living: &str, told: &str, sliced: &str) {
        let living: Vec<SocketAddr> = living.split(' ').map(|one| one.parse().expect("an address")).collect();
        let shown = |tree: &Tree| {
            addresses(tree)
                .join(" ")
                .replace("{\"name\":\"https\",", "")
                .replace(",\"protocol\":\"TCP\"}", "")
        };
        assert_eq!(shown(&endpoints(&living)), told);
        assert_eq!(shown(&slice(&living)), sliced);
    }

    #[test]
    fn endpoints_lead_to_every_server() {
        check(
            "10.0.0.1:6443 10.0.0.2:6443",
            "10.0.0.1[\"port\":6443] 10.0.0.2[\"port\":6443]",
            "[\"10.0.0.1\"][\"port\":6443] [\"10.0.0.2\"][\"port\":6443]",
        );
        check(
            "10.0.0.1:6443 10.0.0.2:7443 10.0.0.3:7443",
            "10.0.0.1[\"port\":6443] 10.0.0.2[\"port\":7443] 10.0.0.3[\"port\":7443]",
            "[\"10.0.0.2\"][\"port\":7443] [\"10.0.0.3\"][\"port\":7443]",
        );
    }

    #[test]
    fn a_lease_is_named_by_its_servers_address() {
        let path = format!("/{}.{}/{NAMESPACE}/apiserver-", LEASE.plural, LEASE.group);
        assert_eq!(LEASES, path);
        assert_eq!(key("10.0.0.1:6443".parse().expect("an address")).name, "apiserver-10-0-0-1-6443");
        assert_eq!(key("[fd00::1]:6443".parse().expect("an address")).name, "apiserver-fd00--1--6443");
    }
}
