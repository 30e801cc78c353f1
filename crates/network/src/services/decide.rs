//! Services and EndpointSlices → the rules of one node. Pure.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::view;
use crate::{Protocol, ServicePort, ServiceRules};

/// How long a client stays with its endpoint when the Service does not say, in seconds.
const AFFINITY_SECONDS: u32 = 10_800;
/// The label of Services that somebody else serves.
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// The rules for all Services, on the node of that name.
pub fn rules<'a>(
    services: impl IntoIterator<Item = &'a core::Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    node: &str,
) -> ServiceRules {
    let mut by_service: BTreeMap<(String, String), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let Some(key) = view::service_of(slice) {
            by_service.entry(key).or_default().push(slice);
        }
    }
    let mut ports = Vec::new();
    for service in services {
        let slices = view::key(service).and_then(|key| by_service.remove(&key)).unwrap_or_default();
        ports.extend(service_ports(service, &slices, node));
    }
    ports.sort();
    ServiceRules { ports }
}

/// The rules of one Service, from its own EndpointSlices: for those who keep the others and only change one.
pub fn service_ports(service: &core::Service, slices: &[&EndpointSlice], node: &str) -> Vec<ServicePort> {
    let (Some((namespace, name)), Some(spec)) = (view::key(service), &service.spec) else {
        return Vec::new();
    };
    let addresses = view::cluster_addresses(service);
    if addresses.is_empty() || spec.type_.as_deref() == Some("ExternalName") || is_others(service) {
        return Vec::new();
    }
    let each = |port: &core::ServicePort| {
        let protocol = protocol(port.protocol.as_deref())?;
        let inside_local = spec.internal_traffic_policy.as_deref() == Some("Local");
        let outside_local = spec.external_traffic_policy.as_deref() == Some("Local");
        let all = endpoints(slices, port.name.as_deref().unwrap_or(""), protocol);
        Some(ServicePort {
            name: format!("{namespace}/{name}:{}", port.name.as_deref().unwrap_or("")),
            protocol,
            addresses: addresses.iter().copied().chain(outer_addresses(service)).collect(),
            port: u16::try_from(port.port).ok()?,
            node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(0),
            affinity_seconds: affinity(spec),
            endpoints: serving(&all, inside_local.then_some(node)),
            external_endpoints: serving(&all, outside_local.then_some(node)),
            keep_source: outside_local,
        })
    };
    spec.ports.iter().flatten().filter_map(each).collect()
}

fn is_others(service: &core::Service) -> bool {
    service.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(OTHER_PROXY))
}

/// External addresses, and those a load balancer delivers to unchanged.
fn outer_addresses(service: &core::Service) -> impl Iterator<Item = IpAddr> + '_ {
    let external = service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten()).cloned();
    let balancer = service.status.iter().filter_map(|status| status.load_balancer.as_ref());
    let ingress = balancer.flat_map(|balancer| balancer.ingress.iter().flatten());
    let delivered = ingress.filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"));
    external
        .chain(delivered.filter_map(|ingress| ingress.ip.clone()))
        .filter_map(|address| address.parse().ok())
}

fn affinity(spec: &core::ServiceSpec) -> Option<u32> {
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds =
        config.and_then(|config| config.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok());
    (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| seconds.unwrap_or(AFFINITY_SECONDS))
}

fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name.unwrap_or("TCP") {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        "SCTP" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// The endpoints of a port, wherever and in whatever state, with where they are reached.
fn endpoints<'a>(
    slices: &[&'a EndpointSlice],
    name: &str,
    wanted: Protocol,
) -> Vec<(&'a Endpoint, SocketAddr)> {
    let mut found = Vec::new();
    for slice in slices {
        let port = slice.ports.iter().flatten().find(|port| {
            port.name.as_deref().unwrap_or("") == name && protocol(port.protocol.as_deref()) == Some(wanted)
        });
        let Some(port) = port.and_then(|port| port.port).and_then(|port| u16::try_from(port).ok()) else {
            continue;
        };
        for endpoint in slice.endpoints.iter().flatten() {
            let address = endpoint.addresses.first().and_then(|address| address.parse::<IpAddr>().ok());
            found.extend(address.map(|address| (endpoint, SocketAddr::new(address, port))));
        }
    }
    found
}

/// Where traffic goes: to endpoints that are ready, or else to those that still answer while they end; only to
/// those of one node if one is named.
fn serving(all: &[(&Endpoint, SocketAddr)], node: Option<&str>) -> Vec<SocketAddr> {
    let is_near = |endpoint: &Endpoint| node.is_none() || endpoint.node_name.as_deref() == node;
    let of = |is: fn(&Endpoint) -> bool| {
        let fitting = all.iter().filter(|(endpoint, _)| is_near(endpoint) && is(endpoint));
        let mut at: Vec<SocketAddr> = fitting.map(|(_, at)| *at).collect();
        at.sort_unstable();
        at.dedup();
        at
    };
    let ready = of(view::is_ready);
    if ready.is_empty() { of(view::is_ending) } else { ready }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(service: &str, slices: &[&str], wanted: &str) {
        let service: core::Service = serde_json::from_str(service).expect("a Service");
        let slices: Vec<EndpointSlice> =
            slices.iter().map(|text| serde_json::from_str(text).expect("an EndpointSlice")).collect();
        let told: Vec<String> = rules([&service], &slices, "here").ports.iter().map(tell).collect();
        assert_eq!(told.join("\n"), wanted);
    }

    fn tell(port: &ServicePort) -> String {
        let list = |all: &[SocketAddr]| all.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",");
        let stay = port.affinity_seconds.map(|seconds| format!(" stay {seconds}")).unwrap_or_default();
        let keep = if port.keep_source { " keep" } else { "" };
        format!(
            "{} {:?} {:?}:{} node {} → {} | {}{stay}{keep}",
            port.name,
            port.protocol,
            port.addresses,
            port.port,
            port.node_port,
            list(&port.endpoints),
            list(&port.external_endpoints)
        )
    }

    const SLICE: &str = r#"{"metadata":{"namespace":"n","name":"s-1","labels":{"kubernetes.io/service-name":"s"}},
        "addressType":"IPv4","ports":[{"name":"web","port":8080,"protocol":"TCP"}],"endpoints":[
        {"addresses":["10.0.0.2"],"nodeName":"here","conditions":{"ready":true}},
        {"addresses":["10.0.0.3"],"nodeName":"there"},
        {"addresses":["10.0.0.4"],"nodeName":"here","conditions":{"ready":false,"serving":true,"terminating":true}},
        {"addresses":["10.0.0.5"],"nodeName":"here","conditions":{"ready":false,"serving":false}}]}"#;

    fn service(spec: &str) -> String {
        let ports = r#""clusterIP":"10.96.0.1","ports":[{"name":"web","port":80,"nodePort":30080}]"#;
        format!(r#"{{"metadata":{{"namespace":"n","name":"s"}},"spec":{{{ports}{spec}}}}}"#)
    }

    #[test]
    fn a_service_leads_to_its_ready_endpoints() {
        let wanted = "n/s:web Tcp [10.96.0.1]:80 node 30080 → 10.0.0.2:8080,10.0.0.3:8080 | 10.0.0.2:8080,10.0.0.3:8080";
        check(&service(""), &[SLICE], wanted);
        check(&service(""), &[SLICE, SLICE], wanted);
        check(&service(""), &[], "n/s:web Tcp [10.96.0.1]:80 node 30080 →  | ");
    }

    #[test]
    fn policies_keep_traffic_on_the_node() {
        check(
            &service(r#","externalTrafficPolicy":"Local","sessionAffinity":"ClientIP""#),
            &[SLICE],
            "n/s:web Tcp [10.96.0.1]:80 node 30080 → 10.0.0.2:8080,10.0.0.3:8080 | 10.0.0.2:8080 stay 10800 keep",
        );
        check(
            &service(r#","internalTrafficPolicy":"Local","externalIPs":["192.0.2.7"]"#),
            &[SLICE],
            "n/s:web Tcp [10.96.0.1, 192.0.2.7]:80 node 30080 → 10.0.0.2:8080 | 10.0.0.2:8080,10.0.0.3:8080",
        );
    }

    #[test]
    fn endpoints_that_end_serve_when_no_other_is_left() {
        let ending = SLICE.replace(r#"{"ready":true}"#, r#"{"ready":false}"#).replace("10.0.0.3", "fd00::3");
        let only = ending.replace(r#"{"addresses":["fd00::3"],"nodeName":"there"},"#, "");
        check(
            &service(""),
            &[&only],
            "n/s:web Tcp [10.96.0.1]:80 node 30080 → 10.0.0.4:8080 | 10.0.0.4:8080",
        );
    }

    #[test]
    fn headless_external_and_foreign_services_have_no_rules() {
        check(&service("").replace("10.96.0.1", "None"), &[SLICE], "");
        check(&service(r#","type":"ExternalName""#), &[SLICE], "");
        let foreign = r#""name":"s","labels":{"service.kubernetes.io/service-proxy-name":"x"}"#;
        check(&service("").replace(r#""name":"s""#, foreign), &[SLICE], "");
    }
}
