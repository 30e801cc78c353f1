//! The world as admission sees it: the store's newest objects.

use bytes::Bytes;
use model::{Gvr, Key, Object, Tree, World, kinds};
use store::{Range, Store};

use crate::auth::nodes::Bound;

/// Reads the store.
pub struct View<'a>(pub &'a Store);

/// Where an object lies.
pub fn path_of(key: &Key) -> String {
    match key.namespace.as_str() {
        "" => format!("/{}/{}", key.gvr, key.name),
        namespace => format!("/{}/{namespace}/{}", key.gvr, key.name),
    }
}

fn read(bytes: &Bytes) -> Option<Object> {
    // What is stored was written by us; were it damaged, the store would have said so.
    Object::read(bytes.clone()).ok()
}

impl World for View<'_> {
    fn get(&self, key: &Key) -> Option<Object> {
        self.0.get(&path_of(key)).and_then(|record| read(&record.value))
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object> {
        let prefix = match namespace {
            "" => format!("/{gvr}/"),
            namespace => format!("/{gvr}/{namespace}/"),
        };
        let page = self.0.list(&Range { prefix, ..Range::default() });
        page.map(|page| page.records.iter().filter_map(|record| read(&record.value)).collect())
            .unwrap_or_default()
    }
}

impl Bound for View<'_> {
    fn bound_to(&self, node: &str, namespace: &str) -> Vec<Tree> {
        let prefix = match namespace {
            "" => format!("/{}/", kinds::POD),
            namespace => format!("/{}/{namespace}/", kinds::POD),
        };
        let Ok(page) = self.0.list(&Range { prefix, ..Range::default() }) else { return Vec::new() };
        // The node stands beside the bytes, so that only its own pods are read.
        let here = page.records.iter().filter(|record| record.tags.field("spec.nodeName") == Some(node));
        here.filter_map(|record| serde_json::from_slice(&record.value).ok()).collect()
    }
}
