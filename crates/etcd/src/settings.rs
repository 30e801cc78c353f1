//! Where an etcd cluster is, and how it is reached.

use client::AccessError;

/// The prefix of all keys, where nothing else is said.
pub const PREFIX: &str = "/kintsugi";

/// The port of etcd, where nothing else is said.
const PORT: u16 = 2379;

/// Where an etcd cluster is, and who asks.
#[derive(Clone)]
pub struct Settings {
    /// Its members.
    pub endpoints: Vec<Endpoint>,
    /// The prefix of all keys.
    pub prefix: String,
    /// The authority that has signed the members' certificates.
    pub authority_pem: Option<Vec<u8>>,
    /// Who asks: a certificate's chain, and its key.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Both, as requests carry them.
    pub authority: String,
    /// Whether it is reached over TLS.
    pub is_tls: bool,
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// That is no URL of a member.
    #[error("{url:?} is no etcd member: {why}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Members over https, and nobody to know them by.
    #[error("etcd over https needs the authority's certificate (--store-cafile)")]
    NoAuthority,
    /// The certificates cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
}

impl Settings {
    /// The cluster with these members, by URLs with commas between them.
    ///
    /// # Errors
    /// When one of them is none, or could be read by everybody: over plain http only this machine is asked.
    pub fn new(urls: &str) -> Result<Self, SettingsError> {
        let endpoints = urls.split(',').map(|url| endpoint(url.trim())).collect::<Result<_, _>>()?;
        Ok(Self { endpoints, prefix: PREFIX.into(), authority_pem: None, certificate: None })
    }
}

fn endpoint(url: &str) -> Result<Endpoint, SettingsError> {
    let bad = |why| SettingsError::Url { url: url.to_owned(), why };
    let (scheme, authority) = url.split_once("://").ok_or(bad("it has no https:// before it"))?;
    let authority = authority.trim_end_matches('/');
    let is_tls = match scheme {
        "https" => true,
        "http" => false,
        _ => return Err(bad("it is neither https nor http")),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| bad("its port is none"))?)
        }
        _ => (authority, PORT),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || authority.contains(['/', '@', '?']) {
        return Err(bad("it names no host, or more than a host"));
    }
    let is_here =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if !is_tls && !is_here {
        return Err(bad(
            "over plain http everybody on the way reads and writes secrets; only a loopback address may be reached so",
        ));
    }
    let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    Ok(Endpoint { host: host.to_owned(), port, authority, is_tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(urls: &str, told: &str) {
        let read = Settings::new(urls).map(|settings| {
            let shown = settings.endpoints.iter().map(|one| {
                format!("{}{} {} {}", if one.is_tls { "tls " } else { "" }, one.host, one.port, one.authority)
            });
            shown.collect::<Vec<_>>().join("; ")
        });
        match read {
            Ok(shown) => assert_eq!(shown, told),
            Err(error) => assert!(error.to_string().contains(told), "{error}"),
        }
    }

    #[test]
    fn members_are_named_by_urls() {
        check("https://a:1,https://b/", "tls a 1 a:1; tls b 2379 b:2379");
        check("https://[fd00::1]:2380", "tls fd00::1 2380 [fd00::1]:2380");
        check("http://127.0.0.1:2379, http://[::1]", "127.0.0.1 2379 127.0.0.1:2379; ::1 2379 [::1]:2379");
    }

    #[test]
    fn what_is_no_member_or_not_safe_is_refused() {
        check("a:2379", "no https:// before it");
        check("ftp://a", "neither https nor http");
        check("https://a:x", "its port is none");
        check("https://", "names no host");
        check("https://a/b", "more than a host");
        check("http://10.0.0.1:2379", "plain http");
    }
}
