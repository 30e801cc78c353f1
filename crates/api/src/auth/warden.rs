//! The guard of a real cluster: rules from the stored roles, tokens signed with the cluster's key.
//!
//! The compiled rules are a cache of the store: whatever they refuse is asked again of fresh ones when the roles have
//! changed since, so that a grant holds as soon as it is acknowledged; what they allow is re-read at the next change.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use host::Host;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use store::{Range, Store, Watch};

use super::authenticate::Authenticator;
use super::chain::{Authorizer, Chain};
use super::outside::{Opinion, Outside};
use super::rbac::{Rule, Rules};
use super::tokens::{Bound, Claims, Ref};
use super::{Attributes, Decision, Identity, nodes};
use crate::guard::{Guard, TokenAsked, TokenIssued};
use crate::refusal::{Reason, Refusal};
use crate::view::View;

/// Where the four kinds lie in the store: roles first, then bindings.
const ROLES: [&str; 2] = ["/clusterroles.rbac.authorization.k8s.io/", "/roles.rbac.authorization.k8s.io/"];
const BINDINGS: [&str; 2] =
    ["/clusterrolebindings.rbac.authorization.k8s.io/", "/rolebindings.rbac.authorization.k8s.io/"];

/// Guards a cluster by its stored roles, and signs its tokens.
pub struct Warden {
    store: Store,
    authenticator: Authenticator,
    host: Host,
    /// Who says what may be done.
    chain: Chain,
    /// Guards the compiled snapshot for as long as it takes to clone or replace it.
    rules: RwLock<Arc<Rules>>,
    /// What every node's agent may do, whatever the roles say.
    node_rules: Vec<Rule>,
    /// Guards the cursors that tell whether the snapshot is old, while it is looked at.
    changes: Mutex<Vec<Watch>>,
}

impl Warden {
    /// A guard that reads the roles of `store`, and asks the authorizers of a chain.
    pub fn new(host: &Host, store: Store, authenticator: Authenticator, chain: Chain) -> Self {
        let node_rules = super::roles::node_rules();
        let (rules, changes) = (RwLock::default(), Mutex::default());
        let warden = Self { store, authenticator, host: host.clone(), chain, rules, node_rules, changes };
        warden.read_again();
        warden
    }

    /// Compiles the rules anew, and watches from there.
    fn read_again(&self) -> Arc<Rules> {
        let after = self.store.revision();
        let watches = ROLES.iter().chain(&BINDINGS).filter_map(|prefix| self.store.watch(prefix, after).ok());
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner) = watches.collect();
        let mut rules = Rules::default();
        for (prefixes, add) in [
            (ROLES, Rules::add_role as fn(&mut Rules, &[u8])),
            (BINDINGS, Rules::add_binding as fn(&mut Rules, &[u8])),
        ] {
            for prefix in prefixes {
                let range = Range { prefix: prefix.to_owned(), ..Range::default() };
                for record in self.store.list(&range).map(|page| page.records).unwrap_or_default() {
                    add(&mut rules, &record.value);
                }
            }
        }
        let rules = Arc::new(rules);
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules.clone();
        rules
    }

    /// The rules as the store has them now.
    fn rules(&self) -> Arc<Rules> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        // A cursor that was cut off has missed something: that is a change too.
        let changed =
            changes.len() < 4 || changes.iter_mut().any(|watch| !matches!(watch.try_next(), Ok(None)));
        drop(changes);
        if changed {
            return self.read_again();
        }
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Warden {
    /// What one of the authorizers that are here thinks.
    fn opinion(&self, one: &Authorizer, who: &Identity, what: &Attributes) -> Opinion {
        match one {
            Authorizer::AlwaysAllow => Opinion::Allow(String::new()),
            Authorizer::AlwaysDeny => Opinion::None("Everything is forbidden.".to_owned()),
            // They are asked by the chain.
            Authorizer::Webhook(_) => Opinion::None(String::new()),
            Authorizer::Rbac => match self.rules().decide(who, what) {
                Decision { allowed: true, reason, .. } => Opinion::Allow(reason),
                Decision { reason, .. } => Opinion::None(reason),
            },
            Authorizer::Node => match who.node() {
                None => Opinion::None(String::new()),
                Some(node) => match nodes::decide(&View(&self.store), &self.node_rules, node, what) {
                    Ok(()) => Opinion::Allow(String::new()),
                    Err(why) => Opinion::None(why),
                },
            },
        }
    }
}

impl Guard for Warden {
    fn may(&self, who: &Identity, what: &Attributes) -> Decision {
        self.chain.decide(who, |one| self.opinion(one, who, what))
    }

    fn asks_others(&self) -> bool {
        self.chain.asks_others()
    }

    fn metrics(&self) -> String {
        self.chain.metrics()
    }

