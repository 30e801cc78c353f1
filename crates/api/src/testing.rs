//! What the tests of this crate share: a fixed draw and the built-in resources.

use std::sync::Arc;

use model::Gvr;

use crate::registry::{Registry, Resource};
use crate::verbs::Drawn;

/// A fixed time, uid and suffix.
pub fn drawn() -> Drawn {
    let now = "2026-01-01T00:00:00Z".parse().expect("a fixed time");
    Drawn { now, uid: "uid-1".into(), suffix: "abcde".into() }
}

/// A built-in resource.
pub fn resource(gvr: &Gvr) -> Arc<Resource> {
    Registry::built_in().get(gvr).expect("a built-in resource").clone()
}
