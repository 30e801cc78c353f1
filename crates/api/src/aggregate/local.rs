//! The APIServices of our own groups: one for each version that is served here, made and taken away by the server. Pure.

use model::Tree;
use model::tree::text;
use serde_json::json;

use crate::registry::{Meaning, Registry, version_rank};

/// The label by which the APIServices that the server makes are known.
pub const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// What is to be done about our own APIServices.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    /// They are to be made.
    pub make: Vec<Tree>,
    /// They are to go, by name: their versions are served no more.
    pub remove: Vec<String>,
}

/// Decides it from what is served and the APIServices that there are.
pub fn plan(registry: &Registry, there: &[Tree]) -> Plan {
    let mut plan = Plan::default();
    for (group, versions) in &registry.groups {
        for version in versions {
            let name = format!("{version}.{group}");
            if !there.iter().any(|object| text(object, "metadata.name") == name) {
                plan.make.push(object(registry, &name, group, version));
            }
        }
    }
    let gone = there.iter().filter(|object| {
        let managed = object["metadata"]["labels"][MANAGED] == "true" && object["spec"]["service"].is_null();
        managed && !registry.has_version(text(object, "spec.group"), text(object, "spec.version"))
    });
    plan.remove = gone.map(|object| text(object, "metadata.name").to_owned()).collect();
    plan
}

fn object(registry: &Registry, name: &str, group: &str, version: &str) -> Tree {
    let custom = registry.of_version(group, version).any(|one| matches!(one.meaning, Meaning::Custom(_)));
    let (how, group_priority, version_priority) = match custom {
        true => ("true", 1000, 100),
        false => ("onstart", built_in_priority(group), i64::from(version_rank(version).0) * 5),
    };
    let mut spec = json!({"version": version, "groupPriorityMinimum": group_priority,
        "versionPriority": version_priority.max(1)});
    if !group.is_empty() {
        spec["group"] = json!(group);
    }
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": name, "labels": {MANAGED: how}}, "spec": spec})
}

/// As upstream orders its groups.
fn built_in_priority(group: &str) -> i64 {
    const ORDER: [(&str, i64); 18] = [
        ("", 18_000),
        ("apiregistration.k8s.io", 17_900),
        ("apps", 17_800),
        ("events.k8s.io", 17_750),
        ("authentication.k8s.io", 17_700),
        ("authorization.k8s.io", 17_600),
        ("autoscaling", 17_500),
        ("batch", 17_400),
        ("certificates.k8s.io", 17_300),
        ("networking.k8s.io", 17_200),
        ("policy", 17_100),
        ("rbac.authorization.k8s.io", 17_000),
        ("storage.k8s.io", 16_800),
        ("apiextensions.k8s.io", 16_700),
        ("admissionregistration.k8s.io", 16_700),
        ("scheduling.k8s.io", 16_600),
        ("coordination.k8s.io", 16_500),
        ("node.k8s.io", 16_300),
    ];
    let known = ORDER.iter().find(|(known, _)| *known == group);
    known.map_or(16_200, |(_, priority)| *priority)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_served_is_registered_and_what_is_not_is_not() {
        let registry = Registry::built_in();
        let first = plan(&registry, &[]);
        let core =
            first.make.iter().find(|object| text(object, "metadata.name") == "v1.").expect("the core group");
        assert_eq!(
            (&core["spec"]["groupPriorityMinimum"], &core["spec"]["versionPriority"]),
            (&json!(18_000), &json!(15))
        );
        assert_eq!(plan(&registry, &first.make), Plan::default());
        let stale = json!({"metadata": {"name": "v1.x.io", "labels": {MANAGED: "true"}}, "spec": {"group": "x.io", "version": "v1"}});
        let own = json!({"metadata": {"name": "v1.y.io"}, "spec": {"group": "y.io", "version": "v1"}});
        let all: Vec<Tree> = first.make.iter().cloned().chain([stale, own]).collect();
        assert_eq!(plan(&registry, &all), Plan { make: Vec::new(), remove: vec!["v1.x.io".into()] });
    }
}
