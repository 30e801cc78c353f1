//! Approves and signs requests for certificates. The only place where the authority's key is at work while a server runs.
//!
//! A request is looked at when it changes, one after the other; what is decided is written with the revision that was
//! seen, so that several servers do no harm to each other.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::auth::{Identity, signing};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use client::{Caches, Client, ClientError, Follow, Select};
use host::{Host, Task};
use model::tree::{items, text, whole};
use model::{Key, Time, Tree, World, kinds};
use serde_json::json;

use crate::control::{self, CONTROLLERS};
use crate::keys::Keys;
use crate::server::Reached;

/// How long to wait before a request is looked at again that could not be dealt with: a server that starts is there
/// within a second.
const AGAIN: Duration = Duration::from_secs(1);

/// Approves and signs until it is dropped.
pub fn start(host: &Host, service: &api::Service, keys: Arc<Keys>, reached: Reached) -> Task<()> {
    let client = control::client(service, Identity::component(CONTROLLERS), "certificates");
    let caches = Caches::new(client.clone(), host.clone());
    let signer = Signer { client, caches, keys, reached, host: host.clone() };
    host.spawn(signer.keep())
}

struct Signer {
    client: Client,
    caches: Caches,
    keys: Arc<Keys>,
    reached: Reached,
    host: Host,
}

/// What is to be done with a request.
enum Step {
    /// Nothing: it is done, denied, or somebody else's.
    Rest,
    /// It waits for somebody to approve it; these may do so on their own: what to ask for, and what to say.
    Ask(Vec<(&'static str, &'static str)>),
    /// It asks for the certificate by which a node is reached.
    Serving(Box<signing::Request>),
    /// It is approved: sign.
    Sign(Box<signing::Request>),
    /// It is approved and cannot be signed.
    Fail(String),
}

impl Signer {
    async fn keep(self) {
        self.caches.follow(Follow::all(&kinds::CERTIFICATE_SIGNING_REQUEST));
        let mut changes = self.caches.changes();
        self.caches.synced().await;
        let all = self.caches.list(&kinds::CERTIFICATE_SIGNING_REQUEST, "");
        let mut open: BTreeSet<Key> = all.iter().map(|request| key_of(request.name())).collect();
        loop {
            let mut left = BTreeSet::new();
            for key in std::mem::take(&mut open) {
                if let Err(why) = self.look(&key).await {
                    tracing::warn!(
                        request = key.name,
                        "cannot deal with a request for a certificate: {why:#}"
                    );
                    left.insert(key);
                }
            }
            open = left;
            if open.is_empty() {
                open.insert(changes.next().await.key);
            } else if let Some(changed) = self.host.within(AGAIN, changes.next()).await {
                open.insert(changed.key);
            }
            while let Some(changed) = changes.try_next() {
                open.insert(changed.key);
            }
        }
    }

    async fn look(&self, key: &Key) -> Result<()> {
        let Some(object) = self.caches.get(key) else { return Ok(()) };
        let request = object.tree()?;
        let done = match decide(&request) {
            Step::Rest => return Ok(()),
            Step::Ask(ways) => self.ask(key, &request, &ways).await,
            Step::Serving(wanted) => self.judge_serving(key, &request, &wanted).await,
            Step::Sign(wanted) => self.sign(key, &request, &wanted).await,
            Step::Fail(why) => {
                let mut failed = request.clone();
                add_condition(&mut failed, "Failed", "SignerValidationFailure", &why, self.host.now());
                self.put(key, "status", &failed).await
            }
        };
        match done {
            // Somebody was faster, or it is gone: the change that says so brings it back here.
            Err(why) if is_passed(&why) => Ok(()),
            other => other,
        }
    }

    async fn put(&self, key: &Key, part: &str, object: &Tree) -> Result<()> {
        self.client.replace(key, part, object).await?;
        Ok(())
    }

    /// Approves what the requester may have without being looked at.
    async fn ask(&self, key: &Key, request: &Tree, ways: &[(&'static str, &'static str)]) -> Result<()> {
        for (part, say) in ways {
            let mut spec = json!({"user": request["spec"]["username"], "groups": request["spec"]["groups"],
                "resourceAttributes": {"group": "certificates.k8s.io", "resource": "certificatesigningrequests",
                    "subresource": part, "verb": "create", "version": "*"}});
            for field in ["uid", "extra"] {
                if !request["spec"][field].is_null() {
                    spec[field] = request["spec"][field].clone();
                }
            }
            let review =
                json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec});
            let path = kinds::SUBJECT_ACCESS_REVIEW.collection_path("");
            let body = Bytes::from(review.to_string());
            let ask = self.client.request(http::Method::POST, path, Some("application/json"), body)?;
            let answer: Tree = serde_json::from_slice(&self.client.call(ask).await?)?;
            if answer["status"]["allowed"] == true {
                return self.approve(key, request, say).await;
            }
        }
        Ok(())
    }

    async fn approve(&self, key: &Key, request: &Tree, say: &str) -> Result<()> {
        let mut approved = request.clone();
        add_condition(&mut approved, "Approved", "AutoApproved", say, self.host.now());
        self.put(key, "approval", &approved).await
    }

    /// A node gets a certificate for its own name, and for addresses that are nobody else's.
    async fn judge_serving(&self, key: &Key, request: &Tree, wanted: &signing::Request) -> Result<()> {
        let Ok(node) = signing::node_name(wanted) else { return Ok(()) };
        let (nodes, _) = self.client.list(&kinds::NODE, "", &Select::all()).await?;
        let mut others = BTreeSet::new();
        for other in nodes.iter().filter(|other| other.name() != node) {
            let tree = other.tree()?;
            let own = items(&tree, "status.addresses").iter();
            others.extend(own.filter_map(|address| text(address, "address").parse::<IpAddr>().ok()));
        }
        let is_own = text(request, "spec.username") == wanted.name
            && wanted.dns.iter().all(|name| name == node)
            && wanted
                .addresses
                .iter()
                .all(|address| !others.contains(address) && !self.reached.is_api(*address));
        if !is_own {
            return Ok(());
        }
        self.approve(
            key,
            request,
            "Auto approving kubelet serving certificate for the node's own name and addresses.",
        )
        .await
    }

    async fn sign(&self, key: &Key, request: &Tree, wanted: &signing::Request) -> Result<()> {
        let seconds = whole(request, "spec.expirationSeconds");
        let mut serial = [0; 16];
        serial[..8].copy_from_slice(&(self.host.chance().u64() >> 1).to_be_bytes());
        serial[8..].copy_from_slice(&self.host.chance().u64().to_be_bytes());
        let now = self.host.now();
        let pem = signing::sign(&self.keys.authority, wanted, &usages(request), seconds, serial, now)
            .context("cannot sign")?;
        let mut signed = request.clone();
        signed["status"]["certificate"] = json!(STANDARD.encode(pem));
        self.put(key, "status", &signed).await
    }
}

