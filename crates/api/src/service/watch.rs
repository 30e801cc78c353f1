//! Watches: cursors over the store's history, as events of the objects that a caller selects.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use host::Host;
use http::StatusCode;
use model::Tree;
use serde_json::{Value, json};
use store::{Batch, Event, Record, StoreError, Watch};

use super::Call;
use super::read::parse;
use super::shown::{self, Shown};
use crate::answer::{Answer, Body};
use crate::convert;
use crate::converter::Converter;
use crate::encode;
use crate::http::negotiate::{Form, Syntax, View};
use crate::http::status;
use crate::proto;
use crate::refusal::{Reason, Refusal};
use crate::registry::Resource;
use crate::request::{ListOptions, RevisionMatch};
use crate::select::Selection;
use crate::table;

/// How often a watch that asked for it is told how far it got, when nothing else happens.
///
/// As upstream: often enough that a watcher that reconnects finds its revision in five minutes of history.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// How long a watch over HTTP lasts at least when it does not say: half an hour, as upstream, and up to twice that, so
/// that clients that came together do not come back together.
const TIMEOUT_MIN: Duration = Duration::from_secs(1800);

/// The media type of frames of protobuf.
const MEDIA_PROTOBUF: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// What a watch event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The object is new, or newly selected.
    Added,
    /// The object changed.
    Modified,
    /// The object is gone, or no longer selected.
    Deleted,
    /// Nothing else happened up to this revision.
    Bookmark,
    /// The watch ends, for the reason that the `Status` says.
    Error,
}

impl EventKind {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
            Self::Error => "ERROR",
        }
    }
}

/// The events of a watch, with the bytes of their objects.
pub type EventStream = BoxStream<'static, (EventKind, Bytes)>;

/// A watch under way.
struct Cursor {
    converter: Converter,
    host: Host,
    watch: Watch,
    resource: Arc<Resource>,
    selection: Selection,
    bookmarks: bool,
    /// Events that are ready.
    ready: VecDeque<(EventKind, Bytes)>,
    ended: bool,
}

