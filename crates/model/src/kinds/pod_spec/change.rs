//! What may change of a pod that exists: its images, a shorter deadline, more tolerations, fewer gates.

use super::super::Faults;
use crate::tree::{is_set, items, set, text, whole};
use crate::{Tree, syntax, tree};

/// The fields that may change, as the message names them.
const MAY_CHANGE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                          `spec.tolerations` (only additions to existing tolerations),\
                          `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// May the first spec become the second?
pub fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    for list in ["containers", "initContainers"] {
        if items(old, list).len() != items(new, list).len() {
            return faults.forbidden(format!("spec.{list}"), "pod updates may not add or remove containers");
        }
    }
    check_deadline(old, new, faults);
    check_tolerations(old, new, faults);
    check_gates(old, new, faults);
    let munged = without_what_may_change(old, new);
    if munged != *old {
        let fields = differing(old, &munged).join(", ");
        let detail = format!("pod updates may not change fields other than {MAY_CHANGE}\nchanged: {fields}");
        faults.forbidden("spec", &detail);
    }
}

fn check_deadline(old: &Tree, new: &Tree, faults: &mut Faults) {
    const FIELD: &str = "spec.activeDeadlineSeconds";
    match (whole(old, "activeDeadlineSeconds"), whole(new, "activeDeadlineSeconds")) {
        (Some(_), None) => {
            faults.invalid(FIELD, Tree::Null, "must not update from a positive integer to nil value");
        }
        (Some(before), Some(after)) if before < after => {
            faults.invalid(FIELD, after, "must be less than or equal to previous value");
        }
        (before, after) if before == after => {}
        (_, Some(after)) => faults.each(FIELD, after, syntax::within(after, 0, i64::from(i32::MAX))),
        (None, None) => {}
    }
}

/// How long a toleration lasts may change; nothing else of one that is there.
fn check_tolerations(old: &Tree, new: &Tree, faults: &mut Faults) {
    let plain = |toleration: &Tree| {
        let mut plain = toleration.clone();
        tree::remove(&mut plain, "tolerationSeconds");
        plain
    };
    let kept: Vec<Tree> = items(new, "tolerations").iter().map(plain).collect();
    if !items(old, "tolerations").iter().all(|toleration| kept.contains(&plain(toleration))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        faults.forbidden("spec.tolerations", detail);
    }
}

fn check_gates(old: &Tree, new: &Tree, faults: &mut Faults) {
    let known = items(old, "schedulingGates");
    for (index, gate) in
        items(new, "schedulingGates").iter().enumerate().filter(|(_, gate)| !known.contains(gate))
    {
        let detail =
            format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
        faults.forbidden(format!("spec.schedulingGates[{index}].name"), &detail);
    }
}

/// The new spec with all that may change put back as it was.
fn without_what_may_change(old: &Tree, new: &Tree) -> Tree {
    let mut munged = new.clone();
    for list in ["containers", "initContainers"] {
        let old = items(old, list);
        tree::items_mut(&mut munged, list)
            .zip(old)
            .for_each(|(container, old)| put_back(old, container, "image"));
    }
    let mut kept = vec!["activeDeadlineSeconds", "schedulingGates", "tolerations", "ephemeralContainers"];
    // A pod that waits behind gates may still be told where to go.
    if is_set(old, "schedulingGates") {
        kept.extend(["nodeSelector", "affinity"]);
    }
    let grace = (whole(old, "terminationGracePeriodSeconds"), whole(new, "terminationGracePeriodSeconds"));
    if grace.0.is_some_and(|before| before < 0) && grace.1 == Some(1) {
        kept.push("terminationGracePeriodSeconds");
    }
    kept.into_iter().for_each(|name| put_back(old, &mut munged, name));
    munged
}

fn put_back(old: &Tree, new: &mut Tree, name: &str) {
    match old.get(name) {
        Some(value) => set(new, name, value.clone()),
        None => tree::remove(new, name),
    }
}

fn differing(old: &Tree, new: &Tree) -> Vec<String> {
    let names = |tree: &Tree| {
        tree.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    let mut all: Vec<String> = names(old).into_iter().chain(names(new)).collect();
    all.sort();
    all.dedup();
    all.retain(|name| old[name] != new[name]);
    all
}
