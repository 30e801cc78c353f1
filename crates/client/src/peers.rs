//! Agents and servers ask agents: for promises, and for votes.
//!
//! The one thing that a node's own https face is asked besides streams of bytes. Every question has an end: what is not
//! answered within [`ANSWER_MAX`] counts as no.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use model::Object;
use model::fence::{KNOCK, No, Question};
use serde::{Deserialize, Serialize};

use crate::{Access, Https, Identity, Transport, TransportError};

/// How long an answer may take. A round of votes is part of a failover: half would lose answers to one lost packet,
/// double would put the takeover off when one voter of three is dead too.
pub const ANSWER_MAX: Duration = Duration::from_millis(800);

/// Connections kept at once: two sets of voters and a few that have left.
const CONNECTIONS_MAX: usize = 32;

/// Where an agent is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The node's name.
    pub name: String,
    /// Its https face.
    pub address: SocketAddr,
}

impl Peer {
    /// The agent of a node, as its Node says.
    pub fn of(node: &Object) -> Option<Self> {
        let tree = node.tree().ok()?;
        let mut addresses = tree["status"]["addresses"].as_array()?.iter();
        let address = addresses.find(|one| one["type"] == "InternalIP")?["address"].as_str()?;
        let port = tree["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"].as_u64().unwrap_or(0);
        let ip: IpAddr = address.parse().ok()?;
        let port = u16::try_from(port).unwrap_or(0);
        Some(Self { name: node.name().to_owned(), address: SocketAddr::new(ip, port) })
    }
}

/// What a voter is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Not to vote against the node for a while.
    Promise,
    /// To vote against its lease.
    Vote,
}

impl Wish {
    /// Where the question is put.
    pub fn path(self) -> &'static str {
        match self {
            Wish::Promise => "/fence/promise",
            Wish::Vote => "/fence/vote",
        }
    }
}

/// What a voter answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    /// Why it does not agree; nothing: it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no: Option<No>,
}

/// Asks voters.
#[async_trait]
pub trait Peers: Send + Sync + 'static {
    /// Puts one question to one voter; `Ok(None)`: it agrees.
    async fn ask(&self, peer: &Peer, wish: Wish, asked: &Question) -> Result<Option<No>, TransportError>;

    /// Whether the node's machine refuses a connection within [`KNOCK`]: its agent is gone, the machine is not.
    ///
    /// That a connection is taken says nothing: the agent may hang, and some networks answer for every address.
    async fn refuses(&self, peer: &Peer) -> bool;
}

/// Asks over https.
pub struct HttpsPeers {
    authority_pem: Vec<u8>,
    /// Guards who asks and the connections, while one is looked up or put in.
    asking: Mutex<Asking>,
}

impl std::fmt::Debug for HttpsPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpsPeers").finish_non_exhaustive()
    }
}

struct Asking {
    identity: Identity,
    /// By address.
    known: BTreeMap<SocketAddr, Arc<Https>>,
}

impl HttpsPeers {
    /// Asks as `identity` those whom the authority vouches for.
    pub fn new(authority_pem: Vec<u8>, identity: Identity) -> Self {
        Self { authority_pem, asking: Mutex::new(Asking { identity, known: BTreeMap::new() }) }
    }

    /// Asks as `identity` from now on: a certificate was renewed. Questions under way go on as they began.
    pub fn renew(&self, identity: Identity) {
        *self.asking() = Asking { identity, known: BTreeMap::new() };
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transport(&self, peer: &Peer) -> Result<Arc<Https>, TransportError> {
        let mut asking = self.asking();
        if let Some(transport) = asking.known.get(&peer.address) {
            return Ok(transport.clone());
        }
        let access = Access {
            server: format!("https://{}", peer.address),
            authority_pem: self.authority_pem.clone(),
            server_name: None,
            identity: asking.identity.clone(),
        };
        let made = Https::new(&access).map_err(|error| TransportError::Unreachable(error.into()))?;
        let made = Arc::new(made);
        if asking.known.len() >= CONNECTIONS_MAX {
            asking.known.clear();
        }
        asking.known.insert(peer.address, made.clone());
        Ok(made)
    }
}

#[async_trait]
impl Peers for HttpsPeers {
    async fn ask(&self, peer: &Peer, wish: Wish, asked: &Question) -> Result<Option<No>, TransportError> {
        let unreachable = |error: serde_json::Error| TransportError::Unreachable(error.into());
        let body = serde_json::to_vec(asked).map_err(unreachable)?;
        let request = http::Request::post(wish.path()).header("content-type", "application/json");
        let request =
            request.body(Bytes::from(body)).map_err(|error| TransportError::Unreachable(error.into()))?;
        let transport = self.transport(peer)?;
        let answer = tokio::time::timeout(ANSWER_MAX, transport.call(request)).await;
        let answer = match answer {
            Ok(answer) => answer?,
            Err(late) => {
                // A connection that swallows questions is not asked again.
                self.asking().known.remove(&peer.address);
                return Err(TransportError::Unreachable(late.into()));
            }
        };
        if !answer.status().is_success() {
            let (head, body) = answer.into_parts();
            return Err(TransportError::Refused { status: head.status, body });
        }
        let answer: Answer = serde_json::from_slice(answer.body()).map_err(unreachable)?;
        Ok(answer.no)
    }

    async fn refuses(&self, peer: &Peer) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, ConnectionReset};
        match tokio::time::timeout(KNOCK, tokio::net::TcpStream::connect(peer.address)).await {
            Ok(Err(error)) => matches!(error.kind(), ConnectionRefused | ConnectionReset),
            Ok(Ok(_)) | Err(_) => false,
        }
    }
}

/// Asks nobody: for a node that is alone, and for tests of other things.
pub struct NoPeers;

#[async_trait]
impl Peers for NoPeers {
    async fn ask(&self, peer: &Peer, _: Wish, _: &Question) -> Result<Option<No>, TransportError> {
        Err(TransportError::Unreachable(format!("there is no way to {}", peer.name).into()))
    }

    async fn refuses(&self, _: &Peer) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_machine_whose_agent_is_gone_refuses_and_nobody_else_does() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let identity = Identity::Token(String::new());
        let (peers, peer) = (HttpsPeers::new(Vec::new(), identity), Peer { name: "n".into(), address });
        assert!(!peers.refuses(&peer).await, "somebody listens, whoever it is");
        drop(listener);
        assert!(peers.refuses(&peer).await, "it is refused, by a kernel that lives");
        // No machine: TCP goes to no group.
        let nowhere = Peer { name: "n".into(), address: SocketAddr::from(([224, 0, 0, 1], 1)) };
        assert!(!peers.refuses(&nowhere).await);
    }
}
