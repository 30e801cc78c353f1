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
        faults.each(format_args!("{field}.name"), name, syntax::dns1123_subdomain(name));
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
    check_rules(items(webhook, "rules"), &format!("{field}.rules"), faults);
    faults.one_of(format_args!("{field}.failurePolicy"), text(webhook, "failurePolicy"), &["Fail", "Ignore"]);
    faults.one_of(
        format_args!("{field}.matchPolicy"),
        text(webhook, "matchPolicy"),
        &["Equivalent", "Exact"],
    );
    if is_there(webhook, "reinvocationPolicy") {
        let policy = text(webhook, "reinvocationPolicy");
        faults.one_of(format_args!("{field}.reinvocationPolicy"), policy, &["IfNeeded", "Never"]);
    }
    match text(webhook, "sideEffects") {
        "" => faults.required(format!("{field}.sideEffects"), "must specify one of None, NoneOnDryRun"),
        side => faults.one_of(format_args!("{field}.sideEffects"), side, &["None", "NoneOnDryRun"]),
    }
    let seconds = whole(webhook, "timeoutSeconds").unwrap_or(0);
    if !(1..=30).contains(&seconds) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        faults.invalid(format!("{field}.timeoutSeconds"), seconds, detail);
    }
    let versions = items(webhook, "admissionReviewVersions");
    check_review_versions(versions, &format!("{field}.admissionReviewVersions"), faults);
    check_client(&webhook["clientConfig"], &format!("{field}.clientConfig"), faults);
    for name in ["namespaceSelector", "objectSelector"] {
        check_selector(&webhook[name], &format!("{field}.{name}"), faults);
    }
}

/// May a webhook be asked in these versions of reviews?
pub fn check_review_versions(versions: &[Tree], field: &str, faults: &mut Faults) {
    if versions.is_empty() {
        faults.required(field, "must specify one of v1, v1beta1");
        return;
    }
    for (index, version) in versions.iter().enumerate() {
        let (field, name) = (format!("{field}[{index}]"), version.as_str().unwrap_or_default());
        if versions[..index].contains(version) {
            faults.invalid(field, name, "duplicate version");
        } else {
            faults.each(&field, name, syntax::dns1035_label(name));
        }
    }
    if !versions.iter().any(|version| version == "v1" || version == "v1beta1") {
        faults.invalid(field, versions.to_vec(), "must include at least one of v1, v1beta1");
    }
}

/// May these rules say what somebody is asked about?
pub fn check_rules(rules: &[Tree], field: &str, faults: &mut Faults) {
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("{field}[{index}]");
        let stars = [
            ("operations", "if '*' is present, must not specify other operations"),
            ("apiGroups", "if '*' is present, must not specify other API groups"),
            ("apiVersions", "if '*' is present, must not specify other API versions"),
        ];
        for (name, detail) in stars {
            let (field, list) = (format!("{field}.{name}"), items(rule, name));
            if list.is_empty() {
                faults.required(field, "");
            } else if list.len() > 1 && list.iter().any(|one| one == "*") {
                faults.invalid(field, list.to_vec(), detail);
            }
        }
        for (at, operation) in items(rule, "operations").iter().filter_map(Tree::as_str).enumerate() {
            let known = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
            faults.one_of(format_args!("{field}.operations[{at}]"), operation, &known);
        }
        for (at, _) in items(rule, "apiVersions").iter().enumerate().filter(|(_, version)| *version == "") {
            faults.required(format!("{field}.apiVersions[{at}]"), "");
        }
        check_resources(items(rule, "resources"), &format!("{field}.resources"), faults);
        faults.one_of(format_args!("{field}.scope"), text(rule, "scope"), &["*", "Cluster", "Namespaced"]);
    }
}

fn check_resources(resources: &[Tree], field: &str, faults: &mut Faults) {
    if resources.is_empty() {
        faults.required(field, "");
    }
    let (mut whole, mut parts) = (BTreeSet::new(), BTreeSet::new());
    for (index, name) in resources.iter().filter_map(Tree::as_str).enumerate() {
        let field = format!("{field}[{index}]");
        if name.is_empty() {
            faults.required(field, "");
            continue;
        }
        let Some((resource, part)) = name.split_once('/') else { continue };
        if whole.contains(resource) {
            let detail = format!("if '{resource}/*' is present, must not specify {name}");
            faults.invalid(field.as_str(), name, &detail);
        }
        if parts.contains(part) {
            let detail = format!("if '*/{part}' is present, must not specify {name}");
            faults.invalid(field.as_str(), name, &detail);
        }
        if part == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            parts.insert(part);
        }
    }
    let has = |wanted: &str| resources.iter().any(|name| name == wanted);
    if resources.len() > 1 && has("*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        faults.invalid(field, resources.to_vec(), detail);
    }
    let bare = resources.iter().filter_map(Tree::as_str).any(|name| name != "*" && !name.contains('/'));
    if has("*") && bare {
        let detail = "if '*' is present, must not specify other resources without subresources";
        faults.invalid(field, resources.to_vec(), detail);
    }
}

/// May a program outside be reached like this?
pub fn check_client(client: &Tree, field: &str, faults: &mut Faults) {
    match (client["url"].as_str(), client["service"].is_object()) {
        (Some(url), false) => check_url(url, &format!("{field}.url"), faults),
        (None, true) => check_service(&client["service"], &format!("{field}.service"), faults),
        _ => faults.required(field, "exactly one of url or service is required"),
    }
}

