//! Tokens of an OpenID Connect provider (OpenID Connect Core 1.0), as upstream's `--oidc-*` settings take them.
//!
//! The provider's keys are found by its discovery document and read again when a token names one that is not known, but
//! not more often than [`KEYS_REST`]. Times are compared here, not in the library, which would read a clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::{Host, Moment};
use jiff::Timestamp;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use model::Tree;

use super::{ask, given};
use crate::auth::Identity;
use crate::outbound::{Callee, Outbound};

/// How long the keys are not read again, though a token names one that is not known: a stranger with made-up tokens must not
/// make us ask the provider all the time, and its new key must be taken soon.
const KEYS_REST: Duration = Duration::from_secs(10);
/// How long keys are used without being read again: one that the provider takes back is to be refused within the hour.
const KEYS_TIME: Duration = Duration::from_secs(3600);
/// How long a provider that did not answer is let be, before anything is known of it: users wait at their first try.
const FAILED_REST: Duration = Duration::from_secs(1);
/// The longest token that is looked at, in bytes: some carry hundreds of groups.
const TOKEN_LEN_MAX: usize = 64 * 1024;
/// How far a provider's clock may be ahead, in seconds, for `nbf`: upstream's library has five minutes.
const NOT_BEFORE_LEEWAY: i64 = 300;

/// How a provider's tokens are taken.
#[derive(Debug, Clone, Default)]
pub struct OidcSettings {
    /// The provider's URL, as its tokens name it; https.
    pub issuer_url: String,
    /// For whom its tokens have to be meant.
    pub client_id: String,
    /// Which claim is the user's name.
    pub username_claim: String,
    /// What is put before it; `-` for nothing; unless given the issuer's URL and `#`, and nothing before an email address.
    pub username_prefix: Option<String>,
    /// Which claim holds the groups.
    pub groups_claim: Option<String>,
    /// What is put before each.
    pub groups_prefix: String,
    /// What other claims must say.
    pub required_claims: BTreeMap<String, String>,
    /// The authorities that may have signed the provider's certificate, as PEM; empty for those that the machine trusts.
    pub authorities: Vec<u8>,
    /// By which algorithms tokens may be signed.
    pub algorithms: Vec<String>,
}

pub struct Oidc {
    settings: OidcSettings,
    algorithms: Vec<Algorithm>,
    outbound: Arc<Outbound>,
    /// Guards the keys while they are cloned or replaced.
    keys: Mutex<Keys>,
}

#[derive(Default, Clone)]
struct Keys {
    set: Option<Arc<JwkSet>>,
    read_at: Option<Moment>,
}

impl Oidc {
    pub fn new(settings: OidcSettings, outbound: Arc<Outbound>) -> Result<Self, String> {
        if !settings.issuer_url.starts_with("https://") {
            return Err(format!("the OIDC issuer {:?} must be an https URL", settings.issuer_url));
        }
        let algorithms = settings.algorithms.iter().map(|name| match name.as_str() {
            // Those by which a key that all know would sign are none.
            "RS256" | "RS384" | "RS512" | "ES256" | "ES384" | "PS256" | "PS384" | "PS512" => {
                name.parse().map_err(|_| format!("unsupported signing alg: {name:?}"))
            }
            other => Err(format!("unsupported signing alg: {other:?}")),
        });
        let algorithms = algorithms.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { settings, algorithms, outbound, keys: Mutex::default() })
    }

    pub async fn identify(&self, host: &Host, token: &str) -> Result<Identity, String> {
        if token.len() > TOKEN_LEN_MAX {
            return Err("oidc: the token is too long".into());
        }
        let told = |why: &dyn std::fmt::Display| format!("oidc: {why}");
        // Nobody is asked about what is no token of this provider's.
        let issuer = unverified_issuer(token).ok_or("oidc: this is no JSON Web Token")?;
        if issuer != self.settings.issuer_url {
            return Err(format!("oidc: it was issued by {issuer:?}"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|why| told(&why))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(format!("oidc: id token signed with unsupported algorithm {:?}", header.alg));
        }
        let kid = header.kid.as_deref();
        let keys = self.keys_with(host, kid).await?;
        let mut last = "no key of the provider's signed it".to_owned();
        for jwk in &keys.keys {
            if kid.is_some() && jwk.common.key_id.as_deref() != kid {
                continue;
            }
            let Ok(key) = DecodingKey::from_jwk(jwk) else { continue };
            match claims(token, &key, header.alg) {
                Ok(claims) => return identity(&self.settings, &claims, host.now()).map_err(|why| told(&why)),
                Err(why) => last = why,
            }
        }
        Err(told(&last))
    }

    /// The provider's keys, read again when they are old, or lack the one that is named.
    async fn keys_with(&self, host: &Host, kid: Option<&str>) -> Result<Arc<JwkSet>, String> {
        let now = host.moment();
        let known = self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let age = known.read_at.map(|at| now.since(at));
        let has = known.set.as_ref().map(|set| kid.is_none_or(|kid| set.find(kid).is_some()));
        if !is_to_be_read(has, age) {
            return known.set.ok_or_else(|| "oidc: the provider did not answer a moment ago".to_owned());
        }
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).read_at = Some(now);
        match self.read_keys(host).await {
            Ok(set) => {
                let set = Arc::new(set);
                self.keys.lock().unwrap_or_else(PoisonError::into_inner).set = Some(set.clone());
                Ok(set)
            }
            // While the provider is away, the keys that are known go on being good.
            Err(why) => {
                tracing::warn!(
                    why,
                    issuer = self.settings.issuer_url,
                    "the keys of the OIDC provider cannot be read"
                );
                known.set.ok_or(format!("oidc: {why}"))
            }
        }
    }

    async fn read_keys(&self, host: &Host) -> Result<JwkSet, String> {
        let base = self.settings.issuer_url.trim_end_matches('/');
        let get = async |url: &str| {
            let callee = Callee::at(url, &self.settings.authorities)?;
            let got = ask(&self.outbound, host, &callee, None).await;
            got.map_err(|why| format!("Get {url:?}: {why}"))
        };
        let discovery = get(&format!("{base}/.well-known/openid-configuration")).await?;
        let said = discovery["issuer"].as_str().unwrap_or_default();
        if said != self.settings.issuer_url {
            return Err(format!("the issuer calls itself {said:?}, not {:?}", self.settings.issuer_url));
        }
        let url = discovery["jwks_uri"].as_str().ok_or("the discovery document names no jwks_uri")?;
        let mut set = get(url).await?;
        // One key of a kind that we do not know must not cost us the others.
        if let Some(keys) = set["keys"].as_array_mut() {
            keys.retain(|key| serde_json::from_value::<jsonwebtoken::jwk::Jwk>(key.clone()).is_ok());
        }
        serde_json::from_value(set).map_err(|why| format!("the keys make no sense: {why}"))
    }
}

