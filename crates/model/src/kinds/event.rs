//! Event of `v1`, `events.k8s.io/v1`: its constants, and what its schema cannot say.

use super::table::{age_at, column, or, wide};
use super::{Column, Faults, Kind, NAME, of};
use crate::tree::{is_set, is_there, text, whole};
use crate::{Time, Tree};

/// What the house knows of `v1` Event.
pub static KIND: Kind = Kind::new(of::EVENT, "Event", "event", "io.k8s.api.core.v1.Event")
    .short(&["ev"])
    .namespaced()
    .columns(COLUMNS)
    .fields(&[
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ])
    .checking(check)
    .ageless();

/// What the house knows of `events.k8s.io/v1` Event.
pub static OF_EVENTS: Kind = Kind::new(of::EVENTS_EVENT, "Event", "event", "io.k8s.api.events.v1.Event")
    .short(&["ev"])
    .namespaced()
    .fields(&[
        "regarding.kind",
        "regarding.namespace",
        "regarding.name",
        "regarding.uid",
        "regarding.apiVersion",
        "regarding.resourceVersion",
        "regarding.fieldPath",
        "reason",
        "reportingController",
        "type",
    ])
    .columns(OF_EVENTS_COLUMNS)
    .checking(|object, faults| check(&of_core(object), faults))
    .ageless()
    .stored_as(&super::EVENT)
    .converting(to_stored, from_stored);

const COLUMNS: &[Column] = &[
    column("Last Seen", last_seen),
    column("Type", |object, _| or(object, "type", "")),
    column("Reason", |object, _| or(object, "reason", "")),
    column("Object", |object, _| target(object)),
    wide("Subobject", |object, _| or(object, "involvedObject.fieldPath", "")),
    wide("Source", |object, _| origin(object)),
    column("Message", |object, _| text(object, "message").trim().into()),
    wide("First Seen", first_seen),
    wide("Count", |object, _| times(object)),
    Column { wide: true, ..NAME },
];

const OF_EVENTS_COLUMNS: &[Column] = &[
    column("Last Seen", |object, now| last_seen(&of_core(object), now)),
    column("Type", |object, _| or(object, "type", "")),
    column("Reason", |object, _| or(object, "reason", "")),
    column("Object", |object, _| target(&of_core(object))),
    wide("Subobject", |object, _| or(object, "regarding.fieldPath", "")),
    wide("Source", |object, _| origin(&of_core(object))),
    column("Message", |object, _| text(object, "note").trim().into()),
    wide("First Seen", |object, now| first_seen(&of_core(object), now)),
    wide("Count", |object, _| times(&of_core(object))),
    Column { wide: true, ..NAME },
];

/// An event of the newer group in the words of the older one.
fn of_core(object: &Tree) -> Tree {
    let mut object = object.clone();
    to_stored(&mut object);
    object
}

/// What a row shows of when it was first and last seen.
fn first_seen(object: &Tree, now: Time) -> Tree {
    let path = if is_set(object, "firstTimestamp") { "firstTimestamp" } else { "eventTime" };
    age_at(object, path, now)
}

fn last_seen(object: &Tree, now: Time) -> Tree {
    match () {
        () if is_there(object, "series") => age_at(object, "series.lastObservedTime", now),
        () if is_set(object, "lastTimestamp") => age_at(object, "lastTimestamp", now),
        () => first_seen(object, now),
    }
}

fn target(object: &Tree) -> Tree {
    let (kind, name) =
        (text(object, "involvedObject.kind").to_lowercase(), text(object, "involvedObject.name"));
    if name.is_empty() { kind.into() } else { format!("{kind}/{name}").into() }
}

fn origin(object: &Tree) -> Tree {
    let first = |paths: [&str; 2]| {
        paths.into_iter().map(|path| text(object, path).to_owned()).find(|text| !text.is_empty())
    };
    let component = first(["source.component", "reportingComponent"]).unwrap_or_default();
    match first(["source.host", "reportingInstance"]) {
        Some(instance) => format!("{component}, {instance}").into(),
        None => component.into(),
    }
}

fn times(object: &Tree) -> Tree {
    let path = if is_there(object, "series") { "series.count" } else { "count" };
    whole(object, path).filter(|count| *count != 0).unwrap_or(1).into()
}

/// An event is about something in its own namespace; something without a namespace is told of in `default`.
fn check(object: &Tree, faults: &mut Faults) {
    let (own, other) = (text(object, "metadata.namespace"), text(object, "involvedObject.namespace"));
    let fits = match other {
        "" => own.is_empty() || own == "default" || own == "kube-system",
        _ => own == other,
    };
    if !fits {
        faults.invalid("involvedObject.namespace", other, "does not match event.namespace");
    }
    if is_set(object, "eventTime") {
        if text(object, "message").len() > NOTE_LEN_MAX {
            faults.too_long("message", NOTE_LEN_MAX);
        }
        faults.one_of("type", text(object, "type"), &["Normal", "Warning"]);
        for name in ["reportingComponent", "reason", "action", "reportingInstance"] {
            if text(object, name).is_empty() {
                faults.required(if name == "reportingComponent" { "reportingController" } else { name }, "");
            }
        }
    }
}

/// The pairs of names of the same thing in `v1` and in `events.k8s.io/v1`.
const NAMES: [(&str, &str); 8] = [
    ("message", "note"),
    ("involvedObject", "regarding"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
    ("reportingInstance", "reportingInstance"),
];

fn to_stored(object: &mut Tree) {
    NAMES.iter().for_each(|(old, new)| rename(object, new, old));
}

fn from_stored(object: &mut Tree) {
    NAMES.iter().for_each(|(old, new)| rename(object, old, new));
}

fn rename(object: &mut Tree, from: &str, to: &str) {
    if let Some(fields) = object.as_object_mut()
        && let Some(value) = fields.remove(from)
    {
        fields.insert(to.to_owned(), value);
    }
}

/// How long a message may be, in bytes (upstream's limit).
const NOTE_LEN_MAX: usize = 1024;
