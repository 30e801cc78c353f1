//! What the loops read: caches kept fresh by watch, one for each [`Follow`].
//!
//! Promises: a cache appears whole or not at all; whoever subscribed is told of every key that changed; reading
//! inside [`Caches::read`] sees one picture. Never asks the server on behalf of a reader.

use std::cmp::Ordering;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use host::watch;
use host::{Host, Task};
use model::{Gvr, Key, Object, Time, World};

use crate::cache::Cache;
use crate::changes::Inbox;
use crate::{Changed, Changes, Client, Select, follow};

/// What a cache follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// Of which resource.
    pub gvr: Gvr,
    /// In which namespace; empty for all, and for cluster-wide resources.
    pub namespace: String,
    /// A label selector; empty for any.
    pub labels: String,
    /// A field selector; empty for any.
    pub fields: String,
}

/// By resource first: all that is followed of one lies together, and the one of everything begins it. Plurals before groups,
/// because hardly two of them are the same.
impl Ord for Follow {
    fn cmp(&self, other: &Self) -> Ordering {
        self.ordered().cmp(&other.ordered())
    }
}

impl PartialOrd for Follow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Follow {
    /// All objects of a resource.
    pub fn all(gvr: &Gvr) -> Self {
        Self { gvr: gvr.clone(), namespace: String::new(), labels: String::new(), fields: String::new() }
    }

    /// The objects of a resource with these fields, such as `spec.nodeName=a`.
    pub fn fields(gvr: &Gvr, selector: impl Into<String>) -> Self {
        Self { fields: selector.into(), ..Self::all(gvr) }
    }

    /// One object.
    pub fn one(key: &Key) -> Self {
        let fields = format!("metadata.name={}", key.name);
        Self { namespace: key.namespace.clone(), ..Self::fields(&key.gvr, fields) }
    }

    fn ordered(&self) -> [&str; 6] {
        let Gvr { group, version, plural } = &self.gvr;
        [plural, group, version, &self.namespace, &self.labels, &self.fields]
    }

    pub(crate) fn select(&self) -> Select {
        Select { labels: self.labels.clone(), fields: self.fields.clone() }
    }
}

/// The caches by resource: what is looked up for each object that changes, many times over.
#[derive(Default)]
struct Shelf(HashMap<Gvr, BTreeMap<Follow, Cache>>);

impl Shelf {
    /// The caches of a resource, in order: one unless several selections of it are followed.
    fn of(&self, gvr: &Gvr) -> impl Iterator<Item = &Cache> {
        self.0.get(gvr).into_iter().flat_map(BTreeMap::values)
    }

    /// All caches, in no order.
    fn all(&self) -> impl Iterator<Item = (&Follow, &Cache)> {
        self.0.values().flatten()
    }

    fn get_mut(&mut self, what: &Follow) -> Option<&mut Cache> {
        self.0.get_mut(&what.gvr)?.get_mut(what)
    }

    fn insert(&mut self, what: Follow) {
        self.0.entry(what.gvr.clone()).or_default().insert(what, Cache::default());
    }

    fn remove(&mut self, what: &Follow) {
        if let Some(of) = self.0.get_mut(&what.gvr) {
            of.remove(what);
            if of.is_empty() {
                self.0.remove(&what.gvr);
            }
        }
    }
}

/// Caches of what an API server holds. Clones share them; the watches end with the last clone.
#[derive(Clone)]
pub struct Caches {
    board: Arc<Board>,
    client: Client,
    host: Host,
    /// Guards the watches for the length of one insertion or removal.
    tasks: Arc<Mutex<BTreeMap<Follow, Task<()>>>>,
}

/// Where the watches write and the readers read.
pub(crate) struct Board {
    /// Guards the pictures: written for one event at a time, read for one look or one pass. Never across an await.
    caches: RwLock<Shelf>,
    /// Guards the list of subscribers; taken inside the lock above, so that news comes in the order of events.
    inboxes: Mutex<Vec<Weak<Inbox>>>,
    /// Counts what the watches have brought, bookmarks included.
    progress: watch::Sender<u64>,
}