/// Whether the keys are to be read: `has` is whether those that are known, if any, have the one that is named; `age` when they
/// were last asked for.
fn is_to_be_read(has: Option<bool>, age: Option<Duration>) -> bool {
    let Some(age) = age else { return true };
    match has {
        None => age >= FAILED_REST,
        Some(true) => age > KEYS_TIME,
        Some(false) => age > KEYS_REST,
    }
}

fn unverified_issuer(token: &str) -> Option<String> {
    use base64::Engine;
    let payload = token.split('.').nth(1)?;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: Tree = serde_json::from_slice(&bytes).ok()?;
    claims["iss"].as_str().map(str::to_owned)
}

/// What a token says, once its signature is verified.
fn claims(token: &str, key: &DecodingKey, algorithm: Algorithm) -> Result<Tree, String> {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
    jsonwebtoken::decode::<Tree>(token, key, &validation)
        .map(|token| token.claims)
        .map_err(|why| why.to_string())
}

/// Who a verified token stands for.
fn identity(settings: &OidcSettings, claims: &Tree, now: Timestamp) -> Result<Identity, String> {
    let seconds = now.as_second();
    let number = |name: &str| claims[name].as_f64().map(|value| value as i64);
    match number("exp") {
        None => return Err("the token has no end".into()),
        Some(end) if seconds >= end => return Err("token is expired".into()),
        Some(_) => {}
    }
    if number("nbf").is_some_and(|from| seconds + NOT_BEFORE_LEEWAY < from) {
        return Err("the token is not good yet".into());
    }
    let is_meant = match &claims["aud"] {
        Tree::String(one) => *one == settings.client_id,
        Tree::Array(all) => all.iter().any(|one| one == settings.client_id.as_str()),
        _ => false,
    };
    if !is_meant {
        return Err(format!("expected audience {:?} got {}", settings.client_id, claims["aud"]));
    }
    for (claim, wanted) in &settings.required_claims {
        match claims.get(claim) {
            None => return Err(format!("required claim {claim} not present in ID token")),
            Some(Tree::String(said)) if said == wanted => {}
            Some(said) => {
                return Err(format!(
                    "required claim {claim} value does not match. Got = {said}, want = {wanted}"
                ));
            }
        }
    }
    given(username(settings, claims)?, groups(settings, claims)?)
}

