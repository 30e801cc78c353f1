//! The brain that places pods: pure decisions.
