//! What the author says about failures and successes: pods that end the Job, that don't count, that end their index.

use serde::Deserialize;

use super::indexes::Indexes;
use super::{Seen, counting, start};
use crate::pods::Pod;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodFailurePolicy {
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Rule {
    action: String,
    on_exit_codes: Option<OnExitCodes>,
    on_pod_conditions: Vec<OnCondition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct OnExitCodes {
    container_name: Option<String>,
    operator: String,
    values: Vec<i32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OnCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SuccessPolicy {
    rules: Vec<SuccessRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct SuccessRule {
    succeeded_indexes: Option<String>,
    succeeded_count: Option<i64>,
}

/// The first rule that a failed pod meets, with its number and why.
fn rule<'s>(seen: &'s Seen<'_>, pod: &Pod) -> Option<(usize, &'s Rule, String)> {
    let rules = seen.body.spec.pod_failure_policy.rules.iter().enumerate();
    rules.filter_map(|(nth, rule)| Some((nth, rule, rule.met_by(pod)?))).next()
}

impl Rule {
    fn met_by(&self, pod: &Pod) -> Option<String> {
        if let Some(codes) = &self.on_exit_codes {
            return codes.met_by(pod);
        }
        let met = self.on_pod_conditions.iter().find(|wanted| {
            let asked = if wanted.status.is_empty() { "True" } else { &wanted.status };
            pod.condition(&wanted.kind).is_some_and(|known| known.status == asked)
        });
        met.map(|one| format!("has condition {}", one.kind))
    }
}

impl OnExitCodes {
    fn met_by(&self, pod: &Pod) -> Option<String> {
        let all = pod.status().container_statuses.iter().chain(&pod.status().init_container_statuses);
        let named = all.filter(|one| self.container_name.as_ref().is_none_or(|name| one.name == *name));
        let ended = named.filter_map(|one| Some((one, one.state.terminated.as_ref()?.exit_code)));
        let met = |code: i32| code != 0 && (self.values.contains(&code) == (self.operator == "In"));
        let (container, code) = ended.into_iter().find(|(_, code)| met(*code))?;
        Some(format!("Container {} for pod {{pod}} failed with exit code {code} matching", container.name))
    }
}

/// Why a failed pod ends the Job.
pub(super) fn fails_job(seen: &Seen<'_>) -> Option<String> {
    let failed = seen.pods.iter().filter(|pod| counting::has_failed(seen, pod));
    failed
        .filter_map(|pod| {
            let (nth, rule, why) = rule(seen, pod)?;
            let name = format!("{}/{}", pod.object.namespace(), pod.name());
            let why = match why.strip_prefix("has condition ") {
                Some(kind) => format!("Pod {name} has condition {kind} matching"),
                None => why.replace("{pod}", &name),
            };
            (rule.action == "FailJob").then(|| format!("{why} FailJob rule at index {nth}"))
        })
        .next()
}

/// Whether a failed pod counts as a failure.
pub(super) fn counts(seen: &Seen<'_>, pod: &Pod) -> bool {
    rule(seen, pod).is_none_or(|(_, rule, _)| rule.action != "Ignore")
}

/// Whether the index of a failed pod is not tried again.
pub(super) fn ends_index(seen: &Seen<'_>, pod: &Pod) -> bool {
    let Some(limit) = seen.body.spec.backoff_limit_per_index else { return false };
    let is_told = rule(seen, pod).is_some_and(|(_, rule, _)| rule.action == "FailIndex");
    is_told || start::failures_before(pod) >= limit
}

/// Why what has been completed is enough.
pub(super) fn succeeds_job(seen: &Seen<'_>, completed: &Indexes) -> Option<String> {
    if !seen.is_indexed() {
        return None;
    }
    let rules = seen.body.spec.success_policy.rules.iter().enumerate();
    rules
        .filter(|(_, rule)| rule.met_by(completed))
        .map(|(nth, _)| format!("Matched rules at index {nth}"))
        .next()
}

impl SuccessRule {
    fn met_by(&self, completed: &Indexes) -> bool {
        let wanted = self.succeeded_indexes.as_deref().map(Indexes::read);
        let meant = match &wanted {
            Some(wanted) => wanted.iter().filter(|index| completed.contains(*index)).count(),
            None => completed.iter().count(),
        };
        let meant = i64::try_from(meant).unwrap_or(i64::MAX);
        match (self.succeeded_count, wanted) {
            (Some(count), _) => meant >= count,
            (None, Some(wanted)) => meant >= wanted.len(),
            (None, None) => false,
        }
    }
}
