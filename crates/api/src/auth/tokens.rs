//! Service account tokens: JSON Web Tokens bound to an object, an audience and a time (KEP-1205), signed with ES256.
//!
//! Signing and verifying take the time as an argument; whether the objects that a token is bound to still live is
//! for `authenticate` to ask.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::pki::{PkiError, token_public_point};

/// How far the clocks of issuer and reader may differ, in seconds.
const LEEWAY_SECONDS: i64 = 10;
/// The longest token that is looked at, in bytes; ours are below 2 KiB.
const TOKEN_LEN_MAX: usize = 16 * 1024;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom it is meant for.
    pub aud: Vec<String>,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// When it was issued.
    pub iat: i64,
    /// From when it is good.
    pub nbf: i64,
    /// Who issued it.
    pub iss: String,
    /// Its own id.
    pub jti: String,
    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub sub: String,
    /// What it is bound to.
    #[serde(rename = "kubernetes.io")]
    pub bound: Bound,
}

/// What a token is bound to: it ends with these objects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The namespace.
    pub namespace: String,
    /// The service account.
    pub serviceaccount: Ref,
    /// The pod, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Ref>,
    /// The secret, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Ref>,
    /// The node, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Ref>,
}

/// An object by name and uid.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ref {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// Why a token is not accepted. The caller learns no more than "unauthorized"; the log learns this.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    /// Not one of ours: another authenticator may know it.
    #[error("not a token of this cluster: {0}")]
    Foreign(String),
    /// One of ours, and no longer (or not yet) good.
    #[error("the token is not good at this time")]
    Expired,
    /// One of ours, for somebody else.
    #[error("the token is meant for {0:?}")]
    Audience(Vec<String>),
}

/// Signs tokens with the newest key, and verifies them with all.
pub struct Tokens {
    /// Guards the keys, the newest first, while one is used or they are changed.
    keys: RwLock<Vec<Arc<SigningKey>>>,
    issuer: String,
}

struct SigningKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
    point: Vec<u8>,
    id: String,
}

/// What ends a key in a file of several.
const KEY_END: &str = "-----END PRIVATE KEY-----";

impl SigningKey {
    fn read(key: &str) -> Result<Self, PkiError> {
        let bad = |source| PkiError::Unusable { what: "the token key", source };
        let point = token_public_point(key)?;
        if point.len() != 65 {
            return Err(bad("not a key on the curve P-256".into()));
        }
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(key.as_bytes()).map_err(|e| bad(e.into()))?,
            decoding: DecodingKey::from_ec_components(&x, &y).map_err(|e| bad(e.into()))?,
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(&point)),
            point,
        })
    }

    /// The public key (RFC 7517).
    fn published(&self) -> Value {
        json!({
            "use": "sig", "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(&self.point[1..33]), "y": URL_SAFE_NO_PAD.encode(&self.point[33..]),
        })
    }
}

fn read_keys(keys: &str) -> Result<Vec<Arc<SigningKey>>, PkiError> {
    let blocks = keys.split_inclusive(KEY_END).filter(|block| block.ends_with(KEY_END));
    let read = blocks.map(|block| SigningKey::read(block.trim_start()).map(Arc::new));
    let read = read.collect::<Result<Vec<_>, _>>()?;
    if read.is_empty() {
        return Err(PkiError::Unusable { what: "the token key", source: "there is no key".into() });
    }
    Ok(read)
}

impl Tokens {
    /// Takes the keys (PKCS #8 PEM, P-256, one after the other, the newest first) and the issuer's URL.
    pub fn new(keys: &str, issuer: impl Into<String>) -> Result<Self, PkiError> {
        Ok(Self { keys: RwLock::new(read_keys(keys)?), issuer: issuer.into() })
    }

    /// Takes other keys in the place of all.
    pub fn replace(&self, keys: &str) -> Result<(), PkiError> {
        let keys = read_keys(keys)?;
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        Ok(())
    }

    fn keys(&self) -> Vec<Arc<SigningKey>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The key that signs.
    fn newest(&self) -> Arc<SigningKey> {
        self.keys().swap_remove(0)
    }

    /// The issuer's URL.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Signs; the claims' issuer is overwritten with ours.
    pub fn sign(&self, mut claims: Claims) -> Result<String, PkiError> {
        claims.iss.clone_from(&self.issuer);
        let mut header = Header::new(Algorithm::ES256);
        let key = self.newest();
        header.kid = Some(key.id.clone());
        jsonwebtoken::encode(&header, &claims, &key.encoding)
            .map_err(|e| PkiError::Unusable { what: "the token key", source: e.into() })
    }

