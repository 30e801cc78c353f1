//! Holds the node's lease: renews it at a steady pace, sooner after a failure, each time naming the revision that it replaces; takes it up again
//! after a restart; begins a new epoch once an old one is over.

use std::sync::Arc;
use std::time::Duration;

use client::{ClientError, PatchKind};
use model::fence::{Record, Renewal, State, VoterSet};
use model::kinds as gvr;
use model::{Key, Object, Precondition, Tree, World};
use serde_json::json;

use crate::agent::Agent;
use crate::farewell::Farewell;
use crate::run::node_key;

/// The namespace of leases of nodes.
const NAMESPACE: &str = "kube-node-lease";

/// How many renewals' time one may take: one that hangs leaves half a lease for another, and a slow answer still counts.
const RENEWAL_TIMES_MAX: u32 = 2;

/// After which part of a renewal's time one that failed is tried again: of a lossy line, four in a row are seldom lost.
const RETRY_PARTS: u32 = 4;

/// Steps made at once: to look, to let go, to begin, to renew, and to look again when somebody was faster.
const STEPS_MAX: usize = 8;

/// Why there is no lease now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The server did not do it.
    #[error(transparent)]
    Api(#[from] ClientError),
    /// The node's own disk or runtime did not.
    #[error("{0}")]
    Own(String),
    /// It is somebody else's turn.
    #[error("{0}")]
    Waits(&'static str),
}

/// What to do next.
enum Next {
    /// See what there is.
    Look,
    /// Renew what is held.
    Renew,
    /// Nothing before the next turn.
    Rest,
}

/// Renews until the agent ends.
pub async fn keep(agent: Arc<Agent>) {
    let mut next = Next::Look;
    let mut farewell = agent.farewell.subscribe();
    let (host, every) = (&agent.means.host, agent.settings.lease_every);
    loop {
        if *farewell.borrow_and_update() >= Farewell::Goes {
            return give_up(&agent).await;
        }
        let began = host.moment();
        let turn = host.within(every * RENEWAL_TIMES_MAX, turn(&agent, &mut next)).await;
        agent.is_leased.send_replace(matches!(turn, Some(Ok(()))));
        let rest = match turn {
            Some(Ok(())) => every.saturating_sub(host.moment().since(began)),
            Some(Err(trouble)) => {
                tracing::debug!(%trouble, "the node's lease is not renewed");
                if matches!(trouble, Trouble::Api(_)) { every / RETRY_PARTS } else { every }
            }
            None => {
                tracing::debug!("the node's lease was not renewed in time");
                Duration::ZERO
            }
        };
        // The sender is in the agent: it cannot be gone.
        let _ = host.within(rest, farewell.changed()).await;
    }
}

/// Lets the lease go by the node's own word: written down first, so that no answer that still arrives, and no later agent,
/// takes it up again.
async fn give_up(agent: &Agent) {
    let every = agent.settings.lease_every;
    loop {
        match agent.means.host.within(every * RENEWAL_TIMES_MAX, lose(agent)).await {
            Some(Ok(())) => break,
            Some(Err(trouble)) => tracing::debug!(%trouble, "the node's lease is not let go"),
            None => tracing::debug!("the node's lease was not let go in time"),
        }
        agent.means.host.sleep(every).await;
    }
    agent.farewell.send_replace(Farewell::Gone);
}

async fn lose(agent: &Agent) -> Result<(), Trouble> {
    // Also where no server answers.
    agent.fence.let_go(agent, 0).await.map_err(Trouble::Own)?;
    let key = Key::new(&gvr::LEASE, NAMESPACE, agent.settings.node_name.clone());
    let lease = agent.means.client.get(&key).await?;
    let is_ours =
        |record: &Record| record.state != State::Lost && record.incarnation == agent.fence.me().incarnation;
    if Record::read(&lease).filter(is_ours).is_none() {
        return Ok(());
    }
    let_go(agent, &lease).await?;
    patch(agent, &key, &lease, json!({"metadata": Record::losing()})).await.map(|_| ()).map_err(Trouble::Api)
}

/// One turn: ends with a lease that was just renewed, or with the reason why not.
async fn turn(agent: &Agent, next: &mut Next) -> Result<(), Trouble> {
    let key = Key::new(&gvr::LEASE, NAMESPACE, agent.settings.node_name.clone());
    for _ in 0..STEPS_MAX {
        *next = match next {
            Next::Look | Next::Rest => look(agent, &key).await?,
            Next::Renew => renew(agent, &key).await?,
        };
        if let Next::Rest = next {
            *next = Next::Renew;
            return Ok(());
        }
    }
    Err(Trouble::Waits("others keep changing it"))
}

/// Sees what the store has, and does what is due before a renewal.
async fn look(agent: &Agent, key: &Key) -> Result<Next, Trouble> {
    let lease = match agent.means.client.get(key).await {
        Ok(lease) => lease,
        Err(ClientError::NotFound { .. }) => make(agent, key).await?,
        Err(error) => return Err(error.into()),
    };
    let me = agent.fence.me();
    let Some(record) = Record::read(&lease) else {
        // A store that was set back may not know of a lease under which something runs here.
        let_go(agent, &lease).await?;
        return begin(agent, key, &lease).await;
    };
    match record.state {
        State::Lost if lease.is_ending() => Err(Trouble::Waits("it ends with its Node")),
        State::Lost => {
            let_go(agent, &lease).await?;
            begin(agent, key, &lease).await
        }
        _ if record.incarnation != me.incarnation => {
            Err(Trouble::Waits("another life of this host holds it, until it is lost"))
        }
        State::Held if agent.fence.holds(record.epoch) => {
            agent.fence.shown(record.grant());
            Ok(Next::Renew)
        }
        // The Node was deleted, the machine has booted, the store was set back, or the node's word was given: that word
        // ends it.
        State::Ending | State::Held | State::Restored => {
            let_go(agent, &lease).await?;
            patch(agent, key, &lease, json!({"metadata": Record::losing()})).await?;
            Ok(Next::Look)
        }
    }
}

async fn let_go(agent: &Agent, lease: &Object) -> Result<(), Trouble> {
    agent.fence.let_go(agent, lease.revision()).await.map_err(Trouble::Own)
}

async fn begin(agent: &Agent, key: &Key, lease: &Object) -> Result<Next, Trouble> {
    let me = agent.fence.me();
    let terms = agent.fence.terms();
    let set = newest(agent).unwrap_or_else(|| VoterSet::alone(me.clone(), terms.lease));
    let sent = agent.means.host.moment().0;
    let mut beginning = json!({
        "metadata": Record::beginning(lease.revision(), &me.incarnation, &set),
        "spec": spec(agent),
    });
    beginning["metadata"]["annotations"][model::fence::SERVER] =
        if agent.settings.hosts_server { json!("true") } else { Tree::Null };
    let begun = patch(agent, key, lease, beginning).await?;
    let record = Record::read(&begun).ok_or(Trouble::Waits("somebody took its record away"))?;
    let kept = agent.fence.begun(record.grant(), sent).await;
    kept.map_err(|error| Trouble::Own(format!("cannot write down the lease: {error}")))?;
    Ok(Next::Rest)
}

async fn renew(agent: &Agent, key: &Key) -> Result<Next, Trouble> {
    let newest = newest(agent);
    let renewal = agent.fence.renewal(agent, newest.as_ref()).await;
    let renewal = renewal.map_err(|error| Trouble::Own(format!("cannot prepare a renewal: {error}")))?;
    let Some(renewal) = renewal else { return Ok(Next::Look) };
    let sent = agent.means.host.moment().0;
    match send(agent, key, &renewal).await {
        Ok(lease) => match Record::read(&lease) {
            Some(record) if record.state == State::Held && record.epoch == renewal.epoch => {
                agent.fence.acknowledged(agent, &renewal, record.revision, sent).await;
                Ok(Next::Rest)
            }
            _ => Ok(Next::Look),
        },
        Err(ClientError::Conflict { .. } | ClientError::NotFound { .. }) => Ok(Next::Look),
        Err(error) => Err(error.into()),
    }
}

async fn send(agent: &Agent, key: &Key, renewal: &Renewal) -> Result<Object, ClientError> {
    let when = Precondition { uid: None, resource_version: Some(renewal.replaces.to_string()) };
    let mut body = json!({
        "metadata": Record::renewal(&renewal.set),
        "spec": {"renewTime": model::time::micros(agent.means.host.now())},
    });
    // The lease may be older than its Node, which it is to end with.
    if let Some(node) = agent.means.caches.get(&node_key(agent)) {
        body["metadata"]["ownerReferences"] = json!([owner(&node)]);
    }
    agent.means.client.patch(key, "", PatchKind::Merge, &body, &when).await
}

async fn patch(agent: &Agent, key: &Key, lease: &Object, body: Tree) -> Result<Object, ClientError> {
    let when = Precondition::exactly(lease);
    agent.means.client.patch(key, "", PatchKind::Merge, &body, &when).await
}

/// The newest set of voters, as far as is seen.
fn newest(agent: &Agent) -> Option<VoterSet> {
    let all = agent.means.caches.list(&gvr::VOTER_SET, "");
    let read = all.iter().filter_map(|set| set.view::<model::fence::SetBody>().ok());
    read.map(|body| body.spec).max_by_key(|set| set.number)
}

fn spec(agent: &Agent) -> Tree {
    json!({
        "holderIdentity": agent.settings.node_name,
        "leaseDurationSeconds": agent.settings.lease_seconds,
        "renewTime": model::time::micros(agent.means.host.now()),
    })
}

async fn make(agent: &Agent, key: &Key) -> Result<Object, Trouble> {
    let node = agent.means.caches.get(&node_key(agent));
    let owners: Vec<_> = node.iter().map(owner).collect();
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": key.name, "namespace": NAMESPACE, "ownerReferences": owners},
        "spec": spec(agent),
    });
    match agent.means.client.create(&gvr::LEASE, NAMESPACE, &lease).await {
        Err(ClientError::AlreadyExists { .. }) => Ok(agent.means.client.get(key).await?),
        other => Ok(other?),
    }
}

fn owner(node: &Object) -> serde_json::Value {
    json!({"apiVersion": "v1", "kind": "Node", "name": node.name(), "uid": node.uid()})
}
