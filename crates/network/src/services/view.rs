//! Services and EndpointSlices as the API has them, read for names and rules.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

/// The label by which a slice names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A Service's namespace and name.
pub(crate) fn key(service: &Service) -> Option<(String, String)> {
    Some((service.metadata.namespace.clone()?, service.metadata.name.clone()?))
}

/// The namespace and name of the Service whose endpoints a slice has.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<(String, String)> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some((slice.metadata.namespace.clone()?, name.clone()))
}

/// The virtual addresses of a Service; none for one that is headless.
pub(crate) fn cluster_addresses(service: &Service) -> Vec<IpAddr> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let all = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in all.filter_map(|address| address.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Whether new connections may go to an endpoint. Unsaid means yes.
pub(crate) fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
}

/// Whether an endpoint still answers while it ends.
pub(crate) fn is_ending(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let is = |value: Option<bool>| value == Some(true);
    conditions.is_some_and(|conditions| is(conditions.terminating) && conditions.serving != Some(false))
}
