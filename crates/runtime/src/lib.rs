//! Containers: images, sandboxes, processes, logs, exec; and the monitor that outlives the agent.
//!
//! [`Runtime`] is the one face; the real one, [`KernelRuntime`], drives monitor processes, the simulator has its own.

mod cgroup;
mod face;
pub mod images;
mod kernel;
mod layout;
pub mod monitor;
mod preflight;
mod seccomp;
mod sys;
mod wire;

pub use face::*;
pub use kernel::{KernelRuntime, Settings};
pub use preflight::{Lack, preflight};

/// The name of the control group that holds everything of a data directory, below the root of each hierarchy.
pub fn group_name(data_dir: &std::path::Path) -> String {
    layout::Layout::new(data_dir).cgroup_name()
}
