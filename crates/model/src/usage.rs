//! What an object uses of a quota, by the names that quotas know.

use std::collections::BTreeMap;

use crate::tree::{is_set, items, text, whole};
use crate::{Gvr, Quantity, Tree, kinds, pod};

/// Amounts by name.
pub type Usage = BTreeMap<String, Quantity>;

/// What an object uses.
pub fn usage(resource: &Gvr, object: &Tree) -> Usage {
    let mut used = Usage::new();
    let mut one = |name: String| {
        used.insert(name, Quantity::units(1));
    };
    one(format!("count/{resource}"));
    let short = [
        (&kinds::SERVICE, "services"),
        (&kinds::REPLICATION_CONTROLLER, "replicationcontrollers"),
        (&kinds::RESOURCE_QUOTA, "resourcequotas"),
        (&kinds::SECRET, "secrets"),
        (&kinds::CONFIG_MAP, "configmaps"),
        (&kinds::PERSISTENT_VOLUME_CLAIM, "persistentvolumeclaims"),
    ];
    short.into_iter().filter(|(gvr, _)| **gvr == *resource).for_each(|(_, name)| one(name.to_owned()));
    if *resource == kinds::SERVICE {
        of_service(object, &mut used);
    } else if *resource == kinds::PERSISTENT_VOLUME_CLAIM {
        of_claim(object, &mut used);
    } else if *resource == kinds::POD {
        of_pod(object, &mut used);
    }
    used
}

fn of_service(service: &Tree, used: &mut Usage) {
    let count = i64::try_from(items(service, "spec.ports").len()).unwrap_or(0);
    let (balancers, ports) = match text(service, "spec.type") {
        "NodePort" => (0, count),
        "LoadBalancer" if service["spec"]["allocateLoadBalancerNodePorts"] == Tree::Bool(false) => {
            let given =
                items(service, "spec.ports").iter().filter(|port| whole(port, "nodePort").unwrap_or(0) != 0);
            (1, i64::try_from(given.count()).unwrap_or(0))
        }
        "LoadBalancer" => (1, count),
        _ => (0, 0),
    };
    used.insert("services.nodeports".into(), Quantity::units(ports));
    used.insert("services.loadbalancers".into(), Quantity::units(balancers));
}

fn of_claim(claim: &Tree, used: &mut Usage) {
    let storage: Quantity = text(claim, "spec.resources.requests.storage").parse().unwrap_or_default();
    used.insert("requests.storage".into(), storage);
    let class = text(claim, "spec.storageClassName");
    if !class.is_empty() {
        let prefix = format!("{class}.storageclass.storage.k8s.io/");
        used.insert(format!("{prefix}requests.storage"), storage);
        used.insert(format!("{prefix}persistentvolumeclaims"), Quantity::units(1));
    }
}

fn of_pod(object: &Tree, used: &mut Usage) {
    if is_over(object) {
        return;
    }
    used.insert("pods".into(), Quantity::units(1));
    let Ok(view) = serde_json::from_value(object.clone()) else { return };
    for (name, amount) in pod::requests(&view) {
        if is_native(&name) {
            used.insert(name.clone(), amount);
        }
        used.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in pod::limits(&view) {
        used.insert(format!("limits.{name}"), amount);
    }
}

/// A pod that has ended uses nothing but its place in `count/pods`.
fn is_over(pod: &Tree) -> bool {
    matches!(text(pod, "status.phase"), "Succeeded" | "Failed")
}

fn is_native(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

/// Whether a quota speaks of an object.
pub fn is_in_scope(quota: &Tree, resource: &Gvr, object: &Tree) -> bool {
    let plain = items(quota, "spec.scopes")
        .iter()
        .filter_map(Tree::as_str)
        .all(|scope| holds(resource, object, scope, None));
    let selected = items(quota, "spec.scopeSelector.matchExpressions");
    plain && selected.iter().all(|one| holds(resource, object, text(one, "scopeName"), Some(one)))
}

fn holds(resource: &Gvr, object: &Tree, scope: &str, expression: Option<&Tree>) -> bool {
    // All scopes known here are about pods; of other objects a quota with scopes says nothing.
    if *resource != kinds::POD {
        return false;
    }
    let limited = whole(object, "spec.activeDeadlineSeconds").is_some();
    let best_effort = text(object, "status.qosClass") == "BestEffort";
    match scope {
        "Terminating" => limited,
        "NotTerminating" => !limited,
        "BestEffort" => best_effort,
        "NotBestEffort" => !best_effort,
        "CrossNamespacePodAffinity" => crosses_namespaces(object),
        "PriorityClass" => priority_fits(text(object, "spec.priorityClassName"), expression),
        _ => false,
    }
}

fn priority_fits(class: &str, expression: Option<&Tree>) -> bool {
    let Some(expression) = expression else { return !class.is_empty() };
    let listed = items(expression, "values").iter().any(|value| value == class);
    match text(expression, "operator") {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Tree) -> bool {
    let term_crosses = |term: &Tree| {
        is_set(term, "namespaces") || term.get("namespaceSelector").is_some_and(|one| !one.is_null())
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let affinity = &pod["spec"]["affinity"][kind];
        let required = items(affinity, "requiredDuringSchedulingIgnoredDuringExecution").iter();
        let preferred = items(affinity, "preferredDuringSchedulingIgnoredDuringExecution").iter();
        required.chain(preferred.map(|term| &term["podAffinityTerm"])).any(term_crosses)
    })
}

/// Whether a name of a quota is about what containers ask for, so that each pod has to say it.
pub fn is_of_containers(name: &str) -> bool {
    let bare = name.strip_prefix("requests.").or(name.strip_prefix("limits.")).unwrap_or(name);
    matches!(bare, "cpu" | "memory")
}
