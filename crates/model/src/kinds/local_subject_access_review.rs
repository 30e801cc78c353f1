//! LocalSubjectAccessReview of `authorization.k8s.io/v1`: its constants, and what its schema cannot say.

use super::{Faults, Kind, Verbs, access_review, of};
use crate::Tree;
use crate::tree::text;

/// What the house knows of `authorization.k8s.io/v1` LocalSubjectAccessReview.
pub static KIND: Kind = Kind::new(
    of::LOCAL_SUBJECT_ACCESS_REVIEW,
    "LocalSubjectAccessReview",
    "localsubjectaccessreview",
    "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
)
.namespaced()
.verbs(Verbs::CreateOnly)
.checking(check);

fn check(object: &Tree, faults: &mut Faults) {
    access_review::check_subject(object, faults);
    let (asked, own) =
        (text(object, "spec.resourceAttributes.namespace"), text(object, "metadata.namespace"));
    if object["spec"]["resourceAttributes"].is_object() && asked != own {
        faults.invalid("spec.resourceAttributes.namespace", asked, "must match metadata.namespace");
    }
    if object["spec"]["nonResourceAttributes"].is_object() {
        let said = object["spec"]["nonResourceAttributes"].clone();
        faults.invalid("spec.nonResourceAttributes", said, "disallowed on this kind of request");
    }
}
