//! EndpointSlices: the addresses of the pods behind each Service with a selector, on the ports they have there.
//!
//! An address on a node that is suspected is not ready, unless all are. When nothing changes any more, every pod that a Service means stands in exactly one slice of each family and set of
//! ports, no slice has more than [`SLICE_LEN_MAX`], and a Service without pods has one empty slice. It never touches
//! slices of other makers, and moves no address from slice to slice without need.

use std::collections::{BTreeMap, BTreeSet};

use model::kinds::{ENDPOINT_SLICE, NODE, SERVICE, of};
use model::{Controller, Key, Object, Plan, Precondition, Time, Tree, Watch, World};
use serde_json::{Map, json};

use crate::pods::Pod;
use crate::services::{self, Body, Spec};
use crate::{naming, owning, suspicion};

/// How many addresses one slice holds: a change of one of them is sent to every node with all the others.
pub const SLICE_LEN_MAX: usize = 100;

/// The label that names the Service of a slice.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
const ZONE: &str = "topology.kubernetes.io/zone";

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "endpointslice-controller",
    primary: of::SERVICE,
    also: &[
        Watch { gvr: of::POD, wakes: services::of_pod },
        Watch { gvr: of::ENDPOINT_SLICE, wakes: of_slice },
        Watch { gvr: of::NODE, wakes: suspicion::of_node },
        Watch { gvr: of::LEASE, wakes: suspicion::of_lease },
    ],
    reconcile,
};

fn of_slice(slice: &Object, _: &dyn World) -> Vec<Key> {
    let labels = &slice.meta().labels;
    let service = labels.get(SERVICE_NAME).filter(|_| labels.get(MANAGED_BY).is_some_and(|by| by == MANAGER));
    service.map(|name| Key::new(&SERVICE, slice.namespace(), name)).into_iter().collect()
}

/// A slice that should be: which one it becomes is decided later.
#[derive(Default)]
struct Group {
    endpoints: Vec<Tree>,
    ports: Vec<Tree>,
}

/// Decides on one Service's slices.
pub fn reconcile(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(service) = world.get(key) else { return plan };
    let Some(body) = service.seen::<Body>().filter(|body| body.spec.is_kept()) else { return plan };
    if service.is_ending() {
        return plan;
    }
    let pods = body.spec.pods(world, service.namespace());
    let slices = own_slices(&service, world);
    let families = body.spec.families();
    for slice in slices.iter().filter(|slice| !families.contains(&family_of(slice).as_str())) {
        remove(&mut plan, slice, "the Service has no addresses of this family");
    }
    for family in families {
        let known: Vec<&Object> = slices.iter().filter(|slice| family_of(slice) == family).collect();
        let groups = groups(world, &service, &body.spec, &pods, family);
        write_family(&mut plan, &service, &body.spec, family, groups, known);
    }
    plan
}

fn own_slices(service: &Object, world: &dyn World) -> Vec<Object> {
    let mut slices = world.list(&ENDPOINT_SLICE, service.namespace());
    slices.retain(|slice| {
        let labels = &slice.meta().labels;
        labels.get(SERVICE_NAME) == Some(service.name())
            && labels.get(MANAGED_BY) == Some(MANAGER)
            && !slice.is_ending()
    });
    slices
}

fn family_of(slice: &Object) -> String {
    slice.tree().unwrap_or_default()["addressType"].as_str().unwrap_or_default().to_owned()
}

/// The addresses of one family by the ports they have, and the ports.
fn groups(
    world: &dyn World,
    service: &Object,
    spec: &Spec,
    pods: &[Pod],
    family: &str,
) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    let doubted = suspicion::doubted(pods, world);
    for pod in pods {
        let Some(ip) = pod.ips().into_iter().find(|ip| services::is_of(ip, family)).map(str::to_owned) else {
            continue;
        };
        let ports = ports(spec, pod);
        if ports.is_empty() && !spec.ports.is_empty() {
            continue;
        }
        let group = groups.entry(Tree::from(ports.clone()).to_string()).or_default();
        group.ports = ports;
        let is_doubted = doubted.iter().any(|node| node == pod.node());
        group.endpoints.push(endpoint(world, service, spec, (pod, is_doubted), &ip));
    }
    groups
}

