//! One node: pods, probes, volumes, lease and fence.
