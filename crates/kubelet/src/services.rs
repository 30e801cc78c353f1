//! Feeds the node's packet rules and routes from the caches: Services and EndpointSlices become rules, Nodes routes.
//!
//! The rules are a pure function of what is seen. Whatever changes while the kernel takes one state is in the next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Service, ServicePort as Port};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use model::kinds as gvr;
use model::{Gvr, Key, World};
use network::{NodeRoute, Protocol, ServicePort, ServiceRules};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::agent::Agent;
use crate::backoff;

/// The label that says which Service a slice is of.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// How long a client stays with its endpoint where the Service does not say: three hours, the API's default.
const AFFINITY_SECONDS: i32 = 10_800;

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
            agent.means.host.within(backoff::trouble_wait(failures), news.changed()).await;
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

struct Typed<T>(BTreeMap<Key, (u64, Arc<T>)>);

impl<T> Default for Typed<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: DeserializeOwned> Typed<T> {
    fn look(&mut self, world: &dyn World, gvr: &Gvr) -> Vec<Arc<T>> {
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
        (rules(&services, &slices, own), routes(&nodes, own))
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

/// The rules that Services and their slices come to on the node `own`.
pub fn rules(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], own: &str) -> ServiceRules {
    let mut by_service: BTreeMap<(&str, &str), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        let meta = &slice.metadata;
        if let Some(name) = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)) {
            by_service.entry((meta.namespace.as_deref().unwrap_or(""), name)).or_default().push(slice);
        }
    }
    let mut ports = Vec::new();
    for service in services {
        let meta = &service.metadata;
        let (namespace, name) = (meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
        let own_slices = by_service.get(&(namespace, name)).map_or(&[][..], Vec::as_slice);
        of_service(service, own_slices, own, &mut ports);
    }
    ports.sort();
    ServiceRules { ports }
}

fn of_service(service: &Service, slices: &[&EndpointSlice], own: &str, out: &mut Vec<ServicePort>) {
    let Some(spec) = &service.spec else { return };
    if spec.type_.as_deref() == Some("ExternalName") {
        return;
    }
    let addresses = addresses_of(service);
    let is_headless = spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None");
    if addresses.is_empty() || is_headless {
        return;
    }
    let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
        let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
        let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_SECONDS);
        u32::try_from(seconds).unwrap_or(0)
    });
    let is_local = |policy: Option<&str>| policy == Some("Local");
    let (inside, outside) = (
        is_local(spec.internal_traffic_policy.as_deref()),
        is_local(spec.external_traffic_policy.as_deref()),
    );
    for port in spec.ports.iter().flatten() {
        for is_v6 in [false, true] {
            let addresses: Vec<IpAddr> =
                addresses.iter().copied().filter(|ip| ip.is_ipv6() == is_v6).collect();
            if addresses.is_empty() {
                continue;
            }
            let family = if is_v6 { "IPv6" } else { "IPv4" };
            out.push(ServicePort {
                name: name_of(service, port),
                protocol: protocol(port.protocol.as_deref()),
                addresses,
                port: number(port.port),
                node_port: port.node_port.map_or(0, number),
                affinity_seconds: affinity,
                endpoints: endpoints(slices, port, family, inside.then_some(own)),
                external_endpoints: endpoints(slices, port, family, outside.then_some(own)),
                keep_source: outside,
            });
        }
    }
}

fn number(port: i32) -> u16 {
    u16::try_from(port).unwrap_or(0)
}

