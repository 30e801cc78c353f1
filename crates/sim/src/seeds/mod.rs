//! Random seeds: a random workload, random faults, and the laws; at the end faults stop, and the cluster gets there.

pub mod noise;
mod plan;
mod run;

pub use plan::{Fault, Plan};
pub use run::{finds, finds_in_fence, run, run_all, run_fence};
