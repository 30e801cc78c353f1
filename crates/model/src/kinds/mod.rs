//! The kinds: one file each, one line in [`KINDS`]. What the schema table cannot say about a kind stands in its file.

mod access_review;
mod api_service;
mod binding;
mod build;
mod certificate_signing_request;
mod cluster_role;
mod cluster_role_binding;
mod cluster_trust_bundle;
mod component_status;
mod config_map;
mod controller_revision;
mod cron_job;
mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod device_class;
mod device_taint_rule;
mod endpoint_slice;
mod endpoints;
mod event;
mod faults;
mod flow_schema;
mod gvr;
mod horizontal_pod_autoscaler;
mod ingress;
mod ingress_class;
mod ip_address;
mod job;
mod lease;
mod lease_candidate;
mod limit_range;
mod local_subject_access_review;
mod meta;
mod mutating_admission_policy;
mod mutating_admission_policy_binding;
mod mutating_webhook_configuration;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
pub mod pod;
mod pod_certificate_request;
mod pod_disruption_budget;
mod pod_group;
pub mod pod_spec;
mod pod_template;
mod prepare;
mod priority_class;
mod priority_level_configuration;
mod rbac;
mod repair;
mod replica_set;
mod replication_controller;
mod resource_claim;
mod resource_claim_template;
mod resource_pool_status_request;
mod resource_quota;
mod resource_slice;
mod role;
mod role_binding;
mod runtime_class;
mod secret;
mod self_subject_access_review;
mod self_subject_review;
mod self_subject_rules_review;
mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
mod storage_class;
mod storage_version;
mod storage_version_migration;
mod subject_access_review;
mod table;
mod templates;
mod token_review;
mod validating_admission_policy;
mod validating_admission_policy_binding;
mod validating_webhook_configuration;
mod volume_attachment;
mod volume_attributes_class;
mod voter_set;
mod webhooks;
mod workload;

pub use gvr::*;
pub use meta::{
    ANNOTATIONS_SIZE_MAX, MetaRules, change_meta, check_annotations, check_labels, check_meta, check_selector,
};
pub use prepare::{prepare_create, prepare_status, prepare_update};
pub use table::{AGE, NAME, table};

use crate::{Gvr, Tree};

/// What the house knows of a kind beyond its schema.
#[derive(Debug)]
pub struct Kind {
    /// Group, version and plural.
    pub gvr: Gvr,
    /// The kind, such as `Pod`.
    pub kind: &'static str,
    /// The singular in lower case, such as `pod`.
    pub singular: &'static str,
    /// Short names, such as `po`.
    pub short: &'static [&'static str],
    /// Categories, such as `all`.
    pub categories: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// The published name of its type, such as `io.k8s.api.core.v1.Pod`.
    pub schema: &'static str,
    /// Which verbs it has: all of the usual ones, or `create` alone for reviews.
    pub verbs: Verbs,
    /// Its subresources.
    pub parts: &'static [Part],
    /// Columns of `kubectl get` between NAME and AGE.
    pub columns: &'static [Column],
    /// Field selectors beyond `metadata.name` and `metadata.namespace`: the label, which is also the path.
    pub fields: &'static [&'static str],
    /// Fills in what the author left out and the table cannot know (defaults that depend on other fields).
    pub fill: fn(&mut Tree),
    /// May this object exist at all?
    pub check: fn(&Tree, &mut Faults),
    /// May the first become the second?
    pub change: fn(&Tree, &Tree, &mut Faults),
    /// What a name may look like: what is wrong with it, or nothing.
    pub name_rule: fn(&str) -> Vec<String>,
    /// Whether `metadata.generation` counts changes of what its author wants.
    pub counts: bool,
    /// Whether it counts changes of annotations too.
    pub counts_annotations: bool,
    /// Whether a status that comes with a creation is kept.
    pub keeps_status: bool,
    /// Whether `kubectl get` shows no age.
    pub ageless: bool,
    /// Whether its table shows no name.
    pub nameless: bool,
    /// Where its objects are stored, when it is another version's (or group's) name for the same objects.
    pub stored_as: Option<&'static Gvr>,
    /// Turns an object of this version into one of the stored version, but for `apiVersion`.
    pub to_stored: fn(&mut Tree),
    /// Turns a stored object into one of this version, but for `apiVersion`.
    pub from_stored: fn(&mut Tree),
    /// What the API writes into a new object, once the status is gone: the first status.
    pub first: fn(&mut Tree),
    /// What the API writes into a changed object (the second), given the old one.
    pub next: fn(&Tree, &mut Tree),
}

