//! What can be said of a pod from its object alone: whether it is ready, over, available; what it asks for.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityView;

use serde::Deserialize;

use crate::Time;
use crate::quantity::Quantity;

/// Amounts by the name of the resource: `cpu`, `memory`, `pods`, `example.com/thing` …
pub type Amounts = BTreeMap<String, Quantity>;

/// The probes whose failure ends a container, and what that fault is called.
const ENDING_PROBES: [(&str, &str); 2] = [("liveness", "LivenessFailed"), ("startup", "StartupFailed")];

/// What a node says of a container that it ends because a probe (`liveness`, `startup`) failed.
pub fn probe_failed(container: &str, probe: &str) -> String {
    format!("Container {container} failed {probe} probe")
}

/// What the fault is called for which a container was ended, if the message of its end is that of [`probe_failed`],
/// perhaps with more behind it; `None` for any other.
pub fn failed_probe(container: &str, message: &str) -> Option<&'static str> {
    let mut probes = ENDING_PROBES.iter();
    probes.find(|(probe, _)| message.starts_with(&probe_failed(container, probe))).map(|(_, fault)| *fault)
}

/// How good a pod's claim to its resources is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Qos {
    /// It asks for nothing.
    BestEffort,
    /// It asks for something.
    Burstable,
    /// It asks for as much as it may ever use.
    Guaranteed,
}

impl Qos {
    /// The API's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BestEffort => "BestEffort",
            Self::Burstable => "Burstable",
            Self::Guaranteed => "Guaranteed",
        }
    }
}

/// A condition by its type.
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Its phase; empty before it has one.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// The node it is bound to; empty before it is.
pub fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

/// Whether it answers, says its `Ready` condition.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Whether it has run to its end and will never run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether its deletion was asked for.
pub fn is_ending(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether it counts among the replicas of its owner: neither over nor going.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_ending(pod)
}

/// Whether it has been ready for so long that it counts as available.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Time) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}

/// From when on it counts as available if it stays ready; `None` while it is not ready.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Time> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    if min_ready_seconds <= 0 {
        return Some(Time::MIN);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    Some(crate::time::after_seconds(since, i64::from(min_ready_seconds)))
}

/// Whether an init container keeps running beside the others.
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// What the pod asks for in all: its containers together, or an init container that needs more, and its overhead.
pub fn requests(pod: &Pod) -> Amounts {
    let mut total = total(pod, |resources| resources.requests.as_ref());
    add_overhead(pod, &mut total, |_| true);
    total
}

/// What the pod may use at most; a resource that one of its containers does not limit is limited by the others alone.
pub fn limits(pod: &Pod) -> Amounts {
    let mut total = total(pod, |resources| resources.limits.as_ref());
    let limited: Vec<String> = total.keys().cloned().collect();
    add_overhead(pod, &mut total, |name| limited.iter().any(|known| known == name));
    total
}

type Listed = Option<BTreeMap<String, QuantityView>>;

fn total(
    pod: &Pod,
    part: impl Fn(&ResourceRequirements) -> Option<&BTreeMap<String, QuantityView>>,
) -> Amounts {
    let Some(spec) = &pod.spec else { return Amounts::new() };
    let of =
        |container: &Container| container.resources.as_ref().and_then(&part).map(amounts).unwrap_or_default();
    let mut running = Amounts::new();
    spec.containers.iter().for_each(|container| add(&mut running, &of(container)));
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for init in spec.init_containers.iter().flatten() {
        let mut needed = of(init);
        if is_sidecar(init) {
            add(&mut running, &needed);
            add(&mut sidecars, &needed);
            needed = sidecars.clone();
        } else {
            add(&mut needed, &sidecars);
        }
        raise(&mut starting, &needed);
    }
    raise(&mut running, &starting);
    for (name, amount) in spec.resources.as_ref().and_then(&part).map(amounts).unwrap_or_default() {
        if is_of_pods(&name) {
            running.insert(name, amount);
        }
    }
    running
}

/// Whether a pod as a whole may ask for this.
fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn add_overhead(pod: &Pod, total: &mut Amounts, wanted: impl Fn(&str) -> bool) {
    let overhead = pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref()).map(amounts).unwrap_or_default();
    let overhead = overhead.into_iter().filter(|(name, _)| wanted(name)).collect();
    add(total, &overhead);
}

/// A view's list of resources, read.
pub fn amounts(view: &BTreeMap<String, QuantityView>) -> Amounts {
    view.iter().map(|(name, quantity)| (name.clone(), quantity.into())).collect()
}

/// Adds each amount to its namesake.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += *amount;
    }
}

