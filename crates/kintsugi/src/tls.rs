//! How the server and its nodes speak TLS: one authority signs both sides; programs that extend the API bring theirs.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, Result};
use api::dial::{Backend, ClientPair, Dial, Duplex, Shows, Tls, Trust};
use async_trait::async_trait;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, CipherSuite, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme, SupportedCipherSuite,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use api::auth::pki::PemPair;
use api::auth::{Identity, MASTERS, NODES};

/// How long a kubelet or pod may take to accept a connection: one lost SYN is sent again after 1 s.
const DIAL_PATIENCE: Duration = Duration::from_secs(10);

fn roots(authority: &str) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate.context("the authority's certificate")?)?;
    }
    Ok(Arc::new(roots))
}

/// A server that asks its clients for a certificate of one of the authorities in `authority`, and takes those without one where it may.
pub fn server(
    own: &PemPair,
    authority: &str,
    clients_must: bool,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>> {
    showing(Arc::new(Shown::new(own)?), authority, clients_must, protocols)
}

/// The same with a certificate that may be renewed. Where clients must have one, it has to be the API's own or a node's (whose
/// agents ask each other for promises, and nothing else): others of the authority's are for the API to judge.
pub fn showing(
    own: Arc<Shown>,
    authority: &str,
    clients_must: bool,
    protocols: &[&[u8]],
) -> Result<Arc<ServerConfig>> {
    let verifier = WebPkiClientVerifier::builder(roots(authority)?);
    let verifier: Arc<dyn ClientCertVerifier> = if clients_must {
        Arc::new(Machines(verifier.build()?))
    } else {
        verifier.allow_unauthenticated().build()?
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(swift()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own);
    config.ignore_client_order = true;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The usual ciphers, but AES with 128 bits first, as Go's servers have it: a quarter less work than with 256.
fn swift() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let is_longer = |suite: &SupportedCipherSuite| {
        matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        )
    };
    let (longer, mut others): (Vec<_>, Vec<_>) = provider.cipher_suites.into_iter().partition(is_longer);
    others.extend(longer);
    provider.cipher_suites = others;
    provider
}

/// The certificate that a server shows, which may be renewed while it serves.
#[derive(Debug)]
pub struct Shown(RwLock<Arc<CertifiedKey>>);

impl Shown {
    /// Shows this one.
    pub fn new(own: &PemPair) -> Result<Self> {
        Ok(Self(RwLock::new(certified(own)?)))
    }

    /// Shows this one from now on; connections that are there go on.
    pub fn renew(&self, own: &PemPair) -> Result<()> {
        let own = certified(own)?;
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = own;
        Ok(())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn certified(own: &PemPair) -> Result<Arc<CertifiedKey>> {
    let (chain, key) = own.to_der()?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let key = CertifiedKey::from_der(chain, key, &provider).context("the server's own certificate")?;
    Ok(Arc::new(key))
}

/// Lets in clients whose certificate is of the group that may do everything, which is given to nobody by request, and
/// nodes. What each of them may ask is the agent's to say.
#[derive(Debug)]
struct Machines(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Machines {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        let who = api::auth::from_certificate(end_entity);
        let is_node = |who: &Identity| who.is_in(NODES) && who.name.starts_with("system:node:");
        if who.is_some_and(|who| who.is_in(MASTERS) || is_node(&who)) {
            return Ok(verified);
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Opens a connection to a server that nobody has verified yet: whatever certificate it shows is taken.
pub async fn dial_anyone(address: SocketAddr) -> io::Result<Box<dyn Duplex>> {
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(TakeAny));
    let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    let open = async {
        let stream = TcpStream::connect(address).await?;
        let stream = connector.connect(ServerName::from(address.ip()), stream).await?;
        Ok(Box::new(stream) as Box<dyn Duplex>)
    };
    tokio::time::timeout(DIAL_PATIENCE, open).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// How many ways of knowing an extension are kept ready: more registrations than that are made ready each time.
const TRUSTS_MAX: usize = 256;

/// Reaches kubelets, as the API's own client, the pods that are proxied, and the programs that extend the API.
pub struct Dialer {
    kubelets: TlsConnector,
    anyone: TlsConnector,
    front_proxy: PemPair,
    /// Guards the connectors that were made, while one is looked up or added.
    extensions: Mutex<HashMap<Arc<Trust>, TlsConnector>>,
}

impl Dialer {
    /// Shows `own` to kubelets, whose certificates `authority` has signed, and `front_proxy` to extension servers.
    pub fn new(own: &PemPair, authority: &str, front_proxy: PemPair) -> Result<Self> {
        let (chain, key) = own.to_der()?;
        let kubelets = ClientConfig::builder()
            .with_root_certificates(roots(authority)?)
            .with_client_auth_cert(chain, key)?;
        let anyone = unverified().with_no_client_auth();
        Ok(Self {
            kubelets: Arc::new(kubelets).into(),
            anyone: Arc::new(anyone).into(),
            front_proxy,
            extensions: Mutex::default(),
        })
    }

    async fn open(&self, backend: &Backend) -> io::Result<Box<dyn Duplex>> {
        let stream = TcpStream::connect((backend.host.as_str(), backend.port)).await?;
        stream.set_nodelay(true)?;
        let (connector, name) = match &backend.tls {
            Tls::None => return Ok(Box::new(stream)),
            Tls::Kubelet => (self.kubelets.clone(), &backend.host),
            Tls::Any => (self.anyone.clone(), &backend.host),
            Tls::Extension(trust) => (self.extension(trust)?, &trust.name),
        };
        let name = ServerName::try_from(name.clone()).map_err(io::Error::other)?;
        Ok(Box::new(connector.connect(name, stream).await?))
    }

    fn extension(&self, trust: &Arc<Trust>) -> io::Result<TlsConnector> {
        let mut known = self.extensions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = known.get(trust) {
            return Ok(connector.clone());
        }
        let connector = self.new_extension(trust).map_err(io::Error::other)?;
        if known.len() >= TRUSTS_MAX {
            known.clear();
        }
        known.insert(trust.clone(), connector.clone());
        Ok(connector)
    }

    fn new_extension(&self, trust: &Trust) -> Result<TlsConnector> {
        let builder = match trust.unverified {
            true => unverified(),
            false => {
                let roots = trusted(trust)?;
                let usual = WebPkiServerVerifier::builder(roots).build()?;
                let named = CertificateDer::pem_slice_iter(&trust.authorities);
                let named = named.filter_map(Result::ok).map(CertificateDer::into_owned).collect();
                let verifier = Arc::new(OrItself { usual, named });
                ClientConfig::builder().dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let config = match &trust.shows {
            Shows::Nothing => builder.with_no_client_auth(),
            Shows::FrontProxy => {
                let (chain, key) = self.front_proxy.to_der()?;
                builder.with_client_auth_cert(chain, key)?
            }
            Shows::Own(pair) => {
                let (chain, key) = der(pair)?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        Ok(Arc::new(config).into())
    }
}

/// A client's certificate and key as the handshake wants them.
fn der(pair: &ClientPair) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = CertificateDer::pem_slice_iter(&pair.chain).collect::<Result<Vec<_>, _>>();
    let chain = chain.context("the client certificate")?;
    anyhow::ensure!(!chain.is_empty(), "there is no certificate in the client certificate");
    let key = PrivateKeyDer::from_pem_slice(&pair.key).context("the client key")?;
    Ok((chain, key))
}

/// Whether a client's certificate and key can be shown.
pub fn check_client(pair: &ClientPair) -> Result<()> {
    let (chain, key) = der(pair)?;
    unverified().with_client_auth_cert(chain, key).context("the client certificate and its key")?;
    Ok(())
}

fn unverified() -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(TakeAny))
}

/// Verifies a program outside by those that a registration names; one that is named itself vouches for itself.
///
/// Many a webhook shows the very certificate that its `caBundle` holds, made in one step and marked as an authority's: upstream
/// takes it, the usual verification does not.
#[derive(Debug)]
struct OrItself {
    usual: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
}

impl OrItself {
    /// Whether a certificate that is trusted itself is good now, and for the name.
    fn vouches(
        &self,
        own: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let bad = |why: CertificateError| rustls::Error::InvalidCertificate(why);
        let validity = api::auth::pki::validity_of_der(own);
        let (from, until) = validity.ok_or_else(|| bad(CertificateError::BadEncoding))?;
        let second = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if second < from.as_second() {
            return Err(bad(CertificateError::NotValidYet));
        }
        if second > until.as_second() {
            return Err(bad(CertificateError::Expired));
        }
        verify_server_name(&ParsedCertificate::try_from(own)?, name)
    }
}

impl ServerCertVerifier for OrItself {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let usual = self.usual.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if usual.is_err() && self.named.iter().any(|named| named == end_entity) {
            return self.vouches(end_entity, server_name, now).map(|()| ServerCertVerified::assertion());
        }
        usual
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// The authorities that a registration names, or those that the machine trusts.
fn trusted(trust: &Trust) -> Result<Arc<RootCertStore>> {
    let mut roots = RootCertStore::empty();
    if trust.authorities.is_empty() {
        // What the machine cannot read of its own store it does not trust.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(Arc::new(roots));
    }
    for certificate in CertificateDer::pem_slice_iter(&trust.authorities) {
        roots.add(certificate.context("the caBundle")?)?;
    }
    anyhow::ensure!(!roots.is_empty(), "there is no certificate in the caBundle");
    Ok(Arc::new(roots))
}

#[async_trait]
impl Dial for Dialer {
    async fn dial(&self, backend: &Backend) -> io::Result<Box<dyn Duplex>> {
        tokio::time::timeout(DIAL_PATIENCE, self.open(backend))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }
}

/// Takes any certificate: a proxied pod's `https:` is the pod's own affair, as upstream has it.
#[derive(Debug)]
struct TakeAny;

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cipher_is_left_out_and_the_shorter_aes_comes_first() {
        let (usual, ours) = (aws_lc_rs::default_provider().cipher_suites, swift().cipher_suites);
        assert_eq!(ours[0].suite(), CipherSuite::TLS13_AES_128_GCM_SHA256);
        assert!(usual.len() == ours.len() && usual.iter().all(|suite| ours.contains(suite)));
    }
}
