//! A store's journal in etcd (v3.4 and newer), so that several servers share it.
//!
//! Promises: what is acknowledged is done in etcd and visible in this server's memory; what `catch_up` waits for shows all that
//! any server had acknowledged before; a watcher sees each key's history without gap or repeat, across restarts of etcd
//! and changes of the member that is asked, or is told to list again.
//!
//! A write goes [`Etcd`] → one etcd transaction → back by the one watch (`follow`) → the store's memory → its author. The
//! keys and values are described in [`keys`].

mod care;
mod compact;
mod endpoints;
mod follow;
mod journal;
pub mod keys;
mod load;
mod messages;
mod reader;
mod sealing;
mod settings;
mod terms;
mod transaction;

pub use care::{Care, Look};
pub use journal::{Etcd, OpenError, open};
pub use settings::{Endpoint, PREFIX, Settings, SettingsError};
pub use terms::Heed;
pub use transaction::TXN_BYTES_MAX;
