//! How every run has to end: at rest, with nothing left behind and nothing missing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::World;
use model::kinds::{self, KINDS};

use super::truth::lies;
use crate::cluster::Cluster;
use crate::observe::{Sight, at, condition, items, text};

/// How long nothing must be written until a cluster counts as being at rest.
const REST: Duration = Duration::from_secs(30);

/// How many of the writes of an unquiet cluster are told.
const WRITES_TOLD_MAX: usize = 5;

/// What is asked of a cluster that is to come to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// How long that may take.
    pub within: Duration,
    /// For how long it is then watched.
    pub watched: Duration,
}

/// Waits for rest, where there is to be some, and writes down whatever is not as it must be at an end.
pub async fn check_end(cluster: &Cluster, rest: Option<Rest>) {
    if let Some(rest) = rest {
        come_to_rest(cluster, rest).await;
    }
    cluster.check_history();
    if rest.is_some() {
        let book = &cluster.book;
        let mut faults = book.look(orphans);
        faults.extend(book.look(|sight| leftovers(cluster, sight)));
        faults.extend(book.look(|sight| stale_caches(cluster, sight)));
        faults.extend(book.look(|sight| lies(cluster, sight)));
        faults.into_iter().for_each(|fault| book.fault(fault));
    }
}

async fn come_to_rest(cluster: &Cluster, rest: Rest) {
    let book = &cluster.book;
    let until = book.since() + rest.within;
    loop {
        book.expect_rest();
        cluster.pass_time(REST).await;
        let unrest = book.take_unrest();
        if unrest.is_empty() {
            break;
        }
        if book.since() >= until {
            return book.fault(format!("the cluster does not come to rest: {}", told(&unrest)));
        }
    }
    book.expect_rest();
    cluster.pass_time(rest.watched).await;
    let unrest = book.take_unrest();
    if !unrest.is_empty() {
        book.fault(format!("a quiet cluster stays quiet: {}", told(&unrest)));
    }
}

fn told(writes: &[String]) -> String {
    let first: Vec<&str> = writes.iter().take(WRITES_TOLD_MAX).map(String::as_str).collect();
    format!("{} writes: {}", writes.len(), first.join(", "))
}

/// Objects whose owners are all gone.
fn orphans(sight: &Sight) -> Vec<String> {
    let uids: BTreeSet<&str> = sight.objects.values().map(|seen| text(&seen.tree, "metadata.uid")).collect();
    let lost = sight.objects.iter().filter(|(_, seen)| {
        let mut owners = items(&seen.tree, "metadata.ownerReferences").peekable();
        owners.peek().is_some() && owners.all(|owner| !uids.contains(text(owner, "uid")))
    });
    lost.map(|(path, _)| format!("an owner's children die: {path} is an orphan")).collect()
}

/// What machines hold that no pod accounts for.
fn leftovers(cluster: &Cluster, sight: &Sight) -> Vec<String> {
    let pods: BTreeMap<&str, &str> = sight
        .all(&kinds::POD)
        .map(|(_, pod)| (text(pod, "metadata.uid"), text(pod, "spec.nodeName")))
        .collect();
    let mut faults = Vec::new();
    for node in cluster.nodes.values().filter(|node| node.has_agent() && !node.line.is_cut()) {
        let is_ours = |uid: &str| pods.get(uid) == Some(&node.name.as_str());
        for (uid, running) in node.runtime.inventory() {
            if !is_ours(&uid) {
                faults.push(format!(
                    "nothing is left behind: {} holds the sandbox of {uid} ({running:?})",
                    node.name
                ));
            }
        }
        for uid in node.network.pods().iter().filter(|uid| !is_ours(uid)) {
            faults.push(format!("nothing is left behind: {} holds the address of {uid}", node.name));
        }
    }
    faults
}

/// What caches hold that the history does not, or the other way round.
fn stale_caches(cluster: &Cluster, sight: &Sight) -> Vec<String> {
    let mut faults = Vec::new();
    let agents = cluster.nodes.values().filter(|node| !node.line.is_cut() && !node.is_paused());
    let all = agents.filter_map(|node| Some((node.name.as_str(), node.caches()?)));
    for (whose, caches) in all.chain(cluster.caches(sight).map(|caches| ("server", caches))) {
        for follow in caches.followed().into_iter().filter(|follow| follow.fields.is_empty()) {
            let stored =
                KINDS.iter().find(|kind| kind.gvr == follow.gvr).map_or(&follow.gvr, |kind| kind.storage());
            let held: BTreeSet<(String, String)> = caches
                .list(&follow.gvr, &follow.namespace)
                .iter()
                .map(|object| (object.uid().to_owned(), object.meta().resource_version().to_owned()))
                .collect();
            let there: BTreeSet<(String, String)> = sight
                .all(stored)
                .filter(|(_, tree)| {
                    follow.namespace.is_empty() || text(tree, "metadata.namespace") == follow.namespace
                })
                .map(|(_, tree)| {
                    (text(tree, "metadata.uid").to_owned(), text(tree, "metadata.resourceVersion").to_owned())
                })
                .collect();
            if held != there {
                let odd = held.symmetric_difference(&there).next();
                faults.push(format!(
                    "a watcher sees each history: {} of {whose} differ in {odd:?}",
                    follow.gvr
                ));
            }
        }
    }
    faults
}

/// The workloads that are not as their authors want them: for the end of a run whose faults have stopped.
pub fn unmet(sight: &Sight) -> Vec<String> {
    let mut faults = Vec::new();
    for gvr in [&kinds::DEPLOYMENT, &kinds::REPLICA_SET, &kinds::STATEFUL_SET] {
        for (path, tree) in sight.all(gvr) {
            let count = |field: &str| at(tree, field).as_i64().unwrap_or(0);
            let wanted = count("spec.replicas");
            let have = [count("status.replicas"), count("status.readyReplicas")];
            if have != [wanted; 2] || count("status.observedGeneration") != count("metadata.generation") {
                faults.push(format!("counts add up: {path} wants {wanted}, has (all, ready) {have:?}"));
            }
        }
    }
    for (path, tree) in sight.all(&kinds::DAEMON_SET) {
        let count = |field: &str| at(tree, field).as_i64().unwrap_or(0);
        let nodes = sight.all(&kinds::NODE).count() as i64;
        let have = [count("status.desiredNumberScheduled"), count("status.numberReady")];
        if have != [nodes; 2] || count("status.observedGeneration") != count("metadata.generation") {
            faults.push(format!("counts add up: {path} of {nodes} nodes has (wanted, ready) {have:?}"));
        }
    }
    for (path, job) in sight.all(&kinds::JOB) {
        let [wanted, have] = ["spec.completions", "status.succeeded"].map(|field| at(job, field).as_i64());
        let is_done = condition(job, "Complete") == "True" && have >= wanted;
        if !is_done && condition(job, "Failed") != "True" {
            faults.push(format!("counts add up: {path} wants {wanted:?} successes, has {have:?}"));
        }
    }
    for (path, pod) in sight.all(&kinds::POD) {
        if !at(pod, "metadata.deletionTimestamp").is_null() {
            faults.push(format!("what is deleted goes: {path} is still there"));
        }
    }
    faults
}
