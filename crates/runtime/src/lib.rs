//! Containers: images, sandboxes, processes, logs, exec; and the monitor that outlives the agent.
//!
//! [`Runtime`] is the one face; the real one drives monitor processes, the simulator has its own.

mod face;

pub use face::*;
