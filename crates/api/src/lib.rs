//! The verbs: what may happen to an object, and the HTTP face.
//!
//! A request goes `http` → [`Service`] → `verbs` (pure) → `admit` (pure) → the store, and every refusal is a
//! [`refusal::Refusal`] that `http/status.rs` alone turns into a code. Only this crate opens the store.

pub mod admit;
mod aggregate;
mod answer;
pub mod audit;
pub mod auth;
mod bootstrap;
pub mod cel;
mod codec;
mod convert;
mod converter;
mod custom;
pub mod dial;
mod discovery;
mod encode;
pub mod fuzz;
mod guard;
mod health;
mod hooks;
pub mod http;
mod openapi;
mod outbound;
mod patch;
mod patience;
mod pieces;
mod policy;
mod proto;
mod proxy;
pub mod refusal;
mod registry;
mod request;
mod select;
mod service;
mod settings;
mod table;
mod tags;
#[cfg(test)]
mod testing;
mod upkeep;
mod verbs;
mod view;
mod yaml;

pub use aggregate::watch as watch_extensions;
pub use answer::{Answer, Body};
pub use encode::body_of;
pub use guard::{AllowAll, Guard, TokenAsked, TokenIssued};
pub use hooks::Introduced;
pub use http::{Face, serve};
pub use outbound::{Credentials, Introductions, Reader, Token, outbound};
pub use service::{EventKind, EventStream, Loops, Metrics, Service, mark_restored};
pub use settings::{Cidr, GIT_VERSION, KUBERNETES_VERSION, NotACidr, Settings};
pub use tags::tagger;
pub use upkeep::{COMPACT, DROP_TOKEN_KEYS, NoKeys, ROTATE_KEY, ROTATE_TOKEN_KEY, Upkeep, is_secret};
