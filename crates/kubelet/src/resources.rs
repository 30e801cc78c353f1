//! Limits and requests in the kernel's terms, and as pods see them through the downward API. Pure.

use k8s_openapi::api::core::v1::{Pod, ResourceFieldSelector};
use model::Quantity;
use model::pod::Qos;
use runtime::Resources;

use crate::pod::{Member, PodView};

/// `cpu.shares` of a container without a CPU request: the kernel's least.
const SHARES_MIN: u64 = 2;
/// `cpu.shares` at most, as the kernel takes them.
const SHARES_MAX: u64 = 262_144;
/// `cpu.shares` of one core.
const SHARES_PER_CORE: u64 = 1024;

/// `oom_score_adj` of a container of a guaranteed pod: among the last to be killed, after the node's own daemons.
const OOM_GUARANTEED: i32 = -997;
/// `oom_score_adj` of a container that asked for nothing: the first to be killed.
const OOM_BEST_EFFORT: i32 = 1000;

/// What a node has to give, which is also what an unlimited container is told it may use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allocatable {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of local disk.
    pub ephemeral_storage: u64,
    /// Pods.
    pub pods: u64,
}

/// The limits of a container, without its `oom_score_adj`.
pub fn limits(member: &Member, _pod: &PodView) -> Resources {
    let cpu_limit = amount(member, Bound::Limit, "cpu").map(millis);
    let cpu_request = amount(member, Bound::Request, "cpu").map(millis).or(cpu_limit);
    Resources {
        cpu_shares: Some(shares(cpu_request)),
        cpu_limit_millis: cpu_limit.filter(|millis| *millis > 0),
        memory_limit: amount(member, Bound::Limit, "memory").map(bytes).filter(|bytes| *bytes > 0),
        pids_limit: None,
        oom_score_adj: None,
    }
}

/// The limits of a pod as a whole: the sums of its containers', where all of them have one.
pub fn pod_limits(pod: &PodView) -> Resources {
    let allotted = allotted(pod);
    let (requests, limits) = (model::pod::requests(&allotted), model::pod::limits(&allotted));
    let all_limited = |name: &str| {
        pod.with_role(&[crate::pod::Role::Main]).all(|member| amount(member, Bound::Limit, name).is_some())
    };
    let own = pod.spec().resources.as_ref().and_then(|own| own.limits.as_ref());
    let has_own = |name: &str| own.is_some_and(|own| own.contains_key(name));
    let limit = |name: &str| limits.get(name).copied().filter(|_| has_own(name) || all_limited(name));
    Resources {
        cpu_shares: Some(shares(requests.get("cpu").copied().map(millis))),
        cpu_limit_millis: limit("cpu").map(millis).filter(|millis| *millis > 0),
        memory_limit: limit("memory").map(bytes).filter(|bytes| *bytes > 0),
        pids_limit: None,
        oom_score_adj: None,
    }
}

/// The pod with the amounts that its containers were allotted in place of those asked for.
pub fn allotted(pod: &PodView) -> Pod {
    let mut whole = pod.pod.clone();
    let containers = whole
        .spec
        .iter_mut()
        .flat_map(|spec| spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()));
    for container in containers {
        if let Some(member) = pod.member(&container.name) {
            container.resources.clone_from(&member.container.resources);
        }
    }
    whole
}

/// Limits that hold back neither those who keep to `a` nor those who keep to `b`.
pub fn either(a: &Resources, b: &Resources) -> Resources {
    let more = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.max(b));
    Resources {
        cpu_shares: more(a.cpu_shares, b.cpu_shares),
        cpu_limit_millis: more(a.cpu_limit_millis, b.cpu_limit_millis),
        memory_limit: more(a.memory_limit, b.memory_limit),
        pids_limit: more(a.pids_limit, b.pids_limit),
        oom_score_adj: a.oom_score_adj.or(b.oom_score_adj),
    }
}

/// Why a pod cannot have what it asks for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoRoom {
    /// `Infeasible`: never here. `Deferred`: not beside the pods that are here.
    pub reason: &'static str,
    /// What to tell the user.
    pub message: String,
}

