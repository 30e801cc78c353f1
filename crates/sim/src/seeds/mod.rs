//! Random seeds: a random workload, random faults, and the laws; at the end faults stop, and the cluster gets there.

mod plan;
mod run;

pub use plan::{Fault, Plan};
pub use run::{finds, run, run_all};
