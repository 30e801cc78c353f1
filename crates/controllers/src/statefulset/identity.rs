//! The names, labels and claims that make a pod one of a StatefulSet's ordinals.

use model::Tree;
use model::kinds::STATEFUL_SET;
use serde_json::json;

use super::{Object, Pod, Seen, claims};
use crate::{naming, owning, revisions, templates};

const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The name of an ordinal's pod.
pub(super) fn name(set: &Object, ordinal: i64) -> String {
    format!("{}-{ordinal}", set.name())
}

/// The ordinal that a pod's name stands for.
pub(super) fn ordinal(set: &Object, pod: &str) -> Option<i64> {
    let digits = pod.strip_prefix(set.name())?.strip_prefix('-')?;
    let ordinal: i64 = digits.parse().ok().filter(|ordinal| *ordinal >= 0)?;
    (ordinal.to_string() == digits).then_some(ordinal)
}

/// The labels that name a pod.
pub(super) fn labels(name: &str, ordinal: i64) -> Tree {
    json!({POD_NAME: name, POD_INDEX: ordinal.to_string()})
}

/// Whether a pod's labels name it.
pub(super) fn holds(pod: &Pod) -> bool {
    pod.object.meta().labels.get(POD_NAME) == Some(pod.name())
}

/// A new pod of an ordinal.
pub(super) fn pod(seen: &Seen<'_>, ordinal: i64) -> Tree {
    let set = &seen.set;
    let revision = seen.revision_for(ordinal);
    let template = match revision.object.uid() == seen.update.object.uid() {
        true => naming::plain(seen.body.spec.template.clone()),
        false => revision.template(),
    };
    let name = name(set, ordinal);
    let mut pod = templates::pod(
        &template,
        set.namespace(),
        &name,
        owning::reference(set, &STATEFUL_SET, "StatefulSet"),
    );
    pod["metadata"]["labels"][revisions::HASH] = revision.object.name().into();
    for (label, value) in labels(&name, ordinal).as_object().into_iter().flatten() {
        pod["metadata"]["labels"][label] = value.clone();
    }
    pod["metadata"]["generateName"] = format!("{}-", set.name()).into();
    pod["spec"]["hostname"] = name.into();
    if !seen.body.spec.service_name.is_empty() {
        pod["spec"]["subdomain"] = seen.body.spec.service_name.as_str().into();
    }
    mount(&mut pod["spec"], seen, ordinal);
    pod
}

/// The ordinal's claims take the place of the template's volumes of the same names.
fn mount(spec: &mut Tree, seen: &Seen<'_>, ordinal: i64) {
    let mut volumes = spec["volumes"].as_array().cloned().unwrap_or_default();
    for (volume, claim) in claims::names(seen, ordinal) {
        volumes.retain(|known| known["name"] != *volume);
        volumes.push(json!({"name": volume, "persistentVolumeClaim": {"claimName": claim}}));
    }
    if !volumes.is_empty() {
        spec["volumes"] = volumes.into();
    }
}
