//! What the kinds that make pods from a template have in common: checks of the selector and of the template.

use std::collections::BTreeMap;

use super::{Faults, check_annotations, check_labels, check_selector, pod_spec};
use crate::tree::{at, entries, is_set, items, text};
use crate::{Selector, Tree, syntax};

/// Fills in the template at `spec.template`.
pub fn fill_template(spec: &mut Tree) {
    crate::tree::object(spec, "template").into_iter().for_each(pod_spec::fill_template);
}

/// The label selector at `spec.selector` must be there, be well made, and select the template's pods.
pub fn check_selected_template(object: &Tree, policies: &[&str], faults: &mut Faults) {
    let selector = at(object, "spec.selector");
    if selector.is_null() {
        return faults.required("spec.selector", "");
    }
    check_selector(selector, "spec.selector", faults);
    if !is_set(selector, "matchLabels") && !is_set(selector, "matchExpressions") {
        let detail = format!("empty selector is invalid for {}", text(object, "kind").to_lowercase());
        faults.invalid("spec.selector", selector.clone(), &detail);
    }
    match Selector::of_tree(Some(selector)) {
        Ok(selector) => check_template(object, &selector, policies, faults),
        Err(_) => faults.invalid("spec.selector", selector.clone(), "invalid label selector"),
    }
}

/// The template at `spec.template` must carry the labels that are selected, and be a pod that may be; with one of
/// these restart policies where any are named.
pub fn check_template(object: &Tree, selector: &Selector, policies: &[&str], faults: &mut Faults) {
    let template = at(object, "spec.template");
    if template.is_null() {
        return faults.required("spec.template", "");
    }
    let text_of =
        |(key, value): (&str, &Tree)| (key.to_owned(), value.as_str().unwrap_or_default().to_owned());
    let labels: BTreeMap<String, String> = entries(template, "metadata.labels").map(text_of).collect();
    if !selector.is_everything() && !selector.matches(&labels) {
        let shown = at(template, "metadata.labels").clone();
        faults.invalid("spec.template.metadata.labels", shown, "`selector` does not match template `labels`");
    }
    let spec = pod_spec::with_claims(&template["spec"], items(object, "spec.volumeClaimTemplates"));
    check_pods_with(template, &spec, "spec.template", policies, faults);
}

/// May pods be made from this template?
pub fn check_pods(template: &Tree, field: &str, policies: &[&str], faults: &mut Faults) {
    check_pods_with(template, &template["spec"], field, policies, faults);
}

/// The same for pods that will have more than the template says (`spec`), such as a set's claims as volumes.
fn check_pods_with(template: &Tree, spec: &Tree, field: &str, policies: &[&str], faults: &mut Faults) {
    check_labels(at(template, "metadata.labels"), &format!("{field}.labels"), faults);
    check_annotations(at(template, "metadata.annotations"), &format!("{field}.annotations"), faults);
    pod_spec::check(spec, &format!("{field}.spec"), pod_spec::Place::Template, faults);
    let policy = text(template, "spec.restartPolicy");
    if !policies.is_empty() && !policies.contains(&policy) {
        faults.not_supported(format!("{field}.spec.restartPolicy"), policy, policies);
    }
}

/// A count or a share: not negative, and not more than 100 %.
pub fn check_count_or_share(value: &Tree, field: &str, faults: &mut Faults) {
    faults.non_negative(field, value);
    let Some(share) = value.as_str() else { return };
    faults.each(field, share, syntax::percent(share));
    if share.trim_end_matches('%').parse::<i64>().is_ok_and(|share| share > 100) {
        faults.invalid(field, share, "must not be greater than 100%");
    }
}
