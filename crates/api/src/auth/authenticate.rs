//! From a connection's certificate or a request's headers to an [`Identity`].

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderMap;
use jiff::Timestamp;
use model::Object;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::outside::Outside;
use super::tokens::{Claims, Ref, TokenError, Tokens};
use super::{AUTHENTICATED, FrontProxy, Identity, Peer, bootstrap};

/// How a request proves who it is from.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// Who the TLS client certificate names; the handshake has verified it against the cluster's authority.
    pub certificate: Option<Identity>,
    /// The token of an `Authorization: Bearer` header.
    pub bearer: Option<String>,
}

/// Looks an object up: resource, namespace, name → the object as it is.
pub type Lookup = Arc<dyn Fn(&str, &str, &str) -> Option<Object> + Send + Sync>;

/// Proves who asks.
#[derive(Clone)]
pub struct Authenticator {
    tokens: Arc<Tokens>,
    audiences: Arc<Vec<String>>,
    lookup: Lookup,
    front_proxy: Option<FrontProxy>,
    outside: Option<Arc<Outside>>,
}

/// The request's proof is no good: 401.
#[derive(Debug, thiserror::Error)]
#[error("unauthorized")]
pub struct Unauthorized;

impl Authenticator {
    /// Accepts client certificates, and tokens meant for any of `audiences`.
    pub fn new(tokens: Arc<Tokens>, audiences: Vec<String>, lookup: Lookup) -> Self {
        Self { tokens, audiences: Arc::new(audiences), lookup, front_proxy: None, outside: None }
    }

    /// Believes a front proxy as well.
    pub fn believing(self, front_proxy: FrontProxy) -> Self {
        Self { front_proxy: Some(front_proxy), ..self }
    }

    /// Asks those outside as well, about tokens that are none of ours.
    pub fn asking(self, outside: Option<Arc<Outside>>) -> Self {
        Self { outside, ..self }
    }

    /// Who is at the other end of a connection that showed these certificates; the handshake has verified them.
    pub fn peer(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Peer {
        match (&self.front_proxy, chain.first()) {
            (Some(front_proxy), _) => front_proxy.peer(chain, now),
            (None, Some(own)) => from_certificate(own).map_or(Peer::Nobody, Peer::User),
            (None, None) => Peer::Nobody,
        }
    }

    /// For whom a request with these headers speaks, by the certificate of its connection.
    pub fn named(&self, peer: Peer, headers: &HeaderMap) -> Result<Option<Identity>, Unauthorized> {
        match (peer, &self.front_proxy) {
            (Peer::User(user), _) => Ok(Some(user)),
            (Peer::FrontProxy(name), Some(front_proxy)) => front_proxy.spoken_for(&name, headers),
            _ => Ok(None),
        }
    }

    /// The keys that sign tokens.
    pub fn tokens(&self) -> &Arc<Tokens> {
        &self.tokens
    }

    /// The audiences of the API server itself.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Who asks. No proof at all is the anonymous user; a proof that is no good is refused.
    pub fn authenticate(&self, credentials: &Credentials, now: Timestamp) -> Result<Identity, Unauthorized> {
        if let Some(identity) = &credentials.certificate {
            return Ok(identity.clone());
        }
        let Some(token) = &credentials.bearer else { return Ok(Identity::anonymous()) };
        let audiences: Vec<&str> = self.audiences.iter().map(String::as_str).collect();
        self.token(token, &audiences, now).map(|(identity, _)| identity).map_err(|why| {
            tracing::debug!(%why, "token refused");
            Unauthorized
        })
    }

    /// The same, and asks those outside about a token that is none of ours.
    pub async fn authenticate_by_all(
        &self,
        credentials: &Credentials,
        now: Timestamp,
    ) -> Result<Identity, Unauthorized> {
        match (self.authenticate(credentials, now), &self.outside, &credentials.bearer) {
            (Err(_), Some(outside), Some(token)) => {
                let known = outside.identify(token, &self.audiences, &self.audiences).await;
                known.map(|(identity, _)| identity).map_err(|why| {
                    tracing::debug!(why, "a token that nobody outside knows");
                    Unauthorized
                })
            }
            (ended, ..) => ended,
        }
    }

    /// Those outside who know tokens as well.
    pub fn outside(&self) -> Option<&Arc<Outside>> {
        self.outside.as_ref()
    }

    /// Who a token stands for, and which of `audiences` it is meant for (TokenReview asks this too).
    pub fn token(
        &self,
        token: &str,
        audiences: &[&str],
        now: Timestamp,
    ) -> Result<(Identity, Vec<String>), TokenError> {
        if let Some((id, secret)) = bootstrap::split(token) {
            let stored = (self.lookup)("secrets", bootstrap::NAMESPACE, &bootstrap::secret_name(id));
            let stored = stored.and_then(|stored| stored.tree().ok()).ok_or(TokenError::Expired)?;
            let identity = bootstrap::judge(&stored, id, secret, now).map_err(TokenError::Foreign)?;
            let own = self.audiences.iter().filter(|own| audiences.contains(&own.as_str()));
            return Ok((identity, own.cloned().collect()));
        }
        let claims = self.tokens.verify(token, audiences, now)?;
        self.check_living(&claims)?;
        let fit = claims.aud.iter().filter(|own| audiences.contains(&own.as_str())).cloned().collect();
        Ok((service_account(&claims), fit))
    }

    /// A token ends with the objects that it is bound to.
    fn check_living(&self, claims: &Claims) -> Result<(), TokenError> {
        let bound = &claims.bound;
        let same = |resource: &str, namespace: &str, seen: &Ref| {
            (self.lookup)(resource, namespace, &seen.name).is_some_and(|object| object.uid() == seen.uid)
        };
        let lives = same("serviceaccounts", &bound.namespace, &bound.serviceaccount)
            && bound.pod.as_ref().is_none_or(|pod| same("pods", &bound.namespace, pod))
            && bound.secret.as_ref().is_none_or(|secret| same("secrets", &bound.namespace, secret));
        if lives { Ok(()) } else { Err(TokenError::Expired) }
    }
}

/// The user that a service account's token stands for (KEP-1205, KEP-4193).
fn service_account(claims: &Claims) -> Identity {
    let bound = &claims.bound;
    let mut extra = BTreeMap::new();
    let mut say = |key: &str, value: String| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), vec![value]);
    };
    say("credential-id", format!("JTI={}", claims.jti));
    if let Some(pod) = &bound.pod {
        say("pod-name", pod.name.clone());
        say("pod-uid", pod.uid.clone());
    }
    if let Some(node) = &bound.node {
        say("node-name", node.name.clone());
        say("node-uid", node.uid.clone());
    }
    Identity {
        name: claims.sub.clone(),
        uid: bound.serviceaccount.uid.clone(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", bound.namespace),
            AUTHENTICATED.to_owned(),
        ],
        extra,
    }
}

