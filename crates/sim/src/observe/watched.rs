//! What one watcher was told so far, held against the history: each key's changes in order, without gap or repeat. Pure.

use std::collections::BTreeMap;

use client::{WatchEvent, WatchKind};
use http::Uri;
use serde::Deserialize;

use super::sight::Sight;

/// The annotation of the bookmark that ends the initial events of a watch.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One watch.
pub struct Watched {
    /// The resource, as it begins the paths of the store.
    resource: String,
    /// Whether objects come into sight and out of it: then not all of their changes are told.
    is_selective: bool,
    /// The revision from which on everything is told; `None` while the first picture is.
    from: Option<u64>,
    /// The newest revision that was told.
    newest: u64,
    /// The newest revision of each key that was told.
    told: BTreeMap<String, u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Told {
    metadata: Meta,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    name: String,
    namespace: String,
    resource_version: String,
    annotations: BTreeMap<String, String>,
}

impl Watched {
    /// The watch that a request asks for.
    pub fn of(uri: &Uri) -> Self {
        let segments: Vec<&str> = uri.path().split('/').filter(|segment| !segment.is_empty()).collect();
        let plural = segments.last().copied().unwrap_or_default();
        let resource = match segments[..] {
            ["apis", group, ..] => format!("{plural}.{group}"),
            _ => plural.to_owned(),
        };
        let asked: BTreeMap<&str, &str> =
            uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
        let from = asked.get("resourceVersion").and_then(|revision| revision.parse().ok());
        Self {
            resource,
            is_selective: asked.contains_key("fieldSelector") || asked.contains_key("labelSelector"),
            from,
            newest: from.unwrap_or(0),
            told: BTreeMap::new(),
        }
    }

    /// What an event breaks.
    pub fn take(&mut self, sight: &Sight, event: &WatchEvent) -> Option<String> {
        if event.kind == WatchKind::Error {
            return None;
        }
        let told: Told = serde_json::from_slice(&event.object).unwrap_or_default();
        let meta = told.metadata;
        let revision: u64 = meta.resource_version.parse().unwrap_or(0);
        if event.kind == WatchKind::Bookmark {
            if self.from.is_none() && meta.annotations.contains_key(INITIAL_EVENTS_END) {
                self.from = Some(revision);
                self.newest = revision;
                self.told.clear();
            }
            return None;
        }
        // The first picture comes in no order.
        let from = self.from?;
        let path = match meta.namespace.as_str() {
            "" => format!("/{}/{}", self.resource, meta.name),
            namespace => format!("/{}/{namespace}/{}", self.resource, meta.name),
        };
        let before = self.told.insert(path.clone(), revision).unwrap_or(from);
        let history = sight.histories.get(&path).map(Vec::as_slice).unwrap_or_default();
        let next = history.iter().copied().find(|revision| *revision > before);
        let is_next = if self.is_selective { history.contains(&revision) } else { next == Some(revision) };
        let is_newer = revision > self.newest;
        self.newest = revision;
        (!is_next || !is_newer).then(|| {
            format!(
                "a watcher sees each history without gap or repeat: {path} at {revision} was told after {before}, {next:?} was next"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;

    fn told(kind: WatchKind, name: &str, revision: u64, ends_picture: bool) -> WatchEvent {
        let mut object = json!({"metadata": {"name": name, "resourceVersion": revision.to_string()}});
        if ends_picture {
            object["metadata"]["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        WatchEvent { kind, object: Bytes::from(object.to_string()) }
    }

    fn check(uri: &str, events: &[(WatchKind, &str, u64)], wanted: usize) {
        let mut sight = Sight::default();
        sight.histories.insert("/nodes/a".into(), vec![3, 7, 9]);
        sight.histories.insert("/nodes/b".into(), vec![4, 8]);
        let mut watched = Watched::of(&uri.parse().expect("a path"));
        let broken: Vec<String> = events
            .iter()
            .filter_map(|(kind, name, revision)| {
                watched.take(&sight, &told(*kind, name, *revision, *kind == WatchKind::Bookmark))
            })
            .collect();
        assert_eq!(broken.len(), wanted, "{uri}: {broken:?}");
    }

    #[test]
    fn what_is_left_out_or_told_twice_is_found() {
        use WatchKind::{Added, Bookmark, Modified};
        let whole = [(Modified, "a", 7), (Modified, "b", 8), (Modified, "a", 9)];
        check("/api/v1/nodes?watch=true&resourceVersion=4", &whole, 0);
        check("/api/v1/nodes?watch=true&resourceVersion=4", &[(Modified, "a", 9)], 1);
        check("/api/v1/nodes?watch=true&resourceVersion=4", &[(Modified, "a", 7), (Modified, "a", 7)], 1);
        check("/api/v1/nodes?resourceVersion=4", &[(Modified, "b", 8), (Modified, "a", 7)], 1);
        check("/api/v1/nodes?resourceVersion=4&fieldSelector=x%3D1", &[(Added, "a", 9)], 0);
        let picture = [(Added, "b", 4), (Added, "a", 7), (Bookmark, "", 7), (Modified, "b", 8)];
        check("/api/v1/nodes?sendInitialEvents=true", &picture, 0);
        check("/api/v1/nodes?sendInitialEvents=true", &[(Bookmark, "", 7), (Modified, "a", 7)], 1);
    }
}
