//! A whole cluster in one thread on virtual time, from one seed.
//!
//! The real control plane and the real agents run over doubles of what lies beyond the house: containers, network,
//! wires, disks and clocks. Scenarios (`scenarios/*.yaml`) say what happens and what must be seen; random seeds try
//! what nobody thought of. The laws hold at every step of both, and the same seed gives the same timeline.

mod cluster;
pub mod crashes;
pub mod crew;
pub mod flaw;
mod guard;
pub mod mutation;
mod network;
mod node;
mod observe;
mod pace;
mod peers;
mod runtime;
mod sandbox;
pub mod scenario;
pub mod seeds;
mod wire;
mod words;

/// The folder of the scenarios.
pub fn scenarios_dir() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}
