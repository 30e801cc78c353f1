//! Whether a webhook is asked about an act, and in which version. Pure over a view.

use model::tree::{items, text};
use model::{Gvr, Key, Selector, Tree, World, kinds};

use super::Hook;
use crate::auth::Identity;
use crate::refusal::{About, Refusal};
use crate::registry::{Registry, Resource};
use crate::verbs::meta;

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// It is deleted.
    Delete,
    /// Somebody connects to it.
    Connect,
}

impl Operation {
    /// As rules and reviews write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
        }
    }
}

/// What webhooks are asked about, the object itself apart.
pub struct Act<'a> {
    /// Who does it.
    pub identity: &'a Identity,
    /// The resource, in the version of the request.
    pub resource: &'a Resource,
    /// The subresource; empty for the object itself.
    pub part: &'a str,
    /// What is done.
    pub operation: Operation,
    /// The namespace; empty for cluster-wide objects.
    pub namespace: &'a str,
    /// The object's name as the request names it.
    pub name: &'a str,
    /// The object as it is, where there is one.
    pub old: Option<&'a Tree>,
    /// The options of the request; null where it has none.
    pub options: Tree,
    /// Whether nothing will be stored.
    pub dry_run: bool,
}

/// A version in which a webhook is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The resource.
    pub gvr: Gvr,
    /// The kind of the objects: group, version, kind.
    pub kind: (String, String, String),
}

/// What a webhook wants to be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: String,
}