fn username(settings: &OidcSettings, claims: &Tree) -> Result<String, String> {
    let claim = settings.username_claim.as_str();
    let name = claims[claim]
        .as_str()
        .ok_or_else(|| format!("parse username claims {claim:?}: claim not present"))?;
    let verified = &claims["email_verified"];
    if claim == "email" && !verified.is_null() && *verified != true {
        return Err("email not verified".into());
    }
    Ok(match settings.username_prefix.as_deref() {
        Some("-") => name.to_owned(),
        Some(prefix) => format!("{prefix}{name}"),
        None if claim == "email" => name.to_owned(),
        None => format!("{}#{name}", settings.issuer_url),
    })
}

fn groups(settings: &OidcSettings, claims: &Tree) -> Result<Vec<String>, String> {
    let Some(claim) = &settings.groups_claim else { return Ok(Vec::new()) };
    let named = match &claims[claim] {
        Tree::Null => Vec::new(),
        Tree::String(one) => vec![one.as_str()],
        Tree::Array(all) => {
            let names = all.iter().map(Tree::as_str).collect::<Option<Vec<_>>>();
            names.ok_or_else(|| format!("parse groups claim {claim:?}: expected strings"))?
        }
        _ => return Err(format!("parse groups claim {claim:?}: expected strings")),
    };
    Ok(named.into_iter().map(|name| format!("{}{name}", settings.groups_prefix)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> OidcSettings {
        OidcSettings {
            issuer_url: "https://issuer".into(),
            client_id: "kube".into(),
            username_claim: "sub".into(),
            groups_claim: Some("groups".into()),
            groups_prefix: "oidc:".into(),
            ..OidcSettings::default()
        }
    }

    fn check(settings: &OidcSettings, more: Tree, wanted: Result<(&str, &[&str]), &str>) {
        let mut claims = json!({"sub": "ann", "aud": "kube", "exp": 1000});
        for (key, value) in more.as_object().into_iter().flatten() {
            claims[key] = value.clone();
        }
        let got = identity(settings, &claims, Timestamp::from_second(500).expect("in range"));
        match (got, wanted) {
            (Ok(who), Ok((name, groups))) => {
                assert_eq!(
                    (who.name.as_str(), who.groups.iter().map(String::as_str).collect::<Vec<_>>()),
                    (name, groups.to_vec())
                );
            }
            (Err(why), Err(wanted)) => assert!(why.contains(wanted), "{why}"),
            (got, wanted) => panic!("{claims}: {got:?}, not {wanted:?}"),
        }
    }

    #[test]
    fn claims_become_a_user() {
        let own = settings();
        check(&own, json!({}), Ok(("https://issuer#ann", &["system:authenticated"])));
        check(
            &own,
            json!({"groups": ["a", "b"], "aud": ["x", "kube"]}),
            Ok(("https://issuer#ann", &["oidc:a", "oidc:b", "system:authenticated"])),
        );
        check(&own, json!({"groups": "a"}), Ok(("https://issuer#ann", &["oidc:a", "system:authenticated"])));
        check(&own, json!({"groups": [1]}), Err("expected strings"));
        check(&own, json!({"exp": 500}), Err("expired"));
        check(&own, json!({"exp": null}), Err("no end"));
        check(&own, json!({"nbf": 801}), Err("not good yet"));
        check(&own, json!({"aud": "other"}), Err("expected audience"));
        check(&own, json!({"sub": null}), Err("claim not present"));
        let email = OidcSettings { username_claim: "email".into(), ..settings() };
        check(&email, json!({"email": "a@b"}), Ok(("a@b", &["system:authenticated"])));
        check(&email, json!({"email": "a@b", "email_verified": false}), Err("not verified"));
        let required =
            OidcSettings { required_claims: BTreeMap::from([("hd".into(), "b".into())]), ..settings() };
        check(&required, json!({}), Err("not present"));
        check(&required, json!({"hd": "c"}), Err("does not match"));
        check(&required, json!({"hd": "b"}), Ok(("https://issuer#ann", &["system:authenticated"])));
    }

    #[test]
    fn keys_are_read_at_first_for_a_new_one_and_when_they_are_old_but_not_all_the_time() {
        let check = |has: Option<bool>, seconds: Option<u64>, wanted: bool| {
            assert_eq!(is_to_be_read(has, seconds.map(Duration::from_secs)), wanted, "{has:?} {seconds:?}");
        };
        check(None, None, true);
        check(None, Some(0), false);
        check(None, Some(1), true);
        check(Some(true), Some(3600), false);
        check(Some(true), Some(3601), true);
        check(Some(false), Some(10), false);
        check(Some(false), Some(11), true);
    }

    #[test]
    fn nobody_outside_gives_names_and_groups_of_the_clusters_own() {
        let bare =
            OidcSettings { username_prefix: Some("-".into()), groups_prefix: String::new(), ..settings() };
        check(&bare, json!({"groups": ["system:masters", "a"]}), Ok(("ann", &["a", "system:authenticated"])));
        check(&bare, json!({"sub": "system:admin"}), Err("no name that others may give"));
    }
}
