//! The cluster's names, and the way to all others.
//!
//! [`records()`] and [`answer()`] are pure: from Services and EndpointSlices to a snapshot, from a question and the
//! snapshot to its answer. [`Names`] listens on UDP and TCP, answers from the snapshot it was given last, and asks
//! the machine's resolvers about everything else. It never keeps what others said.

mod answer;
mod records;
mod server;
mod tcp;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use hickory_server::Server;
use hickory_server::server::RequestHandler;
use host::{Host, Tasks};
use tokio::net::{TcpListener, UdpSocket};

pub use answer::{Answer, Data, Kind, Question, Record, answer};
pub use records::{Records, records};

use crate::{NetworkError, Protocol, ServicePort, failed};
use server::{Answerer, Shared};
use upstream::Upstream;

/// Where names are served and who knows all others.
#[derive(Debug, Clone)]
pub struct NamesSettings {
    /// The addresses to listen on, UDP and TCP. Port 0 picks one that is free in both.
    pub listen: Vec<SocketAddr>,
    /// The resolvers for all names that are not the cluster's; `None` reads `resolv_conf`.
    pub upstreams: Option<Vec<SocketAddr>>,
    /// The file that names the machine's resolvers, `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
}

/// The cluster's names, served until this is dropped.
pub struct Names {
    records: Arc<Snapshot>,
    listening: Vec<SocketAddr>,
    _serving: Tasks,
}

/// The snapshot served; the lock is held for the copying of a pointer.
type Snapshot = RwLock<Arc<Records>>;

impl Names {
    /// Starts to serve `records`.
    pub async fn open(host: &Host, settings: NamesSettings, records: Records) -> Result<Self, NetworkError> {
        let records = Arc::new(RwLock::new(Arc::new(records)));
        let mut sockets = Vec::new();
        for address in &settings.listen {
            let bound = bind(*address).await.map_err(failed(format!("listen on {address} for names")))?;
            sockets.push(bound);
        }
        let listening: Vec<SocketAddr> = sockets.iter().map(|(address, ..)| *address).collect();
        let upstream = Upstream::new(host.clone(), settings, listening.clone());
        let answerer = Arc::new(Answerer::new(host.clone(), records.clone(), upstream));
        let mut serving = Tasks::new();
        let mut server = Server::new(Shared(answerer.clone()));
        for (_, udp, tcp) in sockets {
            server.register_socket(udp);
            serving.spawn(tcp::serve(host.clone(), tcp, answerer.clone()));
        }
        serving.spawn(serve(server));
        Ok(Self { records, listening, _serving: serving })
    }

    /// The addresses it listens on, with the ports that were picked.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Serves these records from now on.
    pub fn set(&self, records: Records) {
        let mut served = self.records.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        *served = Arc::new(records);
    }
}

/// The rules that lead the cluster's DNS address to a node's own listener, for [`crate::ServiceRules`]. They win over
/// a Service that has the same address.
pub fn rules(dns: IpAddr, listener: SocketAddr) -> Vec<ServicePort> {
    let port = |protocol| ServicePort {
        // Sorts before every namespace, and what comes first wins.
        name: "!names:dns".to_owned(),
        protocol,
        addresses: vec![dns],
        port: 53,
        node_port: 0,
        affinity_seconds: None,
        endpoints: vec![listener],
        external_endpoints: Vec::new(),
        keep_source: false,
    };
    vec![port(Protocol::Tcp), port(Protocol::Udp)]
}

async fn serve(mut server: Server<impl RequestHandler>) {
    if let Err(error) = server.block_until_done().await {
        tracing::error!(%error, "names are served no more");
    }
}

/// How often a port is picked that turns out to be taken in TCP.
const PICKS_MAX: usize = 16;

async fn bind(address: SocketAddr) -> std::io::Result<(SocketAddr, UdpSocket, TcpListener)> {
    let mut picks = 0;
    loop {
        let udp = UdpSocket::bind(address).await?;
        let bound = udp.local_addr()?;
        picks += 1;
        match TcpListener::bind(bound).await {
            Ok(tcp) => return Ok((bound, udp, tcp)),
            Err(error) if address.port() != 0 || picks == PICKS_MAX => return Err(error),
            Err(_) => {}
        }
    }
}
