//! The cluster's own certificates: one authority for servers and clients, one for the front proxy, one key for tokens.
//!
//! Pure but for the drawing of keys: whoever wires the house keeps the PEM texts in files. Certificates of a year are
//! issued anew at each start, so nothing expires in a running cluster that is restarted now and then.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

/// How long an authority is good for, in years: longer than any cluster that is not rebuilt.
const AUTHORITY_YEARS: i16 = 10;
/// How long an issued certificate is good for, in years; servers and agents get new ones at each start.
const LEAF_YEARS: i16 = 1;

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key or certificate is not what it should be.
    #[error("cannot use {what}")]
    Unusable {
        /// Which one.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn unusable<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    what: &'static str,
) -> impl FnOnce(E) -> PkiError {
    move |source| PkiError::Unusable { what, source: source.into() }
}

/// A certificate and its key, as PEM texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PemPair {
    /// The certificate.
    pub cert: String,
    /// The private key (PKCS #8).
    pub key: String,
}

impl PemPair {
    /// The same in the form that TLS takes.
    pub fn to_der(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let certs = CertificateDer::pem_slice_iter(self.cert.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(unusable("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(unusable("private key"))?;
        Ok((certs, key))
    }
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A server that is reached under these DNS names and addresses.
    Server(Vec<String>),
    /// A client.
    Client,
}

/// Makes a new authority.
pub fn new_authority(name: &str, now: Timestamp) -> Result<PemPair, PkiError> {
    let mut params = params(name, "", now, AUTHORITY_YEARS);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().map_err(unusable("a new key"))?;
    let cert = params.self_signed(&key).map_err(unusable("a new authority"))?;
    Ok(PemPair { cert: cert.pem(), key: key.serialize_pem() })
}

/// Makes a certificate for a server under these names that is its own authority, as tools make it in one step.
pub fn new_self_signed(names: &[&str], now: Timestamp) -> Result<PemPair, PkiError> {
    let mut params = params("server", "", now, LEAF_YEARS);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    params.subject_alt_names =
        CertificateParams::new(names).map_err(unusable("the server's names"))?.subject_alt_names;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().map_err(unusable("a new key"))?;
    let cert = params.self_signed(&key).map_err(unusable("a new certificate"))?;
    Ok(PemPair { cert: cert.pem(), key: key.serialize_pem() })
}

/// Issues a certificate: `name` becomes the common name (a client's user), `group` the organization (`""`: none).
pub fn issue(
    authority: &PemPair,
    name: &str,
    group: &str,
    purpose: &Purpose,
    now: Timestamp,
) -> Result<PemPair, PkiError> {
    let mut params = params(name, group, now, LEAF_YEARS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    match purpose {
        Purpose::Server(names) => {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = CertificateParams::new(names.clone())
                .map_err(unusable("the server's names"))?
                .subject_alt_names;
        }
        Purpose::Client => params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
    }
    let issuer_key = KeyPair::from_pem(&authority.key).map_err(unusable("the authority's key"))?;
    let issuer = Issuer::from_ca_cert_pem(&authority.cert, issuer_key)
        .map_err(unusable("the authority's certificate"))?;
    let key = KeyPair::generate().map_err(unusable("a new key"))?;
    let cert = params.signed_by(&key, &issuer).map_err(unusable("a new certificate"))?;
    Ok(PemPair { cert: cert.pem(), key: key.serialize_pem() })
}

/// How an authority is told from others: the hash of its public key, as kubeadm writes it.
pub fn pin(authority: &str) -> Result<String, PkiError> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(authority.as_bytes())
        .map_err(unusable("the authority's certificate"))?;
    let cert = pem.parse_x509().map_err(unusable("the authority's certificate"))?;
    let hash = Sha256::digest(cert.public_key().raw);
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{digits}"))
}

/// From when until when a certificate is good; `None` for what is none.
pub fn validity(cert: &str) -> Option<(Timestamp, Timestamp)> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(cert.as_bytes()).ok()?;
    validity_of_der(&pem.contents)
}

/// The same of one that is no PEM.
pub fn validity_of_der(cert: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let (_, cert) = x509_parser::parse_x509_certificate(cert).ok()?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((at(cert.validity().not_before)?, at(cert.validity().not_after)?))
}

/// Makes a new key for signing service account tokens (ES256), as PKCS #8 PEM.
pub fn new_token_key() -> Result<String, PkiError> {
    Ok(KeyPair::generate().map_err(unusable("a new key"))?.serialize_pem())
}

/// The public half of a token key: the 65 bytes of its uncompressed point (SEC 1).
pub fn token_public_point(key: &str) -> Result<Vec<u8>, PkiError> {
    let key = KeyPair::from_pem(key).map_err(unusable("the token key"))?;
    Ok(rcgen::PublicKeyData::der_bytes(&key).to_vec())
}

fn params(name: &str, group: &str, now: Timestamp, years: i16) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    if !group.is_empty() {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    let today = now.to_zoned(TimeZone::UTC).date();
    // A day of slack for clocks that run behind.
    let from = today.yesterday().unwrap_or(today);
    let ymd = |date: jiff::civil::Date, years: i16| {
        rcgen::date_time_ymd(i32::from(date.year() + years), date.month() as u8, date.day().min(28) as u8)
    };
    (params.not_before, params.not_after) = (ymd(from, 0), ymd(today, years));
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a fixed time")
    }

    #[test]
    fn a_client_certificate_names_user_and_groups_and_is_signed_by_the_authority() {
        let ca = new_authority("kintsugi-ca", now()).expect("keys can be drawn");
        let pair =
            issue(&ca, "admin", "system:masters", &Purpose::Client, now()).expect("the authority is good");
        let (certs, _) = pair.to_der().expect("own PEM");
        let (_, cert) = X509Certificate::from_der(&certs[0]).expect("own DER");
        let (_, pem) = x509_parser::pem::parse_x509_pem(ca.cert.as_bytes()).expect("own PEM");
        let authority = pem.parse_x509().expect("own DER");
        assert_eq!(cert.subject().to_string(), "CN=admin, O=system:masters");
        assert!(cert.verify_signature(Some(authority.public_key())).is_ok());
    }

    #[test]
    fn a_server_certificate_carries_its_names() {
        let ca = new_authority("kintsugi-ca", now()).expect("keys can be drawn");
        let names = Purpose::Server(vec!["localhost".into(), "10.96.0.1".into()]);
        let pair = issue(&ca, "api", "", &names, now()).expect("the authority is good");
        let (certs, _) = pair.to_der().expect("own PEM");
        let (_, cert) = X509Certificate::from_der(&certs[0]).expect("own DER");
        let names = cert.subject_alternative_name().expect("well formed").expect("present");
        assert_eq!(names.value.general_names.len(), 2);
    }
}
