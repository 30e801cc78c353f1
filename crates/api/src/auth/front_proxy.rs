//! A front proxy speaks for others: it has proved who they are, and says so in headers.
//!
//! It is believed by its certificate alone, which an authority of its own has signed. The headers of anybody else are
//! no more than headers, and the certificates of that authority stand for no user.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::{AUTHENTICATED, Identity, Unauthorized, from_certificate};

/// How the headers begin that say more of a user.
const EXTRA: &str = "x-remote-extra-";

/// How a front proxy is known.
#[derive(Clone)]
pub struct FrontProxy {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Arc<[String]>,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Nobody who showed a certificate.
    Nobody,
    /// The user that a certificate names.
    User(Identity),
    /// A front proxy, by the name in its certificate.
    FrontProxy(String),
}

/// An authority that verifies nothing.
#[derive(Debug, thiserror::Error)]
#[error("the front proxy's authority cannot be used: {0}")]
pub struct BadAuthority(String);

impl FrontProxy {
    /// One whose certificate has one of `names` and was signed by the authority, given as PEM.
    pub fn new(authority: &str, names: &[&str]) -> Result<Self, BadAuthority> {
        let bad = |why: &dyn std::fmt::Display| BadAuthority(why.to_string());
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(certificate.map_err(|why| bad(&why))?).map_err(|why| bad(&why))?;
        }
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|why| bad(&why))?;
        Ok(Self { verifier, names: names.iter().map(|&name| name.to_owned()).collect() })
    }

    /// Whose certificate a connection showed.
    pub fn peer(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Peer {
        let Some((own, between)) = chain.split_first() else { return Peer::Nobody };
        let seconds = u64::try_from(now.as_second()).unwrap_or(0);
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let is_proxy = self.verifier.verify_client_cert(own, between, now).is_ok();
        match (is_proxy, from_certificate(own)) {
            (true, named) => Peer::FrontProxy(named.map(|named| named.name).unwrap_or_default()),
            (false, Some(user)) => Peer::User(user),
            (false, None) => Peer::Nobody,
        }
    }

    /// For whom a front proxy of this name speaks; `None` when it speaks for nobody.
    pub fn spoken_for(&self, name: &str, headers: &HeaderMap) -> Result<Option<Identity>, Unauthorized> {
        let all = |name: &str| -> Vec<String> {
            let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
            values.filter(|value| !value.is_empty()).map(str::to_owned).collect()
        };
        let Some(user) = all("x-remote-user").into_iter().next() else { return Ok(None) };
        if !self.names.iter().any(|own| own == name) {
            tracing::debug!(name, "a front proxy of another name is not believed");
            return Err(Unauthorized);
        }
        let mut groups = all("x-remote-group");
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        let mut extra = BTreeMap::new();
        for header in headers.keys().filter(|header| header.as_str().starts_with(EXTRA)) {
            let key = percent_decode_str(&header.as_str()[EXTRA.len()..]).decode_utf8_lossy().into_owned();
            extra.insert(key, all(header.as_str()));
        }
        let uid = all("x-remote-uid").into_iter().next().unwrap_or_default();
        Ok(Some(Identity { name: user, uid, groups, extra }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::pki::{self, PemPair, Purpose};
    use super::*;

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).expect("a fixed time")
    }

    fn peer(proxy: &FrontProxy, authority: &PemPair, name: &str) -> Peer {
        let pair = pki::issue(authority, name, "", &Purpose::Client, now()).expect("a good authority");
        proxy.peer(&pair.to_der().expect("own PEM").0, now())
    }

    #[test]
    fn only_the_certificate_of_its_own_authority_makes_a_front_proxy() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (front, users) = (pki::new_authority("front", now()), pki::new_authority("users", now()));
        let (front, users) = (front.expect("keys can be drawn"), users.expect("keys can be drawn"));
        let proxy = FrontProxy::new(&front.cert, &["front-proxy-client"]).expect("one authority");
        assert_eq!(peer(&proxy, &front, "front-proxy-client"), Peer::FrontProxy("front-proxy-client".into()));
        // A user cannot take its name, and its authority names no users.
        let user = Identity::user("front-proxy-client", &[]);
        assert_eq!(peer(&proxy, &users, "front-proxy-client"), Peer::User(user));
        assert_eq!(peer(&proxy, &front, "ann"), Peer::FrontProxy("ann".into()));
        assert_eq!(proxy.peer(&[], now()), Peer::Nobody);
    }

    #[test]
    fn a_front_proxy_says_who_asks() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let front = pki::new_authority("front", now()).expect("keys can be drawn");
        let proxy = FrontProxy::new(&front.cert, &["front-proxy-client"]).expect("one authority");
        let mut headers = HeaderMap::new();
        assert!(matches!(proxy.spoken_for("front-proxy-client", &headers), Ok(None)));
        for (name, value) in [
            ("x-remote-user", "ann"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-a%2fb", "c"),
        ] {
            headers.append(name, value.parse().expect("a good header"));
        }
        let Ok(Some(who)) = proxy.spoken_for("front-proxy-client", &headers) else {
            panic!("it speaks for ann")
        };
        assert_eq!((who.name.as_str(), who.groups.join(" ")), ("ann", format!("a b {AUTHENTICATED}")));
        assert_eq!(who.extra["a/b"], ["c"]);
        assert!(proxy.spoken_for("ann", &headers).is_err());
    }
}
