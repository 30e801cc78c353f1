//! What a pass sees: the caches at one moment, and every resource there is, custom ones included.

use std::collections::BTreeMap;

use client::Picture;
use model::fence::Terms;
use model::world::Resource;
use model::{Gvr, Key, Object, Time, Tree, World, kinds};

/// The resource of CustomResourceDefinitions.
pub const DEFINITIONS: Gvr = Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");

/// Resources that come often, own nothing and are owned by nothing that outlives them: not followed for
/// [`model::controller::EVERY`].
const LEFT_OUT: &[(&str, &str)] =
    &[("", "events"), ("events.k8s.io", "events"), ("coordination.k8s.io", "leases")];

/// The resources there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known {
    all: Vec<Resource>,
    /// Other versions under which the same objects are served, by `apiVersion` and kind.
    also_as: BTreeMap<(String, String), Resource>,
}

impl Known {
    /// The built-in resources, and those that `definitions` define.
    pub fn new(definitions: &[Object]) -> Self {
        let mut known = Known::default();
        for kind in kinds::KINDS.iter().filter(|kind| kind.verbs == kinds::Verbs::All) {
            known.add(Resource {
                gvr: kind.gvr.clone(),
                kind: kind.kind.to_owned(),
                namespaced: kind.namespaced,
            });
        }
        for definition in definitions {
            if let Ok(tree) = definition.tree() {
                known.define(&tree);
            }
        }
        known.all.sort_by(|a, b| a.gvr.cmp(&b.gvr));
        known
    }

    /// The resources to follow for those who want every one.
    pub fn every(&self) -> impl Iterator<Item = &Gvr> {
        self.all.iter().map(|resource| &resource.gvr).filter(|gvr| is_of_every(gvr))
    }

    /// One version of each resource is followed: the first that comes.
    fn add(&mut self, resource: Resource) {
        let same = |known: &&Resource| {
            known.gvr.group == resource.gvr.group && known.gvr.plural == resource.gvr.plural
        };
        match self.all.iter().find(same).cloned() {
            None => self.all.push(resource),
            Some(first) => {
                self.also_as.insert((resource.gvr.api_version(), resource.kind), first);
            }
        }
    }

    fn define(&mut self, definition: &Tree) {
        let spec = &definition["spec"];
        let (Some(group), Some(plural), Some(kind)) =
            (spec["group"].as_str(), spec["names"]["plural"].as_str(), spec["names"]["kind"].as_str())
        else {
            return;
        };
        if !is_established(definition) {
            return;
        }
        let mut versions: Vec<&Tree> = spec["versions"].as_array().into_iter().flatten().collect();
        versions.retain(|version| version["served"] == true);
        // The stored version first: it is the one that needs no conversion.
        versions.sort_by_key(|version| version["storage"] != true);
        for version in versions.iter().filter_map(|version| version["name"].as_str()) {
            let gvr = Gvr {
                group: group.to_owned().into(),
                version: version.to_owned().into(),
                plural: plural.to_owned().into(),
            };
            self.add(Resource { gvr, kind: kind.to_owned(), namespaced: spec["scope"] == "Namespaced" });
        }
    }
}

/// Whether [`model::controller::EVERY`] stands for this resource.
pub fn is_of_every(gvr: &Gvr) -> bool {
    !LEFT_OUT.iter().any(|(group, plural)| gvr.group == *group && gvr.plural == *plural)
}

fn is_established(definition: &Tree) -> bool {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Established" && one["status"] == "True")
}

/// The world of a pass.
pub struct Seen<'a> {
    /// The caches.
    pub caches: &'a Picture<'a>,
    /// What the member reads.
    pub reads: &'a [Gvr],
    /// The resources there are.
    pub known: &'a Known,
    /// Since when this process runs without a gap.
    pub steady: Time,
    /// The lengths that leases are counted with.
    pub terms: Terms,
}

impl World for Seen<'_> {
    fn get(&self, key: &Key) -> Option<Object> {
        self.caches.get(key)
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object> {
        self.caches.list(gvr, namespace)
    }

    fn owned_by(&self, gvr: &Gvr, uid: &str) -> Vec<Object> {
        self.caches.owned_by(gvr, uid)
    }

    fn owns_any(&self, uid: &str) -> bool {
        self.caches.owns_any(uid)
    }

    fn held_since(&self, key: &Key) -> Option<Time> {
        self.caches.held_since(key)
    }

    fn renewed_since(&self, lease: &Key) -> Option<Time> {
        self.caches.renewed_since(lease)
    }

    fn terms(&self) -> Terms {
        self.terms
    }

    fn resources(&self) -> Vec<Resource> {
        self.known.all.clone()
    }

    fn resource_of(&self, api_version: &str, kind: &str) -> Option<Resource> {
        let named = |known: &&Resource| known.kind == kind && known.gvr.api_version() == api_version;
        let other = || self.known.also_as.get(&(api_version.to_owned(), kind.to_owned()));
        self.known.all.iter().find(named).or_else(other).cloned()
    }

    fn lacks(&self, gvr: &Gvr) -> bool {
        // One that is to be followed and is not yet, such as that of a new definition, has not been seen either.
        self.caches.is_synced(gvr).map_or(is_of_every(gvr), |is_synced| !is_synced)
    }

    fn began(&self) -> Option<Time> {
        self.caches.steady_since(self.reads).map(|since| since.max(self.steady))
    }
}
