//! Names of images, written out in full as everyone's tools do.

use std::fmt;

use crate::RuntimeError;

/// Bytes of a name at most: the distribution specification's own limit.
const NAME_LEN_MAX: usize = 255;
/// Bytes of a tag at most: the specification's.
const TAG_LEN_MAX: usize = 128;
/// The registry of names that name none.
const REGISTRY_DEFAULT: &str = "docker.io";

/// A name in full: `docker.io/library/web:latest`, or with a digest, which then rules.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// `host` or `host:port`.
    pub registry: String,
    /// The path of the repository there.
    pub path: String,
    /// The tag; empty beside a digest.
    pub tag: String,
    /// `sha256:…`; empty when the tag decides.
    pub digest: String,
}

impl Reference {
    /// Reads a name as a pod has it.
    pub fn parse(text: &str) -> Result<Self, RuntimeError> {
        let refuse = |why: &str| RuntimeError::ImageName { reference: text.to_owned(), why: why.to_owned() };
        let (name, digest) = text.split_once('@').unwrap_or((text, ""));
        let tag_at = name.rfind(':').filter(|at| !name[*at..].contains('/'));
        let (name, tag) = tag_at.map_or((name, ""), |at| (&name[..at], &name[at + 1..]));
        if tag_at.is_some() && !is_tag(tag) {
            return Err(refuse("the tag is not valid"));
        }
        if text.contains('@') && !is_digest(digest) {
            return Err(refuse("the digest is not valid"));
        }
        let (registry, path) = split_registry(name);
        let host = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        let is_host =
            registry.bytes().all(host) && !registry.starts_with(['.', '-', ':']) && !registry.ends_with(':');
        if !is_host || name.len() > NAME_LEN_MAX || !path.split('/').all(is_component) {
            return Err(refuse("invalid reference format"));
        }
        let path = if registry == REGISTRY_DEFAULT && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        let tag = match (tag, digest) {
            (_, digest) if !digest.is_empty() => "",
            ("", _) => "latest",
            (tag, _) => tag,
        };
        Ok(Self { registry: registry.to_owned(), path, tag: tag.to_owned(), digest: digest.to_owned() })
    }

    /// Registry and path, without tag or digest.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// Whether the registry is on this machine, where plain http is allowed.
    pub fn is_loopback(&self) -> bool {
        let host = self.registry.rsplit_once(':').map_or(self.registry.as_str(), |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (separator, end) = if self.digest.is_empty() { (':', &self.tag) } else { ('@', &self.digest) };
        write!(to, "{}/{}{separator}{end}", self.registry, self.path)
    }
}

/// The first part is a registry when it looks like a host: it has a dot or a port, or is `localhost`.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => (REGISTRY_DEFAULT, rest),
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (REGISTRY_DEFAULT, name),
    }
}

fn is_component(text: &str) -> bool {
    let sober = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends_sober = text.bytes().next().is_some_and(sober) && text.bytes().last().is_some_and(sober);
    ends_sober && text.bytes().all(|byte| sober(byte) || b"._-".contains(&byte)) && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= TAG_LEN_MAX
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|byte| plain(byte) || b".-".contains(&byte))
}

/// Whether this is a digest we can check.
pub(crate) fn is_digest(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && digits.bytes().all(hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, want: Option<&str>) {
        assert_eq!(Reference::parse(text).ok().map(|name| name.to_string()).as_deref(), want, "{text}");
    }

    #[test]
    fn names_are_written_out_in_full() {
        check("web", Some("docker.io/library/web:latest"));
        check("me/web:1.2", Some("docker.io/me/web:1.2"));
        check("localhost:5000/web", Some("localhost:5000/web:latest"));
        check(
            "registry.k8s.io/e2e-test-images/agnhost:2.53",
            Some("registry.k8s.io/e2e-test-images/agnhost:2.53"),
        );
        let digest = format!("sha256:{}", "a".repeat(64));
        check(&format!("web:1@{digest}"), Some(&format!("docker.io/library/web@{digest}")));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in
            ["", "Web", "web:", "web:a b", "web@sha256:1", "a//b", "/web", "web/", "../web", "a/../b", ":1"]
        {
            check(bad, None);
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        let is = |text| Reference::parse(text).expect("it is a name").is_loopback();
        assert!(is("localhost:5000/web") && is("127.0.0.1:5000/web") && !is("example.org/web") && !is("web"));
    }
}
