//! Where everything that is observed is written down, and held against the laws.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::WatchEvent;
use host::watch;
use host::{Host, Moment, Process, Tasks};
use http::{Method, Response};
use model::Tree;
use model::fence::{EPOCH, Terms};
use runtime::SandboxSpec;
use serde::Deserialize;
use store::{Event, Range, Store, StoreError, Watch};

use super::sight::{Frozen, Seen, Sight, condition, items, text};
use super::{Condition, Watched, laws, timeline};
use crate::words::stamp;

/// Says that a machine is off, whatever it seems (KEP-2268).
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Broken laws that are written down: the first ones say what there is to know.
const FAULTS_MAX: usize = 20;

/// Writes within one second of virtual time that no cluster of this size has a reason for: somebody writes in a circle.
const WRITES_IN_A_SECOND_MAX: u32 = 3000;

/// The book; clones write in the same one.
#[derive(Clone)]
pub struct Book {
    /// Guards the page for the length of one entry or look.
    page: Arc<Mutex<Page>>,
    host: Host,
    began: Moment,
    turned: watch::Sender<u64>,
    is_over: watch::Sender<bool>,
    /// Looks again at machines that stood still. Guards them for one more.
    thaws: Arc<Mutex<Tasks>>,
}

#[derive(Default)]
struct Page {
    sight: Sight,
    lines: Vec<String>,
    faults: Vec<String>,
    happened: BTreeMap<&'static str, u64>,
    /// Words of faults of which one is enough.
    end_at: &'static [&'static str],
    /// The newest revision that a client was told of.
    told: u64,
    /// Whether nothing may be done about anything.
    is_calm: bool,
    /// What was written while nothing should be.
    unrest: Option<Vec<String>>,
    always: Vec<Always>,
    /// How many writes there were in this second.
    in_second: (u64, u32),
}

