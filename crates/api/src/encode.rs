//! From a tree to the canonical bytes that are stored, and what is read out of an object for selectors. Pure.
//!
//! Canonical: `apiVersion`, `kind` and `metadata` first, then the rest by name; `resourceVersion` last in `metadata`, so
//! that the store can put the revision between two halves and a list can leave out the type by slicing.

use std::sync::Arc;

use bytes::Bytes;
use model::{Gvr, Key, Tree, kinds};
use serde_json::{Map, Value};
use store::{Body, Change, Tagger, Tags};

use crate::registry::{Meaning, Resource};
use crate::view::path_of;

/// The two halves of an object's bytes, between which its revision belongs.
pub fn halves(object: &Tree) -> Body {
    let (whole, split) = write(object);
    let whole = Bytes::from(whole);
    Body { before: whole.slice(..split), after: Some(whole.slice(split..)) }
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
    let fields: Vec<(&str, &str)> = match kinds::by_gvr(gvr) {
        Some(kind) => kind.fields.iter().map(|&field| (field, path_of_field(field))).collect(),
        None => Vec::new(),
    };
    Change::Put { path: path.into(), body: halves(object), tags: tags(&fields, object).into() }
}

/// What selectors may ask of an object.
pub fn tags(fields: &[(&str, &str)], object: &Tree) -> Tags {
    let labels = object["metadata"]["labels"].as_object();
    let labels = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str().into(), value.as_str().unwrap_or_default().into()));
    let fields = fields.iter().map(|(label, path)| ((*label).into(), text_at(object, path).into_boxed_str()));
    Tags { labels: labels.collect(), fields: fields.filter(|(_, value)| !value.is_empty()).collect() }
}

/// The fields of a resource that selectors may ask for, with their paths.
pub fn selectable(resource: &Resource) -> Vec<(&str, &str)> {
    match &resource.meaning {
        Meaning::BuiltIn(kind) => kind.fields.iter().map(|&field| (field, path_of_field(field))).collect(),
        Meaning::Custom(custom) => {
            custom.fields.iter().map(|(label, path)| (label.as_str(), path.as_str())).collect()
        }
    }
}

/// The fields that are kept as tags beside an object: a definition may change its mind about those of custom ones, which
/// are read when they are asked for.
pub fn tagged(resource: &Resource) -> Vec<(&str, &str)> {
    match &resource.meaning {
        Meaning::BuiltIn(_) => selectable(resource),
        Meaning::Custom(_) => Vec::new(),
    }
}

/// Most labels of fields are their paths.
fn path_of_field(field: &'static str) -> &'static str {
    match field {
        "source" => "source.component",
        "reportingController" => "reportingComponent",
        field => field,
    }
}

/// The value at a path as selectors see it; flags and counts that are left out count as `false` and `0`.
fn text_at(object: &Tree, path: &str) -> String {
    let value = path.split('.').try_fold(object, |at, name| at.get(name));
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => match path {
            // Of an event that its author wrote in the newer form.
            "source.component" => text_at(object, "reportingComponent"),
            "spec.unschedulable" | "spec.hostNetwork" => "false".to_owned(),
            "status.replicas" | "status.successful" => "0".to_owned(),
            _ => String::new(),
        },
    }
}

/// Reads tags out of stored bytes when the log is loaded.
pub fn tagger() -> Tagger {
    let registry = crate::registry::Registry::built_in();
    Arc::new(move |path: &str, bytes: &[u8]| {
        let Ok(object) = serde_json::from_slice::<Tree>(bytes) else { return Tags::default() };
        let prefix = path.split('/').nth(1).unwrap_or_default();
        let resource = registry
            .all()
            .find(|resource| resource.gvr == resource.stored && resource.prefix.trim_matches('/') == prefix);
        match resource {
            Some(resource) => tags(&selectable(resource), &object),
            None => tags(&[], &object),
        }
    })
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
    fn an_empty_object_gets_its_revision_too() {
        let bytes = joined(&json!({}), 1);
        assert_eq!(&bytes[..], br#"{"metadata":{"resourceVersion":"1"}}"#);
    }

    #[test]
    fn the_source_of_an_event_is_who_reports_it_where_it_names_none() {
        let check = |event: Tree, wanted: &str| {
            let tags = tags(&[("source", path_of_field("source"))], &event);
            assert_eq!(tags.fields, [("source".into(), wanted.into())]);
        };
        check(json!({"source": {"component": "a"}, "reportingComponent": "b"}), "a");
        check(json!({"source": {}, "reportingComponent": "b"}), "b");
    }

    #[test]
    fn tags_hold_labels_and_selectable_fields() {
        let object = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n1"}});
        let tags =
            tags(&[("spec.nodeName", "spec.nodeName"), ("spec.hostNetwork", "spec.hostNetwork")], &object);
        assert_eq!(tags.labels, [("a".into(), "b".into())]);
        assert_eq!(
            tags.fields,
            [("spec.nodeName".into(), "n1".into()), ("spec.hostNetwork".into(), "false".into())]
        );
    }
}
