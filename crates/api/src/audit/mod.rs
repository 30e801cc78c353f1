//! The audit log: who asked for what, and how it ended, as lines of `audit.k8s.io/v1` events.
//!
//! It never holds up a request: what finds no room in the queue is left out and counted. Off unless there is a policy.

mod event;
mod policy;
mod trail;
mod webhook;

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use host::{Host, Time};
use http::Request;
use model::Tree;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::answer::Told;
use crate::auth::{Attributes, Identity};
use crate::codec;
use crate::registry::Resource;
use crate::request::Validation;

pub use policy::Policy;
pub use trail::{BATCH_LEN_BYTES, EVENT_LEN, Log, Sink, Trail, Truncation};
pub use webhook::{BATCH_LEN, BATCH_WAIT, Webhook, WebhookSettings};

use policy::{Level, Stage, Wanted};

/// Where a request came from, as the connection knows it.
#[derive(Debug, Clone, Copy)]
pub struct Remote(pub IpAddr);

/// What is written of one request.
pub struct Record {
    trail: Arc<Trail>,
    host: Host,
    wanted: Wanted,
    told: Arc<Told>,
    received: Time,
    /// What does not change from stage to stage.
    head: Tree,
    /// Whether its end was written.
    is_done: AtomicBool,
}

impl Record {
    /// Begins to write a request down, and notes that it came; `None` when the policy wants nothing of it. `resource` is what
    /// it is for, where that is served here.
    pub fn begin(
        trail: &Arc<Trail>,
        host: &Host,
        who: Option<&Identity>,
        (what, resource): (&Attributes, Option<&Resource>),
        request: &Request<Bytes>,
        told: &Arc<Told>,
    ) -> Option<Arc<Self>> {
        let wanted = trail.policy().wanted(who, what);
        if wanted.level == Level::None {
            return None;
        }
        let headers = request.headers();
        let id = event::id_of(headers).unwrap_or_else(|| host.chance().uuid());
        let remote = request.extensions().get::<Remote>().map(|remote| remote.0);
        let mut head = event::head(&id, request.uri(), what, headers, remote);
        head["level"] = json!(wanted.level.word());
        if let Some(who) = who {
            head["user"] = event::user(who);
        }
        let received = host.now();
        let (trail, host, told) = (trail.clone(), host.clone(), told.clone());
        let mut record = Self { trail, host, wanted, told, received, head, is_done: AtomicBool::new(false) };
        record.write(Stage::RequestReceived, |_| {});
        record.note_request(what, resource, request);
        Some(Arc::new(record))
    }

    /// The id by which it is found.
    pub fn id(&self) -> &str {
        self.head["auditID"].as_str().unwrap_or_default()
    }

    /// What was sent: its name always, all of it where that is wanted.
    fn note_request(&mut self, what: &Attributes, resource: Option<&Resource>, request: &Request<Bytes>) {
        let writes =
            matches!(what.verb.as_str(), "create" | "update" | "patch" | "delete" | "deletecollection");
        if !what.is_resource() || !writes || request.body().is_empty() {
            return;
        }
        let mut media = codec::media_type(request.headers());
        if what.verb == "patch" {
            // JSON patches are YAML as well.
            "application/yaml".clone_into(&mut media);
        }
        let Ok(sent) = codec::read_plain(&media, request.body()) else { return };
        if matches!(what.verb.as_str(), "create" | "update") {
            event::complete_ref(&mut self.head["objectRef"], &sent);
        }
        if self.wanted.level >= Level::Request {
            let read = resource.filter(|_| is_whole(what)).and_then(|resource| {
                let mut read = codec::read(resource, &media, request.body(), Validation::Ignore).ok()?.object;
                codec::settle(resource, &mut read);
                Some(read)
            });
            self.head["requestObject"] = self.shown(read.unwrap_or(sent));
        }
    }

    fn shown(&self, tree: Tree) -> Tree {
        if self.wanted.omit_managed_fields { event::without_managed_fields(tree) } else { tree }
    }

    /// The head of the answer goes out, and the rest takes its time.
    pub fn started(&self, code: u16) {
        self.write(Stage::ResponseStarted, |event| event["responseStatus"] = event::status(code, None));
    }

    /// The answer is complete; `None` for one that came in pieces.
    pub fn complete(&self, code: u16, media: Option<&str>, answer: Option<&Bytes>) {
        if self.is_done.swap(true, Ordering::Relaxed) {
            return;
        }
        let wants_all = self.wanted.level == Level::RequestResponse;
        // What went well is looked at only where it is wanted.
        let read = |answer: &Bytes| codec::read_plain(media.unwrap_or("application/json"), answer).ok();
        let answer = answer.filter(|_| wants_all || code >= 400).and_then(read);
        self.write(Stage::ResponseComplete, |event| {
            event["responseStatus"] = event::status(code, answer.as_ref());
            if let Some(answer) = answer.filter(|_| wants_all) {
                event["responseObject"] = self.shown(answer);
            }
        });
    }

    /// A fault of ours ended it.
    pub fn panicked(&self) {
        self.is_done.store(true, Ordering::Relaxed);
        let message = "APIServer panic'd";
        let status = json!({"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500});
        self.write(Stage::Panic, |event| event["responseStatus"] = status);
    }

    fn write(&self, stage: Stage, fill: impl FnOnce(&mut Tree)) {
        if self.wanted.omit_stages.contains(&stage) {
            return;
        }
        let mut event = self.head.clone();
        if stage == Stage::RequestReceived {
            // Nothing of the body was read then.
            event.as_object_mut().map(|event| event.remove("requestObject"));
        }
        event["stage"] = json!(stage.word());
        event["requestReceivedTimestamp"] = json!(model::time::micros(self.received));
        event["stageTimestamp"] = json!(model::time::micros(self.host.now()));
        if let Some(other) = self.told.acts_as() {
            event["impersonatedUser"] = event::user(other);
        }
        let notes = self.told.notes();
        if !notes.is_empty() {
            event["annotations"] = json!(notes);
        }
        fill(&mut event);
        self.trail.write(&event);
    }
}

/// Whether the body is an object of the resource itself, which is written down as it is read: with its defaults.
fn is_whole(what: &Attributes) -> bool {
    matches!(what.verb.as_str(), "create" | "update")
        && matches!(
            what.subresource.as_str(),
            "" | "status" | "approval" | "finalize" | "ephemeralcontainers" | "resize"
        )
}

/// Notes the end of an answer that comes in pieces when it is dropped.
pub struct End {
    record: Arc<Record>,
    code: u16,
}

impl End {
    /// The end of an answer whose head goes out now.
    pub fn of(record: Arc<Record>, code: u16) -> Self {
        record.started(code);
        Self { record, code }
    }
}

impl End {
    /// Hands a piece of the answer on, and stays as long as there may be more.
    pub fn pass<T>(&self, piece: T) -> T {
        piece
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.record.complete(self.code, None, None);
    }
}

/// A connection whose end is noted.
pub struct Ending<D> {
    /// The connection.
    pub inner: D,
    /// Notes it when this is dropped.
    pub _end: End,
}

impl<D: AsyncRead + Unpin> AsyncRead for Ending<D> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl<D: AsyncWrite + Unpin> AsyncWrite for Ending<D> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
