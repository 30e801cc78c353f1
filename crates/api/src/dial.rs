//! How bytes get to kubelets, and to the pods that are proxied.

use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection, both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What is to be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The host: an address or a name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether, and as whom, TLS is spoken.
    pub tls: Tls,
}

/// How a connection is secured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Not at all: plain HTTP to a pod.
    None,
    /// To a kubelet: its certificate is verified, ours shown.
    Kubelet,
    /// To a pod that asked for `https:` in a proxy path: whatever certificate it has.
    Any,
}

/// Reaches backends.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Opens a connection, TLS included.
    ///
    /// # Errors
    /// When nobody answers there.
    async fn dial(&self, backend: &Backend) -> io::Result<Box<dyn Duplex>>;
}

/// Reaches nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDial;

#[async_trait]
impl Dial for NoDial {
    async fn dial(&self, backend: &Backend) -> io::Result<Box<dyn Duplex>> {
        let message = format!("there is no way to {}:{}", backend.host, backend.port);
        Err(io::Error::new(io::ErrorKind::Unsupported, message))
    }
}