    /// Verifies signature, issuer, time and audience; any one of `audiences` will do.
    pub fn verify(&self, token: &str, audiences: &[&str], now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(TokenError::Foreign("too long".into()));
        }
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_issuer(&[&self.issuer]);
        validation.required_spec_claims.clear();
        // The library would read a clock: times and audience are checked below.
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        // A token names the key that signed it, unless it is older than names of keys are.
        let named = jsonwebtoken::decode_header(token).ok().and_then(|header| header.kid);
        let fitting =
            self.keys().into_iter().filter(|key| named.as_ref().is_none_or(|named| *named == key.id));
        let mut claims = Err(TokenError::Foreign("none of our keys signed it".into()));
        for key in fitting {
            claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation)
                .map(|decoded| decoded.claims)
                .map_err(|e| TokenError::Foreign(e.to_string()));
            if claims.is_ok() {
                break;
            }
        }
        let claims = claims?;
        let seconds = now.as_second();
        if seconds >= claims.exp + LEEWAY_SECONDS || seconds + LEEWAY_SECONDS < claims.nbf {
            return Err(TokenError::Expired);
        }
        if !claims.aud.iter().any(|own| audiences.contains(&own.as_str())) {
            return Err(TokenError::Audience(claims.aud));
        }
        Ok(claims)
    }

    /// The public keys, as `/openid/v1/jwks` serves them (RFC 7517).
    pub fn key_set(&self) -> Value {
        json!({"keys": self.keys().iter().map(|key| key.published()).collect::<Vec<_>>()})
    }

    /// The discovery document, as `/.well-known/openid-configuration` serves it (OpenID Connect Discovery 1.0).
    pub fn discovery(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", self.issuer),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::pki::new_token_key;

    fn claims(exp: i64) -> Claims {
        Claims {
            aud: vec!["api".into()],
            exp,
            iat: 100,
            nbf: 100,
            iss: String::new(),
            jti: "1".into(),
            sub: "system:serviceaccount:default:web".into(),
            bound: Bound::default(),
        }
    }

    fn check(at: i64, audience: &str, wanted: Result<(), TokenError>) {
        let tokens = Tokens::new(&new_token_key().expect("keys can be drawn"), "https://k").expect("own key");
        let token = tokens.sign(claims(1000)).expect("own key");
        let now = Timestamp::from_second(at).expect("in range");
        assert_eq!(tokens.verify(&token, &[audience], now).map(|_| ()), wanted);
    }

    #[test]
    fn a_token_is_good_in_its_time_for_its_audience() {
        check(500, "api", Ok(()));
        check(1011, "api", Err(TokenError::Expired));
        check(50, "api", Err(TokenError::Expired));
        check(500, "vault", Err(TokenError::Audience(vec!["api".into()])));
    }

    #[test]
    fn the_newest_key_signs_and_older_ones_are_good_until_they_are_dropped() {
        let (old, new) =
            (new_token_key().expect("keys can be drawn"), new_token_key().expect("keys can be drawn"));
        let tokens = Tokens::new(&old, "https://k").expect("own key");
        let now = Timestamp::from_second(500).expect("in range");
        let before = tokens.sign(claims(1000)).expect("own key");
        tokens.replace(&format!("{new}\n{old}")).expect("own keys");
        let after = tokens.sign(claims(1000)).expect("own key");
        assert_eq!(tokens.key_set()["keys"].as_array().map(Vec::len), Some(2));
        let good = |token: &str| tokens.verify(token, &["api"], now).is_ok();
        assert!(good(&before) && good(&after));
        let only_new = Tokens::new(&new, "https://k").expect("own key");
        assert!(only_new.verify(&after, &["api"], now).is_ok(), "the newest signed it");
        tokens.replace(&new).expect("own key");
        assert!(!good(&before) && good(&after));
        assert!(tokens.replace("nothing").is_err() && good(&after), "the keys stay");
    }

    #[test]
    fn a_token_of_another_key_is_foreign() {
        let key = || Tokens::new(&new_token_key().expect("keys can be drawn"), "https://k").expect("own key");
        let token = key().sign(claims(1000)).expect("own key");
        let now = Timestamp::from_second(500).expect("in range");
        assert!(matches!(key().verify(&token, &["api"], now), Err(TokenError::Foreign(_))));
    }
}
