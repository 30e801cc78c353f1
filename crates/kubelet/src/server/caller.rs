//! Who asks a node's https face, by the certificate, and what each may ask. Pure.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The group of the API's own certificate, which is given to nobody by request.
const MASTERS: &str = "system:masters";
/// The group of nodes, and how their names begin.
const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// The API server.
    Server,
    /// Another node's agent.
    Node,
    /// Anybody else.
    Other,
}

impl Caller {
    /// Whom the first certificate of a chain names. Its signature was checked when the connection was made.
    pub fn of(chain: Option<&[CertificateDer<'_>]>) -> Self {
        let Some(first) = chain.and_then(|chain| chain.first()) else { return Caller::Other };
        let Ok((_, certificate)) = X509Certificate::from_der(first) else { return Caller::Other };
        let subject = certificate.subject();
        let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or_default();
        let groups: Vec<&str> = subject.iter_organization().filter_map(|group| group.as_str().ok()).collect();
        Self::named(name, &groups)
    }

    fn named(name: &str, groups: &[&str]) -> Self {
        match (groups.contains(&MASTERS), groups.contains(&NODES) && name.starts_with(NODE_PREFIX)) {
            (true, _) => Caller::Server,
            (false, true) => Caller::Node,
            (false, false) => Caller::Other,
        }
    }

    /// Whether it may ask for what these parts of a path name: nodes for promises and votes alone.
    pub fn may_ask(self, parts: &[&str]) -> bool {
        match self {
            Caller::Server => true,
            Caller::Node => matches!(parts, ["fence", _]),
            Caller::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_may_ask_for_everything_a_node_for_promises_and_votes_and_nobody_else_for_anything() {
        let check = |name: &str, groups: &[&str], streams: bool, votes: bool| {
            let who = Caller::named(name, groups);
            assert_eq!(who.may_ask(&["exec", "default", "web", "main"]), streams, "{name} {groups:?}");
            assert_eq!(who.may_ask(&["fence", "promise"]), votes, "{name} {groups:?}");
        };
        check("kube-apiserver-kubelet-client", &["system:masters"], true, true);
        check("system:node:a", &["system:nodes"], false, true);
        check("ann", &["system:nodes"], false, false);
        check("system:node:a", &["people"], false, false);
        check("kube-apiserver-kubelet-client", &[], false, false);
        assert_eq!(Caller::of(None), Caller::Other);
    }
}