fn ports(spec: &Spec, pod: &Pod) -> Vec<Tree> {
    let found = spec.ports.iter().filter_map(|port| {
        let mut tree = json!({"name": port.name, "protocol": port.protocol(), "port": port.in_pod(pod)?});
        if let Some(app) = &port.app_protocol {
            tree["appProtocol"] = app.as_str().into();
        }
        Some(tree)
    });
    found.collect()
}

fn endpoint(
    world: &dyn World,
    service: &Object,
    spec: &Spec,
    (pod, is_doubted): (&Pod, bool),
    ip: &str,
) -> Tree {
    let (serving, terminating) = (pod.is_ready() && !is_doubted, pod.is_ending());
    let ready = spec.publish_not_ready_addresses || (serving && !terminating);
    let mut tree = json!({
        "addresses": [ip],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": services::target(pod),
    });
    if !pod.node().is_empty() {
        tree["nodeName"] = pod.node().into();
        let node = world.get(&Key::new(&NODE, "", pod.node()));
        if let Some(zone) = node.as_ref().and_then(|node| node.meta().labels.get(ZONE)) {
            tree["zone"] = zone.into();
        }
    }
    if let Some(hostname) = services::hostname(pod, service) {
        tree["hostname"] = hostname.into();
    }
    tree
}

fn write_family(
    plan: &mut Plan,
    service: &Object,
    spec: &Spec,
    family: &str,
    mut groups: BTreeMap<String, Group>,
    known: Vec<&Object>,
) {
    if groups.is_empty() {
        groups.insert(String::new(), Group::default());
    }
    let mut left: Vec<(&Object, Tree)> =
        known.into_iter().map(|slice| (slice, naming::plain(slice.tree().unwrap_or_default()))).collect();
    let whole = Whole { service, spec, family };
    for group in groups.into_values() {
        let has_ports = |tree: &Tree| *list(&tree["ports"]) == *group.ports;
        let (same, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, tree)| has_ports(tree));
        left = others;
        whole.write(plan, group, same);
    }
    for (slice, _) in left {
        remove(plan, slice, "no pod has these ports");
    }
}

fn list(tree: &Tree) -> &[Tree] {
    tree.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What all slices of one family have in common.
struct Whole<'a> {
    service: &'a Object,
    spec: &'a Spec,
    family: &'a str,
}

impl Whole<'_> {
    /// Writes the slices of one set of ports: addresses stay where they are, new ones fill up, the rest gets new slices.
    fn write(&self, plan: &mut Plan, group: Group, known: Vec<(&Object, Tree)>) {
        let uid = |endpoint: &Tree| endpoint["targetRef"]["uid"].as_str().unwrap_or_default().to_owned();
        let is_empty = group.endpoints.is_empty();
        let mut wanted: BTreeMap<String, Tree> =
            group.endpoints.into_iter().map(|endpoint| (uid(&endpoint), endpoint)).collect();
        let mut filled: Vec<(&Object, &Tree, Vec<Tree>)> = known
            .iter()
            .map(|(slice, tree)| {
                let stay = list(&tree["endpoints"]).iter().filter_map(|known| wanted.remove(&uid(known)));
                (*slice, tree, stay.take(SLICE_LEN_MAX).collect())
            })
            .collect();
        let mut rest = wanted.into_values();
        for (_, _, endpoints) in &mut filled {
            endpoints.extend(rest.by_ref().take(SLICE_LEN_MAX.saturating_sub(endpoints.len())));
        }
        let mut taken: BTreeSet<String> = known.iter().map(|(slice, _)| slice.name().to_owned()).collect();
        let mut keep_one = is_empty;
        for (slice, tree, endpoints) in filled {
            if endpoints.is_empty() && !std::mem::take(&mut keep_one) {
                remove(plan, slice, "no addresses are left in it");
            } else {
                self.update(plan, slice, tree, endpoints);
            }
        }
        let rest: Vec<Tree> = rest.collect();
        let none: &[Tree] = &[];
        let more = rest.chunks(SLICE_LEN_MAX).chain(keep_one.then_some(none));
        for endpoints in more {
            self.create(plan, &group.ports, endpoints, &mut taken);
        }
    }

    fn update(&self, plan: &mut Plan, slice: &Object, tree: &Tree, endpoints: Vec<Tree>) {
        let mut patch = Map::new();
        if list(&tree["endpoints"]) != endpoints.as_slice() {
            patch.insert("endpoints".into(), endpoints.into());
        }
        let labels = self.labels();
        let changed = |(name, value): &(String, Tree)| tree["metadata"]["labels"][name.as_str()] != *value;
        let labels: Map<String, Tree> = labels.into_iter().filter(changed).collect();
        if !labels.is_empty() {
            patch.insert("metadata".into(), json!({"labels": labels}));
        }
        if !patch.is_empty() {
            let key = Key::new(&ENDPOINT_SLICE, slice.namespace(), slice.name());
            plan.patch(
                key,
                "",
                patch.into(),
                Precondition::exactly(slice),
                "the pods behind the Service changed",
            );
        }
    }

    fn create(&self, plan: &mut Plan, ports: &[Tree], endpoints: &[Tree], taken: &mut BTreeSet<String>) {
        let (service, ports) = (self.service, Tree::from(ports.to_vec()));
        let text = ports.to_string();
        let seed = |nth: usize| {
            let revision = service.meta().resource_version();
            naming::word(&[service.uid(), self.family, &text, revision, &nth.to_string()], 5)
        };
        let mut names = (0..).map(|nth| format!("{}-{}", service.name(), seed(nth)));
        let Some(name) = names.find(|name| taken.insert(name.clone())) else { return };
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name, "generateName": format!("{}-", service.name()), "namespace": service.namespace(),
                "labels": self.labels(), "ownerReferences": [owning::reference(service, &SERVICE, "Service")],
            },
            "addressType": self.family, "endpoints": endpoints, "ports": ports,
        });
        plan.create(&ENDPOINT_SLICE, service.namespace(), slice, "addresses without a slice");
    }

    fn labels(&self) -> Map<String, Tree> {
        let own = self.service.meta().labels.iter().map(|(name, value)| (name.to_owned(), value.into()));
        let mut labels: Map<String, Tree> = own.collect();
        labels.remove(HEADLESS);
        if self.spec.is_headless() {
            labels.insert(HEADLESS.into(), "".into());
        }
        labels.insert(SERVICE_NAME.into(), self.service.name().into());
        labels.insert(MANAGED_BY.into(), MANAGER.into());
        labels
    }
}

