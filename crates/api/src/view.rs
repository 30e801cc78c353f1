//! The world as admission sees it: the store's newest objects.

use bytes::Bytes;
use model::{Gvr, Key, Object, World};
use store::{Range, Store};

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