impl Call<'_> {
    /// A watch as an answer: one JSON document after the other, or one frame of protobuf.
    pub(super) async fn watch(&self) -> Result<Answer, Refusal> {
        let form = self.form()?;
        let options = self.list_options()?;
        let chance = self.inner.host.chance().below(TIMEOUT_MIN.as_secs());
        let timeout =
            options.timeout_seconds.map_or(TIMEOUT_MIN + Duration::from_secs(chance), Duration::from_secs);
        let too_many = |_| {
            let refusal =
                Refusal::new(Reason::TooManyRequests, "there are too many watches, please try again later");
            refusal.retry_after(5)
        };
        let room = self.inner.watches.clone().try_acquire_owned().map_err(too_many)?;
        let own = self.inner.turns.watch(self.identity)?;
        let events = self.events().await?;
        let showing = Showing {
            form,
            resource: self.resource.clone(),
            include: table::Include::read(&self.query)?,
            host: self.inner.host.clone(),
            shown: self.inner.shown.clone(),
        };
        // Events that are ready at once go out in one piece.
        let pieces = events.ready_chunks(EVENTS_AT_ONCE).map(move |events| {
            let mut out = BytesMut::new();
            for (kind, object) in events {
                showing.put(&mut out, kind, object);
            }
            Ok::<_, io::Error>(out.freeze())
        });
        let end = self.inner.host.clone();
        let pieces = pieces.take_until(async move {
            end.sleep(timeout).await;
            drop((room, own));
        });
        let media = if form.syntax == Syntax::Protobuf { MEDIA_PROTOBUF } else { "application/json" };
        let mut answer = Answer::bytes(StatusCode::OK, media, Bytes::new());
        answer.body = Body::Stream(pieces.boxed());
        Ok(answer)
    }

    /// The events that a watch asks for, with their objects as they are served. It does not end by itself.
    pub(super) async fn served_events(&self) -> Result<EventStream, Refusal> {
        let resource = self.resource.clone();
        let served = move |(kind, object): (EventKind, Bytes)| match kind {
            EventKind::Error | EventKind::Bookmark => (kind, object),
            _ => (kind, convert::served(&resource, &object)),
        };
        Ok(self.events().await?.map(served).boxed())
    }

    /// The same with their objects as they are stored, or as a webhook has converted them.
    async fn events(&self) -> Result<EventStream, Refusal> {
        let options = self.watch_options()?;
        self.freshen().await?;
        let mut ready = VecDeque::new();
        let after = self.begin(&options, &mut ready).await?;
        let watch = self.inner.store.watch(&self.resource.range(&self.target.namespace), after)?;
        let cursor = Cursor {
            converter: self.inner.converter.clone(),
            host: self.inner.host.clone(),
            watch,
            resource: self.resource.clone(),
            selection: options.selection,
            bookmarks: options.bookmarks,
            ready,
            ended: false,
        };
        let events = stream::unfold(cursor, |mut cursor| async move {
            let event = cursor.next().await?;
            Some((event, cursor))
        });
        Ok(events.boxed())
    }

    /// What is watched: a watch of one name is one of the collection that selects the name.
    fn watch_options(&self) -> Result<ListOptions, Refusal> {
        let mut options = self.list_options()?;
        if !self.target.name.is_empty() {
            options.selection.fields.conditions.push(model::selector::FieldCondition {
                path: "metadata.name".into(),
                equal: true,
                value: self.target.name.clone(),
            });
        }
        let invalid = |message: &str| {
            let text = format!("sendInitialEvents: Forbidden: {message}");
            Err(Refusal::new(Reason::Invalid, text))
        };
        match (options.initial_events, options.revision_match) {
            (None, RevisionMatch::Unset) | (Some(_), RevisionMatch::NotOlderThan) => Ok(options),
            (None, _) => {
                invalid("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided")
            }
            (Some(_), _) => invalid("resourceVersionMatch=NotOlderThan is required for sendInitialEvents"),
        }
    }

    /// Puts what there is into `ready` where that is asked for; says after which revision to follow.
    async fn begin(
        &self,
        options: &ListOptions,
        ready: &mut VecDeque<(EventKind, Bytes)>,
    ) -> Result<u64, Refusal> {
        let asked = options.revision.unwrap_or(0);
        let initial = options.initial_events.unwrap_or(asked == 0);
        if !initial {
            return Ok(if asked == 0 { self.inner.store.revision() } else { asked });
        }
        let newest = self.inner.store.revision();
        if asked > newest {
            return Err(StoreError::Future { asked, newest }.into());
        }
        let all = ListOptions { selection: options.selection.clone(), ..ListOptions::default() };
        let found = self.find(&all).await?;
        for record in &found.records {
            ready.push_back((EventKind::Added, record.value.clone()));
        }
        if options.initial_events == Some(true) && options.bookmarks {
            ready.push_back((EventKind::Bookmark, bookmark(&self.resource, found.revision, true)));
        }
        Ok(found.revision)
    }
}

/// How many events go out in one piece: enough to fill a TLS record or two, few enough to begin at once.
const EVENTS_AT_ONCE: usize = 64;

/// How the events of a watch are written.
struct Showing {
    form: Form,
    resource: Arc<Resource>,
    include: table::Include,
    host: Host,
    shown: Arc<Shown>,
}

impl Showing {
    fn put(&self, out: &mut BytesMut, kind: EventKind, object: Bytes) {
        let object = self.object(kind, object);
        if self.form.syntax == Syntax::Protobuf {
            out.put_slice(&proto::frame(kind.as_str(), &object));
            return;
        }
        out.reserve(object.len() + 40);
        out.put_slice(b"{\"type\":\"");
        out.put_slice(kind.as_str().as_bytes());
        out.put_slice(b"\",\"object\":");
        out.put_slice(&object);
        out.put_slice(b"}\n");
    }

