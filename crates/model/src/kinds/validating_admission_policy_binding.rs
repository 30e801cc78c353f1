//! ValidatingAdmissionPolicyBinding of `admissionregistration.k8s.io/v1`: its constants.

use super::table::{column, or, or_unset};
use super::{Column, Kind, of, webhooks};

/// What the house knows of `admissionregistration.k8s.io/v1` ValidatingAdmissionPolicyBinding.
pub static KIND: Kind = Kind::new(
    of::VALIDATING_ADMISSION_POLICY_BINDING,
    "ValidatingAdmissionPolicyBinding",
    "validatingadmissionpolicybinding",
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
)
.categories(&["api-extensions"])
.columns(COLUMNS)
.filling(webhooks::fill_binding)
.counts();

const COLUMNS: &[Column] = &[
    column("PolicyName", |object, _| or(object, "spec.policyName", "")),
    column("ParamRef", |object, _| or_unset(object, "spec.paramRef.name")),
];
