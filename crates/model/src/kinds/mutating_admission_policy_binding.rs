//! MutatingAdmissionPolicyBinding of `admissionregistration.k8s.io/v1`, `admissionregistration.k8s.io/v1beta1`, `admissionregistration.k8s.io/v1alpha1`: its constants.

use super::table::{column, or, or_unset};
use super::{Column, Kind, of, webhooks};

/// What the house knows of `admissionregistration.k8s.io/v1` MutatingAdmissionPolicyBinding.
pub static KIND: Kind = Kind::new(
    of::MUTATING_ADMISSION_POLICY_BINDING,
    "MutatingAdmissionPolicyBinding",
    "mutatingadmissionpolicybinding",
    "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
)
.categories(&["api-extensions"])
.columns(COLUMNS)
.filling(webhooks::fill_binding)
.counts();

/// What the house knows of `admissionregistration.k8s.io/v1beta1` MutatingAdmissionPolicyBinding.
pub static V1BETA1: Kind = Kind::new(
    of::MUTATING_ADMISSION_POLICY_BINDING_V1BETA1,
    "MutatingAdmissionPolicyBinding",
    "mutatingadmissionpolicybinding",
    "io.k8s.api.admissionregistration.v1beta1.MutatingAdmissionPolicyBinding",
)
.categories(&["api-extensions"])
.columns(COLUMNS)
.filling(webhooks::fill_binding)
.counts()
.stored_as(&super::MUTATING_ADMISSION_POLICY_BINDING);

/// What the house knows of `admissionregistration.k8s.io/v1alpha1` MutatingAdmissionPolicyBinding.
pub static V1ALPHA1: Kind = Kind::new(
    of::MUTATING_ADMISSION_POLICY_BINDING_V1ALPHA1,
    "MutatingAdmissionPolicyBinding",
    "mutatingadmissionpolicybinding",
    "io.k8s.api.admissionregistration.v1alpha1.MutatingAdmissionPolicyBinding",
)
.categories(&["api-extensions"])
.columns(COLUMNS)
.filling(webhooks::fill_binding)
.counts()
.stored_as(&super::MUTATING_ADMISSION_POLICY_BINDING);

const COLUMNS: &[Column] = &[
    column("PolicyName", |object, _| or(object, "spec.policyName", "")),
    column("ParamRef", |object, _| or_unset(object, "spec.paramRef.name")),
];