fn remove(plan: &mut Plan, slice: &Object, why: &str) {
    let key = Key::new(&ENDPOINT_SLICE, slice.namespace(), slice.name());
    plan.delete(key, Precondition::exactly(slice), why);
}

#[cfg(test)]
mod tests {
    use model::kinds::POD;
    use model::tiny::{TinyWorld, at, check};

    use super::*;

    fn decide(world: &dyn World, now: Time) -> Plan {
        reconcile(&Key::new(&SERVICE, "default", "web"), world, now)
    }

    const WEB: &str = r#"services web labels=tier:front spec.clusterIP=10.0.0.1 spec.selector={"app":"web"}
        + spec.ports=[{"name":"http","port":80,"targetPort":8080,"protocol":"TCP"}]
        "#;

    #[test]
    fn each_pod_is_an_endpoint_with_its_state() {
        check(
            &format!(
                "{WEB}pods a labels=app:web on=n1 ready status.podIP=10.1.0.1
                 pods b labels=app:web on=n1 running status.podIP=10.1.0.2
                 pods c labels=app:web on=n1 ready ending@1 status.podIP=10.1.0.3
                 pods d labels=app:web on=n1 failed status.podIP=10.1.0.4
                 pods e labels=app:web pending
                 pods f labels=app:other ready status.podIP=10.1.0.5
                 nodes n1 metadata.labels.[topology.kubernetes.io/zone]=z1"
            ),
            5,
            decide,
            r#"create endpointslices web-* {"addressType":"IPv4","ports":[{"name":"http","port":8080,"protocol":"TCP"}],
                "endpoints":[
                {"addresses":["10.1.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n1","zone":"z1","targetRef":{"kind":"Pod","name":"a"}},
                {"addresses":["10.1.0.2"],"conditions":{"ready":false,"serving":false,"terminating":false}},
                {"addresses":["10.1.0.3"],"conditions":{"ready":false,"serving":true,"terminating":true}}],
                "metadata":{"labels":{"tier":"front","kubernetes.io/service-name":"web","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io"},
                "ownerReferences":[{"kind":"Service","name":"web"}]}}"#.replace('\n', "").as_str(),
        );
    }

