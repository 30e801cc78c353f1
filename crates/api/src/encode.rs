//! From a tree to the canonical bytes that are stored. Pure.
//!
//! Canonical: `apiVersion`, `kind` and `metadata` first, then the rest by name; `resourceVersion` last in `metadata`, so
//! that the store can put the revision between two halves and a list can leave out the type by slicing.

use bytes::Bytes;
use model::{Gvr, Key, Tree, kinds};
use serde_json::{Map, Value};
use store::{Body, Change, Record};

use crate::tags;
use crate::view::path_of;

/// The two halves of an object's bytes, between which its revision belongs.
pub fn halves(object: &Tree) -> Body {
    let (whole, split) = write(object);
    let whole = Bytes::from(whole);
    Body { before: whole.slice(..split), after: Some(whole.slice(split..)) }
}

/// What lies in a store, without the revision that it carries: to be written to another one.
pub fn body_of(record: &Record) -> Body {
    let tree = serde_json::from_slice::<Tree>(&record.value).ok();
    let carries = |tree: &Tree| {
        let revision = tree["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok());
        revision == Some(record.revision)
    };
    match tree.filter(carries) {
        Some(tree) => halves(&tree),
        // What is no object: whom an address belongs to.
        None => Body { before: record.value.clone(), after: None },
    }
}

/// The canonical bytes of an object that carries its own revision.
pub fn canonical(object: &Tree) -> Bytes {
    let (mut whole, split) = write(object);
    let revision = object["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    whole.splice(split..split, revision.bytes());
    Bytes::from(whole)
}

/// The bytes that begin an object of a kind: a list of that kind leaves them out.
pub fn type_prefix(api_version: &str, kind: &str) -> String {
    format!("{{\"apiVersion\":\"{api_version}\",\"kind\":\"{kind}\",")
}

fn write(object: &Tree) -> (Vec<u8>, usize) {
    let mut out = Vec::with_capacity(1024);
    let empty = Map::new();
    let map = object.as_object().unwrap_or(&empty);
    out.push(b'{');
    for key in ["apiVersion", "kind"] {
        if let Some(value) = map.get(key) {
            member(&mut out, key, value);
        }
    }
    let split = metadata(&mut out, map.get("metadata").and_then(Value::as_object).unwrap_or(&empty));
    for (key, value) in map {
        if !matches!(key.as_str(), "apiVersion" | "kind" | "metadata") {
            member(&mut out, key, value);
        }
    }
    out.push(b'}');
    (out, split)
}

fn metadata(out: &mut Vec<u8>, metadata: &Map<String, Value>) -> usize {
    separate(out);
    out.extend_from_slice(b"\"metadata\":{");
    for (key, value) in metadata {
        if key != "resourceVersion" {
            member(out, key, value);
        }
    }
    separate(out);
    out.extend_from_slice(b"\"resourceVersion\":\"");
    let split = out.len();
    out.extend_from_slice(b"\"}");
    split
}

fn separate(out: &mut Vec<u8>) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
}

fn member(out: &mut Vec<u8>, key: &str, value: &Value) {
    separate(out);
    // Writing a tree to memory cannot fail: its keys are strings and its numbers finite.
    let _ = serde_json::to_writer(&mut *out, key);
    out.push(b':');
    let _ = serde_json::to_writer(out, value);
}

/// The write of an object of a built-in resource, in the version in which it is stored.
pub fn put_built_in(gvr: &Gvr, object: &Tree) -> Change {
    let name = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let path = path_of(&Key::new(gvr, name("namespace"), name("name")));
    let fields = kinds::by_gvr(gvr).map(tags::tagged_of).unwrap_or_default();
    Change::Put { path: path.into(), body: halves(object), tags: tags::tags(&fields, object) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// As the store joins the halves.
    fn joined(object: &Tree, revision: u64) -> Bytes {
        let body = halves(object);
        let after = body.after.expect("an object has two halves");
        Bytes::from([&body.before[..], revision.to_string().as_bytes(), &after[..]].concat())
    }

    #[test]
    fn the_revision_goes_between_the_halves() {
        let object = json!({"spec": {"b": 1, "a": 2}, "kind": "Pod", "apiVersion": "v1",
            "metadata": {"resourceVersion": "9", "name": "x"}, "data": {}});
        let bytes = joined(&object, 42);
        let text = std::str::from_utf8(&bytes).expect("JSON is UTF-8");
        assert_eq!(
            text,
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","resourceVersion":"42"},"data":{},"spec":{"a":2,"b":1}}"#
        );
        assert!(text.starts_with(&type_prefix("v1", "Pod")));
    }

    #[test]
    fn what_lies_in_one_store_goes_into_another_at_its_revision_there() {
        let check = |value: &str, wanted: &str| {
            let stored = store::Stored {
                path: "/pods/a/x".into(),
                value: Bytes::copy_from_slice(value.as_bytes()),
                revision: 42,
                created: 7,
                tags: store::Tags::default(),
            };
            assert_eq!(store::join(&body_of(&stored.into()), 99), wanted);
        };
        let object = |revision: &str| {
            format!(
                r#"{{"kind":"E","metadata":{{"name":"x","resourceVersion":"{revision}"}},"of":{{"resourceVersion":"42"}}}}"#
            )
        };
        check(&object("42"), &object("99"));
        check("services/a/x", "services/a/x");
        check("42", "42");
    }

    #[test]
    fn an_empty_object_gets_its_revision_too() {
        let bytes = joined(&json!({}), 1);
        assert_eq!(&bytes[..], br#"{"metadata":{"resourceVersion":"1"}}"#);
    }
}
