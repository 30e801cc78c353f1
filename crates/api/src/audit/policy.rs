//! Which requests are written down, and how much of them: `audit.k8s.io/v1` `Policy`, by upstream's rules. Pure.

use bytes::Bytes;
use serde::Deserialize;

use crate::auth::{Attributes, Identity};

/// How much is written of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// Who asked for what, and how it ended.
    Metadata,
    /// What was sent as well.
    Request,
    /// What was answered as well.
    RequestResponse,
}

impl Level {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// A moment of a request at which something may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Stage {
    /// It came in.
    RequestReceived,
    /// The head of its answer went out, and the rest takes as long as somebody watches.
    ResponseStarted,
    /// Its answer is complete.
    ResponseComplete,
    /// A fault of ours ended it.
    Panic,
}

impl Stage {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// What is written down: the first rule that fits a request decides.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    paths: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a policy says of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// How much.
    pub level: Level,
    /// When not.
    pub omit_stages: Vec<Stage>,
    /// Whether `managedFields` are left out of objects.
    pub omit_managed_fields: bool,
}

impl Policy {
    /// Reads a policy, as YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let (json, twice) =
            crate::yaml::to_json(&Bytes::copy_from_slice(text)).map_err(|refusal| refusal.message)?;
        if let Some(twice) = twice {
            return Err(twice);
        }
        let policy: Self = serde_json::from_slice(&json).map_err(|why| why.to_string())?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!(
                "unknown group version field {} in policy, kind {}: audit.k8s.io/v1, kind Policy is read",
                policy.api_version, policy.kind
            ));
        }
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".into());
        }
        policy
            .rules
            .iter()
            .enumerate()
            .try_for_each(|(at, rule)| rule.check().map_err(|why| format!("rules[{at}].{why}")))?;
        Ok(policy)
    }

    /// What is to be written of a request; nothing when no rule fits.
    pub fn wanted(&self, who: Option<&Identity>, what: &Attributes) -> Wanted {
        let fitting = self.rules.iter().find(|rule| rule.fits(who, what));
        let mut omit_stages = self.omit_stages.clone();
        omit_stages.extend(fitting.into_iter().flat_map(|rule| &rule.omit_stages));
        Wanted {
            level: fitting.map_or(Level::None, |rule| rule.level),
            omit_stages,
            omit_managed_fields: fitting
                .and_then(|rule| rule.omit_managed_fields)
                .unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let is_of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if is_of_resources && !self.paths.is_empty() {
            return Err(
                "nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs".into(),
            );
        }
        for path in &self.paths {
            let inner = path.strip_suffix('*').unwrap_or(path);
            if path != "*" && !path.starts_with('/') {
                return Err(format!(
                    "nonResourceURLs: {path:?}: non-resource URL rules must begin with a '/' character"
                ));
            }
            if inner.contains('*') {
                return Err(format!(
                    "nonResourceURLs: {path:?}: non-resource URL wildcards '*' must be the final character of the rule"
                ));
            }
        }
        for named in &self.resources {
            if !named.resource_names.is_empty() && named.resources.is_empty() {
                return Err(
                    "resources.resourceNames: using resourceNames requires at least one resource".into()
                );
            }
            if named.group.contains('/') {
                return Err(format!("resources.group: {:?}: a group has no version", named.group));
            }
        }
        Ok(())
    }

    fn fits(&self, who: Option<&Identity>, what: &Attributes) -> bool {
        let is_one_of = |list: &[String], value: &str| list.is_empty() || list.iter().any(|one| one == value);
        let by_user = self.users.is_empty() || who.is_some_and(|who| self.users.contains(&who.name));
        let by_group = self.user_groups.is_empty()
            || who.is_some_and(|who| who.groups.iter().any(|group| self.user_groups.contains(group)));
        let by_verb = is_one_of(&self.verbs, &what.verb);
        if !(by_user && by_group && by_verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return what.is_resource()
                && is_one_of(&self.namespaces, &what.namespace)
                && (self.resources.is_empty() || self.resources.iter().any(|named| named.fit(what)));
        }
        if !self.paths.is_empty() {
            return !what.is_resource() && self.paths.iter().any(|path| path_fits(path, &what.path));
        }
        true
    }
}

fn path_fits(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => path == pattern,
    }
}

impl Resources {
    fn fit(&self, what: &Attributes) -> bool {
        if self.group != what.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        let by_name = self.resource_names.is_empty() || self.resource_names.contains(&what.name);
        by_name
            && self.resources.iter().any(|pattern| resource_fits(pattern, &what.resource, &what.subresource))
    }
}

