//! How to reach an API server and as whom: given explicitly, or read from a kubeconfig file.
//!
//! Promises: everything comes from the file itself; what it asks for and we do not do (skipping verification, helper
//! programs, paths to other files unless the caller reads them) is an error, never a weaker connection. No file is opened here.

use std::collections::BTreeMap;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// An API server and an identity.
#[derive(Clone, PartialEq, Eq)]
pub struct Access {
    /// Where, such as `https://127.0.0.1:6443`.
    pub server: String,
    /// The certificates (PEM) of the authorities that the server's certificate must lead to.
    pub authority_pem: Vec<u8>,
    /// The name that the server's certificate must have, when it is not the host of `server`.
    pub server_name: Option<String>,
    /// As whom.
    pub identity: Identity,
}

/// Who asks.
#[derive(Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nobody in particular (`system:anonymous`).
    Anonymous,
    /// Who the client certificate names.
    Certificate {
        /// The certificate and those between it and the authority.
        chain_pem: Vec<u8>,
        /// Its private key.
        key_pem: Vec<u8>,
    },
    /// Who the bearer token names.
    Token(String),
    /// Who the bearer token names that is in this file now, for callers that read files.
    TokenFile(String),
}

/// Why an [`Access`] cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file is no kubeconfig.
    #[error("not a kubeconfig")]
    NotAKubeconfig(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The kubeconfig names something that it does not hold.
    #[error("the kubeconfig has no {what} named {name:?}")]
    Missing {
        /// A context, a cluster or a user.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The kubeconfig asks for something that is not done here.
    #[error("{field} is not supported: put the data into the file")]
    Unsupported {
        /// Which field.
        field: &'static str,
    },
    /// A part of it cannot be read, or does not fit the rest.
    #[error("cannot use {what}")]
    Unusable {
        /// Which part.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl AccessError {
    pub(crate) fn unusable(
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        AccessError::Unusable { what, source: source.into() }
    }
}

impl Access {
    /// Reads the current context of a kubeconfig, in YAML or JSON.
    pub fn from_kubeconfig(bytes: &[u8]) -> Result<Self, AccessError> {
        Self::from_kubeconfig_with(bytes, None)
    }

    /// The same, where `files` reads those that it names.
    pub fn from_kubeconfig_with(bytes: &[u8], files: Option<&Files>) -> Result<Self, AccessError> {
        let config = Config::read(bytes)?;
        let context = named(config.contexts, "context", &config.current_context)?.context;
        let cluster = named(config.clusters, "cluster", &context.cluster)?.cluster;
        let user = match context.user.as_str() {
            "" => User::default(),
            name => named(config.users, "user", name)?.user,
        };
        cluster.access(user.identity(files)?, files)
    }
}

/// Reads a file that a kubeconfig names by its path.
pub type Files<'a> = dyn Fn(&str) -> io::Result<Vec<u8>> + 'a;

/// All users of a kubeconfig, for callers that choose one by whom they ask.
pub struct Users {
    /// By their names.
    pub by_name: BTreeMap<String, Identity>,
    /// That of the current context, where there is one.
    pub current: Option<Identity>,
}

impl Users {
    /// Reads a kubeconfig, in YAML or JSON, and the files that it names by `files`.
    pub fn from_kubeconfig(bytes: &[u8], files: &Files) -> Result<Self, AccessError> {
        let config = Config::read(bytes)?;
        let mut by_name = BTreeMap::new();
        for user in config.users {
            by_name.insert(user.name, user.user.identity(Some(files))?);
        }
        let current = config.contexts.iter().find(|context| context.name == config.current_context);
        let current = current.and_then(|context| by_name.get(&context.context.user)).cloned();
        Ok(Self { by_name, current })
    }
}

impl Config {
    fn read(bytes: &[u8]) -> Result<Self, AccessError> {
        let text = std::str::from_utf8(bytes).map_err(|error| AccessError::NotAKubeconfig(error.into()))?;
        serde_saphyr::from_str(text).map_err(|error| AccessError::NotAKubeconfig(error.to_string().into()))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    #[serde(default)]
    certificate_authority_data: String,
    certificate_authority: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate_data: Option<String>,
    client_certificate: Option<String>,
    client_key_data: Option<String>,
    client_key: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    #[serde(flatten)]
    other: BTreeMap<String, serde::de::IgnoredAny>,
}

/// What a user entry may ask for that is not done here.
const USER_UNSUPPORTED: &[&str] =
    &["username", "password", "exec", "auth-provider", "as", "as-uid", "as-groups", "as-user-extra"];

impl Cluster {
    fn access(self, identity: Identity, files: Option<&Files>) -> Result<Access, AccessError> {
        let unsupported = [
            (self.insecure_skip_tls_verify, "insecure-skip-tls-verify"),
            (self.proxy_url.is_some(), "proxy-url"),
        ];
        if let Some((_, field)) = unsupported.into_iter().find(|(asked, _)| *asked) {
            return Err(AccessError::Unsupported { field });
        }
        let data = Some(self.certificate_authority_data).filter(|data| !data.is_empty());
        let authority_pem = part(data, self.certificate_authority, CERTIFICATE_AUTHORITY, files)?;
        let authority_pem = authority_pem.unwrap_or_default();
        Ok(Access { server: self.server, authority_pem, server_name: self.tls_server_name, identity })
    }
}

impl User {
    fn identity(self, files: Option<&Files>) -> Result<Identity, AccessError> {
        if let Some(&field) = USER_UNSUPPORTED.iter().find(|field| self.other.contains_key(**field)) {
            return Err(AccessError::Unsupported { field });
        }
        let chain = part(self.client_certificate_data, self.client_certificate, CLIENT_CERTIFICATE, files)?;
        let key = part(self.client_key_data, self.client_key, CLIENT_KEY, files)?;
        let token = match self.token_file.filter(|path| !path.is_empty()) {
            Some(_) if files.is_none() => return Err(AccessError::Unsupported { field: "tokenFile" }),
            Some(path) => Some(Identity::TokenFile(path)),
            None => self.token.map(Identity::Token),
        };
        match (chain, key, token) {
            (Some(chain_pem), Some(key_pem), _) => Ok(Identity::Certificate { chain_pem, key_pem }),
            (None, None, Some(token)) => Ok(token),
            (None, None, None) => Ok(Identity::Anonymous),
            _ => {
                Err(AccessError::unusable("client-certificate-data", "it needs client-key-data, and that it"))
            }
        }
    }
}

/// The names of a field that holds data, and of the one that says in which file they are.
type Names = (&'static str, &'static str);
const CERTIFICATE_AUTHORITY: Names = ("certificate-authority-data", "certificate-authority");
const CLIENT_CERTIFICATE: Names = ("client-certificate-data", "client-certificate");
const CLIENT_KEY: Names = ("client-key-data", "client-key");

/// What is given as data, or else in a file.
fn part(
    data: Option<String>,
    path: Option<String>,
    (holding, naming): Names,
    files: Option<&Files>,
) -> Result<Option<Vec<u8>>, AccessError> {
    match (data, path, files) {
        (None, None, _) => Ok(None),
        (Some(data), None, _) | (Some(data), Some(_), Some(_)) => decode(&data, holding).map(Some),
        (_, Some(_), None) => Err(AccessError::Unsupported { field: naming }),
        (None, Some(path), Some(read)) => {
            read(&path).map(Some).map_err(|error| AccessError::unusable(naming, error))
        }
    }
}

fn decode(data: &str, what: &'static str) -> Result<Vec<u8>, AccessError> {
    STANDARD.decode(data.trim()).map_err(|error| AccessError::unusable(what, error))
}

trait Named {
    fn name(&self) -> &str;
}

impl Named for NamedContext {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for NamedCluster {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for NamedUser {
    fn name(&self) -> &str {
        &self.name
    }
}

fn named<T: Named>(all: Vec<T>, what: &'static str, name: &str) -> Result<T, AccessError> {
    let missing = || AccessError::Missing { what, name: name.to_owned() };
    all.into_iter().find(|one| one.name() == name).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "
apiVersion: v1
kind: Config
current-context: here
contexts:
- name: here
  context: {cluster: c, user: admin}
clusters:
- name: c
  cluster:
    server: https://127.0.0.1:6443
    certificate-authority-data: Q0E=
users:
- name: admin
  user:
    client-certificate-data: Q0hBSU4=
    client-key-data: S0VZ
";

    fn check(text: &str, said: &str) {
        match Access::from_kubeconfig(text.as_bytes()) {
            Ok(_) => assert_eq!(said, "", "it should not be usable"),
            Err(error) => assert_eq!(error.to_string(), said),
        }
    }

    #[test]
    fn a_kubeconfig_is_read_in_yaml_and_in_json() {
        let identity = Identity::Certificate { chain_pem: b"CHAIN".to_vec(), key_pem: b"KEY".to_vec() };
        let access = Access {
            server: "https://127.0.0.1:6443".into(),
            authority_pem: b"CA".to_vec(),
            server_name: None,
            identity,
        };
        let json = r#"{"current-context":"here","contexts":[{"name":"here","context":{"cluster":"c","user":"admin"}}],
            "clusters":[{"name":"c","cluster":{"server":"https://127.0.0.1:6443","certificate-authority-data":"Q0E="}}],
            "users":[{"name":"admin","user":{"client-certificate-data":"Q0hBSU4=","client-key-data":"S0VZ"}}]}"#;
        for text in [YAML, json] {
            assert!(Access::from_kubeconfig(text.as_bytes()).expect("a kubeconfig") == access);
        }
    }

    #[test]
    fn a_token_is_an_identity_too() {
        let text = YAML
            .replace("client-certificate-data: Q0hBSU4=", "token: abc")
            .replace("client-key-data: S0VZ", "");
        let access = Access::from_kubeconfig(text.as_bytes()).expect("a kubeconfig");
        assert!(access.identity == Identity::Token("abc".into()));
        // The file comes first, for a caller who reads it.
        let text = text.replace("token: abc", "token: abc\n    tokenFile: /run/token");
        check(&text, "tokenFile is not supported: put the data into the file");
        let files = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
        let access = Access::from_kubeconfig_with(text.as_bytes(), Some(&files)).expect("a kubeconfig");
        assert!(access.identity == Identity::TokenFile("/run/token".into()));
    }

    #[test]
    fn files_are_read_by_a_caller_who_says_how() {
        let text = YAML
            .replace("certificate-authority-data: Q0E=", "certificate-authority: ca.crt")
            .replace("client-certificate-data: Q0hBSU4=", "client-certificate: own.crt")
            .replace("client-key-data: S0VZ", "client-key: own.key");
        check(&text, "client-certificate is not supported: put the data into the file");
        let files = |path: &str| match path {
            "ca.crt" | "own.crt" | "own.key" => Ok(path.as_bytes().to_vec()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let identity = Identity::Certificate { chain_pem: b"own.crt".to_vec(), key_pem: b"own.key".to_vec() };
        let access = Access::from_kubeconfig_with(text.as_bytes(), Some(&files)).expect("a kubeconfig");
        assert!(access.authority_pem == b"ca.crt" && access.identity == identity);
        let users = Users::from_kubeconfig(text.as_bytes(), &files).expect("a kubeconfig");
        assert!(users.by_name["admin"] == identity && users.current == Some(identity));
        let other = text.replace("own.key", "gone.key");
        let told = Users::from_kubeconfig(other.as_bytes(), &files).err().map(|error| error.to_string());
        assert_eq!(told.as_deref(), Some("cannot use client-key"));
    }

    #[test]
    fn what_is_missing_or_not_done_is_told_by_name() {
        check(YAML, "");
        check("[]", "not a kubeconfig");
        check(&YAML.replace("current-context: here", ""), "the kubeconfig has no context named \"\"");
        check(&YAML.replace("user: admin", "user: bob"), "the kubeconfig has no user named \"bob\"");
        check(
            &YAML.replace("certificate-authority-data: Q0E=", "insecure-skip-tls-verify: true"),
            "insecure-skip-tls-verify is not supported: put the data into the file",
        );
        check(
            &YAML.replace("client-key-data: S0VZ", "exec: {command: x}"),
            "exec is not supported: put the data into the file",
        );
        check(&YAML.replace("Q0E=", "Q0E"), "cannot use certificate-authority-data");
        check(&YAML.replace("client-key-data: S0VZ", ""), "cannot use client-certificate-data");
    }
}
