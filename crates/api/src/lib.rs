//! The verbs: what may happen to an object, and the HTTP face.

pub mod auth;
