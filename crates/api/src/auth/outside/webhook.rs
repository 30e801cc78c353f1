//! Tokens that a webhook knows: it is asked with a TokenReview (`authentication.k8s.io/v1`), and what it said is remembered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::{Host, Moment};
use model::Tree;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{ask, shared};
use crate::auth::{AUTHENTICATED, Identity};
use crate::outbound::{Callee, Credentials, Outbound};

/// How many answers are remembered: a user or two for each of a thousand machines, at some 300 bytes each.
const KEPT_MAX: usize = 4096;

/// Where the webhook is.
#[derive(Clone, Default)]
pub struct WebhookSettings {
    /// Its URL; https.
    pub url: String,
    /// The authorities that may have signed its certificate, as PEM; empty for those that the machine trusts.
    pub authorities: Vec<u8>,
    /// What we show to it.
    pub credentials: Credentials,
    /// How long an answer is remembered.
    pub cache_time: Duration,
}

/// Who a token stands for, and for whom it is meant; or why nobody knows it.
type Known = Result<(Identity, Vec<String>), String>;

pub struct Webhook {
    settings: WebhookSettings,
    callee: Callee,
    outbound: Arc<Outbound>,
    /// Guards the answers and their times, by the hashes of tokens and audiences, while one is looked up or put in.
    kept: Mutex<HashMap<[u8; 32], (Moment, Known)>>,
}

impl Webhook {
    pub fn new(settings: WebhookSettings, outbound: Arc<Outbound>) -> Result<Self, String> {
        let callee = Callee::at(&settings.url, &settings.authorities)?.shown(settings.credentials.clone());
        Ok(Self { settings, callee, outbound, kept: Mutex::default() })
    }

    /// Who a token stands for, and which of the `wanted` audiences it is meant for; `own`, those of the API server, where the
    /// webhook does not say.
    pub async fn identify(&self, host: &Host, token: &str, wanted: &[String], own: &[String]) -> Known {
        let hash: [u8; 32] = Sha256::digest(format!("{}\n{token}", wanted.join("\n"))).into();
        let now = host.moment();
        {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = kept.get(&hash).filter(|(at, _)| now.since(*at) < self.settings.cache_time);
            if let Some((_, said)) = fresh {
                return said.clone();
            }
        }
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "metadata": {"creationTimestamp": null},
            "spec": {"token": token, "audiences": wanted},
        });
        let answer = ask(&self.outbound, host, &self.callee, Some(&review)).await;
        // What could not be asked is asked again.
        let answer = answer.map_err(|why| format!("webhook: Post {:?}: {why}", self.settings.url))?;
        let said = read(&answer, wanted, own).map_err(|why| format!("webhook: {why}"));
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= KEPT_MAX {
            kept.retain(|_, (at, _)| now.since(*at) < self.settings.cache_time);
        }
        if kept.len() < KEPT_MAX {
            kept.insert(hash, (now, said.clone()));
        }
        said
    }
}

/// Who a review's answer names, and for whom.
fn read(answer: &Tree, wanted: &[String], own: &[String]) -> Known {
    let status = &answer["status"];
    if status["authenticated"] != true {
        return Err(status["error"].as_str().unwrap_or("the token is not known").to_owned());
    }
    let texts = |tree: &Tree| -> Vec<String> {
        tree.as_array().into_iter().flatten().filter_map(Tree::as_str).map(str::to_owned).collect()
    };
    let said = texts(&status["audiences"]);
    let meant = shared(wanted, if said.is_empty() { own } else { &said });
    if meant.is_empty() {
        return Err("the token is meant for somebody else".into());
    }
    let user = &status["user"];
    let name = user["username"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err("it names nobody".into());
    }
    let mut groups = texts(&user["groups"]);
    if !groups.iter().any(|group| group == AUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    let extra = user["extra"].as_object().into_iter().flatten();
    let identity = Identity {
        name,
        uid: user["uid"].as_str().unwrap_or_default().to_owned(),
        groups,
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
    };
    Ok((identity, meant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_names_a_user_or_nobody() {
        let (asked, own) = (["api".to_owned(), "db".to_owned()], ["api".to_owned()]);
        let check = |status: Tree, wanted: Result<&str, &str>| {
            let got = read(&json!({"status": status}), &asked, &own)
                .map(|(who, meant)| format!("{} {} for {}", who.name, who.groups.join(","), meant.join(",")));
            assert_eq!(got.as_deref().map_err(String::as_str), wanted, "{status}");
        };
        let user = json!({"username": "ann", "groups": ["a"]});
        check(json!({"authenticated": true, "user": user}), Ok("ann a,system:authenticated for api"));
        check(
            json!({"authenticated": true, "user": user, "audiences": ["db", "x"]}),
            Ok("ann a,system:authenticated for db"),
        );
        check(
            json!({"authenticated": true, "user": user, "audiences": ["x"]}),
            Err("the token is meant for somebody else"),
        );
        check(json!({"authenticated": false, "error": "expired"}), Err("expired"));
        check(json!({"authenticated": true, "user": {}}), Err("it names nobody"));
        check(json!({}), Err("the token is not known"));
    }
}
