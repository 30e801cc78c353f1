//! May a pod be so? Filled in the next step.

use super::super::Faults;
use crate::Tree;

/// Where a spec stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a pod.
    Pod,
    /// In the template of something that makes pods.
    Template,
}

/// May a pod be asked for so?
pub fn check(_spec: &Tree, _field: &str, _place: Place, _faults: &mut Faults) {}
