//! As whom programs outside are asked: by a token, by a certificate, or as nobody in particular. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::dial::ClientPair;

/// What we show to a program.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The token by which it knows us.
    pub token: Option<Token>,
    /// The certificate by which it knows us.
    pub client: Option<Arc<ClientPair>>,
}

/// A token by which a program knows us.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// Always the same.
    Fixed(String),
    /// One that changes.
    Changing(Reader),
}

/// Says what a token is now.
#[derive(Clone)]
pub struct Reader(pub Arc<dyn Fn() -> Result<String, String> + Send + Sync>);

impl PartialEq for Reader {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Reader {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // It is a secret.
        f.write_str(match self {
            Self::Fixed(_) => "Fixed",
            Self::Changing(_) => "Changing",
        })
    }
}

impl From<&str> for Token {
    fn from(token: &str) -> Self {
        Self::Fixed(token.to_owned())
    }
}

impl Token {
    /// What it is now.
    ///
    /// # Errors
    /// Why nobody can say.
    pub fn now(&self) -> Result<Cow<'_, str>, String> {
        match self {
            Self::Fixed(token) => Ok(Cow::Borrowed(token)),
            Self::Changing(reader) => (reader.0)().map(Cow::Owned),
        }
    }
}

/// What we show to whom: the users of a kubeconfig, by the programs that their names stand for.
#[derive(Clone, Default)]
pub struct Introductions {
    /// By `host:port`, by `host` where the port is 443, with `*.` in the place of the first labels, or by `*`.
    pub by_target: BTreeMap<String, Credentials>,
    /// To those that no name stands for.
    pub otherwise: Credentials,
}

impl Introductions {
    /// What we show to the program at a host and port: the nearest name wins, as upstream's resolver has it.
    pub fn to(&self, host: &str, port: u16) -> &Credentials {
        let with_port =
            if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let found = self.named(&with_port).or_else(|| (port == 443).then(|| self.named(host)).flatten());
        found.or_else(|| self.by_target.get("*")).unwrap_or(&self.otherwise)
    }

    /// By the whole name, or by ever less of its end.
    fn named(&self, target: &str) -> Option<&Credentials> {
        let ends = target.match_indices('.').map(|(at, _)| format!("*{}", &target[at..]));
        self.by_target.get(target).or_else(|| ends.into_iter().find_map(|end| self.by_target.get(&end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, port: u16, wanted: &str) {
        let show = |token: &str| Credentials { token: Some(token.into()), client: None };
        let names = ["hook.n.svc", "hook.n.svc:8443", "*.n.svc", "*.example.com:8443", "*.com"];
        let all = Introductions {
            by_target: names.iter().map(|name| ((*name).to_owned(), show(name))).collect(),
            otherwise: show("otherwise"),
        };
        assert_eq!(all.to(host, port).token, Some(wanted.into()), "{host}:{port}");
    }

    #[test]
    fn the_nearest_name_says_what_is_shown() {
        check("hook.n.svc", 443, "hook.n.svc");
        check("hook.n.svc", 8443, "hook.n.svc:8443");
        check("other.n.svc", 443, "*.n.svc");
        check("other.n.svc", 8443, "otherwise");
        check("a.b.example.com", 8443, "*.example.com:8443");
        check("a.b.example.com", 443, "*.com");
        check("::1", 443, "otherwise");
        let all = Introductions {
            by_target: [("*".to_owned(), Credentials { token: Some("all".into()), client: None })].into(),
            otherwise: Credentials::default(),
        };
        assert_eq!(all.to("::1", 1).token, Some("all".into()));
    }
}
