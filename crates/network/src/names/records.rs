//! What the cluster's names are made of: Services and their endpoints, as a snapshot that is cheap to change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::services::view;

/// The names of a cluster at one moment. Cloning it copies pointers.
#[derive(Debug, Clone)]
pub struct Records {
    domain: Arc<str>,
    services: BTreeMap<(Arc<str>, Arc<str>), Arc<Named>>,
    /// Who has an address; the first in order is the one that is told.
    addresses: BTreeMap<IpAddr, BTreeSet<Owner>>,
}

/// Who has an address, and under which name: Services come before endpoints.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    /// The Service whose cluster address it is.
    Service { namespace: Arc<str>, name: Arc<str> },
    /// The endpoint of a Service.
    Endpoint { namespace: Arc<str>, name: Arc<str>, host: String },
}

/// What a Service's name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Named {
    /// To virtual addresses.
    Virtual { addresses: Vec<IpAddr>, ports: Vec<Port>, hosts: Vec<Host> },
    /// To its endpoints.
    Headless { hosts: Vec<Host> },
    /// To another name.
    External { name: String },
}

/// An endpoint that is ready.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Host {
    /// Its name within the Service: its own, or its address with dashes.
    pub name: String,
    pub address: IpAddr,
    pub ports: Vec<Port>,
}

/// A named port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub name: String,
    /// In lower case.
    pub protocol: String,
    pub number: u16,
}

/// All names of a cluster, from its Services and EndpointSlices.
pub fn records<'a>(
    domain: &str,
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
) -> Records {
    let mut by_service: BTreeMap<(String, String), Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let Some(key) = view::service_of(slice) {
            by_service.entry(key).or_default().push(slice);
        }
    }
    let mut records = Records::new(domain);
    for service in services {
        let slices = view::key(service).and_then(|key| by_service.remove(&key)).unwrap_or_default();
        records.put(service, &slices);
    }
    records
}

impl Records {
    /// A cluster of that domain (`cluster.local`) without any Service.
    pub fn new(domain: &str) -> Self {
        let domain = domain.trim_matches('.').to_ascii_lowercase().into();
        Self { domain, services: BTreeMap::new(), addresses: BTreeMap::new() }
    }

    /// The cluster's domain, without dots around it.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Makes the names of a Service be what it and its EndpointSlices say.
    pub fn put(&mut self, service: &Service, slices: &[&EndpointSlice]) {
        let Some((namespace, name)) = view::key(service) else { return };
        self.remove(&namespace, &name);
        let (namespace, name): (Arc<str>, Arc<str>) = (namespace.into(), name.into());
        let named = named(service, slices);
        for (address, owner) in owners(&namespace, &name, &named) {
            self.addresses.entry(address).or_default().insert(owner);
        }
        self.services.insert((namespace, name), Arc::new(named));
    }

    /// Forgets a Service.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        let key = (Arc::from(namespace), Arc::from(name));
        let Some(named) = self.services.remove(&key) else { return };
        for (address, owner) in owners(&key.0, &key.1, &named) {
            if let Some(of_address) = self.addresses.get_mut(&address) {
                of_address.remove(&owner);
                if of_address.is_empty() {
                    self.addresses.remove(&address);
                }
            }
        }
    }

    pub(super) fn service(&self, namespace: &str, name: &str) -> Option<&Named> {
        self.services.get(&(Arc::from(namespace), Arc::from(name))).map(Arc::as_ref)
    }

    pub(super) fn has_namespace(&self, namespace: &str) -> bool {
        let first = (Arc::from(namespace), Arc::from(""));
        self.services.range(first..).next().is_some_and(|((found, _), _)| **found == *namespace)
    }

    pub(super) fn owner(&self, address: IpAddr) -> Option<&Owner> {
        self.addresses.get(&address).and_then(|owners| owners.first())
    }
}

fn named(service: &Service, slices: &[&EndpointSlice]) -> Named {
    let spec = service.spec.clone().unwrap_or_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        let name = spec.external_name.unwrap_or_default();
        return Named::External { name: name.trim_end_matches('.').to_ascii_lowercase() };
    }
    let mut hosts: Vec<Host> = slices.iter().flat_map(|slice| hosts_of(slice)).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let addresses = view::cluster_addresses(service);
    if addresses.is_empty() {
        return Named::Headless { hosts };
    }
    let ports = spec.ports.unwrap_or_default().into_iter().filter_map(|port| {
        let number = u16::try_from(port.port).ok()?;
        Some(Port { name: port.name?, protocol: protocol(port.protocol.as_deref()), number })
    });
    Named::Virtual { addresses, ports: ports.collect(), hosts }
}

fn hosts_of(slice: &EndpointSlice) -> Vec<Host> {
    let ports = slice.ports.iter().flatten().filter_map(|port| {
        let number = u16::try_from(port.port?).ok()?;
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: protocol(port.protocol.as_deref()),
            number,
        })
    });
    let ports: Vec<Port> = ports.filter(|port| !port.name.is_empty()).collect();
    let ready = slice.endpoints.iter().flatten().filter(|endpoint| view::is_ready(endpoint));
    ready.flat_map(|endpoint| hosts_at(endpoint, &ports)).collect()
}

fn hosts_at(endpoint: &Endpoint, ports: &[Port]) -> Vec<Host> {
    let addresses = endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
    let each = |address: IpAddr| {
        let own = endpoint.hostname.clone().filter(|name| !name.is_empty());
        Host { name: own.unwrap_or_else(|| dashed(address)), address, ports: ports.to_vec() }
    };
    addresses.map(each).collect()
}

/// An address as a label: `10-244-0-5`.
pub(super) fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn protocol(name: Option<&str>) -> String {
    name.unwrap_or("TCP").to_ascii_lowercase()
}

fn owners(namespace: &Arc<str>, name: &Arc<str>, named: &Named) -> Vec<(IpAddr, Owner)> {
    let (addresses, hosts): (&[IpAddr], &[Host]) = match named {
        Named::Virtual { addresses, hosts, .. } => (addresses, hosts),
        Named::Headless { hosts } => (&[], hosts),
        Named::External { .. } => (&[], &[]),
    };
    let own =
        |address: &IpAddr| (*address, Owner::Service { namespace: namespace.clone(), name: name.clone() });
    let of_host = |host: &Host| {
        let host_name = host.name.clone();
        (host.address, Owner::Endpoint { namespace: namespace.clone(), name: name.clone(), host: host_name })
    };
    addresses.iter().map(own).chain(hosts.iter().map(of_host)).collect()
}
