//! What a server does for machines that join: says publicly how it is verified, gives nodes their ranges, and forgets
//! tokens whose time is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::auth::{Identity, bootstrap};
use client::{Caches, Changes, Client, ClientError, Deletion, Follow, PatchKind, Select};
use host::{Host, Task};
use model::tree::{items, text};
use model::{Key, Precondition, Time, Tree, World, kinds};
use network::Cidr;
use serde_json::json;

use crate::control::{self, CONTROLLERS};
use crate::keys::Keys;
use crate::ranges::Ranges;
use crate::settings::Cluster;

/// The ConfigMap by which those who join verify the server, as kubeadm has it.
pub const PUBLIC: (&str, &str) = ("kube-public", "cluster-info");
/// The ConfigMap that tells nodes what their cluster is like.
pub const CLUSTER: (&str, &str) = ("kube-system", "kintsugi-cluster");
/// What the keys of signatures begin with.
const SIGNATURE: &str = "jws-kubeconfig-";
/// How long to wait before another try when something could not be written.
const AGAIN: Duration = Duration::from_secs(1);

/// Does so until it is dropped.
pub fn start(
    host: &Host,
    service: &api::Service,
    keys: &Arc<Keys>,
    ranges: &Ranges,
    cluster: &Cluster,
    server: &str,
) -> Task<()> {
    let client = control::client(service, Identity::component(CONTROLLERS), "joining");
    let caches = Caches::new(client.clone(), host.clone());
    let joining = Joining {
        client,
        caches,
        pods: ranges.pods,
        public: keys.public_kubeconfig(server),
        cluster: json!({"pods": ranges.pods.to_string(), "services": ranges.services.to_string(),
            "dns": ranges.dns().to_string(), "domain": cluster.cluster_domain,
            "healing": json!(cluster.healing).to_string()}),
        host: host.clone(),
    };
    host.spawn(joining.keep())
}

struct Joining {
    client: Client,
    caches: Caches,
    /// The range of all pods.
    pods: Cidr,
    /// How the server is verified, as a kubeconfig without a user.
    public: String,
    cluster: Tree,
    host: Host,
}