/// The user that a verified client certificate names: the common name, the organizations as groups.
pub fn from_certificate(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let mut groups: Vec<String> =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).map(str::to_owned).collect();
    groups.push(AUTHENTICATED.to_owned());
    (!name.is_empty()).then_some(Identity { name, groups, ..Identity::default() })
}

#[cfg(test)]
mod tests {
    use super::super::pki;
    use super::*;

    #[test]
    fn a_certificate_names_its_user() {
        let now = Timestamp::from_second(1_800_000_000).expect("a fixed time");
        let ca = pki::new_authority("ca", now).expect("keys can be drawn");
        let pair =
            pki::issue(&ca, "ann", "system:masters", &pki::Purpose::Client, now).expect("a good authority");
        let (certs, _) = pair.to_der().expect("own PEM");
        assert_eq!(from_certificate(&certs[0]), Some(Identity::user("ann", &["system:masters"])));
        assert_eq!(from_certificate(b"garbage"), None);
    }

    #[test]
    fn a_token_ends_with_the_pod_it_is_bound_to() {
        let now = Timestamp::from_second(500).expect("in range");
        let key = pki::new_token_key().expect("keys can be drawn");
        let tokens = Arc::new(Tokens::new(&key, "https://k").expect("own key"));
        let seen = |name: &str| Ref { name: name.into(), uid: format!("uid-{name}") };
        let bound = crate::auth::tokens::Bound {
            namespace: "default".into(),
            serviceaccount: seen("web"),
            pod: Some(seen("web-1")),
            ..Default::default()
        };
        let claims = Claims {
            aud: vec!["api".into()],
            exp: 1000,
            iat: 0,
            nbf: 0,
            iss: String::new(),
            jti: "7".into(),
            sub: "system:serviceaccount:default:web".into(),
            bound,
        };
        let token = tokens.sign(claims).expect("own key");
        let check = |pod_lives: bool| {
            let lookup: Lookup = Arc::new(move |resource, _, name| {
                let text = format!(r#"{{"metadata": {{"name": "{name}", "uid": "uid-{name}"}}}}"#);
                (resource != "pods" || pod_lives).then(|| Object::read(text.into()).expect("an object"))
            });
            let authenticator = Authenticator::new(tokens.clone(), vec!["api".into()], lookup);
            let credentials = Credentials { bearer: Some(token.clone()), ..Credentials::default() };
            authenticator.authenticate(&credentials, now).ok().map(|identity| identity.name)
        };
        assert_eq!(check(true).as_deref(), Some("system:serviceaccount:default:web"));
        assert_eq!(check(false), None);
    }
}
