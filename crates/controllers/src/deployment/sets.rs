//! A Deployment's ReplicaSets: reading, comparing and making them.

use std::sync::Arc;

use model::kinds::{DEPLOYMENT, REPLICA_SET};
use model::{Key, Object, Plan, Precondition, Tree};
use serde::Deserialize;
use serde_json::{Map, json};

use super::Seen;
use crate::{naming, owning};

/// The label that tells the pods of one template from those of another.
pub(super) const HASH: &str = "pod-template-hash";
/// Counts the templates of a Deployment.
pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
/// The revisions that a ReplicaSet had before.
const HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// How many replicas the Deployment had when the ReplicaSet was last sized.
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// How many there could be in all then.
const MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of the Deployment that its ReplicaSets don't take over.
const OWN: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];
/// The longest list of former revisions, in bytes: they are kept for `kubectl rollout history` alone.
const HISTORY_LEN_MAX: usize = 2000;

/// A ReplicaSet as its Deployment sees it.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) object: Object,
    body: Arc<Body>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    replicas: Option<i64>,
    min_ready_seconds: i64,
    template: Tree,
}

/// What a ReplicaSet says of its pods.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) replicas: i64,
    pub(crate) ready_replicas: i64,
    pub(crate) available_replicas: i64,
    pub(crate) terminating_replicas: i64,
    pub(crate) observed_generation: i64,
    pub(crate) conditions: Vec<Tree>,
}

impl Set {
    pub(super) fn read(object: Object) -> Option<Self> {
        let body = object.seen()?;
        Some(Self { object, body })
    }

    pub(crate) fn name(&self) -> &str {
        self.object.name()
    }

    pub(crate) fn key(&self) -> Key {
        Key::new(&REPLICA_SET, self.object.namespace(), self.object.name())
    }

    /// How many pods it is asked for.
    pub(crate) fn size(&self) -> i64 {
        self.body.spec.replicas.unwrap_or(1)
    }

    pub(crate) fn status(&self) -> &Status {
        &self.body.status
    }

    pub(crate) fn has_template(&self, template: &Tree) -> bool {
        unlabelled(&self.body.spec.template) == unlabelled(template)
    }

    pub(crate) fn annotation<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.object.meta().annotations.get(name)?.parse().ok()
    }

    pub(crate) fn revision(&self) -> i64 {
        self.annotation(REVISION).unwrap_or(0)
    }

    /// How many replicas the Deployment had when this was last sized.
    pub(crate) fn desired(&self) -> Option<i64> {
        self.annotation(DESIRED)
    }

    /// How many there could be in all when this was last sized.
    pub(crate) fn max(&self) -> Option<i64> {
        self.annotation(MAX)
    }

    /// Sizes it, if it has another size or was sized for another Deployment's.
    pub(crate) fn resize(&self, plan: &mut Plan, seen: &Seen<'_>, size: i64, why: &str) -> bool {
        let wanted = seen.wanted();
        let max = wanted + seen.bounds().0;
        let resized = size != self.size();
        if !resized && self.desired() == Some(wanted) && self.max() == Some(max) {
            return false;
        }
        let patch = json!({
            "metadata": {"annotations": {DESIRED: wanted.to_string(), MAX: max.to_string()}},
            "spec": {"replicas": size},
        });
        plan.patch(self.key(), "", patch, Precondition::exactly(&self.object), why);
        if resized {
            let way = if size > self.size() { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {} from {} to {size}", self.name(), self.size());
            plan.tell(seen.event("ScalingReplicaSet", message));
        }
        true
    }
}

/// A template without the label that tells the pods apart, and without nulls.
fn unlabelled(template: &Tree) -> Tree {
    let mut template = naming::plain(template.clone());
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    template
}

/// The revision that the new ReplicaSet should have.
pub(super) fn next_revision(seen: &Seen<'_>) -> i64 {
    seen.old.iter().map(Set::revision).max().unwrap_or(0).saturating_add(1)
}

