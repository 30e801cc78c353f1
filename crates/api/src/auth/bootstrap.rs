//! Bootstrap tokens: short passwords by which new machines join, kept as Secrets in `kube-system`.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use model::Tree;
use model::tree::text;
use sha2::{Digest, Sha256};

use super::{AUTHENTICATED, Identity};

/// Where the Secrets of tokens lie.
pub const NAMESPACE: &str = "kube-system";
/// Their type.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
/// What their names begin with.
const PREFIX: &str = "bootstrap-token-";
/// The group of everybody who has such a token.
pub const GROUP: &str = "system:bootstrappers";
const ID_LEN: usize = 6;
const SECRET_LEN: usize = 16;

/// Takes a token apart: six characters that name it, and sixteen that are secret. `None` for what is none.
pub fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    (id.len() == ID_LEN && secret.len() == SECRET_LEN && plain(id) && plain(secret)).then_some((id, secret))
}

/// The name of a token's Secret.
pub fn secret_name(id: &str) -> String {
    format!("{PREFIX}{id}")
}

/// A value of a Secret, as text; empty for none.
pub fn value(secret: &Tree, key: &str) -> String {
    let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap_or_default()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Whether a token's time is over.
pub fn is_expired(secret: &Tree, now: Timestamp) -> bool {
    match value(secret, "expiration").as_str() {
        "" => false,
        // A time that nobody can read is over.
        text => text.parse::<Timestamp>().map_or(true, |end| end <= now),
    }
}

/// Whom a token stands for, as its Secret says.
///
/// # Errors
/// Why it stands for nobody, for the log.
pub fn judge(stored: &Tree, id: &str, secret: &str, now: Timestamp) -> Result<Identity, String> {
    let no = |why: &str| Err(format!("bootstrap token {id}: {why}"));
    if text(stored, "type") != TYPE || stored["metadata"]["deletionTimestamp"].is_string() {
        return no("its Secret is none, or goes");
    }
    if value(stored, "token-id") != id || !is_same(&value(stored, "token-secret"), secret) {
        return no("it is not the one that is stored");
    }
    if is_expired(stored, now) {
        return no("it is expired");
    }
    if value(stored, "usage-bootstrap-authentication") != "true" {
        return no("it is not meant for authentication");
    }
    let mut groups = vec![GROUP.to_owned()];
    for group in
        value(stored, "auth-extra-groups").split(',').map(str::trim).filter(|group| !group.is_empty())
    {
        if !group.starts_with("system:bootstrappers:") {
            return no("it names a group that does not begin with system:bootstrappers:");
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    groups.push(AUTHENTICATED.to_owned());
    Ok(Identity { name: format!("system:bootstrap:{id}"), groups, ..Identity::default() })
}

/// The signature of a text by a token (RFC 7515, detached, HS256): who knows the token can tell that it is not forged.
pub fn signature(id: &str, secret: &str, text: &str) -> String {
    let head = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{id}"}}"#));
    let body = URL_SAFE_NO_PAD.encode(text);
    let mac = hmac(secret.as_bytes(), format!("{head}.{body}").as_bytes());
    format!("{head}..{}", URL_SAFE_NO_PAD.encode(mac))
}

/// RFC 2104 with SHA-256; the key is shorter than a block.
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut padded = [0; BLOCK];
    padded[..key.len().min(BLOCK)].copy_from_slice(&key[..key.len().min(BLOCK)]);
    let with = |pad: u8| padded.map(|byte| byte ^ pad);
    let inner = Sha256::new().chain_update(with(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(with(0x5c)).chain_update(inner).finalize().into()
}

/// Compares without telling by its time how much is right.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |seen, (a, b)| seen | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(change: &[(&str, &str)], wanted: Result<&str, &str>) {
        let mut data = json!({});
        for (key, value) in [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2030-01-01T00:00:00Z"),
        ]
        .iter()
        .chain(change)
        {
            data[key] = json!(STANDARD.encode(value));
        }
        let stored = json!({"type": TYPE, "data": data});
        let now = "2029-01-01T00:00:00Z".parse().expect("a fixed time");
        let said = judge(&stored, "abcdef", "0123456789abcdef", now);
        let said = said.map(|who| format!("{} {}", who.name, who.groups.join(",")));
        let said = said.as_ref().map(String::as_str).map_err(|why| why.as_str());
        match (said, wanted) {
            (Err(said), Err(wanted)) => assert!(said.contains(wanted), "{said}"),
            (said, wanted) => assert_eq!(said, wanted),
        }
    }

    #[test]
    fn a_token_is_what_its_secret_says_in_its_time() {
        let all = "system:bootstrap:abcdef system:bootstrappers,system:authenticated";
        check(&[], Ok(all));
        let more = "system:bootstrap:abcdef system:bootstrappers,system:bootstrappers:x,system:authenticated";
        check(&[("auth-extra-groups", "system:bootstrappers:x")], Ok(more));
        check(&[("auth-extra-groups", "system:masters")], Err("names a group"));
        check(&[("token-secret", "0123456789abcdeX")], Err("not the one"));
        check(&[("expiration", "2029-01-01T00:00:00Z")], Err("expired"));
        check(&[("expiration", "soon")], Err("expired"));
        check(&[("expiration", "")], Ok(all));
        check(&[("usage-bootstrap-authentication", "false")], Err("not meant"));
    }

    #[test]
    fn a_token_signs_as_the_standard_says() {
        // RFC 4231, case 2.
        let mac: String =
            hmac(b"Jefe", b"what do ya want for nothing?").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(mac, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        let signed = signature("abcdef", "0123456789abcdef", "x");
        assert_eq!((signed.matches('.').count(), signed.contains("..")), (2, true));
        assert_ne!(signed, signature("abcdef", "0123456789abcdef", "y"));
    }

    #[test]
    fn tokens_have_one_form() {
        assert_eq!(split("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for bad in ["abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde/"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
