//! Between the version in which objects are stored and the versions in which they are served. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use model::{Tree, kinds};
use serde_json::json;
use store::Record;

use crate::custom;
use crate::encode;
use crate::registry::{Meaning, Resource};
use crate::select::Selection;
use crate::tags;

/// The bytes of a stored object as a resource serves them; the same bytes where nothing is to be changed.
pub fn served(resource: &Resource, stored: &Bytes) -> Bytes {
    if is_served_so(resource, stored) {
        return stored.clone();
    }
    match serde_json::from_slice(stored) {
        Ok(tree) => encode::canonical(&to_served(resource, tree)),
        Err(_) => stored.clone(),
    }
}

/// Whether a resource serves a stored object byte for byte.
pub fn is_served_so(resource: &Resource, stored: &Bytes) -> bool {
    match &resource.meaning {
        Meaning::BuiltIn(_) => resource.gvr == resource.stored,
        // It may have been stored when another version was the stored one, and when there were other defaults.
        Meaning::Custom(custom) => {
            let prefix = encode::type_prefix(&resource.api_version(), &resource.kind);
            !custom.defaults && stored.starts_with(prefix.as_bytes())
        }
    }
}

/// A stored object in the version in which a resource serves it.
pub fn to_served(resource: &Resource, mut object: Tree) -> Tree {
    match &resource.meaning {
        Meaning::BuiltIn(_) if resource.gvr == resource.stored => return object,
        Meaning::BuiltIn(kind) => (kind.from_stored)(&mut object),
        Meaning::Custom(own) => {
            // What an older schema let in, the schema of today does not show.
            custom::prune(own, &mut object);
            custom::fill(own, &mut object);
        }
    }
    object["apiVersion"] = json!(resource.api_version());
    object
}

/// An object of the version in which a resource serves it, as it is stored: as an object of `kept`, the stored version,
/// whose schema says what of a custom object is kept.
pub fn to_stored(resource: &Resource, kept: &Resource, mut object: Tree) -> Tree {
    if resource.gvr == resource.stored {
        return object;
    }
    match (&resource.meaning, &kept.meaning) {
        (Meaning::BuiltIn(kind), _) => (kind.to_stored)(&mut object),
        (_, Meaning::Custom(kept)) => drop(custom::prune(kept, &mut object)),
        _ => {}
    }
    object["apiVersion"] = json!(resource.stored.api_version());
    object
}

/// An object of one version of a resource as one of another version of it, as far as we can say it.
pub fn between(from: &Resource, to: &Resource, mut object: Tree) -> Tree {
    match (&from.meaning, &to.meaning) {
        (Meaning::BuiltIn(_), Meaning::BuiltIn(_)) => to_served(to, to_stored(from, from, object)),
        _ => {
            object["apiVersion"] = json!(to.api_version());
            object
        }
    }
}

/// The stored name of a field that selectors ask for: `events.k8s.io` names some anew.
pub fn stored_field<'a>(resource: &Resource, field: &'a str) -> Cow<'a, str> {
    if resource.gvr != kinds::EVENTS_EVENT {
        return Cow::Borrowed(field);
    }
    match field.split_once('.') {
        Some(("regarding", rest)) => Cow::Owned(format!("involvedObject.{rest}")),
        _ if field == "reportingController" => Cow::Borrowed("reportingComponent"),
        _ => Cow::Borrowed(field),
    }
}

/// Whether a selector selects a record. The fields of custom objects are read from their bytes, as they are served, and so are
/// their labels where a webhook converts them: it may change those.
pub fn selects(resource: &Resource, selection: &Selection, record: &Record) -> bool {
    let Meaning::Custom(custom) = &resource.meaning else {
        return selection.matches(&record.path, &record.tags);
    };
    let asks_own = |path: &str| !matches!(path, "metadata.name" | "metadata.namespace");
    let by_field = selection.fields.conditions.iter().any(|condition| asks_own(&condition.path));
    let by_label = custom.conversion.is_some() && !selection.labels.is_everything();
    if !by_field && !by_label {
        return selection.matches(&record.path, &record.tags);
    }
    let Ok(object) = serde_json::from_slice(&record.value) else { return false };
    let tags = tags::tags(&tags::selectable(resource), &to_served(resource, object));
    selection.matches(&record.path, &tags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::resource;

    #[test]
    fn events_have_two_faces() {
        let events = resource(&kinds::EVENTS_EVENT);
        let served = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "regarding": {"name": "p"}});
        let stored = to_stored(&events, &events, served.clone());
        assert_eq!((&stored["apiVersion"], &stored["message"]), (&json!("v1"), &json!("n")));
        assert_eq!(to_served(&events, stored)["note"], served["note"]);
        assert_eq!(stored_field(&events, "regarding.name"), "involvedObject.name");
    }
}
