//! The brain of the control plane: pure decisions.
