//! SelfSubjectReview of `authentication.k8s.io/v1`: its constants.

use super::{Kind, Verbs, of};

/// What the house knows of `authentication.k8s.io/v1` SelfSubjectReview.
pub static KIND: Kind = Kind::new(
    of::SELF_SUBJECT_REVIEW,
    "SelfSubjectReview",
    "selfsubjectreview",
    "io.k8s.api.authentication.v1.SelfSubjectReview",
)
.verbs(Verbs::CreateOnly);
