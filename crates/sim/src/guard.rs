//! Lets everybody in and hands out tokens that stand for nothing: whom the API trusts is tried elsewhere.

use std::time::Duration;

use api::auth::{Attributes, Decision, Identity};
use api::refusal::Refusal;
use api::{AllowAll, Guard, TokenAsked, TokenIssued};
use model::{Time, Tree};

/// How long a token lasts at least, as the API promises.
const TOKEN_TIME_MIN: Duration = Duration::from_secs(600);

/// Lets everybody in.
pub struct SimGuard;

impl Guard for SimGuard {
    fn may(&self, who: &Identity, what: &Attributes) -> Decision {
        AllowAll.may(who, what)
    }

    fn rules_of(&self, who: &Identity, namespace: &str) -> Tree {
        AllowAll.rules_of(who, namespace)
    }

    fn issue(&self, asked: &TokenAsked, now: Time) -> Result<TokenIssued, Refusal> {
        let lasts =
            u64::try_from(asked.seconds).map_or(TOKEN_TIME_MIN, Duration::from_secs).max(TOKEN_TIME_MIN);
        Ok(TokenIssued {
            token: format!("token-of-{}-{}", asked.namespace, asked.account.0),
            audiences: asked.audiences.clone(),
            expires: now + lasts,
        })
    }

    fn review(
        &self,
        token: &str,
        audiences: &[String],
        now: Time,
    ) -> Result<(Identity, Vec<String>), String> {
        AllowAll.review(token, audiences, now)
    }
}
