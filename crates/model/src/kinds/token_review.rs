//! TokenReview of `authentication.k8s.io/v1`: its constants.

use super::{Kind, Verbs, of};

/// What the house knows of `authentication.k8s.io/v1` TokenReview.
pub static KIND: Kind =
    Kind::new(of::TOKEN_REVIEW, "TokenReview", "tokenreview", "io.k8s.api.authentication.v1.TokenReview")
        .verbs(Verbs::CreateOnly);