impl Joining {
    async fn keep(self) {
        let tokens = Follow {
            namespace: bootstrap::NAMESPACE.to_owned(),
            ..Follow::fields(&kinds::SECRET, format!("type={}", bootstrap::TYPE))
        };
        self.caches.follow(tokens);
        self.caches.follow(Follow::all(&kinds::NODE));
        let mut changes = self.caches.changes();
        self.caches.synced().await;
        loop {
            let next = match self.pass().await {
                Ok(next) => next,
                Err(why) => {
                    tracing::warn!("cannot prepare for machines that join: {why:#}");
                    Some(self.host.now() + AGAIN)
                }
            };
            let sleep = async {
                match next {
                    Some(at) => self.host.sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = news(&mut changes) => {}
                () = sleep => {}
            }
        }
    }

    /// Makes everything be as it should; says when to look again.
    async fn pass(&self) -> Result<Option<Time>> {
        self.have(CLUSTER, &self.cluster, "").await?;
        let now = self.host.now();
        let (mut signatures, mut next) = (BTreeMap::new(), None::<Time>);
        for object in self.caches.list(&kinds::SECRET, bootstrap::NAMESPACE) {
            let secret = object.tree()?;
            if bootstrap::is_expired(&secret, now) {
                let key = Key::new(&kinds::SECRET, bootstrap::NAMESPACE, object.name());
                let deletion = Deletion { when: Precondition::same(&object), ..Deletion::default() };
                match self.client.delete(&key, &deletion).await {
                    Ok(_) | Err(ClientError::NotFound { .. } | ClientError::Conflict { .. }) => {}
                    Err(why) => return Err(why).context("an expired token stays"),
                }
                continue;
            }
            if let Ok(end) = bootstrap::value(&secret, "expiration").parse::<Time>() {
                next = Some(next.map_or(end, |next| next.min(end)));
            }
            if bootstrap::value(&secret, "usage-bootstrap-signing") == "true" {
                let (id, own) =
                    (bootstrap::value(&secret, "token-id"), bootstrap::value(&secret, "token-secret"));
                signatures.insert(format!("{SIGNATURE}{id}"), bootstrap::signature(&id, &own, &self.public));
            }
        }
        let mut data = json!(signatures);
        data["kubeconfig"] = json!(self.public);
        self.have(PUBLIC, &data, SIGNATURE).await?;
        self.give_ranges().await?;
        Ok(next)
    }

    /// Makes a ConfigMap hold these data; others of its keys that begin with `own` go.
    async fn have(&self, (namespace, name): (&str, &str), data: &Tree, own: &str) -> Result<()> {
        let key = Key::new(&kinds::CONFIG_MAP, namespace, name);
        let known = match self.client.get(&key).await {
            Ok(known) => known.tree()?,
            Err(ClientError::NotFound { .. }) => {
                let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data,
                    "metadata": {"name": name, "namespace": namespace}});
                self.client.create(&kinds::CONFIG_MAP, namespace, &map).await?;
                return Ok(());
            }
            Err(why) => return Err(why).with_context(|| format!("cannot read {namespace}/{name}")),
        };
        let mut patch = data.clone();
        for (key, _) in model::tree::entries(&known, "data") {
            if !own.is_empty() && key.starts_with(own) && data.get(key).is_none() {
                patch[key] = Tree::Null;
            }
        }
        let differs = |(key, value): (&String, &Tree)| known["data"].get(key).unwrap_or(&Tree::Null) != value;
        if patch.as_object().is_some_and(|patch| patch.iter().any(differs)) {
            let patch = json!({ "data": patch });
            self.client.patch(&key, "", PatchKind::Merge, &patch, &Precondition::default()).await?;
        }
        Ok(())
    }

    /// Gives every node without a range of addresses for its pods one that nobody has.
    async fn give_ranges(&self) -> Result<()> {
        let nodes = self.caches.list(&kinds::NODE, "");
        let lacks =
            |node: &model::Object| node.tree().is_ok_and(|node| text(&node, "spec.podCIDR").is_empty());
        if !nodes.iter().any(lacks) {
            return Ok(());
        }
        // Those that were given a moment ago may not be in the cache yet.
        let (nodes, _) = self.client.list(&kinds::NODE, "", &Select::all()).await?;
        let mut taken: Vec<String> = Vec::new();
        for node in &nodes {
            let tree = node.tree()?;
            taken.push(text(&tree, "spec.podCIDR").to_owned());
            taken.extend(items(&tree, "spec.podCIDRs").iter().filter_map(Tree::as_str).map(str::to_owned));
        }
        for node in nodes.iter().filter(|node| lacks(node)) {
            let range = free(self.pods, &taken)
                .with_context(|| format!("no range is left in {} for node {}", self.pods, node.name()))?;
            let key = Key::new(&kinds::NODE, "", node.name());
            let patch = json!({"spec": {"podCIDR": range, "podCIDRs": [range]}});
            self.client.patch(&key, "", PatchKind::Merge, &patch, &Precondition::exactly(node)).await?;
            taken.push(range);
        }
        Ok(())
    }
}

/// Waits for a change that matters here: of a token, or of a node that has no range.
async fn news(changes: &mut Changes) {
    loop {
        let changed = changes.next().await;
        let lacks =
            |node: &model::Object| node.tree().is_ok_and(|node| text(&node, "spec.podCIDR").is_empty());
        if changed.key.gvr == kinds::SECRET || changed.new.as_ref().is_some_and(lacks) {
            return;
        }
    }
}

/// The last /24 that is free: nodes that a server starts itself take theirs from the front.
fn free(pods: Cidr, taken: &[String]) -> Option<String> {
    let count = u32::try_from(pods.size() / 256).ok()?;
    (0..count).rev().find_map(|number| {
        let range = Cidr::new(pods.nth(number * 256)?, 24)?.to_string();
        (!taken.contains(&range)).then_some(range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_given_from_the_end_and_once() {
        let pods: Cidr = "10.244.0.0/20".parse().expect("a range");
        let mut taken = vec!["10.244.0.0/24".to_owned()];
        while let Some(range) = free(pods, &taken) {
            taken.push(range);
        }
        assert_eq!((taken.len(), taken[1].as_str()), (16, "10.244.15.0/24"));
    }
}
