//! ReplicationController of `v1`: its constants, and what its schema cannot say.

use serde_json::json;

use super::table::{containers, count, images, label_map, number, wide};
use super::{Column, Faults, Kind, Part, of, pod_spec, templates};
use crate::tree::{at, is_set};
use crate::{Selector, Tree, tree};

/// What the house knows of `v1` ReplicationController.
pub static KIND: Kind = Kind::new(
    of::REPLICATION_CONTROLLER,
    "ReplicationController",
    "replicationcontroller",
    "io.k8s.api.core.v1.ReplicationController",
)
.short(&["rc"])
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
.beginning(first)
.counts();

const COLUMNS: &[Column] = &[
    number("Desired", |object, _| count(object, "spec.replicas")),
    number("Current", |object, _| count(object, "status.replicas")),
    number("Ready", |object, _| count(object, "status.readyReplicas")),
    wide("Containers", |object, _| containers(object, "spec.template.spec.containers")),
    wide("Images", |object, _| images(object, "spec.template.spec.containers")),
    wide("Selector", |object, _| label_map(object, "spec.selector")),
];

fn fill(object: &mut Tree) {
    let labels = at(object, "spec.template.metadata.labels").clone();
    let labelled = is_set(object, "spec.template.metadata.labels");
    if labelled && !is_set(object, "metadata.labels") {
        tree::object(object, "metadata")
            .into_iter()
            .for_each(|meta| tree::set(meta, "labels", labels.clone()));
    }
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "replicas", 1);
    if labelled && !is_set(spec, "selector") {
        tree::set(spec, "selector", labels);
    }
    tree::object(spec, "template").into_iter().for_each(pod_spec::fill_template);
}

fn first(object: &mut Tree) {
    tree::set(object, "status", json!({"replicas": 0}));
}

fn check(object: &Tree, faults: &mut Faults) {
    faults.non_negative("spec.replicas", at(object, "spec.replicas"));
    if !is_set(object, "spec.selector") {
        faults.required("spec.selector", "");
    }
    let selector = Selector::of_label_tree(at(object, "spec.selector"));
    templates::check_template(object, &selector, &["Always"], faults);
}
