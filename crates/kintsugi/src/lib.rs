//! The wiring: which parts a server and an agent are made of. The binary runs it, the simulator too.

pub mod control;
pub mod keys;
pub mod local;
pub mod settings;
