//! `kintsugi agent --server …`: this machine joins a cluster as a node, and stays one.
//!
//! A bootstrap token proves the machine once; from then on its own certificates do, which are renewed while it runs. The
//! authority is known by its pin, or by the token's signature, before anything secret is sent.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use api::auth::{bootstrap, pki, signing};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::{Access, Client, ClientError, Https, Select, Several, Transport, TransportError, WatchStream};
use futures_util::StreamExt;
use host::Host;
use kubelet::Stop;
use model::tree::{items, text};
use model::{Key, Time, Tree, kinds};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::agent;
use crate::joining::{CLUSTER, PUBLIC};
use crate::keys::write_private;
use crate::node::{Node, NodeSettings, Pair};
use crate::place::Place;
use crate::settings::{Agent, Healing};
use crate::tls::{Shown, dial_anyone};

/// How long the server may take to sign a certificate or to give a range: far beyond the second that it takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a node that joined before waits to be told of new settings: its containers are to be adopted soon.
const GLANCE: Duration = Duration::from_secs(1);
/// The largest answer that is read before the server is known, in bytes: a kubeconfig and some signatures.
const PUBLIC_LEN_MAX: u64 = 256 * 1024;
/// How long to wait before a certificate that could not be renewed is asked for again.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// What is kept of a node that joined, in a file of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Joined {
    /// Where the servers are: URLs with commas between them.
    server: String,
    /// What the node is told.
    node: NodeSettings,
}

/// Joins, or goes on as the node that joined before, until `stop` ends; leaves if that says so.
pub async fn run(host: &Host, settings: &Agent, stop: impl Future<Output = Stop>) -> Result<()> {
    let place = Place::open(&settings.data.data_dir)?;
    let _held = place.hold()?;
    let asked = Asked::read(&place, settings)?;
    let mut joined = asked.join(host).await?;
    let _taken = agent::take_over(&joined.node.dir)?;
    let shown = Arc::new(Shown::new(&joined.node.serving.clone().into())?);
    joined.node.shown = Some(shown.clone());
    joined.node.peers = Some(Arc::new(joined.node.new_peers()));
    let transport = Arc::new(Renewing::new(asked.https(&joined.node)?));
    let node = Node::start(host, &joined.node, transport.clone()).await?;
    let stop = tokio::select! {
        biased;
        stop = stop => stop,
        () = asked.keep_fresh(host, &mut joined, &transport, &shown) => Stop::Stay,
    };
    if stop == Stop::Leave {
        node.leave().await;
    }
    Ok(())
}

/// Where to join, and as what.
struct Asked {
    /// The servers' URLs and addresses; the first of them is asked first.
    servers: Vec<(String, SocketAddr)>,
    token: Option<String>,
    pin: Option<String>,
    name: String,
    node_address: IpAddr,
    dir: PathBuf,
    shared_dir: Option<PathBuf>,
    registry_certs: PathBuf,
    seconds: Option<u64>,
}

impl Asked {
    fn read(place: &Place, settings: &Agent) -> Result<Self> {
        let name = match &settings.node_name {
            Some(name) => name.clone(),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")
                .context("cannot read the machine's name; give --node-name")?
                .trim()
                .to_lowercase(),
        };
        let wrong = model::syntax::dns1123_subdomain(&name);
        if let Some(why) = wrong.first() {
            bail!("{name:?} cannot be a node's name: {why}; give another with --node-name");
        }
        let dir = place.dir().join("nodes").join(&name);
        let known = read(&dir)?;
        let urls = match settings.server.as_slice() {
            [] => known.context("--server is needed the first time")?.server,
            given => given.join(","),
        };
        let servers = urls
            .split(',')
            .map(|url| Ok((url.trim_end_matches('/').to_owned(), reach(url)?)))
            .collect::<Result<Vec<_>>>()?;
        let address = servers.first().context("--server names none")?.1;
        let node_address = match settings.node_address {
            Some(address) => address,
            None => own_address(address).with_context(|| {
                format!("no address of this machine reaches {address}; give one with --node-address")
            })?,
        };
        Ok(Self {
            servers,
            token: settings.token.clone(),
            shared_dir: settings.shared_dir.clone(),
            registry_certs: place.registry_certs(),
            pin: settings.ca_hash.clone(),
            name,
            node_address,
            dir,
            seconds: settings.certificate_seconds,
        })
    }

