//! One cache: the objects that one watch has shown, found by name, namespace and owner.
//!
//! Pure: events go in, changes come out. Promises: objects come in order of namespace and name; a repeated event
//! changes nothing; what it holds are the shared bytes, never a tree.

use std::collections::{BTreeMap, BTreeSet};

use model::{Gvr, Key, Object, Time, fence};

/// The resource of leases.
const LEASE: Gvr = Gvr::new("coordination.k8s.io", "v1", "leases");

/// Where an object lies within a cache: namespace and name.
pub(crate) type Place = (String, String);

/// That something is not as it was. Says "look again" and lets the reader see both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    /// What changed.
    pub key: Key,
    /// What it was; `None`: it is new.
    pub old: Option<Object>,
    /// What it is; `None`: it is gone.
    pub new: Option<Object>,
}

impl Changed {
    /// The resource of what changed.
    pub fn gvr(&self) -> &Gvr {
        &self.key.gvr
    }
}

/// The objects of one resource that one watch selects.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// By namespace, then by name.
    objects: BTreeMap<Box<str>, BTreeMap<Box<str>, Held>>,
    by_owner: BTreeMap<String, BTreeSet<Place>>,
    revision: u64,
    is_synced: bool,
    steady_since: Option<Time>,
}

/// An object, and since when it has been held as it is.
#[derive(Debug)]
struct Held {
    object: Object,
    since: Time,
    /// Since when it shows the last renewal by its holder, if it is a Lease.
    renewed: Time,
}

impl Cache {
    /// The revision up to which everything has been seen.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether everything that was there when the watch began has been seen.
    pub fn is_synced(&self) -> bool {
        self.is_synced
    }

    /// Since when the watch has run without a gap; `None`: it does not run, or has no picture yet.
    pub fn steady_since(&self) -> Option<Time> {
        self.steady_since.filter(|_| self.is_synced)
    }

    /// Takes that the watch runs (again) since `now`.
    pub fn steady(&mut self, now: Time) {
        self.steady_since.get_or_insert(now);
    }

    /// Takes that the watch has been cut.
    pub fn lose(&mut self) {
        self.steady_since = None;
    }

