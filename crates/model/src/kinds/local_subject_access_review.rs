//! LocalSubjectAccessReview of `authorization.k8s.io/v1`: its constants.

use super::{Kind, Verbs, of};

/// What the house knows of `authorization.k8s.io/v1` LocalSubjectAccessReview.
pub static KIND: Kind = Kind::new(
    of::LOCAL_SUBJECT_ACCESS_REVIEW,
    "LocalSubjectAccessReview",
    "localsubjectaccessreview",
    "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
)
.namespaced()
.verbs(Verbs::CreateOnly);
