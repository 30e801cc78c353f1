//! The node leaves for good, or for long: its pods end as gracefully as they may, it says that it is not ready, and lets
//! its lease go by its own word. So what was here is elsewhere at once, and nobody has to be asked or waited for.
//!
//! An agent that only stops does nothing of this: its containers run on, and the next one adopts them.

use std::time::Duration;

use model::kinds as gvr;
use model::{Key, World};

use crate::agent::Agent;
use crate::node;
use crate::run::node_key;

/// How an agent is to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The containers run on, and the lease with them.
    Stay,
    /// The node leaves.
    Leave,
}

/// How far a node is with leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Farewell {
    /// It does not leave.
    Stays,
    /// Its pods end.
    Ends,
    /// They have ended, and it lets its lease go.
    Goes,
    /// Its lease is let go.
    Gone,
}

/// The longest that pods get to end, whatever they ask for: as long as they get by default. Who turns a machine off waits.
pub const GRACE_MAX: Duration = Duration::from_secs(30);

/// How long it may take to tell, beyond that, how the pods ended: a server that is away must not hold up a machine.
const TELL_MAX: Duration = Duration::from_secs(5);

/// How long it may take to let the lease go. If that fails, the node's voters are asked as for any silent node.
const LET_GO_MAX: Duration = Duration::from_secs(5);

/// The pause between two looks at whether the pods have ended.
const LOOK: Duration = Duration::from_millis(50);

/// Why a pod failed that ended because its node left: upstream's words.
pub const REASON: &str = "Terminated";
/// The same, in a sentence.
pub const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";

/// Leaves.
pub async fn leave(agent: &Agent) {
    agent.farewell.send_replace(Farewell::Ends);
    let host = &agent.means.host;
    if host.within(GRACE_MAX + TELL_MAX, until(agent, has_ended)).await.is_none() {
        tracing::warn!("not all pods have ended in time: they are killed");
    } else if host.within(TELL_MAX, until(agent, is_told)).await.is_none() {
        tracing::warn!("the server was not told that the node leaves and how all pods ended");
    }
    agent.farewell.send_replace(Farewell::Goes);
    let mut farewell = agent.farewell.subscribe();
    let gone = farewell.wait_for(|farewell| *farewell == Farewell::Gone);
    if host.within(LET_GO_MAX, gone).await.is_none() {
        tracing::warn!("the server did not take the node's word: its voters will be asked");
    }
}

async fn until(agent: &Agent, is_so: impl Fn(&Agent) -> bool) {
    while !is_so(agent) {
        agent.means.host.sleep(LOOK).await;
    }
}

fn has_ended(agent: &Agent) -> bool {
    agent.registry.all().iter().all(|shown| is_over(shown.status.phase.as_deref()))
}

fn is_told(agent: &Agent) -> bool {
    let node = agent.means.caches.get(&node_key(agent));
    if node.and_then(|node| node.view().ok()).is_some_and(|node| node::is_told(&node, "True")) {
        return false;
    }
    agent.registry.all().iter().all(|shown| {
        let key = Key::new(&gvr::POD, shown.pod.namespace.clone(), shown.pod.name.clone());
        let there = agent.means.caches.get(&key).filter(|there| there.uid() == shown.pod.uid);
        there.and_then(|there| there.seen::<Told>()).is_none_or(|told| is_over(Some(&told.status.phase)))
    })
}

fn is_over(phase: Option<&str>) -> bool {
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// What is read of a pod.
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Told {
    status: ToldStatus,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct ToldStatus {
    phase: String,
}
