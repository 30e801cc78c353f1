//! Role-based access control, decided from the roles and bindings that exist (`rbac.authorization.k8s.io/v1`).
//!
//! Pure: [`Rules`] is a compiled snapshot of the four kinds, and deciding reads nothing else. It grants and never
//! denies, as RBAC does.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Attributes, Decision, Identity, MASTERS};

/// One rule of a role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Verbs, or `*`.
    pub verbs: Vec<String>,
    /// API groups, or `*`.
    pub api_groups: Vec<String>,
    /// Resources, `resource/part`, `*/part` or `*`.
    pub resources: Vec<String>,
    /// Names; empty for all.
    #[serde(rename = "resourceNames")]
    pub names: Vec<String>,
    /// Paths that are no resources, with a trailing `*` for a prefix.
    #[serde(rename = "nonResourceURLs")]
    pub paths: Vec<String>,
}

/// Whom a binding names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Binding {
    subjects: Option<Vec<Subject>>,
    role_ref: RoleRef,
    metadata: Named,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Role {
    rules: Option<Vec<Rule>>,
    metadata: Named,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    namespace: String,
}

/// A compiled snapshot of all roles and bindings.
#[derive(Debug, Default)]
pub struct Rules {
    /// By namespace (`""` for cluster roles) and name.
    roles: BTreeMap<(String, String), Vec<Rule>>,
    /// By namespace (`""` for cluster-wide ones).
    bindings: BTreeMap<String, Vec<Binding>>,
}

impl Rules {
    /// Adds a Role or ClusterRole; bytes that are none are left out.
    pub fn add_role(&mut self, bytes: &[u8]) {
        if let Ok(role) = serde_json::from_slice::<Role>(bytes) {
            let rules = role.rules.unwrap_or_default();
            self.roles.insert((role.metadata.namespace, role.metadata.name), rules);
        }
    }

    /// Adds a RoleBinding or ClusterRoleBinding; bytes that are none are left out.
    pub fn add_binding(&mut self, bytes: &[u8]) {
        if let Ok(binding) = serde_json::from_slice::<Binding>(bytes) {
            self.bindings.entry(binding.metadata.namespace.clone()).or_default().push(binding);
        }
    }

    /// Whether `who` may do `what`.
    pub fn decide(&self, who: &Identity, what: &Attributes) -> Decision {
        if who.is_in(MASTERS) {
            return Decision { allowed: true, ..Decision::default() };
        }
        let found = self.granted(who, &what.namespace).find(|(_, rule)| rule.covers(what));
        match found {
            Some((why, _)) => Decision { allowed: true, reason: why, ..Decision::default() },
            None => Decision::default(),
        }
    }

    /// All rules that `who` has in a namespace, cluster-wide ones included (`""`: those alone).
    pub fn rules_of(&self, who: &Identity, namespace: &str) -> Vec<Rule> {
        if who.is_in(MASTERS) {
            return vec![Rule::everything(), Rule::every_path()];
        }
        self.granted(who, namespace).map(|(_, rule)| rule.clone()).collect()
    }

    /// The rules of a role, as a binding refers to it.
    pub fn role(&self, namespace: &str, name: &str) -> Option<&[Rule]> {
        self.roles.get(&(namespace.to_owned(), name.to_owned())).map(Vec::as_slice)
    }

    /// Those of `wanted` that `held` does not cover: what granting them would escalate.
    pub fn missing<'a>(wanted: &'a [Rule], held: &[Rule]) -> Vec<&'a Rule> {
        wanted
            .iter()
            .filter(|rule| !rule.atoms().iter().all(|atom| held.iter().any(|own| own.covers(atom))))
            .collect()
    }

    fn granted<'a>(
        &'a self,
        who: &'a Identity,
        namespace: &'a str,
    ) -> impl Iterator<Item = (String, &'a Rule)> {
        let here = (!namespace.is_empty()).then(|| self.bindings.get(namespace)).flatten();
        let everywhere = self.bindings.get("");
        everywhere.into_iter().chain(here).flatten().flat_map(move |binding| {
            let subject = binding
                .subjects
                .iter()
                .flatten()
                .find(|subject| subject.is(who, &binding.metadata.namespace));
            let rules = subject.and_then(|_| self.role_of(binding)).unwrap_or_default();
            rules.iter().map(move |rule| (binding.why(subject), rule))
        })
    }

    fn role_of(&self, binding: &Binding) -> Option<&[Rule]> {
        let namespace =
            if binding.role_ref.kind == "Role" { binding.metadata.namespace.as_str() } else { "" };
        self.role(namespace, &binding.role_ref.name)
    }
}