    /// The node as it joined before, or as it joins now.
    async fn join(&self, host: &Host) -> Result<Joined> {
        if let Some(mut known) = read(&self.dir)? {
            let good = |pair: &Pair| pki::validity(&pair.cert).is_some_and(|(_, end)| end > host.now());
            if good(&known.node.client) {
                known.server = self.urls();
                known.node.api = self.first();
                known.node.shared_dir.clone_from(&self.shared_dir);
                known.node.registry_certs = Some(self.registry_certs.clone());
                // The settings may be others by now. A server that is away keeps nobody from adopting what runs here.
                let as_node = self.client(Arc::new(self.https(&known.node)?));
                if let Some(Ok(cluster)) = host.within(GLANCE, cluster(&as_node)).await {
                    let told = healing(&cluster)?;
                    if told != known.node.healing {
                        known.node.healing = told;
                        self.keep(&known)?;
                    }
                }
                if !good(&known.node.serving) || known.node.address != self.node_address {
                    known.node.address = self.node_address;
                    let client = self.client(Arc::new(self.https(&known.node)?));
                    known.node.serving = self.serving(host, &client).await?;
                    self.keep(&known)?;
                }
                return Ok(known);
            }
            if self.token.is_none() {
                bail!(
                    "the certificate of node {} has expired: make a token with `kintsugi token create` on the server, and give it with --token",
                    self.name
                );
            }
        }
        self.join_anew(host).await
    }

    async fn join_anew(&self, host: &Host) -> Result<Joined> {
        let token = self.token.as_deref().context("--token is needed the first time")?;
        let authority = self.authority(host, token).await.context("cannot verify the server")?;
        let by_token = self.way(&authority, &client::Identity::Token(token.to_owned()))?;
        let by_token = self.client(Arc::new(by_token));
        let client = self.own(host, &by_token).await.context("the server gave no certificate")?;
        let mut node = NodeSettings {
            name: self.name.clone(),
            address: self.node_address,
            dir: self.dir.clone(),
            shared_dir: self.shared_dir.clone(),
            registry_certs: Some(self.registry_certs.clone()),
            prefix: network::links::prefix_of(&self.dir),
            pods: String::new(),
            cluster_pods: String::new(),
            services: String::new(),
            dns: IpAddr::from([0, 0, 0, 0]),
            domain: String::new(),
            authority,
            serving: client.clone(),
            client,
            api: self.first(),
            netns: None,
            healing: Healing::default(),
            hosts_server: false,
            shown: None,
            peers: None,
        };
        let as_node = self.client(Arc::new(self.https(&node)?));
        let cluster = cluster(&as_node).await.context("cannot read what the cluster is like")?;
        let told = |key: &str| text(&cluster, &format!("data.{key}")).to_owned();
        (node.cluster_pods, node.services, node.domain) = (told("pods"), told("services"), told("domain"));
        node.dns = told("dns").parse().context("the address of the cluster's name server")?;
        node.healing = healing(&cluster)?;
        node.pods = self.range(host, &as_node).await?;
        node.serving = self.serving(host, &as_node).await?;
        let joined = Joined { server: self.urls(), node };
        self.keep(&joined)?;
        Ok(joined)
    }

