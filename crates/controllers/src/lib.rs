//! The brain of the control plane: pure decisions.
//!
//! One file a controller, each a [`Controller`] in [`ALL`]. A controller sees a [`model::World`] and the time, and
//! gives a plan; it cannot wait, lock, read a clock or ask for anything, because nothing that could is within reach.

use model::{Controller, Selector, Tree};

pub mod autoscaling;
pub mod certificate_cleanup;
pub mod cronjob;
pub mod daemonset;
pub mod definition_cleanup;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod event_expiry;
pub mod fence;
pub mod garbage;
pub mod job;
pub mod mirroring;
pub mod namespace;
mod naming;
pub mod node_lifecycle;
mod owning;
pub mod pod_cleanup;
mod pods;
pub mod quota;
pub mod relocation;
mod replicas;
pub mod replicaset;
pub mod replication_controller;
mod revisions;
pub mod role_aggregation;
pub mod rollback;
pub mod root_ca;
pub mod service_account;
mod services;
pub mod statefulset;
mod status;
pub mod suspicion;
pub mod taint_eviction;
mod templates;
pub mod volumes;

/// Every controller.
pub static ALL: &[&Controller] = &[
    &deployment::CONTROLLER,
    &rollback::CONTROLLER,
    &relocation::CONTROLLER,
    &job::CONTROLLER,
    &cronjob::CONTROLLER,
    &daemonset::CONTROLLER,
    &statefulset::CONTROLLER,
    &replicaset::CONTROLLER,
    &replication_controller::CONTROLLER,
    &endpointslice::CONTROLLER,
    &endpoints::CONTROLLER,
    &service_account::CONTROLLER,
    &root_ca::CONTROLLER,
    &namespace::CONTROLLER,
    &event_expiry::CONTROLLER,
    &certificate_cleanup::CONTROLLER,
    &garbage::CONTROLLER,
    &definition_cleanup::CONTROLLER,
    &node_lifecycle::CONTROLLER,
    &taint_eviction::CONTROLLER,
    &fence::TAKEOVER,
    &fence::VOTERS,
    &pod_cleanup::CONTROLLER,
    &volumes::CLAIMS,
    &volumes::VOLUMES,
    &volumes::ephemeral::CONTROLLER,
    &volumes::attach::CONTROLLER,
    &volumes::attach::NODES,
    &disruption::CONTROLLER,
    &autoscaling::CONTROLLER,
    &quota::CONTROLLER,
    &mirroring::CONTROLLER,
    &role_aggregation::CONTROLLER,
];

/// A selector as a tree has it: a label selector, or a plain map of labels. One that is left out or senseless matches
/// nothing.
fn selector(tree: &Tree) -> Selector {
    let is_map = tree.as_object().is_some_and(|map| !map.is_empty() && map.values().all(Tree::is_string));
    if is_map {
        return Selector::of_label_tree(tree);
    }
    Selector::of_tree(Some(tree)).unwrap_or_else(|_| Selector::nothing())
}

/// A number or a share of `whole` (`25%`), rounded up or down. What makes no sense is nothing.
fn share(tree: &Tree, whole: i64, round_up: bool) -> i64 {
    let percent =
        tree.as_str().and_then(|text| text.strip_suffix('%')).and_then(|digits| digits.parse::<i64>().ok());
    match percent {
        None => tree.as_i64().or_else(|| tree.as_str()?.parse().ok()).unwrap_or(0).max(0),
        Some(percent) => {
            let hundredths = percent.max(0).saturating_mul(whole.max(0));
            (hundredths + if round_up { 99 } else { 0 }) / 100
        }
    }
}