impl Caches {
    /// No caches yet; `client` will be asked, `host` gives time and chance.
    pub fn new(client: Client, host: Host) -> Self {
        let board =
            Board { caches: RwLock::default(), inboxes: Mutex::default(), progress: watch::Sender::new(0) };
        Self { board: Arc::new(board), client, host, tasks: Arc::default() }
    }

    /// Begins to follow; does nothing when it is followed already.
    pub fn follow(&self, what: Follow) {
        let mut tasks = self.tasks();
        if let Entry::Vacant(place) = tasks.entry(what) {
            let what = place.key().clone();
            self.board.write().insert(what.clone());
            let keep = follow::keep(what, self.client.clone(), self.host.clone(), self.board.clone());
            place.insert(self.host.spawn(keep));
        }
    }

    /// Ends to follow and forgets the cache, telling of nothing.
    pub fn unfollow(&self, what: &Follow) {
        self.tasks().remove(what);
        self.board.write().remove(what);
        self.board.advance();
    }

    /// What is followed.
    pub fn followed(&self) -> BTreeSet<Follow> {
        self.tasks().keys().cloned().collect()
    }

    /// Returns when every cache that is followed has its first whole picture.
    pub async fn synced(&self) {
        self.wait_for(|_| true).await;
    }

    /// Returns when every cache of these resources has its first whole picture.
    pub async fn synced_in(&self, gvrs: &BTreeSet<Gvr>) {
        self.wait_for(|what| gvrs.contains(&what.gvr)).await;
    }

    async fn wait_for(&self, wanted: impl Fn(&Follow) -> bool) {
        let mut progress = self.progress();
        let is_there = || self.board.read().all().all(|(what, cache)| !wanted(what) || cache.is_synced());
        while !is_there() {
            if progress.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether every cache that is followed has its first whole picture.
    pub fn is_synced(&self) -> bool {
        self.board.read().all().all(|(_, cache)| cache.is_synced())
    }

    /// Subscribes to what changes from now on.
    pub fn changes(&self) -> Changes {
        let inbox = Arc::new(Inbox::default());
        self.board.inboxes().push(Arc::downgrade(&inbox));
        Changes::new(inbox)
    }

    /// A number that moves whenever a watch has brought something, be it only a revision.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.board.progress.subscribe()
    }

    /// The revision up to which everything of a resource has been seen; `None` when it is not followed.
    pub fn reached(&self, gvr: &Gvr) -> Option<u64> {
        self.read(|picture| picture.reached(gvr))
    }

    /// How many objects are held.
    pub fn len(&self) -> usize {
        self.board.read().all().map(|(_, cache)| cache.len()).sum()
    }

    /// Whether no object is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets go of what was read out of the objects so far; what is asked for again is read again.
    pub fn forget_seen(&self) {
        self.board.read().all().for_each(|(_, cache)| cache.forget_seen());
    }

    /// Looks at one picture that does not change meanwhile. To be short: the watches wait.
    pub fn read<T>(&self, look: impl FnOnce(&Picture<'_>) -> T) -> T {
        look(&Picture(self.board.read()))
    }

    fn tasks(&self) -> MutexGuard<'_, BTreeMap<Follow, Task<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The caches at one moment.
pub struct Picture<'a>(RwLockReadGuard<'a, Shelf>);

impl Picture<'_> {
    /// The revision up to which everything of a resource has been seen; `None` when it is not followed.
    pub fn reached(&self, gvr: &Gvr) -> Option<u64> {
        self.0.of(gvr).map(Cache::revision).min()
    }

    /// Whether all objects of a resource have been seen; `None` when it is not followed.
    pub fn is_synced(&self, gvr: &Gvr) -> Option<bool> {
        self.0.of(gvr).map(Cache::is_synced).reduce(|a, b| a && b)
    }

    /// Since when everything of these resources has been up to date without a gap; `None`: it is not.
    pub fn steady_since<'a>(&self, gvrs: impl IntoIterator<Item = &'a Gvr>) -> Option<Time> {
        let each = gvrs.into_iter().map(|gvr| {
            let steady = self.0.of(gvr).map(Cache::steady_since);
            steady.reduce(|a, b| Some(a?.max(b?))).flatten()
        });
        each.reduce(|a, b| Some(a?.max(b?))).flatten()
    }
}

