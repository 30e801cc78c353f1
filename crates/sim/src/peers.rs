//! The ways between agents: a question goes out over the asker's line and in over the voter's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use client::peers::ANSWER_MAX;
use client::{Peer, Peers, TransportError, Wish};
use host::Host;
use kubelet::Voice;
use model::fence::{KNOCK, No, Question};

use crate::gate::Gate;
use crate::wire::{Direction, Line};

/// How an agent is reached.
#[derive(Clone)]
pub struct Door {
    /// Its machine's line.
    pub line: Line,
    /// Shut while it is paused.
    pub gate: Gate,
    /// Who answers.
    pub voice: Voice,
}

/// Every agent's door, by node; clones share it.
#[derive(Clone, Default)]
pub struct Doors(Arc<Mutex<BTreeMap<String, Door>>>);

impl Doors {
    /// Puts a node's door up.
    pub fn put(&self, node: &str, door: Door) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), door);
    }

    /// Takes a node's door away: its machine is off.
    pub fn take(&self, node: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }

    fn get(&self, node: &str) -> Option<Door> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }
}

/// Asks over lines.
pub struct SimPeers {
    /// Time.
    pub host: Host,
    /// Where the others are.
    pub doors: Doors,
    /// The asker's own line and gate; `None` for the server, whose line is each node's.
    pub own: Option<(Line, Gate)>,
}

impl SimPeers {
    async fn trip(&self, peer: &Peer, wish: Wish, asked: &Question) -> Result<Option<No>, TransportError> {
        let refused = || TransportError::Unreachable("connection refused".into());
        let door = self.doors.get(&peer.name).ok_or_else(refused)?;
        if let Some((line, _)) = &self.own {
            line.travel(Direction::Out).await?;
        }
        door.line.travel(Direction::In).await?;
        door.gate.pass().await;
        let agent = door.voice.borrow().as_ref().and_then(std::sync::Weak::upgrade).ok_or_else(refused)?;
        let no = agent.fence.answer(&agent, wish, asked.clone()).await;
        drop(agent);
        door.gate.pass().await;
        door.line.travel(Direction::Out).await?;
        if let Some((line, gate)) = &self.own {
            line.travel(Direction::In).await?;
            gate.pass().await;
        }
        Ok(no)
    }
}

#[async_trait]
impl Peers for SimPeers {
    async fn ask(&self, peer: &Peer, wish: Wish, asked: &Question) -> Result<Option<No>, TransportError> {
        let late = || Err(TransportError::Unreachable("no answer in time".into()));
        self.host.within(ANSWER_MAX, self.trip(peer, wish, asked)).await.unwrap_or_else(late)
    }

    async fn refuses(&self, peer: &Peer) -> bool {
        let trip = async {
            let door = self.doors.get(&peer.name)?;
            door.line.travel(Direction::In).await.ok()?;
            let has_agent = door.voice.borrow().as_ref().is_some_and(|voice| voice.strong_count() > 0);
            door.line.travel(Direction::Out).await.ok().filter(|()| !has_agent)
        };
        self.host.within(KNOCK, trip).await.flatten().is_some()
    }
}
