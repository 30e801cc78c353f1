//! Who may do what, as the service asks it. Answered by `auth`; by [`AllowAll`] where nobody is kept out.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use model::{Time, Tree};

use crate::auth::outside::Outside;
use crate::auth::{Attributes, Decision, Identity};
use crate::refusal::{Reason, Refusal};

/// Answers for the service who may do what, and issues and reviews tokens.
pub trait Guard: Send + Sync {
    /// Whether `who` may do `what`, as far as that is known without asking anybody outside.
    fn may(&self, who: &Identity, what: &Attributes) -> Decision;

    /// Whether somebody outside is to be asked: then [`Self::may_by_all`] says more than [`Self::may`].
    fn asks_others(&self) -> bool {
        false
    }

    /// What `/metrics` tells of it.
    fn metrics(&self) -> String {
        String::new()
    }

    /// Whether `who` may do `what`, once all have been asked.
    fn may_by_all<'a>(&'a self, who: &'a Identity, what: &'a Attributes) -> BoxFuture<'a, Decision> {
        std::future::ready(self.may(who, what)).boxed()
    }

    /// The `status` of a `SelfSubjectRulesReview`: all that `who` may do in a namespace.
    fn rules_of(&self, who: &Identity, namespace: &str) -> Tree;

    /// Issues a token (`serviceaccounts/token`).
    ///
    /// # Errors
    /// A refusal when no token can be given for this.
    fn issue(&self, asked: &TokenAsked, now: Time) -> Result<TokenIssued, Refusal>;

    /// Who a token stands for, and for which of `audiences` (none: those of the API) it is good; `Err` says why not.
    fn review(&self, token: &str, audiences: &[String], now: Time)
    -> Result<(Identity, Vec<String>), String>;

    /// Who else knows tokens, and for which audiences theirs are good: they are asked about what [`Self::review`] refuses.
    fn outside(&self) -> Option<(&Arc<Outside>, &[String])> {
        None
    }

    /// What the issuer of tokens publishes at a path: the keys to verify them by, and where those are (OpenID Connect
    /// Discovery 1.0). `None` elsewhere, and where no tokens are issued.
    fn published(&self, path: &str) -> Option<Tree> {
        let _ = path;
        None
    }
}

/// What a token is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenAsked {
    /// The service account's namespace.
    pub namespace: String,
    /// Its name and uid.
    pub account: (String, String),
    /// For whom; empty for the API itself.
    pub audiences: Vec<String>,
    /// For how long.
    pub seconds: i64,
    /// The object it is bound to: kind, name, uid.
    pub bound: Option<(String, String, String)>,
    /// The node of the pod it is bound to: name, uid.
    pub node: Option<(String, String)>,
    /// The token's own id.
    pub id: String,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIssued {
    /// The token.
    pub token: String,
    /// For whom it is good.
    pub audiences: Vec<String>,
    /// Until when.
    pub expires: Time,
}

/// Lets everybody do everything and issues no tokens: for the simulator and for tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

impl Guard for AllowAll {
    fn may(&self, _who: &Identity, _what: &Attributes) -> Decision {
        Decision { allowed: true, reason: "everything is allowed".into(), ..Decision::default() }
    }

    fn rules_of(&self, _who: &Identity, _namespace: &str) -> Tree {
        serde_json::json!({
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}], "incomplete": false,
        })
    }

    fn issue(&self, _asked: &TokenAsked, _now: Time) -> Result<TokenIssued, Refusal> {
        Err(Refusal::new(Reason::ServiceUnavailable, "this server has no key to sign tokens with"))
    }

    fn review(
        &self,
        _token: &str,
        _audiences: &[String],
        _now: Time,
    ) -> Result<(Identity, Vec<String>), String> {
        Err("this server has no key to verify tokens with".into())
    }
}