    pub fn len(&self) -> usize {
        self.objects.values().map(BTreeMap::len).sum()
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<&Object> {
        self.held(namespace, name).map(|held| &held.object)
    }

    /// Since when an object has been held as it is.
    pub fn held_since(&self, namespace: &str, name: &str) -> Option<Time> {
        self.held(namespace, name).map(|held| held.since)
    }

    fn held(&self, namespace: &str, name: &str) -> Option<&Held> {
        self.objects.get(namespace)?.get(name)
    }

    /// Since when a Lease has been held with its present renewal.
    pub fn renewed_since(&self, namespace: &str, name: &str) -> Option<Time> {
        self.held(namespace, name).map(|held| held.renewed)
    }

    /// The objects of a namespace (`""`: of all), in order.
    pub fn list<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Object> {
        let one = self.objects.get(namespace).filter(|_| !namespace.is_empty());
        let all = self.objects.values().filter(move |_| namespace.is_empty());
        all.chain(one).flat_map(BTreeMap::values).map(|held| &held.object)
    }

    /// Lets go of what was read out of the objects.
    pub fn forget_seen(&self) {
        self.list("").for_each(Object::forget_seen);
    }

    /// The objects that name `uid` among their owners, in order.
    pub fn owned_by<'a>(&'a self, uid: &str) -> impl Iterator<Item = &'a Object> {
        self.by_owner.get(uid).into_iter().flatten().filter_map(|(namespace, name)| self.get(namespace, name))
    }

    /// Whether any object names `uid` among its owners.
    pub fn owns_any(&self, uid: &str) -> bool {
        self.by_owner.contains_key(uid)
    }

    /// Takes an object as it is `now`. `None` when it is no news.
    pub fn put(&mut self, gvr: &Gvr, object: Object, now: Time) -> Option<Changed> {
        self.revision = self.revision.max(object.revision());
        let place = place_of(&object);
        let old = self.get(&place.0, &place.1);
        if old.is_some_and(|old| old.uid() == object.uid() && old.revision() >= object.revision()) {
            return None;
        }
        let old = self.insert(gvr, place, object.clone(), now);
        Some(changed(gvr, old, Some(object)))
    }

    /// Takes that an object is gone; `last` is how it went. `None` when it is no news.
    pub fn remove(&mut self, gvr: &Gvr, last: &Object) -> Option<Changed> {
        self.revision = self.revision.max(last.revision());
        let old = self.take(&place_of(last))?;
        Some(changed(gvr, Some(old), None))
    }

    /// Takes that everything up to `revision` has been seen.
    pub fn reach(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    /// Takes a whole new picture as of `revision`, and tells the differences.
    pub fn replace(&mut self, gvr: &Gvr, objects: Vec<Object>, revision: u64, now: Time) -> Vec<Changed> {
        let mut fresh: BTreeMap<Place, Object> =
            objects.into_iter().map(|object| (place_of(&object), object)).collect();
        let gone: Vec<Place> =
            self.list("").map(place_of).filter(|place| !fresh.contains_key(place)).collect();
        let mut changes: Vec<Changed> = Vec::new();
        for place in gone {
            changes.extend(self.take(&place).map(|old| changed(gvr, Some(old), None)));
        }
        while let Some((place, object)) = fresh.pop_first() {
            let same = |Held { object: old, .. }: &Held| {
                old.uid() == object.uid() && old.revision() == object.revision()
            };
            if !self.held(&place.0, &place.1).is_some_and(same) {
                let old = self.insert(gvr, place, object.clone(), now);
                changes.push(changed(gvr, old, Some(object)));
            }
        }
        self.revision = revision;
        self.is_synced = true;
        changes
    }

    fn insert(&mut self, gvr: &Gvr, place: Place, object: Object, since: Time) -> Option<Object> {
        let before = self.held(&place.0, &place.1).filter(|_| *gvr == LEASE);
        let renewed = match before {
            Some(held) if !fence::is_renewed(&held.object, &object) => held.renewed,
            _ => since,
        };
        let old = self.take(&place);
        for owner in &object.meta().owner_references {
            self.by_owner.entry(owner.uid.clone()).or_default().insert(place.clone());
        }
        let (namespace, name) = place;
        let inside = self.objects.entry(namespace.into()).or_default();
        inside.insert(name.into(), Held { object, since, renewed });
        old
    }

    fn take(&mut self, place: &Place) -> Option<Object> {
        let (namespace, name) = place;
        let inside = self.objects.get_mut(namespace.as_str())?;
        let Held { object: old, .. } = inside.remove(name.as_str())?;
        if inside.is_empty() {
            self.objects.remove(namespace.as_str());
        }
        for owner in &old.meta().owner_references {
            if let Some(places) = self.by_owner.get_mut(&owner.uid) {
                places.remove(place);
                if places.is_empty() {
                    self.by_owner.remove(&owner.uid);
                }
            }
        }
        Some(old)
    }
}

fn place_of(object: &Object) -> Place {
    (object.namespace().to_owned(), object.name().to_owned())
}

