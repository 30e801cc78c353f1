//! The streams of exec, attach and port-forward, as clients speak them after an upgrade.
//!
//! `negotiate` chooses a protocol from the headers (pure); `spdy` is its codec (pure); `connection` and `websocket`
//! carry streams over a connection; `command` and `forward` join them to a pod.

mod command;
mod connection;
mod forward;
mod negotiate;
pub(crate) mod spdy;
mod websocket;

pub use command::{Wanted, serve as serve_command};
pub use forward::serve as serve_port_forward;
pub use negotiate::{Protocol, Purpose, negotiate};
pub use websocket::pieces as serve_log;