/// Whether what the pod asks for fits: the node has `all`, and the other pods here were given `taken`.
pub fn room(pod: &PodView, all: &Allocatable, taken: &Taken) -> Result<(), NoRoom> {
    let asked = model::pod::requests(&pod.pod);
    let asked = |name: &str| asked.get(name).copied().unwrap_or_default();
    let each = [
        ("cpu", asked("cpu").milli_value(), all.cpu_millis, taken.cpu_millis),
        ("memory", asked("memory").value(), all.memory, taken.memory),
    ];
    for (name, wanted, all, taken) in each {
        let wanted = u64::try_from(wanted).unwrap_or(0);
        if wanted > all {
            let message =
                format!("Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {all}");
            return Err(NoRoom { reason: "Infeasible", message });
        }
        if wanted.saturating_add(taken) > all {
            let message = format!(
                "Node didn't have enough resource: {name}, requested: {wanted}, used: {taken}, capacity: {all}"
            );
            return Err(NoRoom { reason: "Deferred", message });
        }
    }
    Ok(())
}

/// What other pods of a node were given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory: u64,
}

impl Taken {
    /// One pod more.
    #[must_use]
    pub fn and(self, pod: &PodView) -> Taken {
        let given = model::pod::requests(&allotted(pod));
        let given = |name: &str| given.get(name).copied().unwrap_or_default();
        Taken {
            cpu_millis: self.cpu_millis.saturating_add(millis(given("cpu"))),
            memory: self.memory.saturating_add(bytes(given("memory"))),
        }
    }
}

/// Whether a running container must be made anew to have these limits, as its `resizePolicy` says.
pub fn needs_restart(member: &Member, has: &Resources, wants: &Resources) -> bool {
    let policies = member.container.resize_policy.iter().flatten();
    let mut restarting = policies.filter(|policy| policy.restart_policy == "RestartContainer");
    restarting.any(|policy| match policy.resource_name.as_str() {
        "cpu" => (has.cpu_shares, has.cpu_limit_millis) != (wants.cpu_shares, wants.cpu_limit_millis),
        "memory" => has.memory_limit != wants.memory_limit,
        _ => false,
    })
}

fn shares(millis: Option<u64>) -> u64 {
    let wanted = millis.unwrap_or(0).saturating_mul(SHARES_PER_CORE) / 1000;
    wanted.clamp(SHARES_MIN, SHARES_MAX)
}

