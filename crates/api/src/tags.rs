//! What is read out of an object for selectors: its labels and the values of its selectable fields. Pure.
//!
//! Promises: what is read out of a tree and out of the bytes of the same tree is the same.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use model::{Tree, kinds};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use store::{Tagger, Tags};

use crate::registry::{Meaning, Registry, Resource};

/// What selectors may ask of an object.
pub fn tags(fields: &[(&str, &str)], object: &Tree) -> Tags {
    let labels = object["metadata"]["labels"].as_object();
    let labels = labels.into_iter().flatten();
    let labels = labels.map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()));
    let fields = fields.iter().map(|(label, path)| (*label, text_at(object, path)));
    let fields: Vec<(&str, Cow<'_, str>)> = fields.filter(|(_, value)| !value.is_empty()).collect();
    Tags::new(labels, fields.iter().map(|(label, value)| (*label, &**value)))
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

/// The fields of a built-in kind that are kept as tags.
pub fn tagged_of(kind: &'static kinds::Kind) -> Vec<(&'static str, &'static str)> {
    kind.fields.iter().map(|&field| (field, path_of_field(field))).collect()
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
fn text_at<'t>(object: &'t Tree, path: &str) -> Cow<'t, str> {
    match model::tree::at(object, path) {
        Value::String(text) => Cow::Borrowed(text),
        Value::Bool(flag) => Cow::Owned(flag.to_string()),
        Value::Number(number) => Cow::Owned(number.to_string()),
        _ => match left_out(path) {
            LeftOut::Is(text) => Cow::Borrowed(text),
            LeftOut::As(other) => text_at(object, other),
        },
    }
}

