//! How bytes get to kubelets, to the pods that are proxied, and to the programs that extend the API.
//!
//! The one way out of this crate: `outbound` asks webhooks and extension servers over it, `service/connect` is a pipe.

use std::fmt;
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// A connection, both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What is to be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The host: an address or a name.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Whether, and as whom, TLS is spoken.
    pub tls: Tls,
}

/// How a connection is secured.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Tls {
    /// Not at all: plain HTTP to a pod.
    None,
    /// To a kubelet: its certificate is verified, ours shown.
    Kubelet,
    /// To a pod that asked for `https:` in a proxy path: whatever certificate it has.
    Any,
    /// To a program that extends the API: as its registration says.
    Extension(Arc<Trust>),
}

/// How a program that extends the API is known, and how it knows us.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Trust {
    /// The name that its certificate must have; a host name or an address.
    pub name: String,
    /// The authorities that may have signed its certificate, as PEM; empty for those that the machine trusts.
    pub authorities: Vec<u8>,
    /// Whether any certificate will do.
    pub unverified: bool,
    /// The certificate that we show.
    pub shows: Shows,
}

/// The certificate that we show to a program that extends the API.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub enum Shows {
    /// None.
    #[default]
    Nothing,
    /// The front proxy's, so that it believes us who the user is.
    FrontProxy,
    /// One that whoever set the cluster up gave us for it.
    Own(Arc<ClientPair>),
}

/// A client's certificate and key, as PEM.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ClientPair {
    /// The certificate and those between it and its authority.
    pub chain: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "as {:?} ({} bytes of authorities)", self.name, self.authorities.len())
    }
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
