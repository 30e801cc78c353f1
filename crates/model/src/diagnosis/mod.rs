//! What is known of a pod that does not do as it should: where Kubernetes only says "fix it yourself".
//!
//! Promises: no guessing. Each statement carries what it rests on; what is not known is not said. Pure: the same pods
//! give the same words. Never decides about a mend.

mod changes;
mod exits;

use crate::tree::{at, flag, items, text, whole};
use crate::{Object, Tree};

pub use changes::{REVISION_LABELS, changes, is_of, newest_first, revision_of};

/// How many statements and how many next steps a diagnosis has at most: what people read before they act.
pub const STATEMENTS_MAX: usize = 12;

/// How much of a last word is repeated, in bytes: some lines of a stack trace.
pub const WORDS_LEN_MAX: usize = 600;

/// What a diagnosis may look at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The pod.
    pub pod: &'a Tree,
    /// The other pods of the same controller, of all its revisions: for a Deployment those of all its ReplicaSets.
    pub peers: &'a [Tree],
    /// The revisions of what owns it, the newest first: ReplicaSets of its Deployment, or ControllerRevisions.
    pub revisions: &'a [Tree],
    /// The node on which it runs, if that is known.
    pub node: Option<&'a Tree>,
    /// The last lines that the failing container wrote.
    pub last_words: Option<&'a str>,
}

/// Something that is known, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// What is known.
    pub says: String,
    /// What it rests on: a field, a count, a line of a log.
    pub because: String,
}

/// What is known of a failing pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// What is known, the nearest cause first.
    pub statements: Vec<Statement>,
    /// What to try next, the most promising first.
    pub next: Vec<String>,
}

impl Diagnosis {
    fn says(&mut self, says: impl Into<String>, because: impl Into<String>) {
        if self.statements.len() < STATEMENTS_MAX {
            self.statements.push(Statement { says: says.into(), because: because.into() });
        }
    }

    fn try_next(&mut self, step: impl Into<String>) {
        let step = step.into();
        if self.next.len() < STATEMENTS_MAX && !self.next.contains(&step) {
            self.next.push(step);
        }
    }

    /// A line for each statement, with its evidence.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.statements.iter().map(|one| format!("{} ({})", one.says, one.because))
    }
}

/// What is known of a pod. A pod that is well gets an empty diagnosis.
pub fn diagnose(seen: &Seen) -> Diagnosis {
    let mut known = Diagnosis::default();
    if is_well(seen.pod) {
        return known;
    }
    placing(seen.pod, &mut known);
    storage(seen.pod, &mut known);
    node(seen, &mut known);
    for container in containers(seen.pod) {
        waiting(seen.pod, container, &mut known);
        exits::ended(seen.pod, container, &mut known);
        unready(container, &mut known);
    }
    last_words(seen, &mut known);
    changes::since(seen, &mut known);
    others(seen, &mut known);
    known
}

/// Whether nothing is wrong with it: it runs and is ready, is on its way out, or ended well.
pub fn is_well(pod: &Tree) -> bool {
    let is_ready = is_true(pod, "Ready") && !is_true(pod, STORAGE_SILENT);
    !text(pod, "metadata.deletionTimestamp").is_empty()
        || is_ready
        || text(pod, "status.phase") == "Succeeded"
}

/// A condition of a pod that is True.
pub fn holds<'a>(pod: &'a Tree, condition: &str) -> Option<&'a Tree> {
    let conditions = items(pod, "status.conditions");
    conditions.iter().find(|one| text(one, "type") == condition && text(one, "status") == "True")
}

fn is_true(pod: &Tree, condition: &str) -> bool {
    holds(pod, condition).is_some()
}

fn containers(pod: &Tree) -> impl Iterator<Item = &Tree> {
    items(pod, "status.initContainerStatuses").iter().chain(items(pod, "status.containerStatuses"))
}

/// A container's own part of the spec.
fn spec<'a>(pod: &'a Tree, name: &str) -> Option<&'a Tree> {
    let all = items(pod, "spec.initContainers").iter().chain(items(pod, "spec.containers"));
    all.into_iter().find(|container| text(container, "name") == name)
}

/// The condition of a pod whose storage does not answer; there only while it does not.
pub const STORAGE_SILENT: &str = "healing.kintsugi.dev/StorageSilent";