/// What a selector sees of a field that is not there.
enum LeftOut {
    /// This.
    Is(&'static str),
    /// What lies at another path.
    As(&'static str),
}

fn left_out(path: &str) -> LeftOut {
    match path {
        // Of an event that its author wrote in the newer form.
        "source.component" => LeftOut::As("reportingComponent"),
        "spec.unschedulable" | "spec.hostNetwork" => LeftOut::Is("false"),
        "status.replicas" | "status.successful" => LeftOut::Is("0"),
        _ => LeftOut::Is(""),
    }
}

/// Reads tags out of stored bytes when the log is loaded.
pub fn tagger() -> Tagger {
    let registry = Registry::built_in();
    let stored = registry.all().filter(|resource| resource.gvr == resource.stored);
    let readers: BTreeMap<String, Reader> = stored
        .map(|resource| (resource.prefix.trim_matches('/').to_owned(), Reader::new(&selectable(resource))))
        .collect();
    let labels_only = Reader::new(&[]);
    Arc::new(move |path: &str, bytes: &[u8]| {
        let prefix = path.split('/').nth(1).unwrap_or_default();
        readers.get(prefix).unwrap_or(&labels_only).read(bytes)
    })
}

/// Reads the tags of one resource's objects out of their bytes, without making trees of them: at a start that is done for
/// every object there is.
struct Reader {
    /// The labels of the fields, their paths, and where what the paths lead to is found.
    fields: Vec<(String, String, usize)>,
    /// For paths that count when the others lead nowhere.
    others: Vec<(&'static str, usize)>,
    places: usize,
    wanted: Wanted,
}

/// The paths that are looked for, as a tree of their names.
#[derive(Default)]
struct Wanted {
    below: Vec<(String, Wanted)>,
    /// Where a value is put that is found here.
    place: Option<usize>,
    /// Whether what is found here are the labels.
    is_labels: bool,
}

impl Wanted {
    fn at(&mut self, path: &str) -> &mut Self {
        path.split('.').fold(self, |at, name| {
            let known = at.below.iter().position(|(own, _)| own == name);
            let known = known.unwrap_or_else(|| {
                at.below.push((name.to_owned(), Self::default()));
                at.below.len() - 1
            });
            &mut at.below[known].1
        })
    }
}

impl Reader {
    fn new(fields: &[(&str, &str)]) -> Self {
        let mut reader =
            Self { fields: Vec::new(), others: Vec::new(), places: 0, wanted: Wanted::default() };
        reader.wanted.at("metadata.labels").is_labels = true;
        for (label, path) in fields {
            let place = reader.place(path);
            reader.fields.push(((*label).to_owned(), (*path).to_owned(), place));
            if let LeftOut::As(other) = left_out(path) {
                let place = reader.place(other);
                reader.others.push((other, place));
            }
        }
        reader
    }

    fn place(&mut self, path: &str) -> usize {
        let places = &mut self.places;
        *self.wanted.at(path).place.get_or_insert_with(|| {
            *places += 1;
            *places - 1
        })
    }

    fn read(&self, bytes: &[u8]) -> Tags {
        let mut found = Found { values: vec![None; self.places], labels: Vec::new() };
        let mut from = serde_json::Deserializer::from_slice(bytes);
        let walk = Walk { wanted: &self.wanted, found: &mut found };
        if walk.deserialize(&mut from).is_err() {
            return Tags::default();
        }
        found.labels.sort();
        let fields =
            self.fields.iter().map(|(label, path, place)| (label.as_str(), self.seen(&found, path, *place)));
        let labels = found.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Tags::new(labels, fields.filter(|(_, value)| !value.is_empty()))
    }

    fn seen<'f>(&self, found: &'f Found, path: &str, place: usize) -> &'f str {
        match (&found.values[place], left_out(path)) {
            (Some(text), _) => text,
            (None, LeftOut::Is(text)) => text,
            (None, LeftOut::As(other)) => {
                let place = self.others.iter().find(|(own, _)| *own == other).map(|(_, place)| *place);
                place.and_then(|place| found.values[place].as_deref()).unwrap_or_default()
            }
        }
    }
}

/// What was found so far.
struct Found {
    values: Vec<Option<String>>,
    labels: Vec<(String, String)>,
}

/// One step down the tree of an object.
struct Walk<'w, 'f> {
    wanted: &'w Wanted,
    found: &'f mut Found,
}

impl Walk<'_, '_> {
    fn take(self, value: &dyn fmt::Display) {
        if let Some(place) = self.wanted.place {
            self.found.values[place] = Some(value.to_string());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.wanted.is_labels {
            while let Some((key, Text(value))) = map.next_entry::<String, Text>()? {
                self.found.labels.push((key, value));
            }
            return Ok(());
        }
        while let Some(known) = map.next_key_seed(Step(&self.wanted.below))? {
            match known {
                Some(wanted) => map.next_value_seed(Walk { wanted, found: self.found })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
        while all.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.take(&text);
        Ok(())
    }

    fn visit_bool<E>(self, flag: bool) -> Result<(), E> {
        self.take(&flag);
        Ok(())
    }

    fn visit_i64<E>(self, number: i64) -> Result<(), E> {
        self.take(&number);
        Ok(())
    }

    fn visit_u64<E>(self, number: u64) -> Result<(), E> {
        self.take(&number);
        Ok(())
    }

    fn visit_f64<E>(self, number: f64) -> Result<(), E> {
        self.take(&Value::from(number));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Finds a member's name among those that are looked for.
struct Step<'w>(&'w [(String, Wanted)]);

impl<'de, 'w> DeserializeSeed<'de> for Step<'w> {
    type Value = Option<&'w Wanted>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl<'de, 'w> Visitor<'de> for Step<'w> {
    type Value = Option<&'w Wanted>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(own, _)| own == name).map(|(_, wanted)| wanted))
    }
}

/// A label's value: what is no text counts as none.
struct Text(String);

impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Value::deserialize(from).map(|value| match value {
            Value::String(text) => Self(text),
            _ => Self(String::new()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_source_of_an_event_is_who_reports_it_where_it_names_none() {
        let check = |event: Tree, wanted: &str| {
            let tags = tags(&[("source", path_of_field("source"))], &event);
            assert_eq!(tags.field("source"), Some(wanted));
        };
        check(json!({"source": {"component": "a"}, "reportingComponent": "b"}), "a");
        check(json!({"source": {}, "reportingComponent": "b"}), "b");
    }

    #[test]
    fn tags_hold_labels_and_selectable_fields() {
        let object = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"nodeName": "n1"}});
        let fields = [("spec.nodeName", "spec.nodeName"), ("spec.hostNetwork", "spec.hostNetwork")];
        let tags = tags(&fields, &object);
        assert_eq!(tags.labels().collect::<Vec<_>>(), [("a", "b")]);
        assert_eq!(
            tags.fields().collect::<Vec<_>>(),
            [("spec.nodeName", "n1"), ("spec.hostNetwork", "false")]
        );
    }

    #[test]
    fn bytes_and_trees_have_the_same_tags() {
        let objects = [
            json!({}),
            json!({"metadata": null, "spec": [], "status": "odd", "source": 7}),
            json!({"metadata": {"labels": {"b": "2", "a": "1", "odd": 3, "\u{e9}\n": "\"quoted\""}, "name": "x"}}),
            json!({"metadata": {"labels": []}, "spec": {"nodeName": {"no": "text"}, "hostNetwork": true}}),
            json!({"metadata": {"labels": null}, "spec": {"nodeName": "n", "unschedulable": true, "type": "ClusterIP"},
                "status": {"phase": "Running", "replicas": 12, "successful": 2.5, "podIPs": [{"ip": "1.2.3.4"}]}}),
            json!({"involvedObject": {"kind": "Pod", "name": "p", "uid": "u"}, "reason": "r", "type": "Normal",
                "source": {"component": "", "host": "h"}, "reportingComponent": "c"}),
            json!({"source": {"component": null}, "reportingComponent": "c", "type": "Opaque"}),
        ];
        for resource in Registry::built_in().all() {
            let fields = selectable(resource);
            let reader = Reader::new(&fields);
            for object in &objects {
                let bytes = object.to_string();
                assert_eq!(
                    reader.read(bytes.as_bytes()),
                    tags(&fields, object),
                    "{} {object}",
                    resource.kind
                );
            }
        }
        assert_eq!(Reader::new(&[]).read(b"{\"metadata\": {\"labels\": {\"a\": \"b\"}"), Tags::default());
    }
}
