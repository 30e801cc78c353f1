//! Binding of `v1`: its constants.

use super::{Kind, Verbs, of};

/// What the house knows of `v1` Binding.
pub static KIND: Kind = Kind::new(of::BINDING, "Binding", "binding", "io.k8s.api.core.v1.Binding")
    .namespaced()
    .verbs(Verbs::CreateOnly);
