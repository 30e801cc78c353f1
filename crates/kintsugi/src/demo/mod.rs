//! The demo: a cluster of its own, broken in five ways, and how it heals.

pub mod web;