    fn may_by_all<'a>(&'a self, who: &'a Identity, what: &'a Attributes) -> BoxFuture<'a, Decision> {
        self.chain.ask(&self.host, who, what, move |one| self.opinion(one, who, what)).boxed()
    }

    fn rules_of(&self, who: &Identity, namespace: &str) -> model::Tree {
        let rules = once(self.rules().rules_of(who, namespace));
        let (paths, resources): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| !rule.paths.is_empty());
        let listed = |rules: Vec<&Rule>| rules.into_iter().map(Rule::to_review).collect::<Vec<_>>();
        let mut review = json!({"resourceRules": listed(resources), "nonResourceRules": listed(paths), "incomplete": false});
        let unable = [
            (who.node().is_some(), "node authorizer does not support user rule resolution"),
            (self.asks_others(), "webhook authorizer does not support user rule resolution"),
        ];
        let unable: Vec<&str> = unable.iter().filter(|(is_so, _)| *is_so).map(|(_, why)| *why).collect();
        if !unable.is_empty() {
            review["incomplete"] = json!(true);
            review["evaluationError"] = json!(unable.join(", "));
        }
        review
    }

    fn issue(&self, asked: &TokenAsked, now: Timestamp) -> Result<TokenIssued, Refusal> {
        let audiences = if asked.audiences.is_empty() {
            self.authenticator.audiences().to_vec()
        } else {
            asked.audiences.clone()
        };
        let expires = now.saturating_add(SignedDuration::from_secs(asked.seconds));
        let expires = expires.map_err(|why| Refusal::bad_request(format!("expirationSeconds: {why}")))?;
        let claims = Claims {
            aud: audiences.clone(),
            exp: expires.as_second(),
            iat: now.as_second(),
            nbf: now.as_second(),
            iss: String::new(),
            jti: asked.id.clone(),
            sub: format!("system:serviceaccount:{}:{}", asked.namespace, asked.account.0),
            bound: bound(asked),
        };
        let token = self.authenticator.tokens().sign(claims);
        let token =
            token.map_err(|why| Refusal::new(Reason::Internal, format!("no token can be signed: {why}")))?;
        Ok(TokenIssued { token, audiences, expires })
    }

    fn review(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<(Identity, Vec<String>), String> {
        let own = self.authenticator.audiences();
        let audiences: Vec<&str> =
            if audiences.is_empty() { own } else { audiences }.iter().map(String::as_str).collect();
        self.authenticator.token(token, &audiences, now).map_err(|why| why.to_string())
    }

    fn outside(&self) -> Option<(&Arc<Outside>, &[String])> {
        self.authenticator.outside().map(|outside| (outside, self.authenticator.audiences()))
    }

    fn published(&self, path: &str) -> Option<model::Tree> {
        match path {
            "/.well-known/openid-configuration" => Some(self.authenticator.tokens().discovery()),
            "/openid/v1/jwks" => Some(self.authenticator.tokens().key_set()),
            _ => None,
        }
    }
}

/// The rules without those, and without the paths, that an earlier one grants in the same words.
fn once(rules: Vec<Rule>) -> Vec<Rule> {
    let mut kept: Vec<Rule> = Vec::new();
    for mut rule in rules {
        let is_listed = |path: &String| {
            kept.iter().any(|earlier| earlier.verbs == rule.verbs && earlier.paths.contains(path))
        };
        let paths: Vec<String> = rule.paths.iter().filter(|path| !is_listed(path)).cloned().collect();
        if paths.is_empty() != rule.paths.is_empty() || kept.contains(&rule) {
            continue;
        }
        rule.paths = paths;
        kept.push(rule);
    }
    kept
}

fn bound(asked: &TokenAsked) -> Bound {
    let named = |(name, uid): &(String, String)| Ref { name: name.clone(), uid: uid.clone() };
    let of_kind = |wanted: &str| {
        let (kind, name, uid) = asked.bound.as_ref()?;
        (kind == wanted).then(|| Ref { name: name.clone(), uid: uid.clone() })
    };
    Bound {
        namespace: asked.namespace.clone(),
        serviceaccount: named(&asked.account),
        pod: of_kind("Pod"),
        secret: of_kind("Secret"),
        node: asked.node.as_ref().map(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_roles_grant_in_the_same_words_is_listed_once() {
        let texts = |all: &[&str]| all.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let paths = |paths: &[&str]| Rule { verbs: texts(&["get"]), paths: texts(paths), ..Rule::default() };
        let pods = |verb: &str| Rule {
            verbs: texts(&[verb]),
            api_groups: texts(&[""]),
            resources: texts(&["pods"]),
            ..Rule::default()
        };
        let all =
            vec![paths(&["/api", "/healthz"]), pods("get"), paths(&["/healthz", "/livez"]), pods("get")];
        let rest = [pods("list"), paths(&["/api"])];
        let wanted = [paths(&["/api", "/healthz"]), pods("get"), paths(&["/livez"]), pods("list")];
        assert_eq!(once([all, rest.to_vec()].concat()), wanted);
    }
}
