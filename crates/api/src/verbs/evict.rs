//! `pods/eviction`: a deletion that respects disruption budgets.

use model::{Selector, Time, Tree};
use serde_json::json;

use super::{child, is_ending, meta, stamp};
use crate::refusal::{Reason, Refusal};

/// What becomes of the budget when a pod is evicted.
#[derive(Debug, Clone, PartialEq)]
pub enum Spent {
    /// No budget speaks of the pod, or its going disrupts nothing.
    Nothing,
    /// This budget, as it is to be stored in the same transaction.
    Budget(Tree),
}

/// Decides whether a pod may be evicted, from the budgets of its namespace.
pub fn evict(pod: &Tree, budgets: &[Tree], now: Time) -> Result<Spent, Refusal> {
    if is_ending(pod) || matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed" | "Pending")) {
        return Ok(Spent::Nothing);
    }
    let mut matching = budgets.iter().filter(|budget| speaks_of(budget, pod));
    let Some(budget) = matching.next() else { return Ok(Spent::Nothing) };
    if matching.next().is_some() {
        return Err(Refusal::internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        ));
    }
    if is_spared(pod, budget) {
        return Ok(Spent::Nothing);
    }
    spend(pod, budget, now)
}

fn speaks_of(budget: &Tree, pod: &Tree) -> bool {
    let selector = Selector::of_tree(budget["spec"].get("selector")).unwrap_or_else(|_| Selector::nothing());
    let labels = &pod["metadata"]["labels"];
    !selector.is_nothing() && selector.requirements().iter().all(|one| one.holds(labels[&one.key].as_str()))
}

/// A pod that is not ready adds nothing to its application's health; whether it may go is the budget's policy.
fn is_spared(pod: &Tree, budget: &Tree) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    let status = &budget["status"];
    let always = budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow";
    let count = |name: &str| status[name].as_i64().unwrap_or(0);
    let enough = count("currentHealthy") >= count("desiredHealthy") && count("desiredHealthy") > 0;
    !ready && (always || enough)
}

fn spend(pod: &Tree, budget: &Tree, now: Time) -> Result<Spent, Refusal> {
    let observed = budget["status"]["observedGeneration"].as_i64().unwrap_or(0);
    let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
    let name = meta(budget, "name");
    if observed < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(refused(&why).retry_after(10));
    }
    if allowed <= 0 {
        let count = |name: &str| budget["status"][name].as_i64().unwrap_or(0);
        let why = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count("desiredHealthy"),
            count("currentHealthy")
        );
        return Err(refused(&why));
    }
    let mut budget = budget.clone();
    let status = child(&mut budget, "status");
    status.insert("disruptionsAllowed".into(), json!(allowed - 1));
    child(&mut budget["status"], "disruptedPods").insert(meta(pod, "name").to_owned(), stamp(now));
    Ok(Spent::Budget(budget))
}

/// The pod with the condition that says why it goes; as it is when it goes already.
pub fn marked(pod: &Tree, now: Time) -> Tree {
    const KIND: &str = "DisruptionTarget";
    let mut pod = pod.clone();
    if is_ending(&pod) {
        return pod;
    }
    let known = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut conditions: Vec<Tree> = known.filter(|one| one["type"] != KIND).cloned().collect();
    conditions.push(json!({
        "type": KIND, "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting",
        "lastTransitionTime": stamp(now),
    }));
    child(&mut pod, "status").insert("conditions".into(), conditions.into());
    pod
}

fn refused(why: &str) -> Refusal {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    Refusal::new(Reason::TooManyRequests, message).cause("DisruptionBudget", why, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::drawn;

    fn budget(allowed: i64) -> Tree {
        json!({"metadata": {"name": "b", "generation": 1}, "spec": {"selector": {"matchLabels": {"app": "web"}}},
            "status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "desiredHealthy": 2, "currentHealthy": 2}})
    }

    fn pod(app: &str, phase: &str) -> Tree {
        json!({"metadata": {"name": "p", "labels": {"app": app}},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True"}]}})
    }

    #[test]
    fn a_budget_is_spent_or_refuses() {
        let now = drawn().now;
        let Ok(Spent::Budget(spent)) = evict(&pod("web", "Running"), &[budget(1)], now) else {
            panic!("not spent")
        };
        assert_eq!(spent["status"]["disruptionsAllowed"], json!(0));
        assert!(spent["status"]["disruptedPods"]["p"].is_string());
        let refusal = evict(&pod("web", "Running"), &[budget(0)], now).expect_err("no disruption is allowed");
        assert_eq!(
            (refusal.reason, refusal.causes[0].reason.as_str()),
            (Reason::TooManyRequests, "DisruptionBudget")
        );
    }

    #[test]
    fn a_pod_that_is_evicted_says_so_once() {
        let now = drawn().now;
        let once = marked(&pod("web", "Running"), now);
        let conditions = once["status"]["conditions"].as_array().expect("it has conditions");
        assert_eq!((conditions.len(), &conditions[1]["reason"]), (2, &json!("EvictionByEvictionAPI")));
        assert_eq!(marked(&once, now), once);
    }

    #[test]
    fn pods_that_no_budget_protects_go() {
        let now = drawn().now;
        assert_eq!(evict(&pod("db", "Running"), &[budget(0)], now), Ok(Spent::Nothing));
        assert_eq!(evict(&pod("web", "Succeeded"), &[budget(0)], now), Ok(Spent::Nothing));
    }

    #[test]
    fn two_budgets_are_one_too_many() {
        assert!(evict(&pod("web", "Running"), &[budget(1), budget(1)], drawn().now).is_err());
    }
}
