//! Pod interfaces and routes, Services as packet rules, names.
//!
//! [`Network`] is the one face; the real one, [`KernelNetwork`], speaks netlink, the simulator has its own.
//! [`links::Lan`] makes several nodes of one machine, [`names`] answers the cluster's names, [`preflight`] says what
//! the machine lacks.

mod cidr;
mod face;
mod kernel;
pub mod links;
pub mod names;
mod policies;
mod preflight;
mod services;
mod wire;

pub use cidr::{Cidr, NotACidr};
pub use face::*;
pub use kernel::{KernelNetwork, Settings};
pub use policies::{GuardedPod, NamespaceLabels, policies};
pub use preflight::{Lack, obstacles, preflight};
pub use services::{rules, service_ports};

pub(crate) use face::failed;
