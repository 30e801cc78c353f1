//! What a pod is asked to be, wherever it is written: in a pod or in the template of something that makes pods.

mod change;
mod check;
mod containers;
mod fill;
mod placement;
mod probes;
mod resize;
mod volumes;

pub use change::change;
pub use check::{Place, check};
pub use fill::{fill, fill_pod_alone, fill_template};
pub use resize::resize;
pub use volumes::with_claims;

#[cfg(test)]
mod tests;
