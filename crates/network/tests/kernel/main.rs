//! The kernel's network, tried with real packets in network namespaces. To be run as root.

mod clusters;
mod pods;
mod policies;
mod scale;
mod services;
mod world;
