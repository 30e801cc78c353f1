//! Endpoints: the older form of the addresses behind a Service, for those who still read it.
//!
//! When nothing changes any more, the Endpoints object of each Service with a selector names the same addresses as its
//! slices. Endpoints of Services without a selector are their author's.

use std::collections::{BTreeMap, BTreeSet};

use model::kinds::{ENDPOINTS, SERVICE, of};
use model::{Controller, Key, Object, Plan, Precondition, Time, Tree, Watch, World};
use serde_json::{Map, json};

use crate::pods::Pod;
use crate::services::{self, Body, Spec};
use crate::{naming, suspicion};

/// How many addresses the object holds: it is one object for all, and every change of it goes to all who watch.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "endpoint-controller",
    primary: of::SERVICE,
    also: &[
        Watch { gvr: of::POD, wakes: services::of_pod },
        Watch { gvr: of::NODE, wakes: suspicion::of_node },
        Watch { gvr: of::LEASE, wakes: suspicion::of_lease },
        Watch { gvr: of::ENDPOINTS, wakes: |endpoints, _| vec![service_of(endpoints)] },
    ],
    reconcile,
};

fn service_of(endpoints: &Object) -> Key {
    Key::new(&SERVICE, endpoints.namespace(), endpoints.name())
}

/// Decides on one Service's Endpoints.
pub fn reconcile(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let own = Key::new(&ENDPOINTS, key.namespace.as_str(), key.name.as_str());
    let known = world.get(&own);
    let Some(service) = world.get(key) else {
        let ours = known.filter(|known| known.meta().labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER));
        if let Some(ours) = ours {
            plan.delete(own, Precondition::exactly(&ours), "its Service is gone");
        }
        return plan;
    };
    let Some(body) = service.seen::<Body>().filter(|body| body.spec.is_kept()) else { return plan };
    if service.is_ending() {
        return plan;
    }
    let (subsets, is_cut) = subsets(&service, &body.spec, &body.spec.pods(world, service.namespace()), world);
    write(&mut plan, own, &service, &body.spec, known, (subsets, is_cut));
    plan
}

/// For each port, which addresses answer on it and which do not.
type Answering = (BTreeSet<String>, BTreeSet<String>);

fn subsets(service: &Object, spec: &Spec, pods: &[Pod], world: &dyn World) -> (Vec<Tree>, bool) {
    let doubted = suspicion::doubted(pods, world);
    let mut addresses: BTreeMap<String, Tree> = BTreeMap::new();
    let mut by_port: BTreeMap<String, (Tree, Answering)> = BTreeMap::new();
    let family = spec.families()[0].to_owned();
    let mut is_cut = false;
    for pod in pods.iter().filter(|pod| spec.publish_not_ready_addresses || !pod.is_ending()) {
        let Some(ip) = pod.ips().into_iter().find(|ip| services::is_of(ip, &family)).map(str::to_owned)
        else {
            continue;
        };
        if addresses.len() == ADDRESSES_MAX {
            is_cut = true;
            break;
        }
        for port in ports(spec, pod) {
            let (_, (ready, other)) =
                by_port.entry(port.to_string()).or_insert_with(|| (port, Answering::default()));
            let answers = spec.publish_not_ready_addresses
                || (pod.is_ready() && !doubted.iter().any(|node| node == pod.node()));
            if answers {
                ready.insert(ip.clone())
            } else {
                other.insert(ip.clone())
            };
            addresses.insert(ip.clone(), address(service, pod, &ip));
        }
    }
    // Ports with the same addresses share a subset.
    let mut shared: BTreeMap<Answering, Vec<Tree>> = BTreeMap::new();
    for (port, answering) in by_port.into_values() {
        shared.entry(answering).or_default().push(port);
    }
    let subset = |((ready, other), ports): (Answering, Vec<Tree>)| {
        let named = |ips: BTreeSet<String>| ips.iter().map(|ip| addresses[ip].clone()).collect::<Vec<_>>();
        let mut subset = Map::new();
        let ports: Vec<Tree> = ports.into_iter().filter(|port| !port.is_null()).collect();
        for (name, list) in
            [("addresses", named(ready)), ("notReadyAddresses", named(other)), ("ports", ports)]
        {
            if !list.is_empty() {
                subset.insert(name.into(), list.into());
            }
        }
        Tree::Object(subset)
    };
    (shared.into_iter().map(subset).collect(), is_cut)
}