    fn keep(&self, joined: &Joined) -> Result<()> {
        std::fs::create_dir_all(&self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        write_private(&file_of(&self.dir), &serde_json::to_string_pretty(joined)?)
    }

    fn client(&self, transport: Arc<dyn Transport>) -> Client {
        Client::new(transport, &format!("kintsugi-agent/{}", self.name))
    }

    fn https(&self, node: &NodeSettings) -> Result<Several> {
        self.way(&node.authority, &node.client.identity())
    }

    /// The way to the servers, as somebody.
    fn way(&self, authority: &str, identity: &client::Identity) -> Result<Several> {
        let one = |(server, _): &(String, SocketAddr)| {
            let access = Access {
                server: server.clone(),
                authority_pem: authority.as_bytes().to_vec(),
                server_name: None,
                identity: identity.clone(),
            };
            let https = Https::new(&access).with_context(|| format!("cannot speak to {server}"))?;
            Ok(Arc::new(https) as Arc<dyn Transport>)
        };
        Ok(Several::new(self.servers.iter().map(one).collect::<Result<_>>()?))
    }

    fn urls(&self) -> String {
        let urls: Vec<&str> = self.servers.iter().map(|(url, _)| url.as_str()).collect();
        urls.join(",")
    }

    fn first(&self) -> SocketAddr {
        self.servers[0].1
    }

    /// The authority's certificate, once it is known to be the one that is meant.
    async fn authority(&self, host: &Host, token: &str) -> Result<String> {
        let (id, secret) =
            bootstrap::split(token).context("--token is none: it has the form abcdef.0123456789abcdef")?;
        let public = self.public(host).await?;
        let kubeconfig = text(&public, "data.kubeconfig");
        if kubeconfig.is_empty() {
            bail!("{} does not say how it is verified", self.urls());
        }
        let access = Access::from_kubeconfig(kubeconfig.as_bytes()).context("how the server is verified")?;
        let authority = String::from_utf8(access.authority_pem).context("the authority's certificate")?;
        match &self.pin {
            Some(pin) => {
                let own = pki::pin(&authority)?;
                if own != *pin {
                    bail!("the authority of {} is {own}, not {pin}: this may be another server", self.urls());
                }
            }
            None => {
                let signed = public["data"][format!("jws-kubeconfig-{id}")].as_str().unwrap_or_default();
                if signed != bootstrap::signature(id, secret, kubeconfig) {
                    bail!("{} does not know this token, or is another server", self.urls());
                }
            }
        }
        Ok(authority)
    }

    /// What the first server that answers says publicly of itself. Nobody is verified yet: nothing secret is sent.
    async fn public(&self, host: &Host) -> Result<Tree> {
        let mut answer = Err(anyhow::anyhow!("nobody is asked"));
        for (server, address) in &self.servers {
            answer = self.public_of(host, server, *address).await;
            if answer.is_ok() {
                break;
            }
        }
        answer
    }

    async fn public_of(&self, host: &Host, server: &str, address: SocketAddr) -> Result<Tree> {
        let dialed = dial_anyone(address).await;
        let mut stream = dialed.with_context(|| format!("cannot reach {server}"))?;
        let path = Key::new(&kinds::CONFIG_MAP, PUBLIC.0, PUBLIC.1).path();
        let ask = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: application/json\r\nConnection: close\r\n\r\n",
            address
        );
        stream.write_all(ask.as_bytes()).await?;
        let mut answer = Vec::new();
        let mut stream = stream.take(PUBLIC_LEN_MAX);
        let read = stream.read_to_end(&mut answer);
        // Some servers end a connection without saying so; the body tells whether it is whole.
        let _ = host.within(PATIENCE, read).await.context("the server does not answer")?;
        let end =
            answer.windows(4).position(|four| four == b"\r\n\r\n").context("the server's answer is none")?;
        let head = String::from_utf8_lossy(&answer[..end]);
        if !head.lines().next().is_some_and(|line| line.contains(" 200")) {
            bail!("the server answers {:?}", head.lines().next().unwrap_or_default());
        }
        serde_json::from_slice(&answer[end + 4..]).context("the server's answer")
    }

    /// The certificate as which the node speaks to the server.
    async fn own(&self, host: &Host, client: &Client) -> Result<Pair> {
        self.certificate(host, client, signing::NODE_CLIENT, "client auth", &[]).await
    }

    /// The certificate by which the node is spoken to.
    async fn serving(&self, host: &Host, client: &Client) -> Result<Pair> {
        let names = [self.name.clone(), self.node_address.to_string()];
        self.certificate(host, client, signing::NODE_SERVING, "server auth", &names).await
    }

