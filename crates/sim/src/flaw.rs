//! Deliberate breaks, for tests of the tests: a world that lies in one of these ways must be found out by some seed.
//!
//! They sit in the doubles and beside the API, never in the product.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::{Host, Moment};
use model::Tree;
use model::fence::STATE;
use serde_json::json;
use store::{Body, Change, Expect, Store, Txn};

use crate::mutation::Mutation;
use crate::observe::{Book, at, items, text};

/// How often an intruder looks for something to break.
const INTRUDES_EVERY: Duration = Duration::from_secs(1);

/// One event in so many is left out of watches, or told twice.
const WATCH_ERRS_ONE_IN: u64 = 20;

/// For how long the world's own flaws last: the end of a run is to be reached.
const LASTS: Duration = Duration::from_secs(60);

/// What is wrong with the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The server's disk says that it has synced, and has not.
    DiskLies,
    /// Watches leave events out.
    WatchSkips,
    /// Watches tell events twice.
    WatchRepeats,
    /// Containers are said to have ended, and their processes run on.
    ProcessesStay,
    /// The end of a container is not told.
    EndsUntold,
    /// Addresses of pods that are gone are kept.
    AddressesStay,
    /// What a Service leads to is not taken up.
    RulesStale,
    /// Two objects get one uid, now and then.
    UidsRepeat,
    /// Somebody behind the API moves pods that are bound.
    Rebinds,
    /// Somebody behind the API removes what finalizers hold.
    SkipsFinalizers,
    /// Somebody behind the API takes deletions back.
    Undeletes,
    /// Somebody behind the API forgets how often containers were restarted.
    ForgetsRestarts,
    /// Somebody behind the API has pods run again that are done.
    Revives,
    /// Somebody writes all the time.
    Fidgets,
    /// A rule of the fence is wired wrongly.
    Fence(Mutation),
}

impl Flaw {
    /// All but those of the fence, and words of the law that each breaks.
    pub const ALL: [(Flaw, &'static [&'static str]); 14] = [
        (Flaw::DiskLies, &["no acknowledged write is lost"]),
        (Flaw::WatchSkips, &["without gap or repeat"]),
        (Flaw::WatchRepeats, &["without gap or repeat"]),
        (Flaw::ProcessesStay, &["a pod outlives its containers"]),
        (Flaw::EndsUntold, &["what is told of a pod is so"]),
        (Flaw::AddressesStay, &["nothing is left behind"]),
        (Flaw::RulesStale, &["a Service leads to its ready pods"]),
        (Flaw::UidsRepeat, &["no two objects have one uid"]),
        (Flaw::Rebinds, &["a pod is bound once"]),
        (Flaw::SkipsFinalizers, &["a finalizer is never skipped"]),
        (Flaw::Undeletes, &["is not taken back"]),
        (Flaw::ForgetsRestarts, &["restarts are never forgotten"]),
        (Flaw::Revives, &["a pod that is done stays done"]),
        (Flaw::Fidgets, &["the cluster does not come to rest"]),
    ];

    /// The rule of the fence that is wrong, if one is.
    pub fn mutation(flaw: Option<Self>) -> Option<Mutation> {
        match flaw {
            Some(Flaw::Fence(mutation)) => Some(mutation),
            _ => None,
        }
    }

    /// Whether an event of a watch is left out (0), told once or told twice.
    pub fn tells(self, host: &Host) -> usize {
        match self {
            Flaw::WatchSkips if host.chance().below(WATCH_ERRS_ONE_IN) == 0 => 0,
            Flaw::WatchRepeats if host.chance().below(WATCH_ERRS_ONE_IN) == 0 => 2,
            _ => 1,
        }
    }

    /// What an intruder makes of an object; `None` where it has no business.
    fn meddles(self, path: &str, tree: &Tree) -> Option<Meddling> {
        let is_pod = path.starts_with("/pods/");
        let mut tree = tree.clone();
        match self {
            Flaw::Rebinds if is_pod && !text(&tree, "spec.nodeName").is_empty() => {
                tree["spec"]["nodeName"] = json!("elsewhere");
            }
            Flaw::SkipsFinalizers if items(&tree, "metadata.finalizers").next().is_some() => {
                return Some(Meddling::Removes(tree));
            }
            Flaw::Undeletes if is_pod && !at(&tree, "metadata.deletionTimestamp").is_null() => {
                let metadata = tree["metadata"].as_object_mut()?;
                metadata.remove("deletionTimestamp");
                metadata.remove("deletionGracePeriodSeconds");
            }
            Flaw::ForgetsRestarts if is_pod => {
                let statuses = tree["status"]["containerStatuses"].as_array_mut()?;
                let counts = statuses.iter_mut().filter(|one| one["restartCount"].as_u64() > Some(0));
                let any = counts.map(|one| one["restartCount"] = json!(0)).count();
                (any > 0).then_some(())?;
            }
            Flaw::Revives if is_pod && matches!(text(&tree, "status.phase"), "Succeeded" | "Failed") => {
                tree["status"]["phase"] = json!("Running");
            }
            Flaw::UidsRepeat if path == "/priorityclasses.scheduling.k8s.io/system-node-critical" => {
                return Some(Meddling::Copies(tree));
            }
            Flaw::Fence(Mutation::DeletionIsProof)
                if path.starts_with("/leases.coordination.k8s.io/kube-node-lease/")
                    && !at(&tree, "metadata.deletionTimestamp").is_null()
                    && tree["metadata"]["annotations"][STATE] == "Held" =>
            {
                tree["metadata"]["annotations"][STATE] = json!("Lost");
            }
            Flaw::Fidgets if path == "/namespaces/default" => {
                tree["metadata"]["labels"]["fidget"] = json!(text(&tree, "metadata.resourceVersion"));
            }
            _ => return None,
        }
        Some(Meddling::Writes(tree))
    }
}