struct Always {
    condition: Condition,
    /// Whether it has come true: from then on it has to stay so.
    is_armed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Answer {
    metadata: AnswerMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct AnswerMeta {
    resource_version: String,
}

impl Book {
    /// An empty book that begins now.
    pub fn new(host: Host) -> Self {
        let began = host.moment();
        Self {
            page: Arc::default(),
            host,
            began,
            turned: watch::Sender::new(0),
            is_over: watch::Sender::new(false),
            thaws: Arc::default(),
        }
    }

    /// The time since the beginning.
    pub fn since(&self) -> Duration {
        self.host.moment().since(self.began)
    }

    /// Looks at what is seen.
    pub fn look<T>(&self, look: impl FnOnce(&Sight) -> T) -> T {
        look(&self.page().sight)
    }

    /// Notes something beside the history.
    pub fn note(&self, note: impl FnOnce(&mut Sight)) {
        note(&mut self.page().sight);
        self.turn();
    }

    /// Writes a line into the timeline.
    pub fn line(&self, line: &str) {
        self.write(&mut self.page(), line);
    }

    /// Writes down that a law (or a scenario's wish) is broken.
    pub fn fault(&self, what: impl Into<String>) {
        let (at, what) = (stamp(self.since()), what.into());
        let mut page = self.page();
        let is_enough = page.end_at.iter().any(|words| what.contains(words));
        if page.faults.len() < FAULTS_MAX {
            page.faults.push(format!("{at}  {what}"));
        }
        drop(page);
        if is_enough {
            self.is_over.send_replace(true);
        }
    }

    /// What was broken.
    pub fn faults(&self) -> Vec<String> {
        self.page().faults.clone()
    }

    /// The timeline so far.
    pub fn timeline(&self) -> String {
        self.page().lines.concat()
    }

    /// Holds a condition from the moment it comes true.
    pub fn always(&self, condition: Condition) {
        self.page().always.push(Always { condition, is_armed: false });
    }

    /// Conditions that were to hold always and never came true.
    pub fn never_true(&self) -> Vec<String> {
        let page = self.page();
        page.always
            .iter()
            .filter(|always| !always.is_armed)
            .map(|always| always.condition.to_string())
            .collect()
    }

    /// A number that moves with each entry.
    pub fn turned(&self) -> watch::Receiver<u64> {
        self.turned.subscribe()
    }

    /// From now on a fault with one of these words in it is enough: the run is over then.
    pub fn end_at(&self, words: &'static [&'static str]) {
        self.page().end_at = words;
    }

    /// Returns when somebody writes in a circle, so that time may not pass any more, or the fault that was looked for is
    /// found.
    pub async fn over(&self) {
        // The sender is in this very book: it cannot be gone.
        let _ = self.is_over.subscribe().wait_for(|is_so| *is_so).await;
    }

    /// From now on nobody has a reason to move or end anything.
    pub fn expect_calm(&self) {
        self.page().is_calm = true;
    }

    /// From now on no write but leases is expected.
    pub fn expect_rest(&self) {
        self.page().unrest = Some(Vec::new());
    }

    /// What was written although nothing was expected; writes are expected again.
    pub fn take_unrest(&self) -> Vec<String> {
        self.page().unrest.take().unwrap_or_default()
    }

    /// Follows the history of a store until it is closed or dropped.
    pub async fn follow(self, store: Store) {
        let mut watch = match self.resume(&store) {
            Ok(watch) => watch,
            Err(error) => return self.fault(format!("the history cannot be followed: {error}")),
        };
        drop(store);
        loop {
            match watch.next().await {
                Ok(batch) => batch.iter().for_each(|event| self.event(event)),
                Err(StoreError::Closed) => return,
                Err(error) => return self.fault(format!("the history cannot be followed: {error}")),
            }
        }
    }

    fn resume(&self, store: &Store) -> Result<Watch, StoreError> {
        store.watch("", self.page().sight.revision)
    }

    /// Begins with a new store, from which nothing was seen yet.
    pub fn begin(&self, store: &Store) {
        self.page().sight.revision = store.revision();
    }

    /// Holds a store that came back after a crash against everything that was seen or answered before.
    pub fn check_recovered(&self, store: &Store) {
        let (seen, told) = {
            let page = self.page();
            (page.sight.revision, page.told)
        };
        if store.revision() < told.max(seen) {
            let now = store.revision();
            self.fault(format!(
                "no acknowledged write is lost: {told} was told, {seen} seen, the store is at {now}"
            ));
        }
        self.check_against(store, Some(seen));
    }

    /// Holds what the history told against what a store lists.
    pub fn check_against(&self, store: &Store, at: Option<u64>) {
        let page = match store.list(&Range { prefix: "/".into(), at, ..Range::default() }) {
            Ok(page) => page,
            Err(error) => return self.fault(format!("the store cannot be listed: {error}")),
        };
        let listed: Vec<(String, u64)> =
            page.records.iter().map(|record| (record.path.to_string(), record.revision)).collect();
        let seen: Vec<(String, u64)> = self
            .look(|sight| sight.objects.iter().map(|(path, seen)| (path.clone(), seen.revision)).collect());
        let odd =
            listed.iter().find(|one| !seen.contains(one)).or(seen.iter().find(|one| !listed.contains(one)));
        if let Some((path, revision)) = odd {
            self.fault(format!(
                "what a watcher saw is what the store lists: {path} at {revision} is on one side only"
            ));
        }
    }

    /// An answer that reached a client.
    pub fn answered(&self, method: &Method, path: &str, answer: &Response<bytes::Bytes>) {
        if *method == Method::GET || !answer.status().is_success() {
            return;
        }
        let told: Answer = serde_json::from_slice(answer.body()).unwrap_or_default();
        let revision = told.metadata.resource_version.parse().unwrap_or(0);
        tracing::trace!(%method, path, revision, "answered");
        let mut page = self.page();
        page.told = page.told.max(revision);
    }

    /// An event that reached a watcher.
    pub fn watched(&self, watched: &mut Watched, event: &WatchEvent) {
        if let Some(broken) = self.look(|sight| watched.take(sight, event)) {
            self.fault(broken);
        }
    }

    /// A container was started.
    pub fn started(&self, node: &str, pod: &SandboxSpec, container: &str, id: &str) {
        let mut page = self.page();
        let mut broken = laws::of_start(&page.sight, node, pod, container);
        let key = (pod.pod_uid.clone(), container.to_owned());
        *page.sight.starts.entry(key.clone()).or_default() += 1;
        let runs = page.sight.runs(node, id, &pod.namespace, &pod.name);
        let is_exclusive = runs.epoch.is_some() || !runs.claims.is_empty();
        page.sight.running.insert(key, runs);
        if is_exclusive {
            broken.extend(page.sight.quarrels());
        }
        drop(page);
        broken.into_iter().for_each(|what| self.fault(what));
        self.turn();
    }

    /// A machine stands still as a whole.
    pub fn frozen(&self, node: &str) {
        self.page().sight.frozen.insert(node.to_owned(), Frozen::Still);
    }

    /// It goes on. What is overdue is killed within the time that a kill takes: then it counts again.
    pub fn thawed(&self, node: &str) {
        self.page().sight.frozen.insert(node.to_owned(), Frozen::Thawing);
        let (book, node) = (self.clone(), node.to_owned());
        let counts = async move {
            book.host.sleep(Terms::LAN.kill).await;
            let broken = {
                let mut page = book.page();
                if page.sight.frozen.get(&node) == Some(&Frozen::Thawing) {
                    page.sight.frozen.remove(&node);
                }
                page.sight.quarrels()
            };
            broken.into_iter().for_each(|what| book.fault(what));
        };
        let mut thaws = self.thaws.lock().unwrap_or_else(PoisonError::into_inner);
        Process::outside(|| thaws.spawn(counts));
    }

    /// A fault of the world took place.
    pub fn happened(&self, what: &'static str) {
        *self.page().happened.entry(what).or_default() += 1;
    }

    /// What faults of the world took place, and how often.
    pub fn all_happened(&self) -> BTreeMap<&'static str, u64> {
        self.page().happened.clone()
    }