fn protocol(text: Option<&str>) -> Protocol {
    match text {
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}

fn name_of(service: &Service, port: &Port) -> String {
    let meta = &service.metadata;
    let place = format!("{}/{}", meta.namespace.as_deref().unwrap_or(""), meta.name.as_deref().unwrap_or(""));
    match port.name.as_deref() {
        Some(name) if !name.is_empty() => format!("{place}:{name}"),
        _ => place,
    }
}

/// Where a Service is reached: cluster, external and load balancer addresses, each once.
fn addresses_of(service: &Service) -> Vec<IpAddr> {
    let spec = service.spec.as_ref();
    let cluster = spec.and_then(|spec| spec.cluster_ips.clone()).unwrap_or_default();
    let first = spec.and_then(|spec| spec.cluster_ip.clone());
    let external = spec.and_then(|spec| spec.external_ips.clone()).unwrap_or_default();
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    let virtual_ones =
        ingress.filter(|at| at.ip_mode.as_deref() != Some("Proxy")).filter_map(|at| at.ip.clone());
    let all = cluster.into_iter().chain(first).chain(external).chain(virtual_ones);
    let mut seen = BTreeSet::new();
    all.filter_map(|text| text.parse().ok()).filter(|ip: &IpAddr| seen.insert(*ip)).collect()
}

/// Where a port leads: the ready endpoints; with none, those that end and still serve. `near` keeps to one node.
fn endpoints(slices: &[&EndpointSlice], port: &Port, family: &str, near: Option<&str>) -> Vec<SocketAddr> {
    let mut ready = BTreeSet::new();
    let mut ending = BTreeSet::new();
    for slice in slices.iter().filter(|slice| slice.address_type == family) {
        let wanted = port.name.as_deref().unwrap_or("");
        let matching = slice.ports.iter().flatten().find(|known| {
            let is_named = known.name.as_deref().unwrap_or("") == wanted;
            is_named && protocol(known.protocol.as_deref()) == protocol(port.protocol.as_deref())
        });
        let Some(number) = matching.and_then(|port| u16::try_from(port.port?).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            if near.is_some_and(|node| endpoint.node_name.as_deref() != Some(node)) {
                continue;
            }
            let list = match standing(endpoint) {
                Standing::Ready => &mut ready,
                Standing::Ending => &mut ending,
                Standing::Away => continue,
            };
            list.extend(
                endpoint.addresses.iter().filter_map(|ip| Some(SocketAddr::new(ip.parse().ok()?, number))),
            );
        }
    }
    if ready.is_empty() { ending } else { ready }.into_iter().collect()
}

enum Standing {
    Ready,
    Ending,
    Away,
}

fn standing(endpoint: &Endpoint) -> Standing {
    let Some(conditions) = &endpoint.conditions else { return Standing::Ready };
    let is_ready = conditions.ready.unwrap_or(true);
    match (is_ready, conditions.serving.unwrap_or(is_ready), conditions.terminating.unwrap_or(false)) {
        (true, ..) => Standing::Ready,
        (false, true, true) => Standing::Ending,
        _ => Standing::Away,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// One Service `shop/web` with a port 80, and one slice whose endpoints are written as `ip@node:rst` (ready,
    /// serving, terminating). Tells the rules as `addresses:port -> endpoints | external endpoints`.
    fn check(spec: Value, endpoints: &str, expected: &[&str]) {
        let mut whole = json!({"clusterIP": "10.9.0.1", "clusterIPs": ["10.9.0.1"], "ports": [{"port": 80}]});
        if let (Some(all), Some(more)) = (whole.as_object_mut(), spec.as_object()) {
            all.extend(more.clone());
        }
        let service = json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": whole});
        let service: Service = serde_json::from_value(service).expect("a Service");
        let endpoints: Vec<Value> = endpoints
            .split_whitespace()
            .filter_map(|text| {
                let (place, state) = text.split_once(':')?;
                let (ip, node) = place.split_once('@')?;
                let is = |letter| state.contains(letter);
                let conditions = json!({"ready": is('r'), "serving": is('s'), "terminating": is('t')});
                Some(json!({"addresses": [ip], "nodeName": node, "conditions": conditions}))
            })
            .collect();
        let slice = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "labels": {SERVICE_NAME: "web"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
        });
        let slice: EndpointSlice = serde_json::from_value(slice).expect("a slice");
        let told: Vec<String> = rules(&[Arc::new(service)], &[Arc::new(slice)], "a")
            .ports
            .iter()
            .map(|port| {
                let list = |all: &[SocketAddr]| {
                    all.iter().map(|at| at.ip().to_string()).collect::<Vec<_>>().join(",")
                };
                let addresses: Vec<_> = port.addresses.iter().map(IpAddr::to_string).collect();
                let (inside, outside) = (list(&port.endpoints), list(&port.external_endpoints));
                format!("{}:{} -> {inside} | {outside}", addresses.join(","), port.port)
            })
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn traffic_goes_to_ready_endpoints() {
        let three = "10.0.0.1@a:rs 10.0.0.2@b:rs 10.0.0.3@a:";
        check(json!({}), three, &["10.9.0.1:80 -> 10.0.0.1,10.0.0.2 | 10.0.0.1,10.0.0.2"]);
    }

    #[test]
    fn with_none_ready_it_goes_to_those_that_end_and_still_serve() {
        check(json!({}), "10.0.0.1@a:st 10.0.0.2@b:t", &["10.9.0.1:80 -> 10.0.0.1 | 10.0.0.1"]);
    }

    #[test]
    fn local_policies_keep_to_this_node() {
        let two = "10.0.0.1@a:rs 10.0.0.2@b:rs";
        check(
            json!({"externalTrafficPolicy": "Local"}),
            two,
            &["10.9.0.1:80 -> 10.0.0.1,10.0.0.2 | 10.0.0.1"],
        );
        check(
            json!({"internalTrafficPolicy": "Local"}),
            two,
            &["10.9.0.1:80 -> 10.0.0.1 | 10.0.0.1,10.0.0.2"],
        );
    }

    #[test]
    fn external_addresses_are_served_and_headless_services_are_not() {
        check(json!({"externalIPs": ["192.0.2.7"]}), "", &["10.9.0.1,192.0.2.7:80 ->  | "]);
        check(json!({"clusterIP": "None", "clusterIPs": ["None"]}), "10.0.0.1@a:rs", &[]);
        check(json!({"type": "ExternalName", "externalName": "x"}), "10.0.0.1@a:rs", &[]);
    }

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
