//! ValidatingAdmissionPolicy of `admissionregistration.k8s.io/v1`: its constants.

use super::table::{column, number};
use super::{Column, Kind, Part, of, webhooks};
use crate::tree::{items, text};

/// What the house knows of `admissionregistration.k8s.io/v1` ValidatingAdmissionPolicy.
pub static KIND: Kind = Kind::new(
    of::VALIDATING_ADMISSION_POLICY,
    "ValidatingAdmissionPolicy",
    "validatingadmissionpolicy",
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
)
.categories(&["api-extensions"])
.parts(&[Part::Status])
.columns(COLUMNS)
.filling(webhooks::fill_policy)
.counts();

const COLUMNS: &[Column] = &[
    number("Validations", |object, _| items(object, "spec.validations").len().into()),
    column("ParamKind", |object, _| match text(object, "spec.paramKind.kind") {
        "" => "<unset>".into(),
        kind => format!("{}/{kind}", text(object, "spec.paramKind.apiVersion")).into(),
    }),
];