impl Rule {
    /// Reads a `RuleWithOperations`.
    pub fn read(rule: &Tree) -> Self {
        let list = |name: &str| {
            items(rule, name).iter().filter_map(Tree::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        Self {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: list("resources"),
            scope: text(rule, "scope").to_owned(),
        }
    }

    /// Whether it speaks of an operation on a resource's part. A namespace counts as cluster-wide.
    pub fn matches(&self, operation: Operation, gvr: &Gvr, part: &str, namespaced: bool) -> bool {
        let says = |list: &[String], word: &str| list.iter().any(|own| own == "*" || own == word);
        let scope = match self.scope.as_str() {
            "Namespaced" => namespaced,
            "Cluster" => !namespaced,
            _ => true,
        };
        scope
            && says(&self.operations, operation.as_str())
            && says(&self.groups, &gvr.group)
            && says(&self.versions, &gvr.version)
            && self.resources.iter().any(|own| {
                let (resource, own_part) = own.split_once('/').unwrap_or((own, ""));
                (resource == "*" || resource == gvr.plural) && (own_part == "*" || own_part == part)
            })
    }
}

/// Whether webhooks are not asked at all: about themselves, so that one that is broken can be taken away.
pub fn is_exempt(act: &Act<'_>) -> bool {
    [
        &kinds::MUTATING_WEBHOOK_CONFIGURATION,
        &kinds::VALIDATING_WEBHOOK_CONFIGURATION,
        &kinds::VALIDATING_ADMISSION_POLICY,
        &kinds::VALIDATING_ADMISSION_POLICY_BINDING,
        &kinds::MUTATING_ADMISSION_POLICY,
        &kinds::MUTATING_ADMISSION_POLICY_BINDING,
    ]
    .into_iter()
    .any(|gvr| act.resource.is(gvr))
}

/// The version in which a webhook is asked about an act; `None` when it is not asked.
pub fn target(
    hook: &Hook,
    act: &Act<'_>,
    object: Option<&Tree>,
    registry: &Registry,
    view: &dyn World,
) -> Result<Option<Target>, Refusal> {
    // Rules first: they are cheap, and what they leave out need not be looked up.
    let Some(target) = by_rules(hook, act, registry) else { return Ok(None) };
    if !selects_object(&hook.objects, act, object) || !selects_namespace(&hook.namespaces, act, object, view)?
    {
        return Ok(None);
    }
    Ok(Some(target))
}

fn by_rules(hook: &Hook, act: &Act<'_>, registry: &Registry) -> Option<Target> {
    let (resource, operation) = (act.resource, act.operation);
    let namespaced = resource.namespaced;
    if hook.rules.iter().any(|rule| rule.matches(operation, &resource.gvr, act.part, namespaced)) {
        return Some(Target { gvr: resource.gvr.clone(), kind: kind_of(resource, act.part)? });
    }
    if !hook.equivalent {
        return None;
    }
    let others: Vec<_> = registry.all().filter(|other| is_equivalent(other, resource)).collect();
    hook.rules.iter().find_map(|rule| {
        let other = others.iter().find(|other| rule.matches(operation, &other.gvr, act.part, namespaced))?;
        Some(Target { gvr: other.gvr.clone(), kind: kind_of(other, act.part)? })
    })
}

/// Whether one resource is another version of the other.
pub fn is_equivalent(other: &Resource, resource: &Resource) -> bool {
    other.stored == resource.stored && other.gvr != resource.gvr
}

/// The kind of what goes through a part of a resource.
pub fn kind_of(resource: &Resource, part: &str) -> Option<(String, String, String)> {
    let own = || {
        let Gvr { group, version, .. } = &resource.gvr;
        Some((group.to_string(), version.to_string(), resource.kind.to_string()))
    };
    match part {
        "" | "status" => own(),
        "scale" => resource.scale.is_some().then(|| ("autoscaling".into(), "v1".into(), "Scale".into())),
        part => {
            let (group, version, kind) = resource.others.iter().find(|other| other.name == part)?.kind;
            if kind == resource.kind { own() } else { Some((group.into(), version.into(), kind.into())) }
        }
    }
}

/// An object or what it was before is selected; what has no labels is selected by those who select everything.
pub fn selects_object(objects: &Selector, act: &Act<'_>, object: Option<&Tree>) -> bool {
    if objects.is_everything() {
        return true;
    }
    let selected = |object: &Tree| {
        object["metadata"].is_object() && objects.matches(&labels(&object["metadata"]["labels"]))
    };
    object.is_some_and(selected) || act.old.is_some_and(selected)
}

/// Whether the namespace of an act is selected; what lies in none is.
pub fn selects_namespace(
    namespaces: &Selector,
    act: &Act<'_>,
    object: Option<&Tree>,
    view: &dyn World,
) -> Result<bool, Refusal> {
    if namespaces.is_everything() {
        return Ok(true);
    }
    let is_namespace = act.resource.is(&kinds::NAMESPACE);
    let name = match is_namespace {
        true if act.name.is_empty() => object.or(act.old).map_or("", |object| meta(object, "name")),
        true => act.name,
        false => act.namespace,
    };
    // A namespace that is made or changed is what it is about to be.
    if let (true, "", Some(object)) = (is_namespace, act.part, object) {
        return Ok(namespaces.matches(&labels(&object["metadata"]["labels"])));
    }
    if name.is_empty() {
        return Ok(true);
    }
    let about = About { resource: "namespaces".into(), name: name.into(), ..About::default() };
    let found = view.get(&Key::new(&kinds::NAMESPACE, "", name)).ok_or_else(|| Refusal::not_found(&about))?;
    Ok(namespaces.matches(&found.meta().labels))
}

fn labels(tree: &Tree) -> std::collections::BTreeMap<String, String> {
    let pairs = tree.as_object().into_iter().flatten();
    pairs.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Sort;
    use super::super::configured::hooks;
    use super::*;
    use crate::admit::testing::Few;

    fn rule(rule: Tree) -> Rule {
        Rule::read(&rule)
    }

    #[test]
    fn rules_speak_of_operations_resources_and_scopes() {
        let check = |resources: &[&str], scope: &str, gvr: &Gvr, part: &str, wanted: bool| {
            let own = rule(json!({"operations": ["UPDATE"], "apiGroups": [""], "apiVersions": ["*"],
                "resources": resources, "scope": scope}));
            let namespaced = *gvr != kinds::NODE && *gvr != kinds::NAMESPACE;
            assert_eq!(
                own.matches(Operation::Update, gvr, part, namespaced),
                wanted,
                "{resources:?} {gvr} {part}"
            );
            assert!(!own.matches(Operation::Create, gvr, part, namespaced));
        };
        check(&["pods"], "*", &kinds::POD, "", true);
        check(&["pods"], "*", &kinds::POD, "status", false);
        check(&["pods/status"], "*", &kinds::POD, "status", true);
        check(&["pods/*"], "*", &kinds::POD, "status", true);
        check(&["pods/*"], "*", &kinds::POD, "", true);
        check(&["*"], "*", &kinds::POD, "status", false);
        check(&["*/*"], "*", &kinds::POD, "status", true);
        check(&["*/*"], "*", &kinds::POD, "", true);
        check(&["*/status"], "*", &kinds::NODE, "status", true);
        check(&["*"], "Namespaced", &kinds::NAMESPACE, "", false);
        check(&["*"], "Cluster", &kinds::NAMESPACE, "", true);
        check(&["*"], "Cluster", &kinds::POD, "", false);
        check(&["*"], "*", &kinds::DEPLOYMENT, "", false);
    }

    /// `no`, or the version in which a webhook with these selectors is asked.
    fn check(more: Tree, gvr: &Gvr, part: &str, object: Tree, wanted: &str) {
        let mut hook = json!({"name": "a.b.c", "rules": [{"operations": ["*"], "apiGroups": ["", "autoscaling"],
            "apiVersions": ["v1"], "resources": ["*/*"]}]});
        for (key, value) in more.as_object().into_iter().flatten() {
            hook[key] = value.clone();
        }
        let configuration = json!({"metadata": {"name": "c"}, "webhooks": [hook]});
        let hook = &hooks(&configuration, Sort::Validating)[0];
        let registry = Registry::built_in();
        let resource = registry.get(gvr).expect("a built-in resource");
        let namespace = if resource.namespaced { "n" } else { "" };
        let act = Act {
            identity: &Identity::default(),
            resource,
            part,
            operation: Operation::Update,
            namespace,
            name: "x",
            old: None,
            options: Tree::Null,
            dry_run: false,
        };
        let world =
            Few::new(&[(&kinds::NAMESPACE, r#"{"metadata": {"name": "n", "labels": {"env": "prod"}}}"#)]);
        let told = match target(hook, &act, Some(&object), &registry, &world) {
            Ok(None) => "no".to_owned(),
            Ok(Some(Target { gvr, kind: (_, version, kind) })) => format!("{} {version} {kind}", gvr.version),
            Err(refusal) => refusal.message,
        };
        assert_eq!(told, wanted, "{more} {gvr} {part}");
    }

    #[test]
    fn selectors_and_versions_decide_who_is_asked() {
        let labelled = |labels: Tree| json!({"metadata": {"name": "x", "labels": labels}});
        let select = |field: &str, key: &str, value: &str| json!({field: {"matchLabels": {key: value}}});
        check(json!({}), &kinds::CONFIG_MAP, "", labelled(json!({})), "v1 v1 ConfigMap");
        check(
            select("namespaceSelector", "env", "prod"),
            &kinds::CONFIG_MAP,
            "",
            labelled(json!({})),
            "v1 v1 ConfigMap",
        );
        check(select("namespaceSelector", "env", "test"), &kinds::CONFIG_MAP, "", labelled(json!({})), "no");
        // What lies in no namespace is not left out by its selector, and a namespace has its own labels.
        check(
            select("namespaceSelector", "env", "test"),
            &kinds::NODE,
            "",
            labelled(json!({})),
            "v1 v1 Node",
        );
        check(
            select("namespaceSelector", "env", "test"),
            &kinds::NAMESPACE,
            "",
            labelled(json!({"env": "test"})),
            "v1 v1 Namespace",
        );
        check(
            select("namespaceSelector", "env", "test"),
            &kinds::NAMESPACE,
            "",
            labelled(json!({"env": "prod"})),
            "no",
        );
        check(
            select("objectSelector", "a", "b"),
            &kinds::CONFIG_MAP,
            "",
            labelled(json!({"a": "b"})),
            "v1 v1 ConfigMap",
        );
        check(select("objectSelector", "a", "b"), &kinds::CONFIG_MAP, "", labelled(json!({"a": "c"})), "no");
        check(json!({}), &kinds::REPLICATION_CONTROLLER, "scale", json!({}), "v1 v1 Scale");
        check(json!({}), &kinds::POD, "eviction", json!({}), "v1 v1 Eviction");
        check(
            json!({"matchPolicy": "Equivalent"}),
            &kinds::HORIZONTAL_POD_AUTOSCALER,
            "",
            labelled(json!({})),
            "v1 v1 HorizontalPodAutoscaler",
        );
        check(
            json!({"matchPolicy": "Exact"}),
            &kinds::HORIZONTAL_POD_AUTOSCALER,
            "",
            labelled(json!({})),
            "no",
        );
    }
}
