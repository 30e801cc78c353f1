//! ServiceAccount of `v1`: its constants.

use super::{Kind, Part, of};

/// What the house knows of `v1` ServiceAccount.
pub static KIND: Kind =
    Kind::new(of::SERVICE_ACCOUNT, "ServiceAccount", "serviceaccount", "io.k8s.api.core.v1.ServiceAccount")
        .short(&["sa"])
        .namespaced()
        .parts(&[Part::Other {
            name: "token",
            kind: ("authentication.k8s.io", "v1", "TokenRequest"),
            verbs: &["create"],
        }]);