/// The condition of a pod of which a container keeps failing whatever its node tries; there only while that waits.
pub const KEEPS_FAILING: &str = "healing.kintsugi.dev/KeepsFailing";
/// Its reason once the pod got a fresh sandbox.
pub const FRESH_SANDBOX: &str = "FreshSandbox";
/// Its reason once all was tried that its node can try.
pub const FAILS_HERE: &str = "FailsHere";

fn placing(pod: &Tree, known: &mut Diagnosis) {
    let scheduled = items(pod, "status.conditions").iter().find(|one| text(one, "type") == "PodScheduled");
    let Some(refused) = scheduled.filter(|one| text(one, "status") == "False") else { return };
    known.says("no node takes it", format!("the scheduler: {}", text(refused, "message")));
    let message = text(refused, "message");
    for (sign, step) in [
        ("Insufficient", "lower its requests, or add a node"),
        ("taint", "tolerate the taint, or take it from the nodes: kubectl describe nodes | grep Taints"),
        ("affinity", "label a node as its selector or affinity asks"),
        ("volume", "look at its claims: kubectl describe pvc"),
        ("persistentvolumeclaim", "look at its claims: kubectl describe pvc"),
    ] {
        if message.contains(sign) {
            known.try_next(step);
        }
    }
}

/// The storage behind its volumes does not answer: what its node says of it, and how people get on.
fn storage(pod: &Tree, known: &mut Diagnosis) {
    let conditions = items(pod, "status.conditions");
    let silent =
        conditions.iter().find(|one| text(one, "type") == STORAGE_SILENT && text(one, "status") == "True");
    let Some(silent) = silent else { return };
    let message = text(silent, "message");
    known.says(
        "the storage behind its volumes does not answer",
        format!("condition {STORAGE_SILENT}: {message}"),
    );
    let node = text(pod, "spec.nodeName");
    known.try_next(format!(
        "bring the storage's server or disk back: the pod goes on by itself then; on node {node} `dmesg | tail` and `mount` tell more"
    ));
    if let Some(command) = message.split('`').find(|part| part.starts_with("umount")) {
        known.try_next(format!("give it up, with what was not written yet: on node {node} {command}"));
    }
}

fn node(seen: &Seen, known: &mut Diagnosis) {
    let Some(node) = seen.node else { return };
    let name = text(node, "metadata.name");
    for condition in items(node, "status.conditions") {
        let (kind, status) = (text(condition, "type"), text(condition, "status"));
        let because = || format!("condition {kind}={status}: {}", text(condition, "message"));
        match (kind, status) {
            ("Ready", "Unknown") => {
                known.says(format!("its node {name} is silent"), because());
                known.try_next(format!(
                    "nothing, its pods move by themselves; if {name} is off for good: kubectl taint node {name} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
                ));
            }
            ("Ready", "False") => known.says(format!("its node {name} is not ready"), because()),
            ("MemoryPressure" | "DiskPressure" | "PIDPressure", "True") => {
                known.says(format!("its node {name} is short of resources"), because());
            }
            _ => {}
        }
    }
}

fn waiting(pod: &Tree, container: &Tree, known: &mut Diagnosis) {
    let (name, reason) = (text(container, "name"), text(container, "state.waiting.reason"));
    let message = text(container, "state.waiting.message");
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" | "InvalidImageName" => {
            let image = spec(pod, name).map_or("", |spec| text(spec, "image"));
            known.says(
                format!("the image {image} of container {name} cannot be had"),
                format!("{reason}: {message}"),
            );
            known.try_next(match reason {
                "ErrImageNeverPull" => {
                    format!("kintsugi image import the archive of {image}, or another imagePullPolicy")
                }
                _ => format!("correct the image's name, its registry or imagePullSecrets: {image}"),
            });
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            known.says(format!("container {name} cannot be made"), format!("{reason}: {message}"));
            known.try_next("make what it names, or correct its spec; it starts by itself then");
        }
        _ => {}
    }
}

/// A container that runs and does not pass its readiness or startup probe.
fn unready(container: &Tree, known: &mut Diagnosis) {
    if at(container, "state.running").is_null() || flag(container, "ready") {
        return;
    }
    let (name, since) = (text(container, "name"), text(container, "state.running.startedAt"));
    let probe = if at(container, "started").as_bool() == Some(false) { "startup" } else { "readiness" };
    known.says(
        format!("container {name} runs, and does not pass its {probe} probe"),
        format!("status.containerStatuses: running since {since}, ready=false"),
    );
    known.try_next(format!(
        "ask what the probe asks: kubectl exec or port-forward to container {name}; kubectl get events --field-selector reason=Unhealthy shows its answers"
    ));
}