fn changed(gvr: &Gvr, old: Option<Object>, new: Option<Object>) -> Changed {
    let named = new.as_ref().or(old.as_ref());
    let (namespace, name) = named.map(place_of).unwrap_or_default();
    Changed { key: Key::new(gvr, namespace, name), old, new }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, revision: u64, owner: &str) -> Object {
        let (namespace, name) = name.split_once('/').expect("a namespace and a name");
        let text = format!(
            r#"{{"metadata":{{"namespace":"{namespace}","name":"{name}","uid":"u-{name}","resourceVersion":"{revision}",
            "ownerReferences":[{{"uid":"{owner}"}}]}}}}"#
        );
        Object::read(text.into()).expect("an object")
    }

    const NOW: Time = Time::UNIX_EPOCH;

    fn pods() -> Gvr {
        Gvr::new("", "v1", "pods")
    }

    fn names<'a>(objects: impl Iterator<Item = &'a Object>) -> String {
        objects
            .map(|object| format!("{}/{}", object.namespace(), object.name()))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn objects_are_found_by_namespace_and_by_owner_in_order() {
        let mut cache = Cache::default();
        for (at, name) in ["b/x", "a/y", "b/a", "a/b", "ab/c"].iter().enumerate() {
            cache.put(&pods(), object(name, at as u64 + 1, if at % 2 == 0 { "even" } else { "odd" }), NOW);
        }
        assert_eq!(names(cache.list("")), "a/b a/y ab/c b/a b/x");
        assert_eq!(names(cache.list("a")), "a/b a/y");
        assert_eq!(names(cache.owned_by("odd")), "a/b a/y");
        assert_eq!(names(cache.owned_by("nobody")), "");
    }

    #[test]
    fn a_repeated_or_older_event_is_no_news() {
        let mut cache = Cache::default();
        assert!(cache.put(&pods(), object("a/x", 5, "o"), NOW).is_some());
        assert!(cache.put(&pods(), object("a/x", 5, "o"), NOW).is_none());
        assert!(cache.put(&pods(), object("a/x", 4, "o"), NOW).is_none());
        assert!(cache.remove(&pods(), &object("a/x", 7, "o")).is_some());
        assert!(cache.remove(&pods(), &object("a/x", 7, "o")).is_none());
        assert_eq!((cache.revision(), cache.len()), (7, 0));
    }

    #[test]
    fn a_new_owner_replaces_the_old_one_in_the_index() {
        let mut cache = Cache::default();
        cache.put(&pods(), object("a/x", 1, "before"), NOW);
        cache.put(&pods(), object("a/x", 2, "after"), NOW);
        assert_eq!(names(cache.owned_by("before")), "");
        assert_eq!(names(cache.owned_by("after")), "a/x");
    }

    #[test]
    fn a_new_picture_tells_only_the_differences() {
        let mut cache = Cache::default();
        cache.replace(
            &pods(),
            vec![object("a/gone", 1, "o"), object("a/same", 2, "o"), object("a/moved", 3, "o")],
            3,
            NOW,
        );
        let picture = vec![object("a/same", 2, "o"), object("a/moved", 8, "o"), object("a/new", 9, "o")];
        let told = cache.replace(&pods(), picture, 9, NOW);
        let told: Vec<_> =
            told.iter().map(|c| (c.key.name.as_str(), c.old.is_some(), c.new.is_some())).collect();
        assert_eq!(told, [("gone", true, false), ("moved", true, true), ("new", false, true)]);
        assert_eq!((cache.revision(), cache.is_synced()), (9, true));
    }

    #[test]
    fn an_object_is_held_since_it_changed_whatever_is_repeated() {
        let later = |seconds: u64| NOW + std::time::Duration::from_secs(seconds);
        let mut cache = Cache::default();
        cache.put(&pods(), object("a/x", 1, "o"), later(1));
        cache.put(&pods(), object("a/x", 1, "o"), later(2));
        cache.replace(&pods(), vec![object("a/x", 1, "o")], 5, later(3));
        assert_eq!(cache.held_since("a", "x"), Some(later(1)));
        cache.put(&pods(), object("a/x", 6, "o"), later(4));
        assert_eq!(cache.held_since("a", "x"), Some(later(4)));
        assert_eq!(cache.held_since("a", "y"), None);
    }

    #[test]
    fn a_lease_that_is_taken_from_its_holder_is_not_renewed() {
        let later = |seconds: u64| NOW + std::time::Duration::from_secs(seconds);
        let lease = |revision: u64, renewed: u64, state: &str| {
            let text = format!(
                r#"{{"metadata":{{"namespace":"a","name":"x","uid":"u","resourceVersion":"{revision}",
                "annotations":{{"healing.kintsugi.dev/lease-state":"{state}"}}}},"spec":{{"renewTime":"{renewed}"}}}}"#
            );
            Object::read(text.into()).expect("a lease")
        };
        let mut cache = Cache::default();
        let mut check = |lease: Object, at: u64, held: u64, renewed: u64| {
            cache.put(&LEASE, lease, later(at));
            assert_eq!(cache.held_since("a", "x"), Some(later(held)));
            assert_eq!(cache.renewed_since("a", "x"), Some(later(renewed)));
        };
        check(lease(1, 100, "Held"), 1, 1, 1);
        check(lease(2, 101, "Held"), 2, 2, 2);
        check(lease(3, 101, "Lost"), 6, 6, 2);
        check(lease(4, 107, "Held"), 9, 9, 9);
    }
}
