//! The ways between agents: a question goes out over the asker's line and in over the voter's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use client::peers::ANSWER_MAX;
use client::{Peer, Peers, TransportError, Wish};
use host::{Host, Process};
use kubelet::Voice;
use model::fence::{KNOCK, No, Question};

use crate::mutation::Mutation;
use crate::wire::{Direction, Fate, Line, unreachable};

/// How an agent is reached.
#[derive(Clone)]
pub struct Door {
    /// Its machine's line.
    pub line: Line,
    /// Stands still while it is paused.
    pub process: Process,
    /// Who answers.
    pub voice: Voice,
}

impl Door {
    /// What the agent says, if there is one.
    async fn answer(&self, wish: Wish, mut asked: Question) -> Result<Option<No>, TransportError> {
        let agent = self.voice.borrow().as_ref().and_then(std::sync::Weak::upgrade);
        let agent = agent.ok_or_else(|| unreachable("connection refused"))?;
        match self.line.mutation() {
            Some(Mutation::Reachability) if wish == Wish::Promise => return Ok(None),
            Some(Mutation::VotersByName) => asked.voter = agent.fence.me(),
            _ => {}
        }
        let no = self.process.part(agent.fence.answer(&agent, wish, asked)).await;
        Ok(self.line.mutation().map_or(no, |mutation| mutation.answers(wish, no)))
    }
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
    /// The asker's own line; `None` for the server, whose line is each node's.
    pub own: Option<Line>,
}

impl SimPeers {
    async fn trip(&self, peer: &Peer, wish: Wish, asked: &Question) -> Result<Option<No>, TransportError> {
        let door = self.doors.get(&peer.name).ok_or_else(|| unreachable("connection refused"))?;
        if wish == Wish::Vote && door.line.mutation() == Some(Mutation::NoVotes) {
            return Ok(None);
        }
        let fate = door.line.fate(self.host.chance());
        if let Some(line) = &self.own {
            line.pass(Direction::Out).await?;
        }
        door.line.travel(Direction::In).await?;
        if fate == Fate::RequestLost {
            return Err(unreachable("connection reset"));
        }
        door.line.perhaps_twice(|| {
            let (door, asked) = (door.clone(), asked.clone());
            // Nobody waits for what it says.
            async move { drop(door.answer(wish, asked).await) }
        });
        let no = door.answer(wish, asked.clone()).await?;
        door.line.travel(Direction::Out).await?;
        if let Some(line) = &self.own {
            line.pass(Direction::In).await?;
        }
        if fate == Fate::AnswerLost {
            return Err(unreachable("connection reset"));
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
