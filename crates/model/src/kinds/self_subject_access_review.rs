//! SelfSubjectAccessReview of `authorization.k8s.io/v1`: its constants.

use super::{Kind, Verbs, access_review, of};

/// What the house knows of `authorization.k8s.io/v1` SelfSubjectAccessReview.
pub static KIND: Kind = Kind::new(
    of::SELF_SUBJECT_ACCESS_REVIEW,
    "SelfSubjectAccessReview",
    "selfsubjectaccessreview",
    "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
)
.verbs(Verbs::CreateOnly)
.checking(access_review::check);