    fn object(&self, kind: EventKind, object: Bytes) -> Bytes {
        match (kind, self.form.view) {
            (EventKind::Error, _) => shown::show(Form { view: View::Object, ..self.form }, &object),
            (EventKind::Bookmark, View::Object | View::Metadata) => shown::show(self.form, &object),
            (EventKind::Bookmark, View::Table) => {
                table_event(&self.resource, object, self.include, &self.host)
            }
            (_, View::Table) => {
                let served = convert::served(&self.resource, &object);
                table_event(&self.resource, served, self.include, &self.host)
            }
            (_, View::Object | View::Metadata) => self.shown.of(&self.resource, self.form, &object),
        }
    }
}

impl Cursor {
    async fn next(&mut self) -> Option<(EventKind, Bytes)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            let batch = if self.bookmarks {
                match self.host.within(BOOKMARK_EVERY, self.watch.next()).await {
                    Some(batch) => batch,
                    None => {
                        let bytes = bookmark(&self.resource, self.watch.revision(), false);
                        return Some((EventKind::Bookmark, bytes));
                    }
                }
            } else {
                self.watch.next().await
            };
            match batch {
                Ok(batch) => {
                    if let Err(refusal) = self.hear(&batch).await {
                        self.end(&refusal);
                    }
                }
                Err(StoreError::Closed) => return None,
                Err(error) => self.end(&error.into()),
            }
        }
    }

    /// Tells what of these events was selected, in the version that is watched.
    async fn hear(&mut self, events: &Batch) -> Result<(), Refusal> {
        for event in events.iter() {
            let event = self.converter.event(&self.resource, event).await?;
            self.ready.extend(tell(&self.resource, &self.selection, &event));
        }
        Ok(())
    }

    /// Tells why there is no more.
    fn end(&mut self, refusal: &Refusal) {
        let status = status::failure(refusal);
        self.ready.push_back((EventKind::Error, model::schema::to_bytes(&status)));
        self.ended = true;
    }
}

/// What an event of the store is to a watcher; `None` when it is not about what they selected.
fn tell(resource: &Resource, selection: &Selection, event: &Event) -> Option<(EventKind, Bytes)> {
    let selected = |record: &Record| convert::selects(resource, selection, record);
    let before = event.before.as_ref().filter(|before| selected(before));
    let now = !event.removed && selected(&event.record);
    let (kind, bytes) = match (before, now) {
        (None, false) => return None,
        (None, true) => (EventKind::Added, event.record.value.clone()),
        (Some(_), true) => (EventKind::Modified, event.record.value.clone()),
        (Some(_), false) if event.removed => (EventKind::Deleted, event.record.value.clone()),
        // It left the selection: it is shown as it was when it was last selected, at the revision of its leaving.
        (Some(before), false) => (EventKind::Deleted, restamped(before, event.record.revision)),
    };
    Some((kind, bytes))
}

fn restamped(record: &Record, revision: u64) -> Bytes {
    match parse(&record.value) {
        Ok(mut object) => {
            object["metadata"]["resourceVersion"] = json!(revision.to_string());
            encode::canonical(&object)
        }
        Err(_) => record.value.clone(),
    }
}

fn bookmark(resource: &Resource, revision: u64, initial_end: bool) -> Bytes {
    let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
    if initial_end {
        metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
    }
    let mut object =
        json!({"kind": resource.kind, "apiVersion": resource.api_version(), "metadata": metadata});
    if resource.status {
        object["spec"] = json!({});
        object["status"] = json!({});
    }
    model::schema::to_bytes(&object)
}

fn table_event(resource: &Resource, object: Bytes, include: table::Include, host: &Host) -> Bytes {
    let revision =
        parse(&object).map(|object| object["metadata"]["resourceVersion"].clone()).unwrap_or(Value::Null);
    let metadata: Tree = json!({"resourceVersion": revision});
    model::schema::to_bytes(&table::table(resource, &[object], include, host.now(), &metadata))
}
