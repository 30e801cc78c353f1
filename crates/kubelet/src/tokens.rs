//! Tokens of service accounts, asked of the API and kept until four fifths of their life are over.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::{Client, ClientError};
use host::Time;
use model::Key;
use model::kinds as gvr;
use serde_json::json;

use crate::pod::PodView;
use crate::volumes::payload::TokenWish;

/// How long to wait after a token could not be renewed, while the old one is still good.
const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// The tokens that were had: one for each pod and wish. Bounded by the pods here, which let go of theirs at their end.
#[derive(Debug, Default)]
pub struct Tokens {
    /// Guards the tokens for the length of one look or insertion.
    known: Mutex<BTreeMap<(String, TokenWish), Token>>,
}

/// A token that was had.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token.
    pub text: String,
    /// When to have a new one.
    pub renew_at: Time,
    /// When it ends.
    pub expires_at: Time,
}

impl Tokens {
    /// A token for a pod, from what is known or from the API.
    pub async fn have(
        &self,
        client: &Client,
        pod: &PodView,
        wish: &TokenWish,
        now: Time,
    ) -> Result<Token, ClientError> {
        let place = (pod.uid.clone(), wish.clone());
        let known = self.known().get(&place).cloned();
        if let Some(token) = known.as_ref().filter(|token| token.renew_at > now) {
            return Ok(token.clone());
        }
        match (request(client, pod, wish, now).await, known) {
            (Ok(token), _) => {
                self.known().insert(place, token.clone());
                Ok(token)
            }
            (Err(_), Some(old)) if old.expires_at > now => Ok(Token { renew_at: now + RENEW_AGAIN, ..old }),
            (Err(error), _) => Err(error),
        }
    }

    /// Forgets the tokens of a pod.
    pub fn forget(&self, pod_uid: &str) {
        self.known().retain(|(uid, _), _| uid != pod_uid);
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<(String, TokenWish), Token>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn request(client: &Client, pod: &PodView, wish: &TokenWish, now: Time) -> Result<Token, ClientError> {
    let account = pod.spec().service_account_name.clone().filter(|name| !name.is_empty());
    let key =
        Key::new(&gvr::SERVICE_ACCOUNT, pod.namespace.clone(), account.unwrap_or_else(|| "default".into()));
    let audiences: Vec<&str> =
        Some(wish.audience.as_str()).filter(|audience| !audience.is_empty()).into_iter().collect();
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {
            "audiences": audiences, "expirationSeconds": wish.seconds,
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid},
        },
    });
    let answer = client.create_part(&key, "token", &body).await?;
    let status = &answer["status"];
    let text = status["token"].as_str().unwrap_or("").to_owned();
    let end = status["expirationTimestamp"].as_str().and_then(|text| model::time::parse(text).ok());
    let asked = Duration::from_secs(u64::try_from(wish.seconds).unwrap_or(0));
    let expires_at = end.unwrap_or(now + asked);
    let life = Duration::try_from(expires_at.duration_since(now)).unwrap_or(Duration::ZERO);
    Ok(Token { text, renew_at: now + life.mul_f64(0.8), expires_at })
}
