//! The cluster's keys, kept as PEM files in the data directory, and the kubeconfigs made from them.
//!
//! Only authorities and the token key are kept; certificates are issued anew at each start.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use api::auth::pki::{self, PemPair, Purpose};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::json;

/// The authorities and the token key of a cluster.
pub struct Keys {
    /// Signs server and client certificates.
    pub authority: PemPair,
    /// Signs the certificate with which the API server speaks to extension servers.
    pub front_proxy: PemPair,
    /// Signs service account tokens: one PEM after the other, the newest first.
    pub token_key: String,
}

impl Keys {
    /// Reads the keys in `dir`, or makes and keeps new ones where there are none.
    pub fn open(dir: &Path, now: Timestamp) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        fs::set_permissions(dir, Permissions::from_mode(0o700))?;
        let authority = |name: &str| -> Result<PemPair> {
            let key_path = dir.join(format!("{name}.key"));
            let cert_path = dir.join(format!("{name}.crt"));
            match (read(&cert_path)?, read(&key_path)?) {
                (Some(cert), Some(key)) => Ok(PemPair { cert, key }),
                (None, _) => {
                    // The certificate is written last: without it the pair was never used.
                    let pair = pki::new_authority(&format!("kintsugi-{name}"), now)?;
                    write_private(&key_path, &pair.key)?;
                    write_private(&cert_path, &pair.cert)?;
                    Ok(pair)
                }
                (Some(_), None) => anyhow::bail!(
                    "{} is missing while its certificate is there: restore it, or start with another data directory",
                    key_path.display()
                ),
            }
        };
        let token_path = dir.join(TOKEN_KEYS);
        let token_key = match read(&token_path)? {
            Some(key) => key,
            None => {
                let key = pki::new_token_key()?;
                write_private(&token_path, &key)?;
                key
            }
        };
        Ok(Self { authority: authority("ca")?, front_proxy: authority("front-proxy-ca")?, token_key })
    }

    /// A client certificate for a user in a group.
    pub fn client(&self, user: &str, group: &str, now: Timestamp) -> Result<PemPair> {
        Ok(pki::issue(&self.authority, user, group, &Purpose::Client, now)?)
    }

    /// The certificate by which extension servers know that a request comes from the API.
    pub fn front_proxy_client(&self, now: Timestamp) -> Result<PemPair> {
        Ok(pki::issue(&self.front_proxy, "front-proxy-client", "", &Purpose::Client, now)?)
    }

    /// A server certificate for these names and addresses.
    pub fn server(&self, user: &str, group: &str, names: Vec<String>, now: Timestamp) -> Result<PemPair> {
        Ok(pki::issue(&self.authority, user, group, &Purpose::Server(names), now)?)
    }

    /// How the server is verified, as a kubeconfig of nobody's.
    pub fn public_kubeconfig(&self, server: &str) -> String {
        let authority = STANDARD.encode(&self.authority.cert);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "kintsugi", "users": [],
            "clusters": [{"name": "kintsugi", "cluster": {"server": server, "certificate-authority-data": authority}}],
            "contexts": [{"name": "kintsugi", "context": {"cluster": "kintsugi", "user": ""}}],
        });
        format!("{config:#}\n")
    }

    /// A kubeconfig for a client certificate, in YAML's JSON subset with upstream's field order.
    pub fn kubeconfig(&self, server: &str, user: &str, client: &PemPair) -> String {
        let data = |text: &str| STANDARD.encode(text);
        let cluster = json!({"server": server, "certificate-authority-data": data(&self.authority.cert)});
        let login =
            json!({"client-certificate-data": data(&client.cert), "client-key-data": data(&client.key)});
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "kintsugi", "cluster": cluster}],
            "users": [{"name": user, "user": login}],
            "contexts": [{"name": "kintsugi", "context": {"cluster": "kintsugi", "user": user}}],
            "current-context": "kintsugi",
        });
        format!("{config:#}\n")
    }
}

/// The file of the keys that sign service account tokens.
const TOKEN_KEYS: &str = "tokens.key";
/// How many of them are kept: with one a month, what was signed half a year ago is good. More would make every token of a
/// stranger slower to refuse.
const TOKEN_KEYS_MAX: usize = 6;

/// Puts a new key before those that sign tokens, or lets go of all but the newest; gives those that are kept.
pub fn rotate_token_key(dir: &Path, drop_old: bool) -> Result<String> {
    const END: &str = "-----END PRIVATE KEY-----\n";
    let path = dir.join(TOKEN_KEYS);
    let old = read(&path)?.with_context(|| format!("{} is missing", path.display()))?;
    let fresh = if drop_old { String::new() } else { pki::new_token_key()? };
    let all = format!("{}\n{old}\n", fresh.trim_end()).replace("\n\n", "\n");
    let kept = if drop_old { 1 } else { TOKEN_KEYS_MAX };
    let kept: String =
        all.trim_start().split_inclusive(END).filter(|key| key.ends_with(END)).take(kept).collect();
    write_private(&path, &kept)?;
    Ok(kept)
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Writes a file that its owner alone may read: aside, synced, then renamed, so that it is whole or not there.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let aside = PathBuf::from(format!("{}.new", path.display()));
    let doing = || format!("cannot write {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&aside)
        .with_context(doing)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(doing)?;
    fs::rename(&aside, path).with_context(doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_key_stands_before_the_old_ones_until_those_are_dropped() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let now = Timestamp::from_second(1_800_000_000).expect("a fixed time");
        let first = Keys::open(dir.path(), now).expect("an empty folder").token_key;
        let two = rotate_token_key(dir.path(), false).expect("a key is there");
        assert!(two.ends_with(first.trim_start()) && two.matches("BEGIN").count() == 2, "{two}");
        assert_eq!(Keys::open(dir.path(), now).expect("the same folder").token_key, two);
        for _ in 0..9 {
            rotate_token_key(dir.path(), false).expect("a key is there");
        }
        let many = Keys::open(dir.path(), now).expect("the same folder").token_key;
        assert_eq!(many.matches("BEGIN").count(), TOKEN_KEYS_MAX);
        let one = rotate_token_key(dir.path(), true).expect("a key is there");
        assert!(many.starts_with(&one) && one.matches("BEGIN").count() == 1);
    }

    #[test]
    fn keys_are_made_once_and_read_again() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let now = Timestamp::from_second(1_800_000_000).expect("a fixed time");
        let first = Keys::open(dir.path(), now).expect("an empty folder");
        let again = Keys::open(dir.path(), now).expect("the same folder");
        assert_eq!((first.authority, first.token_key), (again.authority, again.token_key));
        fs::remove_file(dir.path().join("ca.key")).expect("it is there");
        assert!(Keys::open(dir.path(), now).is_err(), "half a pair must not be replaced silently");
    }
}
