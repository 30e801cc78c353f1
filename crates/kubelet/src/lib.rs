//! One node: pods, probes, volumes, lease and status.
//!
//! Deciding is apart from doing. `plan`, `status`, `probe`, `backoff`, `resources`, `environment`, `security`,
//! `texts` and the rules of `services` are pure functions of what is remembered and the time; `worker`, `jobs`, `ask`,
//! `run`, `node`, `lease` and `server` do what they say, over the runtime, the network and the API. A pod has one
//! owner, its worker; nothing is polled.

mod agent;
mod ask;
mod backoff;
mod csi;
mod desk;
mod environment;
mod events;
mod farewell;
mod fence;
mod files;
pub mod fuzz;
mod image_space;
mod jobs;
mod lease;
mod memory;
mod node;
mod places;
mod plan;
mod pod;
mod policies;
mod probe;
mod resources;
mod run;
mod security;
mod server;
mod services;
mod settings;
mod starts;
mod status;
mod storage;
mod streams;
mod texts;
mod tokens;
mod usage;
mod volumes;
mod worker;

pub use agent::Agent;
pub use ask::{Dial, RuntimeDial, TcpDial};
pub use backoff::{Curve, Since};
pub use farewell::Stop;
pub use fence::Fence;
pub use files::{FileKind, Files, RealFiles, SimFiles, Space};
pub use image_space::ImageMarks;
pub use node::VERSION;
pub use resources::Allocatable;
pub use run::run;
pub use settings::{KubeletError, LEASE_EVERY, Machine, Means, Settings, Voice};