fn resource_fits(pattern: &str, resource: &str, part: &str) -> bool {
    match pattern.split_once('/') {
        None => pattern == "*" || (pattern == resource && part.is_empty()),
        Some(("*", wanted)) if !part.is_empty() && wanted == part => true,
        Some((wanted, "*")) if wanted == resource => true,
        Some((wanted, wanted_part)) => wanted == resource && wanted_part == part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch]}
- {level: None, userGroups: ["system:authenticated"], nonResourceURLs: ["/api*", "/version"]}
- {level: Request, namespaces: [kube-system], resources: [{resources: [configmaps]}], omitManagedFields: false}
- {level: Metadata, resources: [{resources: [secrets, configmaps]}], omitStages: [ResponseStarted]}
- {level: None, resources: [{resources: ["*/status"]}, {group: apps, resources: ["deployments/*"]}]}
- {level: RequestResponse, resources: [{resources: [pods], resourceNames: [a]}, {group: batch}]}
- {level: Request, resources: [{resources: ["*"]}], namespaces: [""]}
- {level: Metadata, nonResourceURLs: ["*"]}
"#;

    fn attributes(text: &str) -> Attributes {
        let (verb, rest) = text.split_once(' ').expect("a verb and a place");
        if rest.starts_with('/') {
            return Attributes { verb: verb.into(), path: rest.into(), ..Attributes::default() };
        }
        let mut words = rest.split(' ');
        let resource = words.next().unwrap_or_default();
        let (namespace, name) = words.next().unwrap_or("/").split_once('/').expect("namespace/name");
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        Attributes {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            subresource: part.into(),
            namespace: namespace.into(),
            name: name.into(),
            ..Attributes::default()
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let policy = Policy::read(POLICY.as_bytes()).expect("a good policy");
        let check = |user: &str, what: &str, wanted: Level| {
            let who = Identity::user(user, &[]);
            assert_eq!(policy.wanted(Some(&who), &attributes(what)).level, wanted, "{user} {what}");
        };
        check("system:kube-proxy", "watch services", Level::None);
        check("ann", "get /api/v1", Level::None);
        check("ann", "get /version", Level::None);
        check("ann", "get /versions", Level::Metadata);
        check("ann", "get configmaps kube-system/x", Level::Request);
        check("ann", "get configmaps default/x", Level::Metadata);
        check("ann", "get secrets kube-system/x", Level::Metadata);
        check("ann", "patch pods/status default/a", Level::None);
        check("ann", "get deployments.apps default/a", Level::None);
        check("ann", "get deployments.apps/scale default/a", Level::None);
        check("ann", "get pods default/a", Level::RequestResponse);
        check("ann", "get pods/log default/a", Level::None);
        check("ann", "get pods default/b", Level::None);
        check("ann", "get jobs.batch default/b", Level::RequestResponse);
        check("ann", "get nodes", Level::Request);
        check("ann", "get nodes/proxy", Level::Request);
        check("ann", "get csidrivers.storage.k8s.io", Level::None);
    }

    #[test]
    fn who_is_not_known_is_in_no_rule_for_users() {
        let policy = Policy::read(POLICY.as_bytes()).expect("a good policy");
        assert_eq!(policy.wanted(None, &attributes("get /api/v1")).level, Level::Metadata);
    }

    #[test]
    fn stages_and_managed_fields_are_left_out_by_policy_and_by_rule() {
        let policy = Policy::read(POLICY.as_bytes()).expect("a good policy");
        let wanted = policy.wanted(None, &attributes("get secrets default/a"));
        assert_eq!(wanted.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(wanted.omit_managed_fields);
        let kept = policy.wanted(None, &attributes("get configmaps kube-system/a"));
        assert!(!kept.omit_managed_fields);
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        let check = |text: &str, wanted: &str| {
            let why = Policy::read(text.as_bytes()).expect_err(text);
            assert!(why.contains(wanted), "{text}: {why}");
        };
        let rules = |rules: &str| format!("{{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{rules}]}}");
        check(
            "{apiVersion: audit.k8s.io/v1beta1, kind: Policy, rules: [{level: None}]}",
            "audit.k8s.io/v1, kind Policy",
        );
        check(&rules(""), "0 rules");
        check(&rules("{level: Everything}"), "Everything");
        check(&rules("{verbs: [get]}"), "level");
        check(&rules("{level: None, nonResourceURLs: [api]}"), "begin with a '/'");
        check(&rules("{level: None, nonResourceURLs: ['/a*b']}"), "final character");
        check(&rules("{level: None, nonResourceURLs: ['/a'], namespaces: [a]}"), "both");
        check(&rules("{level: None, resources: [{resourceNames: [a]}]}"), "requires at least one resource");
        check(&rules("{level: None, omitStages: [Never]}"), "Never");
    }
}
