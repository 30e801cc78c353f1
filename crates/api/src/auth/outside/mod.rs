//! Who others say that somebody is, and what they say that somebody may do: tokens of an OpenID Connect provider, those that a
//! webhook knows, and rights that a webhook gives.
//!
//! Tokens are looked at when they are none of this cluster's own. Whoever is asked is asked over https, within a bound, and
//! what was answered is remembered for a while.

mod access;
mod oidc;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::Host;
use model::Tree;

use super::{AUTHENTICATED, Identity};
use crate::dial::Dial;
use crate::outbound::{CallError, Callee, Outbound, exchange};

pub use access::{AccessSettings, AccessWebhook, Opinion};
pub use oidc::OidcSettings;
pub use webhook::WebhookSettings;

/// How long whoever is asked may take: a handshake and an answer across the world; the user waits meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Knows tokens of others.
pub struct Outside {
    host: Host,
    oidc: Option<oidc::Oidc>,
    webhook: Option<webhook::Webhook>,
}

impl Outside {
    /// Asks as the settings say; `None` when there is nobody to ask.
    ///
    /// # Errors
    /// Why nobody can be asked so.
    pub fn new(
        host: &Host,
        dial: Arc<dyn Dial>,
        oidc: Option<OidcSettings>,
        webhook: Option<WebhookSettings>,
    ) -> Result<Option<Arc<Self>>, String> {
        if oidc.is_none() && webhook.is_none() {
            return Ok(None);
        }
        let outbound = Arc::new(Outbound::new(host.clone(), dial));
        let oidc = oidc.map(|settings| oidc::Oidc::new(settings, outbound.clone())).transpose()?;
        let webhook = webhook.map(|settings| webhook::Webhook::new(settings, outbound)).transpose()?;
        Ok(Some(Arc::new(Self { host: host.clone(), oidc, webhook })))
    }

    /// Who a token stands for, and which of the `wanted` audiences it is meant for; `own` are those of the API server, for which
    /// a provider's tokens are good.
    ///
    /// # Errors
    /// Why nobody knows it.
    pub async fn identify(
        &self,
        token: &str,
        wanted: &[String],
        own: &[String],
    ) -> Result<(Identity, Vec<String>), String> {
        let mut refusals = Vec::new();
        if let Some(oidc) = &self.oidc {
            let meant = shared(own, wanted);
            let known = match meant.is_empty() {
                true => Err("oidc: the token is meant for somebody else".to_owned()),
                false => oidc.identify(&self.host, token).await,
            };
            match known {
                Ok(identity) => return Ok((identity, meant)),
                Err(why) => refusals.push(why),
            }
        }
        if let Some(webhook) = &self.webhook {
            match webhook.identify(&self.host, token, wanted, own).await {
                Ok(known) => return Ok(known),
                Err(why) => refusals.push(why),
            }
        }
        Err(match refusals.as_slice() {
            [one] => one.clone(),
            all => format!("[{}]", all.join(", ")),
        })
    }
}

/// Those of `some` that are among `others`.
fn shared(some: &[String], others: &[String]) -> Vec<String> {
    some.iter().filter(|one| others.contains(one)).cloned().collect()
}

/// Gets JSON from a server, or posts some to it.
async fn ask(
    outbound: &Outbound,
    host: &Host,
    callee: &Callee,
    body: Option<&Tree>,
) -> Result<Tree, CallError> {
    let body = body.map(|body| Bytes::from(body.to_string()));
    let answer = exchange(outbound, host, callee, body.as_ref(), ANSWER_TIMEOUT).await?;
    serde_json::from_slice(&answer).map_err(|why| CallError::Broken(format!("the answer is no JSON: {why}")))
}

/// A user by a name and groups that somebody outside gives; what is the cluster's own is nobody else's to give.
fn given(name: String, groups: Vec<String>) -> Result<Identity, String> {
    if name.is_empty() || name.starts_with("system:") {
        return Err(format!("{name:?} is no name that others may give"));
    }
    let mut groups: Vec<String> = groups.into_iter().filter(|group| !group.starts_with("system:")).collect();
    groups.push(AUTHENTICATED.to_owned());
    Ok(Identity { name, groups, ..Identity::default() })
}
