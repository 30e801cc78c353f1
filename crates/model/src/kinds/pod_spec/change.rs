//! What may change of a pod that exists.

use super::super::Faults;
use crate::Tree;

/// May the first spec become the second?
pub fn change(_old: &Tree, _new: &Tree, _faults: &mut Faults) {}
