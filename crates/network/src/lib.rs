//! Pod interfaces and routes, Services as packet rules, names.
//!
//! [`Network`] is the one face; the real one speaks netlink, the simulator has its own.

mod face;

pub use face::*;