    #[test]
    fn an_address_on_a_suspected_node_is_not_ready_unless_all_are_or_the_world_looks_wrong() {
        let late = r#"metadata.annotations={"healing.kintsugi.dev/suspected":"1970-01-01T00:00:03Z"}"#;
        let pods = "pods a labels=app:web on=n1 ready status.podIP=10.1.0.1
            pods b labels=app:web on=n2 ready status.podIP=10.1.0.2
            ";
        let with = |nodes: &str, a: bool, b: bool| {
            let conditions =
                |ready: bool| format!(r#"{{"conditions":{{"ready":{ready},"serving":{ready}}}}}"#);
            let slice = format!(r#"{{"endpoints":[{},{}]}}"#, conditions(a), conditions(b));
            let wanted = format!("create endpointslices web-* {slice}");
            check(&format!("{WEB}{pods}{nodes}"), 5, decide, &wanted);
        };
        with("nodes n1\n nodes n2\n nodes n3", true, true);
        with(&format!("nodes n1 {late}\n nodes n2\n nodes n3"), false, true);
        with(&format!("nodes n1 {late}\n nodes n2 {late}"), true, true);
        with(&format!("nodes n1 {late}\n nodes n2\n nodes n3 {late}"), true, true);
    }

    #[test]
    fn a_service_without_pods_has_one_empty_slice() {
        check(WEB, 5, decide, r#"create endpointslices web-* {"endpoints":[],"ports":[]}"#);
        let mut world = TinyWorld::read(WEB);
        world.settle(3, at(5), |world| decide(world, at(5)));
        world.also("pods a labels=app:web on=n1 ready status.podIP=10.1.0.1");
        world.settle(3, at(5), |world| decide(world, at(5)));
        assert_eq!(world.list(&ENDPOINT_SLICE, "").len(), 1);
        world.drop(&Key::new(&POD, "default", "a"));
        world.settle(3, at(5), |world| decide(world, at(5)));
        assert_eq!(world.list(&ENDPOINT_SLICE, "").len(), 1);
    }

    #[test]
    fn a_named_port_may_have_another_number_in_each_pod() {
        let text = r#"services web spec.selector={"app":"web"} spec.ports=[{"name":"h","port":80,"targetPort":"http"}]
            pods a labels=app:web ready status.podIP=10.1.0.1 spec.containers=[{"ports":[{"name":"http","containerPort":1}]}]
            pods b labels=app:web ready status.podIP=10.1.0.2 spec.containers=[{"ports":[{"name":"http","containerPort":2}]}]
            pods c labels=app:web ready status.podIP=10.1.0.3"#;
        check(
            text,
            5,
            decide,
            r#"create endpointslices web-* {"ports":[{"port":1}]}
               create endpointslices web-* {"ports":[{"port":2}]}"#,
        );
    }

    #[test]
    fn not_ready_pods_are_published_where_asked_for() {
        check(
            "services web spec.selector.app=web spec.publishNotReadyAddresses=true spec.clusterIP=None
             pods a labels=app:web running status.podIP=10.1.0.1 spec.hostname=a spec.subdomain=web",
            5,
            decide,
            r#"create endpointslices web-* {"ports":[],"endpoints":[{"conditions":{"ready":true,"serving":false},"hostname":"a"}],"metadata":{"labels":{"service.kubernetes.io/headless":""}}}"#,
        );
    }

    #[test]
    fn a_service_without_selector_is_its_authors_business() {
        check("services web spec.ports=[{\"port\":80}]", 5, decide, "");
    }

    #[test]
    fn every_pod_stands_in_exactly_one_slice_whatever_comes_and_goes() {
        let mut world = TinyWorld::read(WEB);
        let pod =
            |n: usize| format!("pods p{n} labels=app:web ready status.podIP=10.1.{}.{}", n / 200, n % 200);
        for step in [0..250, 30..70, 60..260, 0..0, 0..101] {
            for n in 0..300 {
                world.drop(&Key::new(&POD, "default", format!("p{n}")));
            }
            step.clone().for_each(|n| {
                world.also(&pod(n));
            });
            world.settle(4, at(5), |world| decide(world, at(5)));
            let mut seen = BTreeSet::new();
            for slice in world.list(&ENDPOINT_SLICE, "") {
                let tree = slice.tree().expect("a slice");
                let endpoints = list(&tree["endpoints"]).to_vec();
                assert!(endpoints.len() <= SLICE_LEN_MAX);
                for endpoint in endpoints {
                    assert!(seen.insert(endpoint["targetRef"]["uid"].to_string()), "twice");
                }
            }
            assert_eq!(seen.len(), step.len());
        }
    }
}
