//! Workload of `scheduling.k8s.io/v1alpha2`: its constants.

use super::{Kind, of};

/// What the house knows of `scheduling.k8s.io/v1alpha2` Workload.
pub static KIND: Kind =
    Kind::new(of::WORKLOAD, "Workload", "workload", "io.k8s.api.scheduling.v1alpha2.Workload").namespaced();
