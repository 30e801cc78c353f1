//! EndpointSlices for Services whose addresses their author keeps in Endpoints: a mirror, so that all addresses are
//! found in slices.

use std::collections::BTreeMap;

use model::kinds::{ENDPOINT_SLICE, ENDPOINTS, SERVICE, of};
use model::{Controller, Key, Object, Plan, Precondition, Texts, Time, Tree, Watch, World};
use serde_json::{Map, json};

use crate::endpointslice::{MANAGED_BY, SERVICE_NAME};
use crate::services::{self, Body};
use crate::{naming, owning};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// The label by which an author keeps an Endpoints object from being mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// The annotation of objects that are no addresses but a lock.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// The annotation that is not copied: it holds the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How many addresses of one subset are mirrored: as many as a slice may hold.
const ADDRESSES_MAX: usize = 1000;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "endpointslice-mirroring-controller",
    primary: of::ENDPOINTS,
    also: &[
        Watch {
            gvr: of::SERVICE,
            wakes: |service, _| vec![Key::new(&ENDPOINTS, service.namespace(), service.name())],
        },
        Watch { gvr: of::ENDPOINT_SLICE, wakes: of_slice },
    ],
    reconcile,
};

fn of_slice(slice: &Object, _: &dyn World) -> Vec<Key> {
    let labels = &slice.meta().labels;
    let service = labels.get(SERVICE_NAME).filter(|_| labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER));
    service.map(|name| Key::new(&ENDPOINTS, slice.namespace(), name)).into_iter().collect()
}

/// Decides on one Endpoints object.
pub fn reconcile(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let endpoints = world.get(key).filter(|endpoints| is_mirrored(endpoints, key, world));
    let mut wanted = endpoints.as_ref().map(slices).unwrap_or_default();
    let mut known = world.list(&ENDPOINT_SLICE, &key.namespace);
    known.retain(|slice| of_slice(slice, world).contains(key) && !slice.is_ending());
    for slice in known {
        let own = Key::new(&ENDPOINT_SLICE, slice.namespace(), slice.name());
        match wanted.remove(slice.name()) {
            None => plan.delete(own, Precondition::exactly(&slice), "nothing to mirror"),
            Some(wanted) => update(&mut plan, own, &slice, &wanted),
        }
    }
    for slice in wanted.into_values() {
        plan.create(&ENDPOINT_SLICE, &key.namespace, slice, "addresses without a slice");
    }
    plan
}

/// Whether the author keeps the addresses, for a Service that has no selector.
fn is_mirrored(endpoints: &Object, key: &Key, world: &dyn World) -> bool {
    let meta = endpoints.meta();
    let skipped =
        meta.labels.get(SKIP).is_some_and(|skip| skip == "true") || meta.annotations.contains_key(LEADER);
    let service = world.get(&Key::new(&SERVICE, key.namespace.as_str(), key.name.as_str()));
    let body = service.and_then(|service| service.seen::<Body>());
    !endpoints.is_ending() && !skipped && body.is_some_and(|body| body.spec.selector.is_empty())
}