    /// The deadline of a fenced pod has passed, and something of it runs.
    pub fn expired(&self) {
        self.happened("fenced pod ended by its deadline");
    }

    /// A container has ended.
    pub fn ended(&self, uid: &str, container: &str, id: &str) {
        let mut page = self.page();
        let key = (uid.to_owned(), container.to_owned());
        if page.sight.running.get(&key).is_some_and(|running| running.id == id) {
            page.sight.running.remove(&key);
        }
        drop(page);
        self.turn();
    }

    fn event(&self, event: &Event) {
        let new: Tree = match serde_json::from_slice(&event.record.value) {
            Ok(tree) => tree,
            Err(error) => return self.fault(format!("{} holds no JSON: {error}", event.record.path)),
        };
        let mut page = self.page();
        let mut broken = laws::of_event(&page.sight, event, &new);
        if page.is_calm {
            if laws::is_restart(&page.sight, event, &new) {
                *page.happened.entry("container restarted").or_default() += 1;
            }
            broken.extend(laws::of_calm(&page.sight, event, &new));
        }
        self.enter(&mut page, event, new);
        drop(page);
        broken.into_iter().for_each(|what| self.fault(what));
        self.count(&event.record.path);
        self.turn();
    }

    fn count(&self, path: &str) {
        let second = self.since().as_secs();
        let mut page = self.page();
        let count = if page.in_second.0 == second { page.in_second.1 + 1 } else { 1 };
        page.in_second = (second, count);
        drop(page);
        if count == WRITES_IN_A_SECOND_MAX {
            self.fault(format!("nobody writes in a circle: {count} writes in a second, the last of {path}"));
            self.is_over.send_replace(true);
        }
    }

