//! The world as admission sees it: the store's newest objects.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use model::{Gvr, Key, Object, Tree, World, kinds};
use store::{Range, Record, Store};

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

fn range_of(gvr: &Gvr, namespace: &str) -> Range {
    let prefix = match namespace {
        "" => format!("/{gvr}/"),
        namespace => format!("/{gvr}/{namespace}/"),
    };
    Range { prefix, ..Range::default() }
}

fn read(record: &Record) -> Option<Object> {
    // What is stored was written by us; were it damaged, the store would have said so.
    Object::read(record.value.clone()).ok()
}

impl World for View<'_> {
    fn get(&self, key: &Key) -> Option<Object> {
        self.0.get(&path_of(key)).and_then(|record| read(&record))
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object> {
        let page = self.0.list(&range_of(gvr, namespace));
        page.map(|page| page.records.iter().filter_map(read).collect()).unwrap_or_default()
    }
}

/// The same, remembering what it read of the kinds that are asked about every write: each revision is read once.
pub struct Remembering<'a> {
    store: &'a Store,
    known: &'a Known,
}

/// What was read: a memory only, it never changes an answer.
#[derive(Default)]
pub struct Known {
    /// Guards the objects, by where they lie, while one is looked up or added.
    objects: Mutex<HashMap<store::Path, Object>>,
}

/// How many objects are remembered: of a thousand namespaces those that their pods ask about, at some 1 kB each.
const KNOWN_MAX: usize = 4096;

/// Those that admission asks about whatever is written.
const ASKED_OFTEN: [&Gvr; 6] = [
    &kinds::NAMESPACE,
    &kinds::SERVICE_ACCOUNT,
    &kinds::LIMIT_RANGE,
    &kinds::PRIORITY_CLASS,
    &kinds::RUNTIME_CLASS,
    &kinds::STORAGE_CLASS,
];

impl<'a> Remembering<'a> {
    /// Reads `store`, and remembers in `known`.
    pub fn new(store: &'a Store, known: &'a Known) -> Self {
        Self { store, known }
    }

    fn read(&self, gvr: &Gvr, record: &Record) -> Option<Object> {
        if ASKED_OFTEN.contains(&gvr) { self.known.read(record) } else { read(record) }
    }
}

impl World for Remembering<'_> {
    fn get(&self, key: &Key) -> Option<Object> {
        self.store.get(&path_of(key)).and_then(|record| self.read(&key.gvr, &record))
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object> {
        let page = self.store.list(&range_of(gvr, namespace));
        let read = |record: &Record| self.read(gvr, record);
        page.map(|page| page.records.iter().filter_map(read).collect()).unwrap_or_default()
    }
}

impl Known {
    fn read(&self, record: &Record) -> Option<Object> {
        let lock = || self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&record.path).filter(|known| known.revision() == record.revision) {
            return Some(known.clone());
        }
        let fresh = read(record)?;
        let mut objects = lock();
        if objects.len() >= KNOWN_MAX {
            objects.clear();
        }
        objects.insert(record.path.clone(), fresh.clone());
        Some(fresh)
    }
}

impl Bound for View<'_> {
    fn bound_to(&self, node: &str, namespace: &str) -> Vec<Tree> {
        let Ok(page) = self.0.list(&range_of(&kinds::POD, namespace)) else { return Vec::new() };
        // The node stands beside the bytes, so that only its own pods are read.
        let here = page.records.iter().filter(|record| record.tags.field("spec.nodeName") == Some(node));
        here.filter_map(|record| serde_json::from_slice(&record.value).ok()).collect()
    }
}