/// The slices of an Endpoints object by name: one for each subset and family.
fn slices(endpoints: &Object) -> BTreeMap<String, Tree> {
    let tree = naming::plain(endpoints.tree().unwrap_or_default());
    let mut slices = BTreeMap::new();
    for subset in tree["subsets"].as_array().into_iter().flatten() {
        for family in ["IPv4", "IPv6"] {
            let addresses = addresses(subset, family);
            if !addresses.is_empty() {
                let slice = slice(endpoints, subset, family, addresses);
                let name = slice["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                slices.insert(name, slice);
            }
        }
    }
    slices
}

fn addresses(subset: &Tree, family: &str) -> Vec<Tree> {
    let of = |field: &str, ready: bool| {
        let all = subset[field].as_array().into_iter().flatten();
        let meant = all.filter(|one| one["ip"].as_str().is_some_and(|ip| services::is_of(ip, family)));
        meant.map(move |one| address(one, ready)).collect::<Vec<_>>()
    };
    let mut all = of("addresses", true);
    all.extend(of("notReadyAddresses", false));
    all.truncate(ADDRESSES_MAX);
    all
}

fn address(address: &Tree, ready: bool) -> Tree {
    let mut endpoint = json!({"addresses": [address["ip"]], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            endpoint[field] = address[field].clone();
        }
    }
    endpoint
}

fn slice(endpoints: &Object, subset: &Tree, family: &str, addresses: Vec<Tree>) -> Tree {
    let ports: Vec<Tree> = subset["ports"].as_array().into_iter().flatten().map(port).collect();
    let ports = Tree::from(ports);
    let name =
        format!("{}-{}", endpoints.name(), naming::word(&[endpoints.uid(), family, &ports.to_string()], 5));
    let copied = |from: &Texts| -> Map<String, Tree> {
        let all = from.iter().filter(|(name, _)| *name != LAST_APPLIED);
        all.map(|(name, value)| (name.to_owned(), value.into())).collect()
    };
    let mut labels = copied(&endpoints.meta().labels);
    labels.insert(SERVICE_NAME.into(), endpoints.name().into());
    labels.insert(MANAGED_BY.into(), MANAGER.into());
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": endpoints.namespace(), "labels": labels,
            "annotations": copied(&endpoints.meta().annotations),
            "ownerReferences": [owning::reference(endpoints, &ENDPOINTS, "Endpoints")],
        },
        "addressType": family, "endpoints": addresses, "ports": ports,
    })
}

fn port(port: &Tree) -> Tree {
    let mut wanted = json!({"name": port["name"].as_str().unwrap_or_default(), "port": port["port"],
        "protocol": port["protocol"].as_str().unwrap_or("TCP")});
    if !port["appProtocol"].is_null() {
        wanted["appProtocol"] = port["appProtocol"].clone();
    }
    wanted
}

fn update(plan: &mut Plan, key: Key, slice: &Object, wanted: &Tree) {
    let known = naming::plain(slice.tree().unwrap_or_default());
    let mut patch = json!({});
    if known["endpoints"] != wanted["endpoints"] {
        patch["endpoints"] = wanted["endpoints"].clone();
    }
    for part in ["labels", "annotations"] {
        for (name, value) in wanted["metadata"][part].as_object().into_iter().flatten() {
            if known["metadata"][part][name] != *value {
                patch["metadata"][part][name] = value.clone();
            }
        }
    }
    if patch != json!({}) {
        plan.patch(key, "", patch, Precondition::exactly(slice), "the Endpoints changed");
    }
}

#[cfg(test)]
mod tests {
    use model::tiny::{TinyWorld, at, check};

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&ENDPOINTS, "default", "ext"), world, now)
    }

    const EXT: &str = r#"services ext spec.ports=[{"port":80}]
        endpoints ext subsets=[{"addresses":[{"ip":"1.2.3.4"}],"notReadyAddresses":[{"ip":"1.2.3.5"}],"ports":[{"port":80,"protocol":"TCP"}]}]"#;

    #[test]
    fn what_the_author_keeps_is_mirrored_and_follows() {
        check(
            EXT,
            5,
            decide,
            r#"create endpointslices ext-* {"addressType":"IPv4","endpoints":[{"addresses":["1.2.3.4"],"conditions":{"ready":true}},{"addresses":["1.2.3.5"],"conditions":{"ready":false}}],"ports":[{"name":"","port":80,"protocol":"TCP"}]}"#,
        );
        let mut world = TinyWorld::read(EXT);
        world.settle(3, at(5), |world| decide(world, at(5)));
        world.also(r#"endpoints ext subsets=[{"addresses":[{"ip":"1.2.3.9"}],"ports":[{"port":80,"protocol":"TCP"}]}]"#);
        world.settle(3, at(5), |world| decide(world, at(5)));
        let slices = world.list(&ENDPOINT_SLICE, "");
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0].tree().expect("a slice")["endpoints"][0]["addresses"][0], "1.2.3.9");
        world.drop(&Key::new(&ENDPOINTS, "default", "ext"));
        world.settle(3, at(5), |world| decide(world, at(5)));
        assert!(world.list(&ENDPOINT_SLICE, "").is_empty());
    }

    #[test]
    fn endpoints_that_the_house_keeps_are_not_mirrored() {
        check(&EXT.replace("spec.ports", "spec.selector.app=x spec.ports"), 5, decide, "");
    }
}