impl Kind {
    /// Where its objects are stored.
    pub fn storage(&self) -> &Gvr {
        self.stored_as.unwrap_or(&self.gvr)
    }

    /// The kind under which its objects are stored: itself, unless it is another version's name for the same.
    pub fn storage_kind(&'static self) -> &'static Kind {
        by_gvr(self.storage()).unwrap_or(self)
    }

    /// Turns an object of this version, just decoded, into one of the stored version.
    pub fn to_storage(&self, object: &mut Tree) {
        (self.to_stored)(object);
        crate::tree::set(object, "apiVersion", self.storage().api_version());
    }

    /// Turns a stored object into one of this version, about to be shown.
    pub fn from_storage(&self, object: &mut Tree) {
        (self.from_stored)(object);
        crate::tree::set(object, "apiVersion", self.gvr.api_version());
    }

    /// What [`check_meta`] needs to know of it.
    pub fn meta_rules(&self) -> MetaRules {
        MetaRules { namespaced: self.namespaced, name: self.name_rule }
    }
}

/// Which verbs a kind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verbs {
    /// create, delete, deletecollection, get, list, patch, update, watch.
    All,
    /// `create` alone: a question that is answered and not stored.
    CreateOnly,
    /// get, list alone (ComponentStatus).
    ReadOnly,
}

/// A subresource of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// `/status`: the status alone may change there, and nowhere else.
    Status,
    /// `/scale`, with the paths of replicas in spec and status, and of the selector.
    Scale {
        /// Such as `spec.replicas`.
        spec: &'static str,
        /// Such as `status.replicas`.
        status: &'static str,
        /// Such as `spec.selector` (a label selector or a map) or `status.selector` (text).
        selector: &'static str,
    },
    /// Any other, by name, with the kind that it takes and gives (group, version, kind).
    Other {
        /// Such as `binding` or `exec`.
        name: &'static str,
        /// Such as `("policy", "v1", "Eviction")`.
        kind: (&'static str, &'static str, &'static str),
        /// Its verbs.
        verbs: &'static [&'static str],
    },
}

/// One printer column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// The heading, such as `READY`.
    pub name: &'static str,
    /// `string`, `integer`, `date` …
    pub kind: &'static str,
    /// Whether it shows only with `-o wide`.
    pub wide: bool,
    /// What a row shows; `now` is for ages.
    pub cell: fn(&Tree, crate::Time) -> Tree,
}

/// What is wrong with an object, collected: all faults are told at once.
#[derive(Debug, Default)]
pub struct Faults(pub Vec<Fault>);

/// One fault: where, of what sort, and what to say (the `causes` of a 422 `Status`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The path, such as `spec.containers[0].name`.
    pub field: String,
    /// The cause's reason.
    pub reason: FaultReason,
    /// The cause's message, without the path: `Required value: must name a container`.
    pub message: String,
}

/// The reasons of causes, as the API words them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultReason {
    /// `FieldValueRequired`.
    Required,
    /// `FieldValueInvalid`.
    Invalid,
    /// `FieldValueNotSupported`.
    NotSupported,
    /// `FieldValueDuplicate`.
    Duplicate,
    /// `FieldValueForbidden`.
    Forbidden,
    /// `FieldValueTooLong`.
    TooLong,
    /// `FieldValueTooMany`.
    TooMany,
    /// `FieldValueTypeInvalid`.
    TypeInvalid,
    /// `FieldValueNotFound`.
    NotFound,
    /// `InternalError`.
    Internal,
}