fn check_url(url: &str, field: &str, faults: &mut Faults) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    if scheme != "https" {
        faults.invalid(field, scheme, &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(end);
    if host.is_empty() {
        faults.invalid(field, host, &format!("host must be specified{FORM}"));
    }
    if let Some((user, _)) = host.rsplit_once('@') {
        faults.invalid(field, user, "user information is not permitted in the URL");
    }
    if let Some((_, fragment)) = path.split_once('#') {
        faults.invalid(field, fragment, "fragments are not permitted in the URL");
    }
    if let Some((_, query)) = path.split('#').next().unwrap_or_default().split_once('?') {
        faults.invalid(field, query, "query parameters are not permitted in the URL");
    }
}

fn check_service(service: &Tree, field: &str, faults: &mut Faults) {
    for name in ["name", "namespace"] {
        if text(service, name).is_empty() {
            faults.required(format!("{field}.{name}"), "");
        }
    }
    let port = whole(service, "port").unwrap_or(0);
    for why in syntax::port_number(port) {
        faults.invalid(format!("{field}.port"), port, &format!("port is not valid: {why}"));
    }
    let (path, field) = (text(service, "path"), format!("{field}.path"));
    if matches!(path, "" | "/") {
        return;
    }
    let Some(below) = path.strip_prefix('/') else {
        faults.invalid(field, path, "must start with a '/'");
        return;
    };
    for (index, step) in below.strip_suffix('/').unwrap_or(below).split('/').enumerate() {
        let whys = match step {
            "" => vec!["may not be empty".to_owned()],
            step => syntax::dns1123_subdomain(step).into_iter().map(|why| format!(": {why}")).collect(),
        };
        for why in whys {
            let gap = if why.starts_with(':') { "" } else { " " };
            faults.invalid(field.as_str(), path, &format!("segment[{index}]{gap}{why}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The faults of a webhook that is good but for `more`.
    fn check(more: Tree, wanted: &[&str]) {
        let mut hook = json!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://a/b"}, "rules": [{"operations": ["CREATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["pods"]}]});
        for (key, value) in more.as_object().into_iter().flatten() {
            hook[key] = value.clone();
        }
        let mut object = json!({"webhooks": [hook]});
        fill(&mut object, true);
        let mut faults = Faults::default();
        super::check(&object, &mut faults);
        let told: Vec<String> =
            faults.0.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect();
        assert!(told.len() == wanted.len(), "{more}: {told:?}");
        for (told, wanted) in told.iter().zip(wanted) {
            assert!(told.starts_with("webhooks[0].") && told.contains(wanted), "{told} is not {wanted}");
        }
    }

    fn rule(field: &str, values: &[&str]) -> Tree {
        let mut rule = json!({"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]});
        rule[field] = json!(values);
        json!({"rules": [rule]})
    }

    #[test]
    fn rules_must_make_sense() {
        check(json!({}), &[]);
        check(rule("operations", &[]), &["rules[0].operations: Required value"]);
        check(rule("operations", &["*", "CREATE"]), &["must not specify other operations"]);
        check(rule("operations", &["READ"]), &["rules[0].operations[0]: Unsupported value"]);
        check(rule("apiGroups", &["*", "apps"]), &["must not specify other API groups"]);
        check(rule("apiVersions", &[""]), &["rules[0].apiVersions[0]: Required value"]);
        check(rule("resources", &["*", "pods"]), &["without subresources"]);
        check(rule("resources", &["*", "pods/status"]), &[]);
        check(
            rule("resources", &["pods/*", "pods/status"]),
            &["if 'pods/*' is present, must not specify pods/status"],
        );
        check(rule("resources", &["*/*", "pods"]), &["if '*/*' is present"]);
    }

    #[test]
    fn clients_must_be_reachable() {
        let url = |url: &str| json!({"clientConfig": {"url": url}});
        check(url("http://a"), &["'https' is the only allowed URL scheme"]);
        check(url("https://u@a/b?c=d#e"), &["user information", "fragments", "query parameters"]);
        check(url("https:///x"), &["host must be specified"]);
        check(json!({"clientConfig": {}}), &["exactly one of url or service is required"]);
        let service = |more: Tree| {
            let mut service = json!({"name": "n", "namespace": "ns"});
            more.as_object().into_iter().flatten().for_each(|(key, value)| service[key] = value.clone());
            json!({"clientConfig": {"service": service}})
        };
        check(service(json!({"path": "/a/b/"})), &[]);
        check(service(json!({"path": "a"})), &["must start with a '/'"]);
        check(service(json!({"path": "/a//b"})), &["segment[1] may not be empty"]);
        check(service(json!({"port": 70000})), &["port is not valid"]);
        check(service(json!({"name": ""})), &["service.name: Required value"]);
        check(json!({"admissionReviewVersions": ["v1", "v1"]}), &["duplicate version"]);
        check(json!({"admissionReviewVersions": ["v2"]}), &["must include at least one of"]);
        check(json!({"timeoutSeconds": 31}), &["between 1 and 30 seconds"]);
        check(json!({"reinvocationPolicy": "Always"}), &["reinvocationPolicy: Unsupported value"]);
        // Whether conditions can be asked, the API sees, which knows their language.
        check(json!({"matchConditions": [{"name": "a", "expression": "true"}]}), &[]);
    }
}
