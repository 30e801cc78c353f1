//! Feeds the node's packet rules and routes from the caches: Services and EndpointSlices become rules, Nodes routes.
//!
//! `network` decides what the rules are, from what is seen. Whatever changes while the kernel takes one state is in the next.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use host::watch;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use model::kinds as gvr;
use model::{Gvr, Key, World};
use network::{NodeRoute, ServiceRules};
use serde::de::DeserializeOwned;

use crate::agent::Agent;
use crate::backoff;

/// Keeps rules and routes as they should be until the agent ends.
pub async fn keep(agent: Arc<Agent>, mut news: watch::Receiver<()>) {
    let mut views = Views::default();
    let (mut served, mut routed) = (None, None);
    let mut failures = 0;
    loop {
        let (rules, routes) = views.look(&agent);
        let mut is_done = true;
        if served.as_ref() != Some(&rules) {
            match agent.means.network.serve(rules.clone()).await {
                Ok(()) => served = Some(rules),
                Err(error) => {
                    tracing::warn!(%error, "the rules of Services could not be changed");
                    is_done = false;
                }
            }
        }
        if routed.as_ref() != Some(&routes) {
            match agent.means.network.route(routes.clone()).await {
                Ok(()) => routed = Some(routes),
                Err(error) => {
                    tracing::warn!(%error, "the routes to other nodes could not be changed");
                    is_done = false;
                }
            }
        }
        if is_done {
            failures = 0;
            if news.changed().await.is_err() {
                return;
            }
        } else {
            failures += 1;
            let wait = backoff::trouble_wait(failures);
            if let Some(Err(_)) = agent.means.host.within(wait, news.changed()).await {
                return;
            }
        }
    }
}

/// Typed views, decoded once for each revision.
#[derive(Default)]
struct Views {
    services: Typed<Service>,
    slices: Typed<EndpointSlice>,
    nodes: Typed<Node>,
}

/// Typed views of one resource, decoded once for each revision.
pub(crate) struct Typed<T>(BTreeMap<Key, (u64, Arc<T>)>);

impl<T> Default for Typed<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: DeserializeOwned> Typed<T> {
    /// All objects of a resource, by key.
    pub(crate) fn look(&mut self, world: &dyn World, gvr: &Gvr) -> Vec<Arc<T>> {
        let mut next = BTreeMap::new();
        for object in world.list(gvr, "") {
            let key = Key::new(gvr, object.namespace(), object.name());
            let known = self.0.remove(&key).filter(|(revision, _)| *revision == object.revision());
            let view = known.or_else(|| Some((object.revision(), Arc::new(object.view().ok()?))));
            if let Some(view) = view {
                next.insert(key, view);
            }
        }
        self.0 = next;
        self.0.values().map(|(_, view)| view.clone()).collect()
    }
}

impl Views {
    fn look(&mut self, agent: &Agent) -> (ServiceRules, Vec<NodeRoute>) {
        let (services, slices, nodes) = agent.means.caches.read(|world| {
            (
                self.services.look(world, &gvr::SERVICE),
                self.slices.look(world, &gvr::ENDPOINT_SLICE),
                self.nodes.look(world, &gvr::NODE),
            )
        });
        let own = agent.settings.node_name.as_str();
        let rules =
            network::rules(services.iter().map(|view| &**view), slices.iter().map(|view| &**view), own);
        (rules, routes(&nodes, own))
    }
}

/// The routes to the pods of other nodes.
pub fn routes(nodes: &[Arc<Node>], own: &str) -> Vec<NodeRoute> {
    let others = nodes.iter().filter(|node| node.metadata.name.as_deref() != Some(own));
    let mut routes: Vec<NodeRoute> = others.flat_map(|node| routes_to(node)).collect();
    routes.sort();
    routes
}

fn routes_to(node: &Node) -> Vec<NodeRoute> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let own: Vec<IpAddr> = addresses
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect();
    let ranges = spec.pod_cidrs.clone().unwrap_or_else(|| spec.pod_cidr.clone().into_iter().collect());
    let to = |range: String| {
        let via = *own.iter().find(|ip| ip.is_ipv6() == range.contains(':'))?;
        Some(NodeRoute { node: node.metadata.name.clone().unwrap_or_default(), via, pod_cidr: range })
    };
    ranges.into_iter().filter(|range| !range.is_empty()).filter_map(to).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn other_nodes_are_reached_through_their_addresses() {
        let node = |name: &str, ip: &str, range: &str| {
            let node = json!({"metadata": {"name": name}, "spec": {"podCIDR": range},
                "status": {"addresses": [{"type": "InternalIP", "address": ip}]}});
            Arc::new(serde_json::from_value::<Node>(node).expect("a Node"))
        };
        let all = [node("a", "192.0.2.1", "10.1.0.0/24"), node("b", "192.0.2.2", "10.2.0.0/24")];
        let expected = NodeRoute {
            node: "b".into(),
            via: "192.0.2.2".parse().expect("an address"),
            pod_cidr: "10.2.0.0/24".into(),
        };
        assert_eq!(routes(&all, "a"), [expected]);
    }
}
