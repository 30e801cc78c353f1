//! The wiring: which parts a server and an agent are made of. The binary runs it, the simulator too.

pub mod agent;
pub mod certificates;
pub mod cluster;
pub mod control;
pub mod demo;
pub mod down;
pub mod drill;
pub mod faults;
pub mod images;
pub mod join;
pub mod joining;
pub mod keys;
pub mod local;
pub mod names;
pub mod node;
pub mod place;
pub mod ranges;
pub mod server;
mod servers;
pub mod settings;
pub mod shared;
pub mod storing;
mod supervise;
pub mod tls;
pub mod token;
pub mod vault;
pub mod why;