    async fn certificate(
        &self,
        host: &Host,
        client: &Client,
        signer: &str,
        usage: &str,
        names: &[String],
    ) -> Result<Pair> {
        let (key, request) =
            signing::new_request(&format!("system:node:{}", self.name), "system:nodes", names)?;
        let mut object = json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "node-csr-"},
            "spec": {"request": STANDARD.encode(request), "signerName": signer, "usages": ["digital signature", usage]}});
        if let Some(seconds) = self.seconds {
            object["spec"]["expirationSeconds"] = json!(seconds);
        }
        let gvr = &kinds::CERTIFICATE_SIGNING_REQUEST;
        let made = client.create(gvr, "", &object).await.context("cannot ask for a certificate")?;
        let signed = self.wait(host, client, gvr, made.name(), |request| {
            let mut conditions = items(request, "status.conditions").iter();
            let refused = conditions.find(|one| matches!(text(one, "type"), "Denied" | "Failed"));
            match (text(request, "status.certificate"), refused) {
                (_, Some(refused)) => Some(Err(text(refused, "message").to_owned())),
                ("", None) => None,
                (certificate, None) => Some(Ok(certificate.to_owned())),
            }
        });
        let signed = signed.await.with_context(|| {
            format!(
                "{} is not signed; `kubectl get csr` shows why, `kubectl certificate approve` approves it",
                made.name()
            )
        })?;
        let signed = signed.map_err(|why| anyhow::anyhow!("{} was refused: {why}", made.name()))?;
        let cert = String::from_utf8(STANDARD.decode(signed)?).context("the certificate")?;
        Ok(Pair { cert, key })
    }

    /// The range of the node's pods; the node is made where there is none.
    async fn range(&self, host: &Host, client: &Client) -> Result<String> {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name}});
        match client.create(&kinds::NODE, "", &node).await {
            Ok(_) | Err(ClientError::AlreadyExists { .. }) => {}
            Err(why) => return Err(why).context("cannot make the node"),
        }
        let given = self.wait(host, client, &kinds::NODE, &self.name, |node| {
            Some(text(node, "spec.podCIDR").to_owned()).filter(|range| !range.is_empty())
        });
        given.await.context("the server gave no range for the node's pods")
    }

    /// Watches one object until it says what is waited for.
    async fn wait<T>(
        &self,
        host: &Host,
        client: &Client,
        gvr: &model::Gvr,
        name: &str,
        says: impl Fn(&Tree) -> Option<T>,
    ) -> Result<T> {
        let select = Select::fields(format!("metadata.name={name}"));
        let waiting = async {
            let mut events = client.watch(gvr, "", &select, &[]).await?;
            while let Some(event) = events.next().await {
                let object: Tree = serde_json::from_slice(&event?.object)?;
                if let Some(said) = says(&object) {
                    return Ok(said);
                }
            }
            bail!("the watch ended")
        };
        host.within(PATIENCE, waiting)
            .await
            .with_context(|| format!("not within {} s", PATIENCE.as_secs()))?
    }

    /// Renews both certificates in time, for ever. Calls under way go on over the connection that they began on.
    async fn keep_fresh(
        &self,
        host: &Host,
        joined: &mut Joined,
        transport: &Arc<Renewing>,
        shown: &Arc<Shown>,
    ) {
        let mut again = None;
        loop {
            let pairs = [&joined.node.client, &joined.node.serving];
            let due = pairs.iter().filter_map(|pair| pki::validity(&pair.cert)).map(renew_at).min();
            host.sleep_until(again.take().or(due).unwrap_or_else(|| host.now() + RENEW_AGAIN)).await;
            if let Err(why) = self.renew(host, joined, transport, shown).await {
                tracing::warn!("the node's certificates are not renewed yet: {why:#}");
                again = Some(host.now() + RENEW_AGAIN);
            }
        }
    }

    async fn renew(
        &self,
        host: &Host,
        joined: &mut Joined,
        transport: &Arc<Renewing>,
        shown: &Arc<Shown>,
    ) -> Result<()> {
        let is_over = pki::validity(&joined.node.client.cert).is_none_or(|(_, end)| end <= host.now());
        if is_over && self.token.is_some() {
            // The machine slept too long: it joins again, as what it was.
            joined.node.client = self.join_anew(host).await?.node.client;
        } else {
            let client = self.client(transport.clone());
            joined.node.client = self.own(host, &client).await?;
        }
        transport.renew(self.https(&joined.node)?);
        if let Some(peers) = &joined.node.peers {
            peers.renew(joined.node.client.identity());
        }
        let client = self.client(transport.clone());
        joined.node.serving = self.serving(host, &client).await?;
        shown.renew(&joined.node.serving.clone().into())?;
        self.keep(joined)?;
        tracing::info!("the node's certificates are renewed");
        Ok(())
    }
}

