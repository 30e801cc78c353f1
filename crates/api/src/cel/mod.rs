//! Expressions where the API uses them: conditions of webhooks and policies, and who may do what as expressions ask it.
//!
//! The language itself is the crate `cel`. A list of match conditions is compiled once with [`Conditions::compile`] and
//! asked with [`Conditions::hold`], which takes what is written, what was there, the admission request as reviews have
//! it (`request` of an `AdmissionReview`), and an [`Asker`].

mod asker;
mod conditions;

pub use asker::Asker;
pub use conditions::{About, Conditions, Held, environment, fault};
