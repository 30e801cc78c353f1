//! What Services and the addresses behind them have in common: which pods are meant, on which ports.

use std::collections::BTreeMap;

use model::kinds::{POD, SERVICE};
use model::{Key, Object, Selector, Tree, World};
use serde::Deserialize;

use crate::pods::Pod;

/// What is read of a Service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Body {
    pub(crate) spec: Spec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) selector: BTreeMap<String, String>,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: String,
    pub(crate) ip_families: Vec<String>,
    pub(crate) ports: Vec<Port>,
    pub(crate) publish_not_ready_addresses: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) protocol: String,
    pub(crate) port: i64,
    pub(crate) target_port: Tree,
    pub(crate) app_protocol: Option<String>,
}

impl Spec {
    /// Whether the house keeps the addresses behind it; otherwise its author does, or it has none.
    pub(crate) fn is_kept(&self) -> bool {
        !self.selector.is_empty() && self.kind != "ExternalName"
    }

    pub(crate) fn is_headless(&self) -> bool {
        self.cluster_ip == "None"
    }

    /// The families of its addresses: those it names, or what its own address is of.
    pub(crate) fn families(&self) -> Vec<&str> {
        match self.ip_families.as_slice() {
            [] if self.cluster_ip.contains(':') => vec!["IPv6"],
            [] => vec!["IPv4"],
            named => named.iter().map(String::as_str).collect(),
        }
    }

    /// The pods it means that have an address and are not over.
    pub(crate) fn pods(&self, world: &dyn World, namespace: &str) -> Vec<Pod> {
        let selector = Selector::of_map(&self.selector);
        let matching =
            world.list(&POD, namespace).into_iter().filter(|pod| selector.matches(&pod.meta().labels));
        matching.map(Pod::read).filter(|pod| !pod.is_terminal() && !pod.ips().is_empty()).collect()
    }
}

impl Port {
    pub(crate) fn protocol(&self) -> &str {
        if self.protocol.is_empty() { "TCP" } else { &self.protocol }
    }

    /// The number of this port in a pod; `None` when the pod has no port of the name.
    pub(crate) fn in_pod(&self, pod: &Pod) -> Option<i64> {
        match &self.target_port {
            Tree::Null => Some(self.port),
            Tree::String(name) => name.parse().ok().or_else(|| self.named(pod, name)),
            number => Some(number.as_i64().filter(|number| *number != 0).unwrap_or(self.port)),
        }
    }

    fn named(&self, pod: &Pod, name: &str) -> Option<i64> {
        let sidecars = pod.spec().init_containers.iter().filter(|init| init.restart_policy == "Always");
        let mut ports = pod.spec().containers.iter().chain(sidecars).flat_map(|container| &container.ports);
        let protocol = |of: &str| if of.is_empty() { "TCP".to_owned() } else { of.to_owned() };
        let found = ports.find(|port| port.name == name && protocol(&port.protocol) == self.protocol());
        found.map(|port| i64::from(port.container_port))
    }
}

/// Whether the pod answers by its own name below the Service's.
pub(crate) fn hostname<'p>(pod: &'p Pod, service: &Object) -> Option<&'p str> {
    let spec = pod.spec();
    (!spec.hostname.is_empty() && spec.subdomain == service.name()).then_some(spec.hostname.as_str())
}

/// Whether an address is of the family.
pub(crate) fn is_of(ip: &str, family: &str) -> bool {
    ip.contains(':') == (family == "IPv6")
}

/// A pod as the target of an address.
pub(crate) fn target(pod: &Pod) -> Tree {
    serde_json::json!({
        "kind": "Pod", "namespace": pod.object.namespace(), "name": pod.name(), "uid": pod.object.uid(),
    })
}

/// The Services that mean a pod.
pub(crate) fn of_pod(pod: &Object, world: &dyn World) -> Vec<Key> {
    let services = world.list(&SERVICE, pod.namespace());
    let meaning = services.iter().filter(|service| {
        service.seen::<Body>().is_some_and(|body| {
            body.spec.is_kept() && Selector::of_map(&body.spec.selector).matches(&pod.meta().labels)
        })
    });
    meaning.map(|service| Key::new(&SERVICE, service.namespace(), service.name())).collect()
}