impl World for Picture<'_> {
    fn get(&self, key: &Key) -> Option<Object> {
        self.0.of(&key.gvr).find_map(|cache| cache.get(&key.namespace, &key.name)).cloned()
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object> {
        merged(self.0.of(gvr).map(|cache| cache.list(namespace).cloned().collect()))
    }

    fn owned_by(&self, gvr: &Gvr, uid: &str) -> Vec<Object> {
        merged(self.0.of(gvr).map(|cache| cache.owned_by(uid).cloned().collect()))
    }

    fn renewed_since(&self, lease: &Key) -> Option<Time> {
        self.0.of(&lease.gvr).find_map(|cache| cache.renewed_since(&lease.namespace, &lease.name))
    }

    fn owns_any(&self, uid: &str) -> bool {
        self.0.all().any(|(_, cache)| cache.owns_any(uid))
    }

    fn held_since(&self, key: &Key) -> Option<Time> {
        self.0.of(&key.gvr).find_map(|cache| cache.held_since(&key.namespace, &key.name))
    }

    fn began(&self) -> Option<Time> {
        let each = self.0.all().map(|(_, cache)| cache.steady_since());
        each.reduce(|a, b| Some(a?.max(b?))).flatten()
    }
}

/// Each call sees the caches as they are then; for one picture over several calls, use [`Caches::read`].
impl World for Caches {
    fn get(&self, key: &Key) -> Option<Object> {
        self.read(|world| world.get(key))
    }

    fn list(&self, gvr: &Gvr, namespace: &str) -> Vec<Object> {
        self.read(|world| world.list(gvr, namespace))
    }

    fn owned_by(&self, gvr: &Gvr, uid: &str) -> Vec<Object> {
        self.read(|world| world.owned_by(gvr, uid))
    }

    fn renewed_since(&self, lease: &Key) -> Option<Time> {
        self.read(|world| world.renewed_since(lease))
    }

    fn owns_any(&self, uid: &str) -> bool {
        self.read(|world| world.owns_any(uid))
    }

    fn held_since(&self, key: &Key) -> Option<Time> {
        self.read(|world| world.held_since(key))
    }

    fn began(&self) -> Option<Time> {
        self.read(|world| world.began())
    }
}

/// Several ordered lists as one, each object once.
fn merged(mut lists: impl Iterator<Item = Vec<Object>>) -> Vec<Object> {
    let mut all = lists.next().unwrap_or_default();
    for more in lists {
        all.extend(more);
        all.sort_by(|a, b| (a.namespace(), a.name()).cmp(&(b.namespace(), b.name())));
        all.dedup_by(|a, b| a.namespace() == b.namespace() && a.name() == b.name());
    }
    all
}

impl Board {
    /// Changes one cache and tells the subscribers what became of it. Nothing happens to one that was forgotten.
    pub fn update<C: IntoIterator<Item = Changed>>(
        &self,
        what: &Follow,
        change: impl FnOnce(&mut Cache) -> C,
    ) {
        let mut caches = self.write();
        if let Some(cache) = caches.get_mut(what) {
            let mut told = change(cache).into_iter().peekable();
            if told.peek().is_some() {
                let mut inboxes = self.inboxes();
                inboxes.retain(|inbox| inbox.strong_count() > 0);
                let open: Vec<Arc<Inbox>> = inboxes.iter().filter_map(Weak::upgrade).collect();
                for changed in told {
                    open.iter().for_each(|inbox| inbox.push(changed.clone()));
                }
            }
        }
        drop(caches);
        self.advance();
    }

    fn advance(&self) {
        self.progress.send_modify(|count| *count += 1);
    }

    fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.caches.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.caches.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn inboxes(&self) -> MutexGuard<'_, Vec<Weak<Inbox>>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
