//! What the configurations of admission have in common: webhooks, and policies' matching.

use std::collections::BTreeSet;

use super::{Faults, check_selector};
use crate::tree::{is_there, items, items_mut, text, whole};
use crate::{Tree, syntax, tree};

/// How long a webhook may take to answer, in seconds, when its author does not say.
const TIMEOUT_SECONDS: i64 = 10;

/// Fills in webhooks; mutating ones are asked again only if their author says so.
pub fn fill(object: &mut Tree, mutating: bool) {
    for webhook in items_mut(object, "webhooks") {
        tree::fill(webhook, "failurePolicy", "Fail");
        tree::fill(webhook, "timeoutSeconds", TIMEOUT_SECONDS);
        fill_matching(webhook, "rules");
        if mutating {
            tree::fill(webhook, "reinvocationPolicy", "Never");
        }
        let service = webhook.get_mut("clientConfig").and_then(|client| client.get_mut("service"));
        service.into_iter().for_each(|service| tree::fill(service, "port", 443));
    }
}

/// Fills in what is matched, and how.
pub fn fill_matching(of: &mut Tree, rules: &str) {
    tree::fill(of, "matchPolicy", "Equivalent");
    tree::object(of, "namespaceSelector");
    tree::object(of, "objectSelector");
    items_mut(of, rules).for_each(|rule| tree::fill(rule, "scope", "*"));
}

/// Fills in a policy's matching and failure.
pub fn fill_policy(object: &mut Tree) {
    let Some(spec) = tree::object(object, "spec") else { return };
    tree::fill(spec, "failurePolicy", "Fail");
    spec.get_mut("matchConstraints").into_iter().for_each(fill_resources);
}

/// Fills in the matching of a policy's binding.
pub fn fill_binding(object: &mut Tree) {
    let matching = object.get_mut("spec").and_then(|spec| spec.get_mut("matchResources"));
    matching.into_iter().for_each(fill_resources);
}

fn fill_resources(matching: &mut Tree) {
    fill_matching(matching, "resourceRules");
    items_mut(matching, "excludeResourceRules").for_each(|rule| tree::fill(rule, "scope", "*"));
}

/// May these webhooks be?
pub fn check(object: &Tree, faults: &mut Faults) {
    let mut names = BTreeSet::new();
    for (index, webhook) in items(object, "webhooks").iter().enumerate() {
        let (field, name) = (format!("webhooks[{index}]"), text(webhook, "name"));
        let qualified = name.split('.').count() >= 3;
        faults.each(&format!("{field}.name"), name, syntax::dns1123_subdomain(name));
        if !qualified {
            let detail = "should be a domain with at least three segments separated by dots";
            faults.invalid(format!("{field}.name"), name, detail);
        }
        if !names.insert(name) {
            faults.duplicate(format!("{field}.name"), name);
        }
        check_webhook(webhook, &field, faults);
    }
}

fn check_webhook(webhook: &Tree, field: &str, faults: &mut Faults) {
    faults.one_of(&format!("{field}.failurePolicy"), text(webhook, "failurePolicy"), &["Fail", "Ignore"]);
    faults.one_of(&format!("{field}.matchPolicy"), text(webhook, "matchPolicy"), &["Equivalent", "Exact"]);
    match text(webhook, "sideEffects") {
        "" => faults.required(format!("{field}.sideEffects"), "must specify one of None, NoneOnDryRun"),
        side => faults.one_of(&format!("{field}.sideEffects"), side, &["None", "NoneOnDryRun"]),
    }
    let seconds = whole(webhook, "timeoutSeconds").unwrap_or(0);
    if !(1..=30).contains(&seconds) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        faults.invalid(format!("{field}.timeoutSeconds"), seconds, detail);
    }
    let versions = items(webhook, "admissionReviewVersions");
    if versions.is_empty() {
        faults.required(format!("{field}.admissionReviewVersions"), "must specify one of v1, v1beta1");
    } else if !versions.iter().any(|version| version == "v1" || version == "v1beta1") {
        let detail = "must include at least one of v1, v1beta1";
        faults.invalid(format!("{field}.admissionReviewVersions"), versions.to_vec(), detail);
    }
    let client = &webhook["clientConfig"];
    if is_there(client, "url") == is_there(client, "service") {
        faults.required(format!("{field}.clientConfig"), "exactly one of url or service is required");
    }
    for name in ["namespaceSelector", "objectSelector"] {
        check_selector(&webhook[name], &format!("{field}.{name}"), faults);
    }
}