/// Makes the new ReplicaSet, or moves on to another name when its name is taken.
pub(super) fn create(plan: &mut Plan, seen: &Seen<'_>, size: i64) {
    let status = crate::status::of(&seen.object);
    let collisions = status["collisionCount"].as_i64().unwrap_or(0);
    let hash = naming::template_hash(&seen.body.spec.template, collisions);
    let name = format!("{}-{hash}", seen.object.name());
    let key = Key::new(&REPLICA_SET, seen.object.namespace(), name.as_str());
    if seen.world.get(&key).is_some() {
        let wanted = json!({"collisionCount": collisions + 1});
        crate::status::write(
            plan,
            &seen.key,
            &seen.object,
            &wanted,
            "the name of the new ReplicaSet is taken",
        );
        return;
    }
    let set = new_set(seen, &name, &hash, size);
    plan.create(&REPLICA_SET, seen.object.namespace(), set, "no ReplicaSet has this template");
    if size > 0 {
        let message = format!("Scaled up replica set {name} from 0 to {size}");
        plan.tell(seen.event("ScalingReplicaSet", message));
    }
    fail_with(plan, seen);
}

/// A creation that is refused leaves the reason in the status.
fn fail_with(plan: &mut Plan, seen: &Seen<'_>) {
    let known = crate::status::of(&seen.object);
    let mut conditions = crate::status::conditions(&known);
    super::progress::set(&mut conditions, ("False", "ReplicaSetCreateError", "{refusal}".into()), seen.now);
    let wanted = json!({"conditions": conditions});
    if let Some(write) = crate::status::patch(&seen.key, &seen.object, &wanted) {
        plan.otherwise(write);
    }
}

fn new_set(seen: &Seen<'_>, name: &str, hash: &str, size: i64) -> Tree {
    let spec = &seen.body.spec;
    let mut template = naming::plain(spec.template.clone());
    template["metadata"]["labels"][HASH] = hash.into();
    let mut selector = naming::plain(spec.selector.clone());
    selector["matchLabels"][HASH] = hash.into();
    let mut annotations = inherited(seen);
    annotations.insert(REVISION.into(), next_revision(seen).to_string().into());
    annotations.insert(DESIRED.into(), seen.wanted().to_string().into());
    annotations.insert(MAX.into(), (seen.wanted() + seen.bounds().0).to_string().into());
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": seen.object.namespace(),
            "labels": template["metadata"]["labels"], "annotations": annotations,
            "ownerReferences": [owning::reference(&seen.object, &DEPLOYMENT, "Deployment")],
        },
        "spec": {"replicas": size, "selector": selector, "template": template},
    });
    if spec.min_ready_seconds > 0 {
        set["spec"]["minReadySeconds"] = spec.min_ready_seconds.into();
    }
    set
}

/// The annotations that a Deployment hands down.
fn inherited(seen: &Seen<'_>) -> Map<String, Tree> {
    let all = seen.object.meta().annotations.iter();
    let handed = all.filter(|(name, _)| !OWN.contains(name));
    handed.map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// Brings the new ReplicaSet's annotations up to date: its revision, and what the Deployment hands down.
pub(super) fn refresh(plan: &mut Plan, seen: &Seen<'_>, new: &Set) {
    let known = &new.object.meta().annotations;
    let mut changed: Map<String, Tree> =
        inherited(seen).into_iter().filter(|(name, value)| known.get(name) != value.as_str()).collect();
    let next = next_revision(seen);
    if new.revision() < next {
        changed.insert(REVISION.into(), next.to_string().into());
        if let Some(before) = known.get(REVISION) {
            changed.insert(HISTORY.into(), history(known.get(HISTORY), before).into());
        }
    }
    let mut patch = json!({});
    if !changed.is_empty() {
        patch["metadata"]["annotations"] = changed.into();
    }
    if new.body.spec.min_ready_seconds != seen.body.spec.min_ready_seconds {
        patch["spec"]["minReadySeconds"] = seen.body.spec.min_ready_seconds.into();
    }
    if patch != json!({}) {
        plan.patch(new.key(), "", patch, Precondition::exactly(&new.object), "the newest revision");
    }
}

fn history(known: Option<&str>, before: &str) -> String {
    let mut all: Vec<&str> = known.map(|known| known.split(',').collect()).unwrap_or_default();
    all.push(before);
    while all.len() > 1 && all.iter().map(|one| one.len() + 1).sum::<usize>() > HISTORY_LEN_MAX {
        all.remove(0);
    }
    all.join(",")
}