    fn enter(&self, page: &mut Page, event: &Event, new: Tree) {
        let path = event.record.path.to_string();
        page.sight.revision = event.record.revision;
        if path.starts_with("/pods/") && event.before.is_none() {
            page.sight.name_pod(&path, &new);
        }
        let node = text(&new, "spec.nodeName");
        if path.starts_with("/pods/") && !node.is_empty() {
            page.sight.bound.insert(text(&new, "metadata.uid").to_owned(), node.to_owned());
        }
        let epoch = new["metadata"]["annotations"][EPOCH].as_str().and_then(|epoch| epoch.parse().ok());
        if let (Some(lease), Some(epoch)) = (path.strip_prefix(laws::LEASES), epoch) {
            page.sight.epochs.insert(lease.to_owned(), epoch);
        }
        page.sight.histories.entry(path.clone()).or_default().push(event.record.revision);
        let uid = text(&new, "metadata.uid").to_owned();
        match event.removed {
            true => drop(page.sight.uids.remove(&uid)),
            false => drop(page.sight.uids.insert(uid, path.clone())),
        }
        let is_written_off =
            event.removed || items(&new, "spec.taints").any(|taint| taint["key"] == OUT_OF_SERVICE);
        if let Some(node) = path.strip_prefix("/nodes/").filter(|_| is_written_off) {
            // Upstream's garbage collector lets go of them, though the machine may be there: what is not fenced may run on.
            let bound =
                page.sight.bound.iter().filter(|(_, bound)| *bound == node).map(|(uid, _)| uid.clone());
            let bound: Vec<String> = bound.collect();
            page.sight.forced.extend(bound);
        }
        let old = page.sight.objects.remove(&path);
        let (before, after) = (old.as_ref().map(|old| &old.tree), (!event.removed).then_some(&new));
        let is_ready = |pod: Option<&Tree>| pod.is_some_and(|pod| condition(pod, "Ready") == "True");
        if path.starts_with("/pods/") && is_ready(before) != is_ready(after) {
            *page.sight.flips.entry(text(&new, "metadata.uid").to_owned()).or_default() += 1;
        }
        for line in timeline::lines(&page.sight, &path, before, after) {
            self.write(page, &line);
        }
        if let Some(unrest) = &mut page.unrest
            && !is_heartbeat(&path, before, after)
        {
            unrest.push(format!("{} {path}", if event.removed { "removed" } else { "wrote" }));
        }
        if !event.removed {
            page.sight.objects.insert(path, Seen { revision: event.record.revision, tree: new });
        }
    }

    fn write(&self, page: &mut Page, line: &str) {
        let stamp = stamp(self.since());
        page.lines.push(format!("{stamp:>7}  {}\n", line.trim_end()));
    }

    /// Tells whoever waits, and looks whether what should always hold still does.
    fn turn(&self) {
        self.turned.send_modify(|count| *count += 1);
        let mut page = self.page();
        let Page { sight, always, .. } = &mut *page;
        let mut broken = Vec::new();
        for one in always {
            let holds = one.condition.holds(sight);
            if one.is_armed && !holds {
                broken.push(format!("always {}: it is {}", one.condition, one.condition.found(sight)));
            }
            one.is_armed = holds;
        }
        drop(page);
        broken.into_iter().for_each(|what| self.fault(what));
    }

    /// Guards the page for the length of one entry or look.
    fn page(&self) -> MutexGuard<'_, Page> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a change only says that a node is alive.
fn is_heartbeat(path: &str, old: Option<&Tree>, new: Option<&Tree>) -> bool {
    if path.starts_with("/leases.coordination.k8s.io/") {
        return true;
    }
    let (true, Some(old), Some(new)) = (path.starts_with("/nodes/"), old, new) else { return false };
    without_heartbeat(old) == without_heartbeat(new)
}

fn without_heartbeat(node: &Tree) -> Tree {
    let mut node = node.clone();
    node["metadata"]["resourceVersion"] = Tree::Null;
    node["metadata"]["managedFields"] = Tree::Null;
    // What was pulled since is told with the next heartbeat.
    node["status"]["images"] = Tree::Null;
    for condition in node["status"]["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastHeartbeatTime"] = Tree::Null;
    }
    node
}
