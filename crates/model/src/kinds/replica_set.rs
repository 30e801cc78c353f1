//! ReplicaSet of `apps/v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{containers, count, images, label_selector, number, wide};
use super::{Column, Faults, Kind, Part, of, templates};
use crate::tree::at;
use crate::{Tree, tree};

/// What the house knows of `apps/v1` ReplicaSet.
pub static KIND: Kind =
    Kind::new(of::REPLICA_SET, "ReplicaSet", "replicaset", "io.k8s.api.apps.v1.ReplicaSet")
        .short(&["rs"])
        .categories(&["all"])
        .namespaced()
        .parts(&[
            Part::Scale { spec: "spec.replicas", status: "status.replicas", selector: "spec.selector" },
            Part::Status,
        ])
        .columns(COLUMNS)
        .fields(&["status.replicas"])
        .filling(fill)
        .checking(check)
        .changing(change)
        .beginning(first)
        .counts();

const COLUMNS: &[Column] = &[
    number("Desired", |object, _| count(object, "spec.replicas")),
    number("Current", |object, _| count(object, "status.replicas")),
    number("Ready", |object, _| count(object, "status.readyReplicas")),
    wide("Containers", |object, _| containers(object, "spec.template.spec.containers")),
    wide("Images", |object, _| images(object, "spec.template.spec.containers")),
    wide("Selector", |object, _| label_selector(object, "spec.selector")),
];

fn fill(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "replicas", 1);
    templates::fill_template(spec);
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({"replicas": 0}));
}

fn check(object: &Tree, faults: &mut Faults) {
    faults.non_negative("spec.replicas", at(object, "spec.replicas"));
    faults.non_negative("spec.minReadySeconds", at(object, "spec.minReadySeconds"));
    templates::check_selected_template(object, &["Always"], faults);
}

fn change(old: &Tree, new: &Tree, faults: &mut Faults) {
    faults.immutable("spec.selector", at(old, "spec.selector"), at(new, "spec.selector"));
}