/// Every built-in kind.
pub static KINDS: &[&Kind] = &[
    &binding::KIND,
    &component_status::KIND,
    &config_map::KIND,
    &endpoints::KIND,
    &event::KIND,
    &event::OF_EVENTS,
    &limit_range::KIND,
    &namespace::KIND,
    &node::KIND,
    &persistent_volume_claim::KIND,
    &persistent_volume::KIND,
    &pod::KIND,
    &pod_template::KIND,
    &replication_controller::KIND,
    &resource_quota::KIND,
    &secret::KIND,
    &service_account::KIND,
    &service::KIND,
    &api_service::KIND,
    &controller_revision::KIND,
    &daemon_set::KIND,
    &deployment::KIND,
    &replica_set::KIND,
    &stateful_set::KIND,
    &self_subject_review::KIND,
    &token_review::KIND,
    &local_subject_access_review::KIND,
    &self_subject_access_review::KIND,
    &self_subject_rules_review::KIND,
    &subject_access_review::KIND,
    &horizontal_pod_autoscaler::KIND,
    &horizontal_pod_autoscaler::V1,
    &cron_job::KIND,
    &job::KIND,
    &certificate_signing_request::KIND,
    &cluster_trust_bundle::KIND,
    &cluster_trust_bundle::V1ALPHA1,
    &pod_certificate_request::KIND,
    &ingress_class::KIND,
    &ingress::KIND,
    &ip_address::KIND,
    &ip_address::V1BETA1,
    &network_policy::KIND,
    &service_cidr::KIND,
    &service_cidr::V1BETA1,
    &pod_disruption_budget::KIND,
    &cluster_role_binding::KIND,
    &cluster_role::KIND,
    &role_binding::KIND,
    &role::KIND,
    &csi_driver::KIND,
    &csi_node::KIND,
    &csi_storage_capacity::KIND,
    &storage_class::KIND,
    &volume_attachment::KIND,
    &volume_attributes_class::KIND,
    &volume_attributes_class::V1BETA1,
    &mutating_admission_policy::KIND,
    &mutating_admission_policy::V1BETA1,
    &mutating_admission_policy::V1ALPHA1,
    &mutating_admission_policy_binding::KIND,
    &mutating_admission_policy_binding::V1BETA1,
    &mutating_admission_policy_binding::V1ALPHA1,
    &mutating_webhook_configuration::KIND,
    &validating_admission_policy::KIND,
    &validating_admission_policy_binding::KIND,
    &validating_webhook_configuration::KIND,
    &custom_resource_definition::KIND,
    &priority_class::KIND,
    &pod_group::KIND,
    &workload::KIND,
    &lease::KIND,
    &lease_candidate::KIND,
    &lease_candidate::V1ALPHA2,
    &runtime_class::KIND,
    &endpoint_slice::KIND,
    &device_class::KIND,
    &device_class::V1BETA2,
    &device_class::V1BETA1,
    &resource_claim::KIND,
    &resource_claim::V1BETA2,
    &resource_claim::V1BETA1,
    &resource_claim_template::KIND,
    &resource_claim_template::V1BETA2,
    &resource_claim_template::V1BETA1,
    &resource_slice::KIND,
    &resource_slice::V1BETA2,
    &resource_slice::V1BETA1,
    &device_taint_rule::KIND,
    &device_taint_rule::V1ALPHA3,
    &resource_pool_status_request::KIND,
    &flow_schema::KIND,
    &priority_level_configuration::KIND,
    &storage_version::KIND,
    &storage_version_migration::KIND,
    &repair::KIND,
    &voter_set::KIND,
];

/// The kind that is served under a resource.
pub fn by_gvr(gvr: &Gvr) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|kind| kind.gvr == *gvr)
}

/// Whether text is an address with a prefix length, such as `10.0.0.0/8`.
pub(crate) fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let plain = !length.is_empty() && length.len() <= 3 && length.bytes().all(|b| b.is_ascii_digit());
    match address.parse::<std::net::IpAddr>() {
        Ok(std::net::IpAddr::V4(_)) => plain && length.parse::<u8>().is_ok_and(|bits| bits <= 32),
        Ok(std::net::IpAddr::V6(_)) => plain && length.parse::<u8>().is_ok_and(|bits| bits <= 128),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests;