fn last_words(seen: &Seen, known: &mut Diagnosis) {
    let Some(words) = seen.last_words.map(str::trim_end).filter(|words| !words.is_empty()) else { return };
    known.says(
        format!("its last words: {}", tail(words, WORDS_LEN_MAX)),
        "the log of the container that ended",
    );
}

/// The end of a text, cut at a line where that is possible.
fn tail(text: &str, len_max: usize) -> &str {
    let mut from = text.len().saturating_sub(len_max);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    let cut = &text[from..];
    match cut.find('\n').filter(|_| from > 0) {
        Some(line) if line + 1 < cut.len() => &cut[line + 1..],
        _ => cut,
    }
}

/// Whether others of its kind fail too: which of the revision, the node and the pod itself stands out.
fn others(seen: &Seen, known: &mut Diagnosis) {
    if seen.peers.is_empty() {
        return;
    }
    let share = |of: &dyn Fn(&Tree) -> bool| {
        let all: Vec<&Tree> = seen.peers.iter().filter(|peer| of(peer)).collect();
        (all.iter().filter(|peer| fails(peer)).count(), all.len())
    };
    let revision = revision_of(seen.pod);
    let (new_failing, new) = share(&|peer| revision_of(peer) == revision);
    let (old_failing, old) = share(&|peer| revision_of(peer) != revision);
    if new > 0 || old > 0 {
        let said = match (new_failing, old_failing) {
            (0, 0) if new == 0 => format!("none of the {old} pods of other revisions fails"),
            (0, 0) => "no other pod of its owner fails".to_owned(),
            _ if old > 0 => format!(
                "of the others, {new_failing} of {new} of its revision fail, and {old_failing} of {old} of other revisions"
            ),
            _ => format!("{new_failing} of {new} others fail too"),
        };
        known.says(said, format!("the Ready conditions of {} pods", new + old));
    }
    if old > 0 && old_failing == 0 && new_failing == new {
        known.try_next(roll_back(seen));
    }
    let here = text(seen.pod, "spec.nodeName");
    let (failing_here, all_here) = share(&|peer| text(peer, "spec.nodeName") == here);
    let (failing_elsewhere, elsewhere) = share(&|peer| text(peer, "spec.nodeName") != here);
    if !here.is_empty() && failing_here == all_here && failing_elsewhere == 0 && elsewhere > 0 {
        known.says(
            format!("it fails on node {here}, the {elsewhere} on other nodes do not"),
            "spec.nodeName and the Ready conditions",
        );
        if all_here > 0 {
            known.try_next(format!(
                "look at node {here}: kubectl describe node {here}; kubectl cordon {here} keeps new pods away"
            ));
        }
    }
}

/// Whether a pod visibly fails: it has failed, or one of its containers was restarted or cannot start, and it is not
/// ready. One that is just starting does not.
pub fn fails(pod: &Tree) -> bool {
    let troubled = |container: &Tree| {
        whole(container, "restartCount").unwrap_or(0) > 0
            || !matches!(
                text(container, "state.waiting.reason"),
                "" | "ContainerCreating" | "PodInitializing"
            )
    };
    text(pod, "status.phase") == "Failed" || (!is_well(pod) && containers(pod).any(troubled))
}

fn roll_back(seen: &Seen) -> String {
    let owner = seen.revisions.first().and_then(|newest| items(newest, "metadata.ownerReferences").first());
    match owner {
        Some(owner) => {
            let (kind, name) = (text(owner, "kind").to_lowercase(), text(owner, "name"));
            format!(
                "its revision is the suspect: kubectl rollout undo {kind}/{name} -n {}",
                text(seen.pod, "metadata.namespace")
            )
        }
        None => "its revision is the suspect: go back to the one before".to_owned(),
    }
}

/// The diagnosis of an object as it is stored, from what is beside it.
pub fn of_object(pod: &Object, peers: &[Object]) -> Diagnosis {
    let Ok(tree) = pod.tree() else { return Diagnosis::default() };
    let peers: Vec<Tree> = peers.iter().filter_map(|peer| peer.tree().ok()).collect();
    diagnose(&Seen { pod: &tree, peers: &peers, revisions: &[], node: None, last_words: None })
}

#[cfg(test)]
mod tests;
