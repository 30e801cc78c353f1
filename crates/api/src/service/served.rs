//! Which resources are served: the built-in ones, and those of the definitions that are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::kinds;
use store::{Range, Revision, Store, StoreError, Watch};

use crate::custom;
use crate::registry::{Registry, Resource};

/// A snapshot of what is served, and a place in the history of definitions from which to look for newer ones.
pub struct Served {
    watch: Watch,
    registry: Arc<Registry>,
    /// What each definition serves, by where it lies and the revision at which it was read.
    known: BTreeMap<String, (Revision, Vec<Arc<Resource>>)>,
}

impl Served {
    /// What is served now.
    pub fn new(store: &Store) -> Result<Self, StoreError> {
        Self::read(store, &BTreeMap::new())
    }

    /// Definitions that did not change since they were read are not compiled again.
    fn read(
        store: &Store,
        before: &BTreeMap<String, (Revision, Vec<Arc<Resource>>)>,
    ) -> Result<Self, StoreError> {
        let range = Range { prefix: prefix(), ..Range::default() };
        let page = store.list(&range)?;
        let watch = store.watch(&range.prefix, page.revision)?;
        let (mut registry, mut known) = (Registry::built_in(), BTreeMap::new());
        for record in &page.records {
            let path = record.path.to_string();
            let served = match before.get(&path).filter(|(revision, _)| *revision == record.revision) {
                Some((_, served)) => served.clone(),
                None => {
                    let Ok(definition) = serde_json::from_slice(&record.value) else { continue };
                    custom::resources(&definition).into_iter().map(Arc::new).collect()
                }
            };
            served.iter().for_each(|resource| registry.add(resource.clone()));
            known.insert(path, (record.revision, served));
        }
        Ok(Self { watch, registry: Arc::new(registry), known })
    }

    /// The snapshot, made anew when a definition came, changed or went.
    pub fn now(&mut self, store: &Store) -> Arc<Registry> {
        // Nothing to be read means that nothing changed; anything else, an error too, is a reason to look.
        if !matches!(self.watch.try_next(), Ok(None))
            && let Ok(newer) = Self::read(store, &self.known)
        {
            *self = newer;
        }
        self.registry.clone()
    }
}

fn prefix() -> String {
    format!("/{}/", kinds::CUSTOM_RESOURCE_DEFINITION)
}