/// Raises each amount to its namesake's where that is more.
pub fn raise(total: &mut Amounts, least: &Amounts) {
    for (name, amount) in least {
        let known = total.entry(name.clone()).or_insert(*amount);
        *known = (*known).max(*amount);
    }
}

/// How good the pod's claim to its resources is, as its spec says.
pub fn qos_class(pod: &Pod) -> Qos {
    let Some(spec) = &pod.spec else { return Qos::BestEffort };
    let of_containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    class_of(spec.resources.as_ref(), of_containers.map(|container| container.resources.as_ref()))
}

/// What of a pod's spec its class is told by: a pod is made and judged more often than all of it needs reading.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    resources: Option<ResourceRequirements>,
    #[serde(default)]
    containers: Vec<Asking>,
    init_containers: Option<Vec<Asking>>,
}

/// What a container asks for.
#[derive(Debug, Deserialize)]
struct Asking {
    resources: Option<ResourceRequirements>,
}

impl Claim {
    /// How good it is.
    pub fn class(&self) -> Qos {
        let of_containers = self.containers.iter().chain(self.init_containers.iter().flatten());
        class_of(self.resources.as_ref(), of_containers.map(|container| container.resources.as_ref()))
    }
}

/// How good a claim is: that of the pod as a whole, where it makes one, or those of its containers.
fn class_of<'a>(
    whole: Option<&'a ResourceRequirements>,
    of_containers: impl Iterator<Item = Option<&'a ResourceRequirements>>,
) -> Qos {
    let asked: Vec<Option<&ResourceRequirements>> = match whole {
        Some(whole) => vec![Some(whole)],
        None => of_containers.collect(),
    };
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut all_limited = true;
    for resources in asked {
        add(&mut requests, &counted(resources.and_then(|known| known.requests.clone())));
        let limited = counted(resources.and_then(|known| known.limits.clone()));
        all_limited &= limited.len() == COUNTED.len();
        add(&mut limits, &limited);
    }
    match () {
        () if requests.is_empty() && limits.is_empty() => Qos::BestEffort,
        () if all_limited && requests == limits => Qos::Guaranteed,
        () => Qos::Burstable,
    }
}

/// The resources that a pod's class is told by.
const COUNTED: [&str; 2] = ["cpu", "memory"];

fn counted(listed: Listed) -> Amounts {
    let mut amounts = listed.as_ref().map(amounts).unwrap_or_default();
    amounts.retain(|name, amount| COUNTED.contains(&name.as_str()) && *amount > Quantity::ZERO);
    amounts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(spec: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).expect("a pod")
    }

    fn asks(cpu: &str, memory: &str) -> serde_json::Value {
        json!({"requests": {"cpu": cpu, "memory": memory}})
    }

    #[test]
    fn a_pod_asks_for_its_containers_or_its_largest_init_container() {
        let pod = pod(json!({
            "containers": [{"name": "a", "resources": asks("100m", "1Gi")}, {"name": "b", "resources": asks("1", "1Gi")}],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": asks("200m", "1Mi")},
                {"name": "init", "resources": asks("3", "1Mi")}],
            "overhead": {"cpu": "10m"},
        }));
        let requests = requests(&pod);
        assert_eq!(requests["cpu"].to_string(), "3210m");
        assert_eq!(requests["memory"].to_string(), "2049Mi");
    }

    #[test]
    fn the_class_follows_from_requests_and_limits() {
        let with =
            |resources| qos_class(&pod(json!({"containers": [{"name": "a", "resources": resources}]})));
        assert_eq!(with(json!({})), Qos::BestEffort);
        assert_eq!(with(asks("1", "1Gi")), Qos::Burstable);
        let both = json!({"cpu": "1", "memory": "1Gi"});
        assert_eq!(with(json!({"requests": both, "limits": both})), Qos::Guaranteed);
        assert_eq!(with(json!({"limits": {"cpu": "1"}})), Qos::Burstable);
        assert_eq!(with(json!({"requests": {"cpu": "0"}})), Qos::BestEffort);
    }

    #[test]
    fn a_pod_is_available_once_it_has_been_ready_long_enough() {
        let pod: Pod = serde_json::from_value(json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
        .expect("a pod");
        let at = |text: &str| text.parse::<Time>().expect("a time");
        assert!(is_ready(&pod) && is_active(&pod) && !is_terminal(&pod));
        assert!(is_available(&pod, 0, at("2026-01-01T00:00:00Z")));
        assert!(!is_available(&pod, 10, at("2026-01-01T00:00:09Z")));
        assert!(is_available(&pod, 10, at("2026-01-01T00:00:10Z")));
    }
}
