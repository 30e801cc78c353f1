//! PodGroup of `scheduling.k8s.io/v1alpha2`: its constants.

use super::{Kind, Part, of};

/// What the house knows of `scheduling.k8s.io/v1alpha2` PodGroup.
pub static KIND: Kind =
    Kind::new(of::POD_GROUP, "PodGroup", "podgroup", "io.k8s.api.scheduling.v1alpha2.PodGroup")
        .namespaced()
        .parts(&[Part::Status]);