impl Subject {
    fn is(&self, who: &Identity, binding_namespace: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == who.name,
            "Group" => who.is_in(&self.name),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                who.name == format!("system:serviceaccount:{namespace}:{}", self.name)
            }
            _ => false,
        }
    }
}

impl Binding {
    fn why(&self, subject: Option<&Subject>) -> String {
        let (kind, name) = match self.metadata.namespace.as_str() {
            "" => ("ClusterRoleBinding", self.metadata.name.clone()),
            namespace => ("RoleBinding", format!("{}/{namespace}", self.metadata.name)),
        };
        let (to_kind, to) = subject.map_or(("", String::new()), |subject| {
            let full = match subject.namespace.as_str() {
                "" => subject.name.clone(),
                namespace => format!("{}/{namespace}", subject.name),
            };
            (subject.kind.as_str(), full)
        });
        let role = &self.role_ref;
        format!("RBAC: allowed by {kind} {name:?} of {} {:?} to {to_kind} {to:?}", role.kind, role.name)
    }
}

impl Rule {
    fn everything() -> Self {
        let star = || vec!["*".to_owned()];
        Self { verbs: star(), api_groups: star(), resources: star(), ..Self::default() }
    }

    fn every_path() -> Self {
        Self { verbs: vec!["*".into()], paths: vec!["*".into()], ..Self::default() }
    }

    /// Whether this rule allows it.
    pub fn covers(&self, what: &Attributes) -> bool {
        if !has(&self.verbs, &what.verb) {
            return false;
        }
        if !what.is_resource() {
            return self.paths.iter().any(|path| match path.strip_suffix('*') {
                Some(prefix) => what.path.starts_with(prefix),
                None => *path == what.path,
            });
        }
        has(&self.api_groups, &what.group)
            && self.covers_resource(what)
            && (self.names.is_empty() || self.names.contains(&what.name))
    }

    fn covers_resource(&self, what: &Attributes) -> bool {
        let full = what.full_resource();
        self.resources.iter().any(|resource| {
            resource == "*"
                || *resource == full
                || (!what.subresource.is_empty() && resource.strip_prefix("*/") == Some(&what.subresource))
        })
    }

    /// Every single act that the rule grants, wildcards taken as names: held rules must cover each.
    fn atoms(&self) -> Vec<Attributes> {
        let mut atoms = Vec::new();
        let all = vec![String::new()];
        for verb in &self.verbs {
            for path in &self.paths {
                atoms.push(Attributes { verb: verb.clone(), path: path.clone(), ..Attributes::default() });
            }
            for group in &self.api_groups {
                for resource in &self.resources {
                    for name in if self.names.is_empty() { &all } else { &self.names } {
                        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
                        atoms.push(Attributes {
                            verb: verb.clone(),
                            group: group.clone(),
                            resource: resource.to_owned(),
                            subresource: part.to_owned(),
                            name: name.clone(),
                            ..Attributes::default()
                        });
                    }
                }
            }
        }
        atoms
    }

