//! The claims of a StatefulSet's ordinals: made with the pod, kept after it, unless the author wants them gone.

use model::kinds::{PERSISTENT_VOLUME_CLAIM, POD, STATEFUL_SET};
use model::{Key, Object, Plan, Tree};
use serde_json::json;

use super::{Seen, identity};
use crate::{naming, owning};

/// The volumes of an ordinal and the claims they stand for.
pub(super) fn names(seen: &Seen<'_>, ordinal: i64) -> Vec<(String, String)> {
    let templates = seen.body.spec.volume_claim_templates.iter();
    let named = templates.filter_map(|template| {
        let volume = template["metadata"]["name"].as_str()?;
        Some((volume.to_owned(), format!("{volume}-{}", identity::name(&seen.set, ordinal))))
    });
    named.collect()
}

fn key(seen: &Seen<'_>, name: &str) -> Key {
    Key::new(&PERSISTENT_VOLUME_CLAIM, seen.set.namespace(), name)
}

/// The claims that an ordinal lacks: their templates and names.
pub(super) fn missing<'s>(seen: &'s Seen<'_>, ordinal: i64) -> Vec<(&'s Tree, String)> {
    let names = names(seen, ordinal).into_iter().map(|(_, claim)| claim);
    let all = seen.body.spec.volume_claim_templates.iter().zip(names);
    all.filter(|(_, name)| seen.world.get(&key(seen, name)).is_none()).collect()
}

/// Makes the claims that an ordinal lacks.
pub(super) fn make(plan: &mut Plan, seen: &Seen<'_>, ordinal: i64) {
    for (template, name) in missing(seen, ordinal) {
        let mut labels = naming::plain(template["metadata"]["labels"].clone());
        let selected = seen.body.spec.selector["matchLabels"].as_object();
        for (label, value) in selected.into_iter().flatten() {
            labels[label] = value.clone();
        }
        let mut meta = json!({"name": name, "namespace": seen.set.namespace(), "labels": labels});
        if let Some(annotations) = template["metadata"]["annotations"].as_object() {
            meta["annotations"] = annotations.clone().into();
        }
        if seen.body.spec.persistent_volume_claim_retention_policy.when_deleted == "Delete" {
            meta["ownerReferences"] = json!([reference(seen)]);
        }
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta,
            "spec": naming::plain(template["spec"].clone()),
        });
        plan.create(&PERSISTENT_VOLUME_CLAIM, seen.set.namespace(), claim, "its ordinal lacks a claim");
    }
}

fn reference(seen: &Seen<'_>) -> Tree {
    let mut reference = owning::reference(&seen.set, &STATEFUL_SET, "StatefulSet");
    reference["controller"] = Tree::Null;
    reference["blockOwnerDeletion"] = Tree::Null;
    naming::plain(reference)
}

/// Lets claims go with the set or with their pod, where the author asks for that.
pub(super) fn own(plan: &mut Plan, seen: &Seen<'_>) {
    let policy = &seen.body.spec.persistent_volume_claim_retention_policy;
    let wanted = seen.ordinals();
    for (ordinal, pod) in &seen.pods {
        let is_surplus = !wanted.contains(ordinal);
        for (_, name) in names(seen, *ordinal) {
            let Some(claim) = seen.world.get(&key(seen, &name)) else { continue };
            let with_set = policy.when_deleted == "Delete";
            let with_pod = policy.when_scaled == "Delete" && is_surplus;
            let mut owners = foreign(seen, &claim, &pod.object);
            match () {
                () if with_pod => owners.push(json!({
                    "apiVersion": POD.api_version(), "kind": "Pod", "name": pod.name(), "uid": pod.object.uid(),
                })),
                () if with_set => owners.push(reference(seen)),
                () => {}
            }
            let known: Vec<Tree> = claim.meta().owner_references.iter().map(owning::written).collect();
            if owners != known {
                owning::set_owners(plan, &PERSISTENT_VOLUME_CLAIM, &claim, owners, "what it is to go with");
            }
        }
    }
}

/// The owners of a claim that are neither the set nor one of the ordinal's pods.
fn foreign(seen: &Seen<'_>, claim: &Object, pod: &Object) -> Vec<Tree> {
    let ours = |owner: &&model::Owner| {
        owner.uid == seen.set.uid() || (owner.kind == "Pod" && owner.name == pod.name())
    };
    claim.meta().owner_references.iter().filter(|owner| !ours(owner)).map(owning::written).collect()
}
