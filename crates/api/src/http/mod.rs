//! The HTTP face: connections, TLS, limits, bodies. It knows no objects.

pub mod negotiate;
mod patient;
mod serve;
pub mod status;

pub(crate) use serve::TLS_LEN;
pub use serve::{Face, serve};
