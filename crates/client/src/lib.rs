//! The door: every write and every read of an object goes through here, those of our own loops included.
//!
//! A [`Transport`] carries requests to an API server: [`Https`] over the wire, or one in the same process that
//! makes the same trip without encoding (the binary and the simulator wire it). [`Client`] speaks of objects,
//! [`Caches`] keep what the loops read, fresh by watch.

mod access;
mod backoff;
mod cache;
mod caches;
mod carry;
mod changes;
mod client;
mod error;
pub mod events;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod follow;
pub mod grpc;
pub mod https;
mod lines;
pub mod peers;
mod select;
mod several;
#[cfg(test)]
mod tests;
mod transport;

pub use access::{Access, AccessError, Files, Identity, Users};
pub use backoff::Backoff;
pub use cache::Changed;
pub use caches::{Caches, Follow, Picture};
pub use carry::Outcome;
pub use changes::Changes;
pub use client::{Client, Deletion, PatchKind};
pub use error::{ClientError, DEFAULT_RETRY_AFTER};
pub use events::Events;
pub use https::{Https, tls_config};
pub use peers::{HttpsPeers, NoPeers, Peer, Peers, Wish};
pub use select::Select;
pub use several::Several;
pub use transport::{Transport, TransportError, WatchEvent, WatchKind, WatchStream};
