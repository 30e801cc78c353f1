//! SubjectAccessReview of `authorization.k8s.io/v1`: its constants.

use super::{Kind, Verbs, access_review, of};

/// What the house knows of `authorization.k8s.io/v1` SubjectAccessReview.
pub static KIND: Kind = Kind::new(
    of::SUBJECT_ACCESS_REVIEW,
    "SubjectAccessReview",
    "subjectaccessreview",
    "io.k8s.api.authorization.v1.SubjectAccessReview",
)
.verbs(Verbs::CreateOnly)
.checking(access_review::check_subject);