fn key_of(name: &str) -> Key {
    Key::new(&kinds::CERTIFICATE_SIGNING_REQUEST, "", name)
}

fn is_passed(why: &anyhow::Error) -> bool {
    matches!(why.downcast_ref(), Some(ClientError::Conflict { .. } | ClientError::NotFound { .. }))
}

fn usages(request: &Tree) -> Vec<String> {
    items(request, "spec.usages").iter().filter_map(Tree::as_str).map(str::to_owned).collect()
}

fn add_condition(request: &mut Tree, kind: &str, reason: &str, message: &str, now: Time) {
    let at = model::time::seconds(now);
    let condition = json!({"type": kind, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": at, "lastTransitionTime": at});
    match request["status"]["conditions"].as_array_mut() {
        Some(conditions) => conditions.push(condition),
        None => request["status"]["conditions"] = json!([condition]),
    }
}

/// What is to be done with a request, as it stands.
fn decide(request: &Tree) -> Step {
    let has = |kind: &str| {
        let mut all = items(request, "status.conditions").iter();
        all.any(|condition| text(condition, "type") == kind && text(condition, "status") != "False")
    };
    if !text(request, "status.certificate").is_empty() || has("Denied") || has("Failed") {
        return Step::Rest;
    }
    let pem = STANDARD.decode(text(request, "spec.request")).ok().and_then(|pem| String::from_utf8(pem).ok());
    let wanted = match signing::read(&pem.unwrap_or_default()) {
        Ok(wanted) => wanted,
        // Admission has read it once; what nobody can read is nobody's to sign.
        Err(_) => return Step::Rest,
    };
    let (signer, usages) = (text(request, "spec.signerName"), usages(request));
    let Some(judged) = signing::judge(signer, &wanted, &usages) else { return Step::Rest };
    match (has("Approved"), judged) {
        (true, Ok(())) => Step::Sign(Box::new(wanted)),
        (true, Err(why)) => Step::Fail(why),
        (false, Ok(())) if signer == signing::NODE_SERVING => Step::Serving(Box::new(wanted)),
        (false, Ok(())) if signer == signing::NODE_CLIENT => {
            let own = (
                "selfnodeclient",
                "Auto approving self kubelet client certificate after SubjectAccessReview.",
            );
            let any = ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");
            let is_own = text(request, "spec.username") == wanted.name;
            Step::Ask(if is_own { vec![own, any] } else { vec![any] })
        }
        (false, _) => Step::Rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(user: &str, signer: &str, conditions: &[&str], usage: &str, wanted: &str) {
        let (_, pem) = signing::new_request("system:node:a", "system:nodes", &[]).expect("keys can be drawn");
        let conditions: Vec<Tree> =
            conditions.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
        let request = json!({"spec": {"request": STANDARD.encode(pem), "signerName": signer, "username": user,
            "usages": ["digital signature", usage]}, "status": {"conditions": conditions}});
        let said = match decide(&request) {
            Step::Rest => "rest".to_owned(),
            Step::Ask(ways) => ways.iter().map(|(part, _)| *part).collect::<Vec<_>>().join(","),
            Step::Serving(_) => "serving".to_owned(),
            Step::Sign(_) => "sign".to_owned(),
            Step::Fail(why) => why,
        };
        assert_eq!(said, wanted, "{user} {signer} {conditions:?}");
    }

    #[test]
    fn a_request_waits_is_signed_or_fails() {
        let node = "system:node:a";
        check(node, signing::NODE_CLIENT, &[], "client auth", "selfnodeclient,nodeclient");
        check("system:bootstrap:x", signing::NODE_CLIENT, &[], "client auth", "nodeclient");
        check(node, signing::NODE_CLIENT, &["Approved"], "client auth", "sign");
        check(node, signing::NODE_CLIENT, &["Denied"], "client auth", "rest");
        check(node, signing::API_CLIENT, &[], "client auth", "rest");
        check(node, signing::API_CLIENT, &["Approved"], "client auth", "sign");
        check(
            node,
            signing::API_CLIENT,
            &["Approved"],
            "server auth",
            "invalid usage for client certificate: server auth",
        );
        check(node, signing::API_CLIENT, &["Approved", "Failed"], "server auth", "rest");
        check(node, "example.com/other", &["Approved"], "client auth", "rest");
    }
}
