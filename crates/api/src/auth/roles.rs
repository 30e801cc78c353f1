//! The roles and bindings that a new cluster has, read from `roles.txt` beside this file.

use serde_json::{Value, json};

use super::rbac::Rule;

/// The table; a new default role is a line in it.
const TABLE: &str = include_str!("roles.txt");
/// The label by which a role is part of an aggregated one, and by which defaults are known.
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";
const DEFAULTS_LABEL: &str = "kubernetes.io/bootstrapping";

/// Every default Role, ClusterRole and ClusterRoleBinding, as objects to create when they are missing.
///
/// Aggregated roles come with the rules of their parts filled in, so that they hold before any controller has run.
pub fn defaults() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["role", name, rest @ ..] => objects.push(role(name, rest)),
            ["bind", name, "to", subjects @ ..] => objects.push(binding(name, subjects)),
            rule => add_rule(objects.last_mut(), rule),
        }
    }
    for name in ["view", "edit", "admin"] {
        aggregate(&mut objects, name);
    }
    objects
}

/// What every node's agent may do: the rules of the role of that name, which is bound to nobody.
pub fn node_rules() -> Vec<Rule> {
    let role = defaults().into_iter().find(|object| object["metadata"]["name"] == "system:node");
    role.and_then(|role| serde_json::from_value(role["rules"].clone()).ok()).unwrap_or_default()
}

fn role(name: &str, rest: &[&str]) -> Value {
    let mut labels = json!({DEFAULTS_LABEL: "rbac-defaults"});
    for pair in rest.iter().filter_map(|word| word.split_once('=')) {
        labels[pair.0] = json!(pair.1);
    }
    let (kind, namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => ("Role", Some(namespace), name),
        None => ("ClusterRole", None, name),
    };
    let mut role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "rules": [],
        "metadata": {"name": name, "labels": labels, "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
    });
    if let Some(namespace) = namespace {
        role["metadata"]["namespace"] = json!(namespace);
    }
    if let Some(part) = rest.iter().position(|&word| word == "aggregates").and_then(|at| rest.get(at + 1)) {
        role["aggregationRule"] =
            json!({"clusterRoleSelectors": [{"matchLabels": {format!("{AGGREGATE}{part}"): "true"}}]});
    }
    role
}

fn binding(name: &str, subjects: &[&str]) -> Value {
    let subjects: Vec<Value> =
        subjects.iter().filter_map(|subject| subject.split_once(':')).map(subject).collect();
    let (full, role) = name.split_once('=').unwrap_or((name, name));
    let (namespace, name) = match full.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, full),
    };
    let role = role.rsplit('/').next().unwrap_or(role);
    let (kind, of) =
        if namespace.is_some() { ("RoleBinding", "Role") } else { ("ClusterRoleBinding", "ClusterRole") };
    let mut binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "subjects": subjects,
        "metadata": {"name": name, "labels": {DEFAULTS_LABEL: "rbac-defaults"},
                     "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"}},
        "roleRef": {"kind": of, "name": role, "apiGroup": "rbac.authorization.k8s.io"},
    });
    if let Some(namespace) = namespace {
        binding["metadata"]["namespace"] = json!(namespace);
    }
    binding
}

/// `User:NAME`, `Group:NAME` or `ServiceAccount:NAMESPACE/NAME`.
fn subject((kind, name): (&str, &str)) -> Value {
    match name.split_once('/') {
        Some((namespace, name)) if kind == "ServiceAccount" => {
            json!({"kind": kind, "name": name, "namespace": namespace})
        }
        _ => json!({"kind": kind, "name": name, "apiGroup": "rbac.authorization.k8s.io"}),
    }
}

fn add_rule(role: Option<&mut Value>, words: &[&str]) {
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(|item| if item == "-" { String::new() } else { item.to_owned() }).collect()
    };
    let rule = match words {
        [verbs, paths] => {
            let paths: Vec<String> =
                list(paths).into_iter().map(|p| if p == "/*" { "*".into() } else { p }).collect();
            json!({"verbs": list(verbs), "nonResourceURLs": paths})
        }
        [verbs, groups, resources, only @ ..] => {
            let mut rule =
                json!({"verbs": list(verbs), "apiGroups": list(groups), "resources": list(resources)});
            if let ["only", names] = only {
                rule["resourceNames"] = json!(list(names));
            }
            rule
        }
        _ => return,
    };
    if let Some(rules) = role.and_then(|role| role["rules"].as_array_mut()) {
        rules.push(rule);
    }
}

fn aggregate(objects: &mut [Value], name: &str) {
    let label = format!("{AGGREGATE}{name}");
    let rules: Vec<Value> = objects
        .iter()
        .filter(|object| object["metadata"]["labels"][&label] == "true")
        .flat_map(|object| object["rules"].as_array().cloned().unwrap_or_default())
        .collect();
    let target = objects
        .iter_mut()
        .find(|object| object["kind"] == "ClusterRole" && object["metadata"]["name"] == name);
    if let Some(role) = target {
        role["rules"] = json!(rules);
    }
}

#[cfg(test)]
mod tests {
    use super::super::rbac::Rules;
    use super::super::{Attributes, Identity};
    use super::*;

    fn rules() -> Rules {
        let mut rules = Rules::default();
        for object in defaults() {
            let bytes = object.to_string();
            match object["kind"].as_str() {
                Some("ClusterRole" | "Role") => rules.add_role(bytes.as_bytes()),
                _ => rules.add_binding(bytes.as_bytes()),
            }
        }
        rules
    }

    #[test]
    fn aggregated_roles_hold_the_rules_of_their_parts() {
        let rules = rules();
        let holds = |role: &str, verb: &str, resource: &str| {
            let asked = Attributes { verb: verb.into(), resource: resource.into(), ..Attributes::default() };
            rules.role("", role).is_some_and(|rules| rules.iter().any(|rule| rule.covers(&asked)))
        };
        assert!(holds("view", "get", "pods") && !holds("view", "get", "secrets"));
        assert!(
            holds("edit", "get", "secrets")
                && holds("edit", "get", "pods")
                && holds("edit", "create", "pods")
        );
        assert!(holds("admin", "delete", "pods") && !holds("admin", "delete", "nodes"));
    }

    #[test]
    fn the_anonymous_user_sees_health_and_version_alone() {
        let rules = rules();
        let may = |path: &str| {
            let asked = Attributes { verb: "get".into(), path: path.into(), ..Attributes::default() };
            rules.decide(&Identity::anonymous(), &asked).allowed
        };
        assert!(may("/livez") && may("/version") && !may("/api") && !may("/metrics"));
    }
}
