//! StatefulSet of `apps/v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{column, containers, images, wide};
use super::{Column, Faults, Kind, Part, of, templates};
use crate::tree::{at, entries, is_there, text, whole};
use crate::{Tree, tree};

/// What the house knows of `apps/v1` StatefulSet.
pub static KIND: Kind =
    Kind::new(of::STATEFUL_SET, "StatefulSet", "statefulset", "io.k8s.api.apps.v1.StatefulSet")
        .short(&["sts"])
        .categories(&["all"])
        .namespaced()
        .parts(&[
            Part::Scale { spec: "spec.replicas", status: "status.replicas", selector: "spec.selector" },
            Part::Status,
        ])
        .columns(COLUMNS)
        .filling(fill)
        .checking(check)
        .changing(change)
        .beginning(first)
        .counts();

const COLUMNS: &[Column] = &[
    column("Ready", |object, _| ready(object)),
    wide("Containers", |object, _| containers(object, "spec.template.spec.containers")),
    wide("Images", |object, _| images(object, "spec.template.spec.containers")),
];

/// How many old templates are kept to go back to.
const HISTORY: i64 = 10;

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "replicas", 1);
    tree::fill(spec, "podManagementPolicy", "OrderedReady");
    tree::fill(spec, "revisionHistoryLimit", HISTORY);
    fill_strategy(spec);
    if let Some(retention) = tree::object(spec, "persistentVolumeClaimRetentionPolicy") {
        tree::fill(retention, "whenDeleted", "Retain");
        tree::fill(retention, "whenScaled", "Retain");
    }
    for claim in tree::items_mut(spec, "volumeClaimTemplates") {
        tree::set(claim, "apiVersion", "v1");
        tree::set(claim, "kind", "PersistentVolumeClaim");
        tree::object(claim, "spec").into_iter().for_each(super::persistent_volume_claim::fill_claim);
        tree::set(claim, "status", json!({"phase": "Pending"}));
    }
    templates::fill_template(spec);
}

fn fill_strategy(spec: &mut Tree) {
    let Some(strategy) = tree::object(spec, "updateStrategy") else { return };
    if text(strategy, "type").is_empty() {
        tree::set(strategy, "type", "RollingUpdate");
        tree::object(strategy, "rollingUpdate");
    }
    if text(strategy, "type") == "RollingUpdate"
        && let Some(rolling) = strategy.get_mut("rollingUpdate")
    {
        tree::fill(rolling, "partition", 0);
    }
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({"availableReplicas": 0, "replicas": 0}));
}

fn check(object: &Tree, faults: &mut Faults) {
    for name in ["replicas", "minReadySeconds", "revisionHistoryLimit"] {
        faults.non_negative(format_args!("spec.{name}"), &object["spec"][name]);
    }
    let policy = text(object, "spec.podManagementPolicy");
    faults.one_of("spec.podManagementPolicy", policy, &["OrderedReady", "Parallel"]);
    let strategy = at(object, "spec.updateStrategy");
    match text(strategy, "type") {
        "OnDelete" if is_there(strategy, "rollingUpdate") => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            faults.invalid("spec.updateStrategy.rollingUpdate", strategy["rollingUpdate"].clone(), detail);
        }
        kind => faults.one_of("spec.updateStrategy.type", kind, &["OnDelete", "RollingUpdate"]),
    }
    faults
        .non_negative("spec.updateStrategy.rollingUpdate.partition", at(strategy, "rollingUpdate.partition"));
    templates::check_count_or_share(
        at(strategy, "rollingUpdate.maxUnavailable"),
        "spec.updateStrategy.rollingUpdate.maxUnavailable",
        faults,
    );
    for name in ["whenDeleted", "whenScaled"] {
        let policy = text(at(object, "spec.persistentVolumeClaimRetentionPolicy"), name);
        faults.one_of(
            format_args!("spec.persistentVolumeClaimRetentionPolicy.{name}"),
            policy,
            &["Delete", "Retain"],
        );
    }
    faults.non_negative("spec.ordinals.start", at(object, "spec.ordinals.start"));
    templates::check_selected_template(object, &["Always"], faults);
}

/// What may change of a set that exists.
const MAY_CHANGE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    let rest = |object: &Tree| -> Vec<(String, Tree)> {
        let kept = entries(object, "spec").filter(|(name, _)| !MAY_CHANGE.contains(name));
        kept.map(|(name, value)| (name.to_owned(), value.clone())).collect()
    };
    if rest(old) != rest(new) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                      'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                      'minReadySeconds' are forbidden";
        faults.forbidden("spec", detail);
    }
}

fn ready(object: &Tree) -> Tree {
    let (ready, wanted) = (whole(object, "status.readyReplicas"), whole(object, "spec.replicas"));
    format!("{}/{}", ready.unwrap_or(0), wanted.unwrap_or(0)).into()
}
