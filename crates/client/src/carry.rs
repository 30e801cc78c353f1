//! Carries out the writes of plans, each with its precondition.

use model::{Gvr, Key, Object, Precondition, Tree, Write};
use serde_json::json;

use crate::client::{Deletion, add_preconditions};
use crate::{Client, ClientError, PatchKind};

/// What a write came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The object as the server has it now, where it said so. `None` for a deletion that left nothing, for a binding
    /// and for an eviction.
    pub object: Option<Object>,
    /// Whether it had been done before: the object to create was there, the one to delete was not.
    pub already: bool,
}

impl Outcome {
    /// The revision that the write left the object at.
    pub fn revision(&self) -> Option<u64> {
        self.object.as_ref().map(Object::revision)
    }

    fn of(object: impl Into<Option<Object>>) -> Self {
        Self { object: object.into(), already: false }
    }

    fn already(object: Option<Object>) -> Self {
        Self { object, already: true }
    }
}

impl Client {
    /// Carries out one write of a plan. Doing it twice does no harm: "already exists" counts as done for a creation
    /// with a name, "not found" for a deletion or an eviction.
    pub async fn carry_out(&self, write: &Write) -> Result<Outcome, ClientError> {
        match write {
            Write::Create { gvr, namespace, object } => self.create_once(gvr, namespace, object).await,
            Write::Patch { key, part, patch, when } => {
                self.patch(key, part, PatchKind::Merge, patch, when).await.map(Outcome::of)
            }
            Write::Replace { key, part, object } => self.replace(key, part, object).await.map(Outcome::of),
            Write::Bind { pod, uid, node } => {
                self.create_part(pod, "binding", &binding(pod, uid, node)).await.map(|_| Outcome::of(None))
            }
            Write::Evict { pod, when } => {
                let done = self.create_part(pod, "eviction", &eviction(pod, when)).await;
                gone_is_done(done.map(|_| None))
            }
            Write::Absent { key, uid } => self.absent(key, uid).await,
            // Voters are asked by whoever holds a way to them; the server has no part in it.
            Write::Votes { lease, .. } => {
                Err(ClientError::Conflict { message: format!("nobody here can ask for votes about {lease}") })
            }
            Write::Knock { node, .. } => {
                Err(ClientError::Conflict { message: format!("nobody here can knock at {node}") })
            }
            Write::Delete { key, when, grace_seconds, propagation } => {
                let deletion =
                    Deletion { when: when.clone(), grace_seconds: *grace_seconds, propagation: *propagation };
                gone_is_done(self.delete(key, &deletion).await)
            }
        }
    }

    /// Nothing when the object of this uid is gone, a conflict when it is there.
    async fn absent(&self, key: &Key, uid: &str) -> Result<Outcome, ClientError> {
        match self.get(key).await {
            Ok(there) if there.uid() == uid => {
                Err(ClientError::Conflict { message: format!("{key} with uid {uid} is still there") })
            }
            Ok(_) | Err(ClientError::NotFound { .. }) => Ok(Outcome::already(None)),
            Err(error) => Err(error),
        }
    }

    /// A creation; when the name is taken, gives the object that has it.
    async fn create_once(&self, gvr: &Gvr, namespace: &str, object: &Tree) -> Result<Outcome, ClientError> {
        let error = match self.create(gvr, namespace, object).await {
            Ok(made) => return Ok(Outcome::of(made)),
            Err(error) => error,
        };
        match (&error, object["metadata"]["name"].as_str()) {
            (ClientError::AlreadyExists { .. }, Some(name)) => {
                match self.get(&Key::new(gvr, namespace, name)).await {
                    Ok(there) => Ok(Outcome::already(Some(there))),
                    Err(ClientError::NotFound { .. }) => Ok(Outcome::already(None)),
                    Err(error) => Err(error),
                }
            }
            _ => Err(error),
        }
    }
}

fn gone_is_done(done: Result<Option<Object>, ClientError>) -> Result<Outcome, ClientError> {
    match done {
        Ok(left) => Ok(Outcome::of(left)),
        Err(ClientError::NotFound { .. }) => Ok(Outcome::already(None)),
        Err(error) => Err(error),
    }
}

fn binding(pod: &Key, uid: &str, node: &str) -> Tree {
    json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    })
}

fn eviction(pod: &Key, when: &Precondition) -> Tree {
    let mut eviction = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
    });
    if *when != Precondition::default() {
        let mut options = json!({});
        add_preconditions(&mut options, when);
        eviction["deleteOptions"] = options;
    }
    eviction
}