/// What an intruder does with an object.
enum Meddling {
    Writes(Tree),
    Removes(Tree),
    Copies(Tree),
}

/// Breaks things behind the API's back, for some time, or for ever where that is the flaw.
pub async fn intrude(flaw: Flaw, store: Store, book: Book, host: Host) {
    let began = host.moment();
    while flaw == Flaw::Fidgets || is_early(began, host.moment()) {
        host.sleep(INTRUDES_EVERY).await;
        let found = book.look(|sight| {
            let mut all = sight.objects.iter();
            all.find_map(|(path, seen)| Some((path.clone(), seen.revision, flaw.meddles(path, &seen.tree)?)))
        });
        let Some((path, revision, meddling)) = found else { continue };
        // Whoever was faster wins here, too.
        let _ = store.commit(transaction(&path, revision, &meddling)).await;
    }
}

fn is_early(began: Moment, now: Moment) -> bool {
    now.since(began) < LASTS
}

fn transaction(path: &str, revision: u64, meddling: &Meddling) -> Txn {
    let expect = vec![(Arc::from(path), Expect::At(revision))];
    let change = match meddling {
        Meddling::Writes(tree) => put(path, tree),
        Meddling::Removes(tree) => Change::Remove { path: Arc::from(path), last: Some(body(tree)) },
        Meddling::Copies(tree) => {
            let mut copy = tree.clone();
            copy["metadata"]["name"] = json!("copy");
            put("/priorityclasses.scheduling.k8s.io/copy", &copy)
        }
    };
    Txn { expect, changes: vec![change] }
}

fn put(path: &str, tree: &Tree) -> Change {
    let body = body(tree);
    let tags = api::tagger()(path, &whole(tree));
    Change::Put { path: Arc::from(path), body, tags }
}

fn whole(tree: &Tree) -> Bytes {
    Bytes::from(tree.to_string())
}

/// The bytes of an object, with the place of its revision kept free.
fn body(tree: &Tree) -> Body {
    const PLACE: &str = "\"resourceVersion\":\"";
    let mut tree = tree.clone();
    tree["metadata"]["resourceVersion"] = json!("");
    let text = tree.to_string();
    match text.find(PLACE) {
        Some(found) => {
            let (before, after) = text.split_at(found + PLACE.len());
            Body { before: Bytes::from(before.to_owned()), after: Some(Bytes::from(after.to_owned())) }
        }
        None => Body { before: Bytes::from(text), after: None },
    }
}