/// What the server tells of its cluster.
async fn cluster(client: &Client) -> Result<Tree> {
    let (namespace, name) = CLUSTER;
    Ok(client.get(&Key::new(&kinds::CONFIG_MAP, namespace, name)).await?.tree()?)
}

/// How the cluster notices and mends failures; a server that does not say does as usual.
fn healing(cluster: &Tree) -> Result<Healing> {
    match text(cluster, "data.healing") {
        "" => Ok(Healing::default()),
        told => serde_json::from_str(told).context("how the cluster notices and mends failures"),
    }
}

/// When four fifths of a certificate's life are over.
fn renew_at((from, end): (Time, Time)) -> Time {
    let life = end.as_second() - from.as_second();
    Time::from_second(from.as_second() + life / 5 * 4).unwrap_or(end)
}

fn file_of(dir: &Path) -> PathBuf {
    dir.join("joined.json")
}

fn read(dir: &Path) -> Result<Option<Joined>> {
    let path = file_of(dir);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            Ok(Some(serde_json::from_str(&text).with_context(|| format!("cannot use {}", path.display()))?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// The address of `https://HOST:PORT`.
fn reach(server: &str) -> Result<SocketAddr> {
    let rest = server.strip_prefix("https://").context("--server has the form https://HOST:PORT")?;
    let rest = rest.trim_end_matches('/');
    let with_port = if rest.rsplit(']').next().is_some_and(|end| end.contains(':')) {
        rest.to_owned()
    } else {
        format!("{rest}:6443")
    };
    let mut found = with_port.to_socket_addrs().with_context(|| format!("cannot find {rest}"))?;
    found.find(SocketAddr::is_ipv4).with_context(|| format!("{rest} has no IPv4 address"))
}

/// The address of this machine from which another is reached.
fn own_address(other: SocketAddr) -> Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // Nothing is sent: the kernel only looks up the way.
    socket.connect(other)?;
    Ok(socket.local_addr()?.ip())
}

/// A transport whose certificate changes while it is in use.
struct Renewing {
    /// Guards the newest and the one before, while one is cloned or added: watches that began on the one before go on.
    current: RwLock<(Arc<Several>, Option<Arc<Several>>)>,
}

impl Renewing {
    fn new(first: Several) -> Self {
        Self { current: RwLock::new((Arc::new(first), None)) }
    }

    fn renew(&self, next: Several) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut current.0, Arc::new(next));
        current.1 = Some(before);
    }

    fn now(&self) -> Arc<Several> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }
}

#[async_trait]
impl Transport for Renewing {
    async fn call(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, TransportError> {
        self.now().call(request).await
    }

    async fn watch(&self, request: http::Request<()>) -> Result<WatchStream, TransportError> {
        self.now().watch(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_when_a_fifth_of_its_life_is_left() {
        let at = |second: i64| Time::from_second(second).expect("in range");
        assert_eq!(renew_at((at(1000), at(2000))), at(1800));
    }

    #[test]
    fn servers_are_named_by_their_url() {
        assert_eq!(reach("https://127.0.0.1:7000/").expect("an address").to_string(), "127.0.0.1:7000");
        assert_eq!(reach("https://127.0.0.1").expect("an address").to_string(), "127.0.0.1:6443");
        assert!(reach("http://127.0.0.1:80").is_err());
    }
}
