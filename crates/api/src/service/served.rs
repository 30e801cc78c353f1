//! Which resources are served: the built-in ones, and those of the definitions that are stored.

use std::sync::Arc;

use model::kinds;
use store::{Range, Store, StoreError, Watch};

use crate::custom;
use crate::registry::Registry;

/// A snapshot of what is served, and a place in the history of definitions from which to look for newer ones.
pub struct Served {
    watch: Watch,
    registry: Arc<Registry>,
}

impl Served {
    /// What is served now.
    pub fn new(store: &Store) -> Result<Self, StoreError> {
        let range = Range { prefix: prefix(), ..Range::default() };
        let page = store.list(&range)?;
        let watch = store.watch(&range.prefix, page.revision)?;
        let mut registry = Registry::built_in();
        for record in &page.records {
            let Ok(definition) = serde_json::from_slice(&record.value) else { continue };
            custom::resources(&definition).into_iter().for_each(|resource| registry.add(resource));
        }
        Ok(Self { watch, registry: Arc::new(registry) })
    }

    /// The snapshot, made anew when a definition came, changed or went.
    pub fn now(&mut self, store: &Store) -> Arc<Registry> {
        // Nothing to be read means that nothing changed; anything else, an error too, is a reason to look.
        if !matches!(self.watch.try_next(), Ok(None))
            && let Ok(newer) = Self::new(store)
        {
            *self = newer;
        }
        self.registry.clone()
    }
}

fn prefix() -> String {
    format!("/{}/", kinds::CUSTOM_RESOURCE_DEFINITION)
}
