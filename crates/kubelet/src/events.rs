//! Tells users what happened, as Events of the core group. Never holds up whoever tells; repeats are counted.

use std::collections::BTreeMap;

use client::{Client, ClientError, PatchKind};
use host::{Host, Time};
use model::kinds as gvr;
use model::{Key, Precondition};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// How many events may wait to be written; more are dropped.
///
/// A node full of failing pods tells some hundred in a burst. Twice as many would only be old news.
const WAITING_MAX: usize = 512;

/// How many different events are remembered to count repeats; the oldest are forgotten.
const KNOWN_MAX: usize = 1024;

/// Whom an event is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct About {
    /// `Pod` or `Node`.
    pub kind: &'static str,
    /// Its namespace; empty for nodes.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The field that it is about, such as `spec.containers{web}`; empty for the whole.
    pub field: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Note {
    about: About,
    is_warning: bool,
    reason: String,
    message: String,
}

/// Takes events. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events(mpsc::Sender<(Note, Time)>);

/// Writes events; to be run as a task.
pub struct Writer {
    inbox: mpsc::Receiver<(Note, Time)>,
    client: Client,
    host: Host,
    node: String,
    known: BTreeMap<Note, Known>,
}

struct Known {
    name: String,
    count: u64,
    last: Time,
}

/// Where to tell events, and who writes them.
pub fn open(client: Client, host: Host, node: String) -> (Events, Writer) {
    let (sender, inbox) = mpsc::channel(WAITING_MAX);
    (Events(sender), Writer { inbox, client, host, node, known: BTreeMap::new() })
}

impl Events {
    /// Tells that something usual happened.
    pub fn normal(&self, about: About, reason: &str, message: impl Into<String>, now: Time) {
        self.tell(about, false, reason, message.into(), now);
    }

    /// Tells that something went wrong.
    pub fn warning(&self, about: About, reason: &str, message: impl Into<String>, now: Time) {
        self.tell(about, true, reason, message.into(), now);
    }

    fn tell(&self, about: About, is_warning: bool, reason: &str, message: String, now: Time) {
        let note = Note { about, is_warning, reason: reason.to_owned(), message };
        if self.0.try_send((note, now)).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait to be written");
        }
    }
}

impl Writer {
    /// Writes events until nobody can tell any more.
    pub async fn run(mut self) {
        while let Some((note, at)) = self.inbox.recv().await {
            if let Err(error) = self.write(&note, at).await {
                tracing::debug!(%error, reason = note.reason, "an event could not be written");
            }
        }
    }

    async fn write(&mut self, note: &Note, at: Time) -> Result<(), ClientError> {
        let namespace = namespace_of(note);
        if let Some(known) = self.known.get_mut(note) {
            known.count += 1;
            known.last = at;
            let patch = json!({"count": known.count, "lastTimestamp": model::time::seconds(at)});
            let key = Key::new(&gvr::EVENT, namespace.clone(), known.name.clone());
            let done = self.client.patch(&key, "", PatchKind::Merge, &patch, &Precondition::default()).await;
            match done {
                Err(ClientError::NotFound { .. }) => {}
                other => return other.map(|_| ()),
            }
        }
        let name = format!("{}.{:016x}", note.about.name, self.host.chance().u64());
        self.client.create(&gvr::EVENT, &namespace, &event(note, &name, &self.node, at)).await?;
        self.forget_oldest();
        self.known.insert(note.clone(), Known { name, count: 1, last: at });
        Ok(())
    }

    fn forget_oldest(&mut self) {
        if self.known.len() >= KNOWN_MAX {
            let oldest = self.known.iter().min_by_key(|(_, known)| known.last).map(|(note, _)| note.clone());
            if let Some(oldest) = oldest {
                self.known.remove(&oldest);
            }
        }
    }
}

fn namespace_of(note: &Note) -> String {
    if note.about.namespace.is_empty() { "default".into() } else { note.about.namespace.clone() }
}

fn event(note: &Note, name: &str, node: &str, at: Time) -> Value {
    let about = &note.about;
    let mut involved = json!({"kind": about.kind, "apiVersion": "v1", "name": about.name, "uid": about.uid});
    if !about.namespace.is_empty() {
        involved["namespace"] = json!(about.namespace);
    }
    if !about.field.is_empty() {
        involved["fieldPath"] = json!(about.field);
    }
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": namespace_of(note)},
        "involvedObject": involved,
        "type": if note.is_warning { "Warning" } else { "Normal" },
        "reason": note.reason, "message": note.message, "count": 1,
        "firstTimestamp": model::time::seconds(at), "lastTimestamp": model::time::seconds(at),
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet", "reportingInstance": node,
    })
}