/// How early the kernel kills a container of this pod for want of memory; `capacity` is the node's memory.
pub fn oom_score_adj(member: &Member, pod: &PodView, capacity: u64) -> i32 {
    match model::pod::qos_class(&pod.pod) {
        Qos::Guaranteed => OOM_GUARANTEED,
        Qos::BestEffort => OOM_BEST_EFFORT,
        Qos::Burstable => {
            let request = amount(member, Bound::Request, "memory").map_or(0, bytes);
            let share = 1000 * u128::from(request) / u128::from(capacity.max(1));
            let adjusted = 1000 - i32::try_from(share).unwrap_or(1000);
            // Above the guaranteed ones, below those that asked for nothing.
            adjusted.clamp(1000 + OOM_GUARANTEED, OOM_BEST_EFFORT - 1)
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bound {
    Request,
    Limit,
}

fn amount(member: &Member, bound: Bound, name: &str) -> Option<Quantity> {
    let resources = member.container.resources.as_ref()?;
    let map = match bound {
        Bound::Request => resources.requests.as_ref(),
        Bound::Limit => resources.limits.as_ref(),
    };
    map?.get(name).map(Quantity::from)
}

fn millis(quantity: Quantity) -> u64 {
    u64::try_from(quantity.milli_value()).unwrap_or(0)
}

fn bytes(quantity: Quantity) -> u64 {
    u64::try_from(quantity.value()).unwrap_or(0)
}

/// What a `resourceFieldRef` says: the amount in units of its divisor, rounded up; the node's where none is set.
pub fn field(
    pod: &PodView,
    own: &Member,
    field: &ResourceFieldSelector,
    node: &Allocatable,
) -> Option<String> {
    let member = match field.container_name.as_deref() {
        None | Some("") => own,
        Some(name) => pod.member(name)?,
    };
    let (bound, name) = field.resource.split_once('.')?;
    let set = match bound {
        "limits" => amount(member, Bound::Limit, name),
        "requests" => amount(member, Bound::Request, name).or_else(|| amount(member, Bound::Limit, name)),
        _ => return None,
    };
    let has_default = bound == "limits";
    let default = |amount: u64| if has_default { i64::try_from(amount).unwrap_or(i64::MAX) } else { 0 };
    let divisor = field.divisor.as_ref().map(Quantity::from).filter(|divisor| !divisor.is_zero());
    let value = match name {
        "cpu" => {
            let amount = set.map_or_else(|| default(node.cpu_millis), Quantity::milli_value);
            divided_up(amount, divisor.map_or(1000, Quantity::milli_value))
        }
        "memory" | "ephemeral-storage" => {
            let all = if name == "memory" { node.memory } else { node.ephemeral_storage };
            let amount = set.map_or_else(|| default(all), Quantity::value);
            divided_up(amount, divisor.map_or(1, Quantity::value))
        }
        _ => divided_up(set?.value(), divisor.map_or(1, Quantity::value)),
    };
    Some(value.to_string())
}

fn divided_up(amount: i64, divisor: i64) -> i64 {
    let divisor = divisor.max(1);
    amount / divisor + i64::from(amount % divisor > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pod::testing::pod;

    const NODE: Allocatable =
        Allocatable { cpu_millis: 2000, memory: 8 << 30, ephemeral_storage: 50 << 30, pods: 110 };

    fn one(resources: serde_json::Value) -> PodView {
        pod(json!({"containers": [{"name": "a", "image": "i", "resources": resources}]}))
    }

    #[test]
    fn requests_and_limits_become_shares_and_quotas() {
        let check = |resources: serde_json::Value, shares, millis, memory| {
            let pod = one(resources);
            let seen = limits(&pod.members[0], &pod);
            assert_eq!(
                (seen.cpu_shares, seen.cpu_limit_millis, seen.memory_limit),
                (Some(shares), millis, memory)
            );
        };
        check(json!({}), 2, None, None);
        check(json!({"requests": {"cpu": "250m"}}), 256, None, None);
        check(json!({"limits": {"cpu": "1500m", "memory": "64Mi"}}), 1536, Some(1500), Some(64 << 20));
        check(json!({"requests": {"cpu": "1m"}}), 2, None, None);
    }

    #[test]
    fn the_kernel_kills_those_first_that_asked_for_least() {
        let check = |resources: serde_json::Value, expected| {
            let pod = one(resources);
            assert_eq!(oom_score_adj(&pod.members[0], &pod, NODE.memory), expected);
        };
        check(json!({}), 1000);
        check(json!({"requests": {"memory": "2Gi"}}), 750);
        check(json!({"requests": {"memory": "8Gi"}}), 3);
        check(json!({"requests": {"cpu": "1"}}), 999);
        check(
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}}),
            -997,
        );
    }

    #[test]
    fn pods_see_their_amounts_rounded_up_and_the_nodes_where_they_have_none() {
        let check = |resource: &str, divisor: &str, expected: &str| {
            let pod = one(json!({"limits": {"cpu": "1500m"}, "requests": {"memory": "65Mi"}}));
            let selector: ResourceFieldSelector =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor}))
                    .expect("a selector");
            assert_eq!(
                field(&pod, &pod.members[0], &selector, &NODE).as_deref(),
                Some(expected),
                "{resource}"
            );
        };
        check("limits.cpu", "0", "2");
        check("limits.cpu", "1m", "1500");
        check("requests.cpu", "1", "2");
        check("requests.memory", "1Mi", "65");
        check("requests.memory", "1Gi", "1");
        check("limits.memory", "1Gi", "8");
        check("limits.ephemeral-storage", "1Gi", "50");
    }
}