    /// As `SubjectRulesReviewStatus` lists it.
    pub fn to_review(&self) -> Value {
        if self.paths.is_empty() {
            let mut rule =
                json!({"verbs": self.verbs, "apiGroups": self.api_groups, "resources": self.resources});
            if !self.names.is_empty() {
                rule["resourceNames"] = json!(self.names);
            }
            rule
        } else {
            json!({"verbs": self.verbs, "nonResourceURLs": self.paths})
        }
    }
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> Rules {
        let mut rules = Rules::default();
        let role = |name: &str, namespace: &str, rule: Value| {
            json!({"metadata": {"name": name, "namespace": namespace}, "rules": [rule]}).to_string()
        };
        let view = json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "pods/log"]});
        rules.add_role(role("view", "", view).as_bytes());
        let edit =
            json!({"verbs": ["*"], "apiGroups": ["apps"], "resources": ["*"], "resourceNames": ["web"]});
        rules.add_role(role("edit", "shop", edit).as_bytes());
        rules.add_role(
            role("look", "", json!({"verbs": ["get"], "nonResourceURLs": ["/healthz/*", "/version"]}))
                .as_bytes(),
        );
        let binding = |name: &str, namespace: &str, role: (&str, &str), subject: Value| {
            json!({"metadata": {"name": name, "namespace": namespace}, "subjects": [subject],
                   "roleRef": {"kind": role.0, "name": role.1}})
            .to_string()
        };
        let sa = json!({"kind": "ServiceAccount", "name": "bot"});
        rules.add_binding(binding("b1", "shop", ("ClusterRole", "view"), sa.clone()).as_bytes());
        rules.add_binding(binding("b2", "shop", ("Role", "edit"), sa).as_bytes());
        let all = json!({"kind": "Group", "name": "system:authenticated"});
        rules.add_binding(binding("b3", "", ("ClusterRole", "look"), all).as_bytes());
        rules
    }

    /// `what`: `verb group/resource[/part] namespace name`, or `verb /path`.
    fn check(who: &str, what: &str, allowed: bool) {
        let words: Vec<&str> = what.split(' ').collect();
        let mut asked = Attributes { verb: words[0].into(), ..Attributes::default() };
        match words[1].strip_prefix('/') {
            Some(_) if words.len() == 2 => asked.path = words[1].into(),
            _ => {
                let mut parts = words[1].splitn(3, '/');
                asked.group = parts.next().unwrap_or_default().into();
                asked.resource = parts.next().unwrap_or_default().into();
                asked.subresource = parts.next().unwrap_or_default().into();
                asked.namespace = words.get(2).copied().unwrap_or_default().into();
                asked.name = words.get(3).copied().unwrap_or_default().into();
            }
        }
        assert_eq!(world().decide(&Identity::user(who, &[]), &asked).allowed, allowed, "{who}: {what}");
    }

    const BOT: &str = "system:serviceaccount:shop:bot";

    #[test]
    fn a_binding_in_a_namespace_grants_there_alone() {
        check(BOT, "get /pods shop web", true);
        check(BOT, "get /pods/log shop web", true);
        check(BOT, "get /pods other web", false);
        check(BOT, "list /pods", false);
        check(BOT, "delete /pods shop web", false);
        check("eve", "get /pods shop web", false);
    }

    #[test]
    fn names_narrow_a_rule() {
        check(BOT, "delete apps/deployments shop web", true);
        check(BOT, "delete apps/deployments shop db", false);
        check(BOT, "list apps/deployments shop", false);
    }

    #[test]
    fn paths_match_by_prefix_only_with_a_star() {
        check("eve", "get /version", true);
        check("eve", "get /healthz/ping", true);
        check("eve", "get /versions", false);
    }

    #[test]
    fn masters_may_do_everything() {
        let asked = Attributes { verb: "delete".into(), resource: "nodes".into(), ..Attributes::default() };
        assert!(Rules::default().decide(&Identity::user("root", &[MASTERS]), &asked).allowed);
    }

    #[test]
    fn granting_more_than_one_holds_is_seen() {
        let rule = |verbs: &[&str], resources: &[&str]| Rule {
            verbs: verbs.iter().map(|&v| v.into()).collect(),
            api_groups: vec![String::new()],
            resources: resources.iter().map(|&v| v.into()).collect(),
            ..Rule::default()
        };
        let held = [rule(&["get", "list"], &["pods"]), rule(&["*"], &["secrets"])];
        assert!(Rules::missing(&[rule(&["get"], &["pods", "secrets"])], &held).is_empty());
        assert_eq!(Rules::missing(&[rule(&["*"], &["pods"])], &held).len(), 1);
        assert_eq!(Rules::missing(&[rule(&["get"], &["*"])], &held).len(), 1);
    }
}