/// The ports of a pod; one null where the Service names none.
fn ports(spec: &Spec, pod: &Pod) -> Vec<Tree> {
    if spec.ports.is_empty() {
        return vec![Tree::Null];
    }
    let found = spec.ports.iter().filter_map(|port| {
        let mut tree = json!({"port": port.in_pod(pod)?, "protocol": port.protocol()});
        if !port.name.is_empty() {
            tree["name"] = port.name.as_str().into();
        }
        if let Some(app) = &port.app_protocol {
            tree["appProtocol"] = app.as_str().into();
        }
        Some(tree)
    });
    found.collect()
}

fn address(service: &Object, pod: &Pod, ip: &str) -> Tree {
    let mut tree = json!({"ip": ip, "targetRef": services::target(pod)});
    if !pod.node().is_empty() {
        tree["nodeName"] = pod.node().into();
    }
    if let Some(hostname) = services::hostname(pod, service) {
        tree["hostname"] = hostname.into();
    }
    tree
}

fn write(
    plan: &mut Plan,
    key: Key,
    service: &Object,
    spec: &Spec,
    known: Option<Object>,
    (subsets, is_cut): (Vec<Tree>, bool),
) {
    let labels = labels(service, spec);
    let cut = if is_cut { Tree::from("truncated") } else { Tree::Null };
    let Some(known) = known else {
        let mut tree = json!({
            "apiVersion": "v1", "kind": "Endpoints", "subsets": subsets,
            "metadata": {"name": service.name(), "namespace": service.namespace(), "labels": labels},
        });
        if is_cut {
            tree["metadata"]["annotations"][OVER_CAPACITY] = cut;
        }
        plan.create(&ENDPOINTS, service.namespace(), tree, "the Service has no Endpoints");
        return;
    };
    let tree = naming::plain(known.tree().unwrap_or_default());
    let mut patch = json!({});
    if tree["subsets"].as_array().cloned().unwrap_or_default() != subsets {
        patch["subsets"] = subsets.into();
    }
    for (name, value) in labels {
        if tree["metadata"]["labels"][&name] != value {
            patch["metadata"]["labels"][&name] = value;
        }
    }
    if tree["metadata"]["annotations"][OVER_CAPACITY] != cut {
        patch["metadata"]["annotations"][OVER_CAPACITY] = cut;
    }
    if patch != json!({}) {
        plan.patch(key, "", patch, Precondition::exactly(&known), "the pods behind the Service changed");
    }
}

fn labels(service: &Object, spec: &Spec) -> Map<String, Tree> {
    let own = service.meta().labels.iter().map(|(name, value)| (name.to_owned(), value.into()));
    let mut labels: Map<String, Tree> = own.collect();
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    if spec.is_headless() {
        labels.insert(HEADLESS.into(), "".into());
    }
    labels
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&SERVICE, "default", "web"), world, now)
    }

    #[test]
    fn ports_with_the_same_addresses_share_a_subset() {
        check(
            r#"services web spec.selector.app=web spec.ports=[{"name":"a","port":1},{"name":"b","port":2}]
               pods x labels=app:web on=n ready status.podIP=10.1.0.1
               pods y labels=app:web on=n running status.podIP=10.1.0.2
               pods z labels=app:web on=n ready ending@1 status.podIP=10.1.0.3"#,
            5,
            decide,
            r#"create endpoints web {"subsets":[{"addresses":[{"ip":"10.1.0.1","nodeName":"n"}],"notReadyAddresses":[{"ip":"10.1.0.2"}],"ports":[{"name":"a","port":1},{"name":"b","port":2}]}]}"#,
        );
    }

    #[test]
    fn a_service_without_pods_has_empty_endpoints_and_they_go_with_it() {
        check("services web spec.selector.app=web", 5, decide, r#"create endpoints web {"subsets":[]}"#);
        let ours = "endpoints web metadata.labels.[endpoints.kubernetes.io/managed-by]=endpoint-controller";
        check(ours, 5, decide, "delete endpoints web # its Service is gone");
        check("endpoints web", 5, decide, "");
    }
}
