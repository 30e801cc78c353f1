//! The HTTP face: connections, TLS, limits, bodies. It knows no objects.

pub mod negotiate;
mod patient;
mod serve;
pub mod status;

pub use serve::{Face, serve};
