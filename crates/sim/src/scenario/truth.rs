//! Whether what the API tells of a cluster at rest is so on its machines.

use std::collections::BTreeSet;
use std::net::IpAddr;

use model::{Tree, kinds};

use crate::cluster::Cluster;
use crate::node::SimNode;
use crate::observe::{Sight, at, condition, items, text};

/// What is told and is not so.
pub fn lies(cluster: &Cluster, sight: &Sight) -> Vec<String> {
    let mut lies = Vec::new();
    for node in cluster.nodes.values().filter(|node| is_well(node)) {
        lies.extend(of_containers(node, sight));
        lies.extend(of_services(node, sight));
    }
    lies
}

/// Whether a node can tell, and be told.
fn is_well(node: &SimNode) -> bool {
    node.has_agent() && !node.line.is_cut() && !node.is_paused()
}

/// A container is told to run where and only where it does.
fn of_containers(node: &SimNode, sight: &Sight) -> Vec<String> {
    let inventory = node.runtime.inventory();
    let mut lies = Vec::new();
    for (path, pod) in sight.all(&kinds::POD).filter(|(_, pod)| text(pod, "spec.nodeName") == node.name) {
        let uid = text(pod, "metadata.uid");
        let told = items(pod, "status.initContainerStatuses").chain(items(pod, "status.containerStatuses"));
        let told: BTreeSet<&str> =
            told.filter(|one| !at(one, "state.running").is_null()).map(|one| text(one, "name")).collect();
        let runs = inventory.iter().filter(|(whose, _)| whose == uid).flat_map(|(_, names)| names);
        let runs: BTreeSet<&str> = runs.map(String::as_str).collect();
        if told != runs {
            lies.push(format!("what is told of a pod is so: {path} tells of {told:?}, {runs:?} run"));
        }
    }
    lies
}

/// A Service leads to the ready pods that it selects, and to nobody else.
fn of_services(node: &SimNode, sight: &Sight) -> Vec<String> {
    let mut lies = Vec::new();
    for (_, service) in sight.all(&kinds::SERVICE) {
        let (namespace, name) = (text(service, "metadata.namespace"), text(service, "metadata.name"));
        let selects = at(service, "spec.selector");
        let address = text(service, "spec.clusterIP");
        if !selects.is_object() || address.is_empty() || address == "None" {
            continue;
        }
        let selected = sight.all(&kinds::POD).filter(|(_, pod)| is_selected(selects, namespace, pod));
        let wanted: BTreeSet<IpAddr> =
            selected.filter_map(|(_, pod)| text(pod, "status.podIP").parse().ok()).collect();
        let rule = node.network.rule(&format!("{namespace}/{name}"));
        let leads: BTreeSet<IpAddr> =
            rule.iter().flat_map(|rule| &rule.endpoints).map(std::net::SocketAddr::ip).collect();
        if wanted != leads {
            let whose = &node.name;
            lies.push(format!(
                "a Service leads to its ready pods: {name} on {whose} leads to {leads:?}, ready are {wanted:?}"
            ));
        }
    }
    lies
}

fn is_selected(selects: &Tree, namespace: &str, pod: &Tree) -> bool {
    let labels = at(pod, "metadata.labels");
    let has = |(name, value): (&String, &Tree)| labels.get(name) == Some(value);
    text(pod, "metadata.namespace") == namespace
        && condition(pod, "Ready") == "True"
        && at(pod, "metadata.deletionTimestamp").is_null()
        && selects.as_object().into_iter().flatten().all(has)
}
