//! SelfSubjectRulesReview of `authorization.k8s.io/v1`: its constants.

use super::{Kind, Verbs, of};

/// What the house knows of `authorization.k8s.io/v1` SelfSubjectRulesReview.
pub static KIND: Kind = Kind::new(
    of::SELF_SUBJECT_RULES_REVIEW,
    "SelfSubjectRulesReview",
    "selfsubjectrulesreview",
    "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
)
.verbs(Verbs::CreateOnly);
