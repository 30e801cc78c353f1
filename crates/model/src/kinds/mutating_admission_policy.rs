//! MutatingAdmissionPolicy of `admissionregistration.k8s.io/v1`, `admissionregistration.k8s.io/v1beta1`, `admissionregistration.k8s.io/v1alpha1`: its constants.

use super::table::{column, number};
use super::{Column, Kind, of, webhooks};
use crate::tree::{items, text};

/// What the house knows of `admissionregistration.k8s.io/v1` MutatingAdmissionPolicy.
pub static KIND: Kind = Kind::new(
    of::MUTATING_ADMISSION_POLICY,
    "MutatingAdmissionPolicy",
    "mutatingadmissionpolicy",
    "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
)
.categories(&["api-extensions"])
.columns(COLUMNS)
.filling(webhooks::fill_policy)
.counts();

/// What the house knows of `admissionregistration.k8s.io/v1beta1` MutatingAdmissionPolicy.
pub static V1BETA1: Kind = Kind::new(
    of::MUTATING_ADMISSION_POLICY_V1BETA1,
    "MutatingAdmissionPolicy",
    "mutatingadmissionpolicy",
    "io.k8s.api.admissionregistration.v1beta1.MutatingAdmissionPolicy",
)
.categories(&["api-extensions"])
.columns(COLUMNS)
.filling(webhooks::fill_policy)
.counts()
.stored_as(&super::MUTATING_ADMISSION_POLICY);

/// What the house knows of `admissionregistration.k8s.io/v1alpha1` MutatingAdmissionPolicy.
pub static V1ALPHA1: Kind = Kind::new(
    of::MUTATING_ADMISSION_POLICY_V1ALPHA1,
    "MutatingAdmissionPolicy",
    "mutatingadmissionpolicy",
    "io.k8s.api.admissionregistration.v1alpha1.MutatingAdmissionPolicy",
)
.categories(&["api-extensions"])
.columns(COLUMNS)
.filling(webhooks::fill_policy)
.counts()
.stored_as(&super::MUTATING_ADMISSION_POLICY);

const COLUMNS: &[Column] = &[
    number("Mutations", |object, _| items(object, "spec.mutations").len().into()),
    column("ParamKind", |object, _| match text(object, "spec.paramKind.kind") {
        "" => "<unset>".into(),
        kind => format!("{}/{kind}", text(object, "spec.paramKind.apiVersion")).into(),
    }),
];
