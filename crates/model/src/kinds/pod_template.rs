//! PodTemplate of `v1`: its constants, and what its schema cannot say.

use super::table::{column, containers, images, label_map};
use super::{Column, Kind, of, pod_spec};
use crate::{Tree, tree};

/// What the house knows of `v1` PodTemplate.
pub static KIND: Kind =
    Kind::new(of::POD_TEMPLATE, "PodTemplate", "podtemplate", "io.k8s.api.core.v1.PodTemplate")
        .namespaced()
        .columns(COLUMNS)
        .filling(fill)
        .counts()
        .ageless();

const COLUMNS: &[Column] = &[
    column("Containers", |object, _| containers(object, "template.spec.containers")),
    column("Images", |object, _| images(object, "template.spec.containers")),
    column("Pod Labels", |object, _| label_map(object, "template.metadata.labels")),
];

fn fill(object: &mut Tree) {
    tree::object(object, "template").into_iter().for_each(pod_spec::fill_template);
}
