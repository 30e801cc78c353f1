//! Between the version in which objects are stored and the versions in which they are served. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use model::{Tree, kinds};
use serde_json::json;

use crate::encode;
use crate::registry::{Meaning, Resource};

/// The bytes of a stored object as a resource serves them; the same bytes where both are one version.
pub fn served(resource: &Resource, stored: &Bytes) -> Bytes {
    if resource.gvr == resource.stored {
        return stored.clone();
    }
    match serde_json::from_slice(stored) {
        Ok(tree) => encode::canonical(&to_served(resource, tree)),
        Err(_) => stored.clone(),
    }
}

/// A stored object in the version in which a resource serves it.
pub fn to_served(resource: &Resource, mut object: Tree) -> Tree {
    if resource.gvr == resource.stored {
        return object;
    }
    if let Meaning::BuiltIn(kind) = &resource.meaning {
        (kind.from_stored)(&mut object);
    }
    object["apiVersion"] = json!(resource.api_version());
    object
}

/// An object of the version in which a resource serves it, as it is stored.
pub fn to_stored(resource: &Resource, mut object: Tree) -> Tree {
    if resource.gvr == resource.stored {
        return object;
    }
    if let Meaning::BuiltIn(kind) = &resource.meaning {
        (kind.to_stored)(&mut object);
    }
    object["apiVersion"] = json!(resource.stored.api_version());
    object
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::resource;

    #[test]
    fn events_have_two_faces() {
        let events = resource(&kinds::EVENTS_EVENT);
        let served = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "n", "regarding": {"name": "p"}});
        let stored = to_stored(&events, served.clone());
        assert_eq!((&stored["apiVersion"], &stored["message"]), (&json!("v1"), &json!("n")));
        assert_eq!(to_served(&events, stored)["note"], served["note"]);
        assert_eq!(stored_field(&events, "regarding.name"), "involvedObject.name");
    }
}
