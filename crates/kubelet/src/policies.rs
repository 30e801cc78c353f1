//! Feeds what holds pods back from NetworkPolicies, Pods and Namespaces, as long as there are policies at all.
//!
//! `network` decides what the rules are, from what is seen. Pods and Namespaces of the whole cluster are followed in
//! caches of this task's own, and only while some policy may name them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use client::{Caches, Follow};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use model::kinds as gvr;
use model::{Gvr, World};
use network::{GuardedPod, NamespaceLabels, PolicyRules, Protocol};
use serde::Deserialize;

use crate::agent::Agent;
use crate::backoff;
use crate::services::Typed;

/// What a policy may mean besides itself.
const MEANT: [&Gvr; 2] = [&gvr::POD, &gvr::NAMESPACE];

/// Keeps the rules as they should be until the agent ends.
pub async fn keep(agent: Arc<Agent>) {
    let caches = Caches::new(agent.means.client.clone(), agent.means.host.clone());
    let mut changes = caches.changes();
    caches.follow(Follow::all(&gvr::NETWORK_POLICY));
    caches.synced().await;
    let mut views = Views::default();
    let mut held: Option<PolicyRules> = None;
    let mut failures = 0;
    loop {
        follow_what_is_meant(&caches).await;
        let rules = views.look(&caches, &agent.settings.node_name);
        match held.as_ref() == Some(&rules) {
            true => failures = 0,
            false => match agent.means.network.guard(rules.clone()).await {
                Ok(()) => (held, failures) = (Some(rules), 0),
                Err(error) => {
                    tracing::warn!(%error, "what pods may send and receive could not be changed");
                    failures += 1;
                }
            },
        }
        if failures == 0 {
            changes.next().await;
        } else {
            agent.means.host.within(backoff::trouble_wait(failures), changes.next()).await;
        }
    }
}

/// Follows pods and namespaces while there are policies.
async fn follow_what_is_meant(caches: &Caches) {
    let has_policies = caches.read(|world| !world.list(&gvr::NETWORK_POLICY, "").is_empty());
    for what in MEANT.map(Follow::all) {
        match has_policies {
            true => caches.follow(what),
            false => caches.unfollow(&what),
        }
    }
    caches.synced().await;
}

/// Typed views, decoded once for each revision.
#[derive(Default)]
struct Views {
    policies: Typed<NetworkPolicy>,
    pods: Typed<Pod>,
    namespaces: Typed<Space>,
}

impl Views {
    fn look(&mut self, caches: &Caches, own: &str) -> PolicyRules {
        let (policies, pods, spaces) = caches.read(|world| {
            (
                self.policies.look(world, &gvr::NETWORK_POLICY),
                self.pods.look(world, &gvr::POD),
                self.namespaces.look(world, &gvr::NAMESPACE),
            )
        });
        let pods: Vec<GuardedPod> = pods.iter().filter_map(|pod| pod.guarded()).collect();
        let spaces: NamespaceLabels =
            spaces.iter().map(|space| (space.metadata.name.clone(), space.metadata.labels.clone())).collect();
        network::policies(policies.iter().map(|view| &**view), &pods, &spaces, own)
    }
}

/// What is read of a Namespace.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Space {
    metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Meta {
    name: String,
    namespace: String,
    labels: BTreeMap<String, String>,
}

/// What is read of a Pod.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: String,
    host_network: bool,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    ports: Vec<Port>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Port {
    name: String,
    container_port: u16,
    protocol: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: String,
}

impl Pod {
    /// The pod as policies see it; `None` when it has no address of its own, or none any more.
    fn guarded(&self) -> Option<GuardedPod> {
        let address: Ipv4Addr = self.status.pod_ip.parse().ok()?;
        let has_ended = matches!(self.status.phase.as_str(), "Succeeded" | "Failed");
        let containers = self.spec.containers.iter().chain(&self.spec.init_containers);
        let named = containers.flat_map(|container| &container.ports).filter(|port| !port.name.is_empty());
        let protocol = |port: &Port| match port.protocol.as_str() {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        (!has_ended && !self.spec.host_network).then(|| GuardedPod {
            namespace: self.metadata.namespace.clone(),
            labels: self.metadata.labels.clone(),
            address,
            node: self.spec.node_name.clone(),
            ports: named.map(|port| (port.name.clone(), protocol(port), port.container_port)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_pods_with_an_address_of_their_own_that_still_run_are_meant() {
        let check = |phase: &str, ip: &str, is_on_host: bool, expected: Option<&str>| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
                "spec": {"nodeName": "a", "hostNetwork": is_on_host, "containers": [
                    {"name": "c", "ports": [{"containerPort": 80}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]},
                "status": {"phase": phase, "podIP": ip},
            }))
            .expect("a Pod");
            let told = pod.guarded().map(|pod| format!("{} {} {:?}", pod.namespace, pod.address, pod.ports));
            assert_eq!(told.as_deref(), expected, "{phase}");
        };
        check("Running", "10.0.0.1", false, Some(r#"shop 10.0.0.1 [("dns", Udp, 53)]"#));
        check("Pending", "", false, None);
        check("Failed", "10.0.0.1", false, None);
        check("Running", "192.0.2.1", true, None);
    }
}
