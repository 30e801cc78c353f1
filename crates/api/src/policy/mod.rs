//! Admission by policies in expressions: ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
//!
//! `compiled` reads policies and their bindings from the store and keeps them ready; `matching` says which of them an
//! act concerns, `params` what they are given; `judge` asks the validating ones and `mutate` lets the mutating ones
//! change an object. `check` and `typing` say what is wrong with a policy when it is written. All of it is pure over a view.

pub mod check;
mod compiled;
mod judge;
mod matching;
mod mutate;
mod objects;
mod params;
mod speak;
pub mod typing;

use std::sync::{Arc, Mutex, PoisonError};

use model::{World, kinds};
use store::{Store, StoreError};

use crate::guard::Guard;
use crate::hooks::Act;
use crate::hooks::matching::is_exempt;
use crate::patience::Patience;
use crate::registry::Registry;

pub use compiled::Policies;
pub use judge::validate;
pub use mutate::{Again, mutate};
pub use typing::type_named;

/// The policies of a store, ready.
pub struct Kept {
    /// Guards what is kept, for as long as it takes to look for new policies and clone the snapshot.
    read: Mutex<compiled::Reader>,
}

impl Kept {
    /// Those that a store has.
    pub fn new(store: &Store) -> Result<Self, StoreError> {
        Ok(Self { read: Mutex::new(compiled::Reader::new(store)?) })
    }

    /// Those that the store has at this moment.
    pub fn now(&self, store: &Store) -> Arc<Policies> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).now(store)
    }
}

/// What asking policies takes.
pub struct Asking<'a> {
    /// What is served.
    pub registry: &'a Registry,
    /// Where parameters and namespaces are read.
    pub world: &'a dyn World,
    /// Who may do what.
    pub guard: &'a dyn Guard,
    /// What is known of objects in other versions, where a webhook converts them.
    pub patience: Option<&'a Patience>,
}

/// Whether policies are not asked at all: about themselves, and about who somebody is and may do, without which the cluster
/// would not work.
fn is_excluded(act: &Act<'_>) -> bool {
    let reviews = [
        &kinds::SELF_SUBJECT_REVIEW,
        &kinds::TOKEN_REVIEW,
        &kinds::LOCAL_SUBJECT_ACCESS_REVIEW,
        &kinds::SELF_SUBJECT_ACCESS_REVIEW,
        &kinds::SELF_SUBJECT_RULES_REVIEW,
        &kinds::SUBJECT_ACCESS_REVIEW,
    ];
    is_exempt(act) || reviews.into_iter().any(|gvr| act.resource.is(gvr))
}
