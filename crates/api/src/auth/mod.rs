//! Who may do what: certificates, tokens, and the rules that roles give.
//!
//! Proving who asks (`pki`, `tokens`, `authenticate`) is apart from deciding what they may do (`rbac`, pure).

mod authenticate;
pub mod bootstrap;
mod chain;
mod front_proxy;
mod identity;
pub(crate) mod nodes;
pub mod outside;
pub mod pki;
pub mod rbac;
pub(crate) mod reconcile;
pub mod roles;
pub mod signing;
pub mod tokens;
mod warden;

pub use authenticate::{Authenticator, Credentials, Lookup, Unauthorized, from_certificate};
pub use chain::{Authorizer, Chain};
pub use front_proxy::{FrontProxy, Peer};
pub use identity::{ANONYMOUS, AUTHENTICATED, Attributes, Decision, Identity, MASTERS, UNAUTHENTICATED};
pub use nodes::NODES;
pub use warden::Warden;
