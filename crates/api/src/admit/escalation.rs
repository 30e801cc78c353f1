//! Nobody grants what they do not hold: roles are written, and bound, by those who have their rules already, or who may
//! `escalate` or `bind` them.

use model::tree::{at, is_there, text};
use model::{Key, Tree, kinds};
use serde_json::json;

use super::{Asked, Extra};
use crate::auth::rbac::{Rule, Rules};
use crate::auth::{Attributes, MASTERS};
use crate::refusal::Refusal;
use crate::verbs::meta;

const GROUP: &str = "rbac.authorization.k8s.io";

/// Refuses roles and bindings that give more than their author has.
pub fn judge(asked: &Asked<'_>, object: &Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    let is = |gvr| asked.writes(gvr);
    if asked.identity.is_in(MASTERS) {
        return Ok(());
    }
    if is(&kinds::CLUSTER_ROLE) || is(&kinds::ROLE) {
        judge_role(asked, object)
    } else if is(&kinds::CLUSTER_ROLE_BINDING) || is(&kinds::ROLE_BINDING) {
        judge_binding(asked, object)
    } else {
        Ok(())
    }
}

/// Whether a change leaves these members as they were.
fn leaves(asked: &Asked<'_>, object: &Tree, members: &[&str]) -> bool {
    asked.old.is_some_and(|old| members.iter().all(|member| old[*member] == object[*member]))
}

fn may(asked: &Asked<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let what = Attributes {
        verb: verb.into(),
        group: GROUP.into(),
        version: "*".into(),
        resource: resource.into(),
        namespace: asked.namespace.into(),
        name: name.into(),
        ..Attributes::default()
    };
    asked.guard.may(asked.identity, &what).allowed
}

fn judge_role(asked: &Asked<'_>, role: &Tree) -> Result<(), Refusal> {
    if leaves(asked, role, &["rules", "aggregationRule"])
        || may(asked, "escalate", &asked.resource.gvr.plural, meta(role, "name"))
    {
        return Ok(());
    }
    if is_there(role, "aggregationRule") && !leaves(asked, role, &["aggregationRule"]) {
        let everything = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}, {"verbs": ["*"], "nonResourceURLs": ["*"]}]);
        if !missing(asked, &everything).is_empty() {
            let why = "must have cluster-admin privileges to use an aggregationRule";
            return Err(asked.forbid(role, why));
        }
    }
    refuse(asked, role, &missing(asked, at(role, "rules")))
}

fn judge_binding(asked: &Asked<'_>, binding: &Tree) -> Result<(), Refusal> {
    let name = text(binding, "roleRef.name");
    let (gvr, plural, namespace) = match text(binding, "roleRef.kind") {
        "Role" => (&kinds::ROLE, "roles", asked.namespace),
        _ => (&kinds::CLUSTER_ROLE, "clusterroles", ""),
    };
    if leaves(asked, binding, &["subjects", "roleRef"]) || may(asked, "bind", plural, name) {
        return Ok(());
    }
    let Some(role) = asked.world.get(&Key::new(gvr, namespace, name)).and_then(|role| role.tree().ok())
    else {
        let about = crate::refusal::About {
            group: GROUP.into(),
            resource: plural.into(),
            name: name.into(),
            ..Default::default()
        };
        return Err(Refusal::not_found(&about));
    };
    refuse(asked, binding, &missing(asked, at(&role, "rules")))
}

/// What of these rules the user does not hold where the role will hold.
fn missing(asked: &Asked<'_>, rules: &Tree) -> Vec<Rule> {
    let wanted: Vec<Rule> = read(rules);
    let held = asked.guard.rules_of(asked.identity, asked.namespace);
    let mut own: Vec<Rule> = read(&held["resourceRules"]);
    own.extend(read(&held["nonResourceRules"]));
    Rules::missing(&wanted, &own).into_iter().cloned().collect()
}

fn read(rules: &Tree) -> Vec<Rule> {
    let rules = rules.as_array().into_iter().flatten();
    rules.filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
}

fn refuse(asked: &Asked<'_>, object: &Tree, missing: &[Rule]) -> Result<(), Refusal> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut told: Vec<String> = missing.iter().map(tell).collect();
    told.sort();
    told.dedup();
    let (user, groups) = (json!(asked.identity.name), words(&asked.identity.groups));
    let why = format!(
        "user {user} (groups={groups}) is attempting to grant RBAC permissions not currently held:\n{}",
        told.join("\n")
    );
    Err(asked.forbid(object, why))
}

/// `["a" "b"]`.
fn words(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| json!(word).to_string()).collect();
    format!("[{}]", words.join(" "))
}

fn tell(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.paths),
        ("ResourceNames", &rule.names),
        ("Verbs", &rule.verbs),
    ];
    let told = parts.iter().filter(|(_, list)| !list.is_empty());
    let told: Vec<String> = told.map(|(name, list)| format!("{name}:{}", words(list))).collect();
    format!("{{{}}}", told.join(", "))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::{Plugin, change_guarded};
    use super::*;
    use crate::auth::{Decision, Identity};
    use crate::guard::{AllowAll, Guard, TokenAsked, TokenIssued};

    /// A guard that reads a role of its own.
    struct Held(Rules);

    impl Guard for Held {
        fn may(&self, who: &Identity, what: &Attributes) -> Decision {
            self.0.decide(who, what)
        }

        fn rules_of(&self, who: &Identity, namespace: &str) -> Tree {
            let rules = self.0.rules_of(who, namespace);
            let (paths, resources): (Vec<_>, Vec<_>) = rules.iter().partition(|rule| !rule.paths.is_empty());
            let listed = |rules: Vec<&Rule>| rules.into_iter().map(Rule::to_review).collect::<Vec<_>>();
            json!({"resourceRules": listed(resources), "nonResourceRules": listed(paths)})
        }

        fn issue(&self, asked: &TokenAsked, now: model::Time) -> Result<TokenIssued, Refusal> {
            AllowAll.issue(asked, now)
        }

        fn review(
            &self,
            token: &str,
            audiences: &[String],
            now: model::Time,
        ) -> Result<(Identity, Vec<String>), String> {
            AllowAll.review(token, audiences, now)
        }
    }

    /// Whether ann, who holds these rules, may write the object.
    fn check(held: Tree, gvr: &model::Gvr, old: Option<Tree>, object: Tree, wanted: &str) {
        let mut rules = Rules::default();
        rules.add_role(json!({"metadata": {"name": "held"}, "rules": held}).to_string().as_bytes());
        let binding = json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "ann"}],
            "roleRef": {"kind": "ClusterRole", "name": "held"}});
        rules.add_binding(binding.to_string().as_bytes());
        let guard: Arc<dyn Guard> = Arc::new(Held(rules));
        let look: Plugin = |asked, object, extra| judge(asked, object, extra);
        let strong = r#"{"metadata": {"name": "strong"}, "rules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["secrets"]}]}"#;
        let world = [(&kinds::CLUSTER_ROLE, strong)];
        let said =
            change_guarded(&*guard, &Identity::user("ann", &[]), "", &world, gvr, look, old.as_ref(), object);
        let said = said.err().unwrap_or_else(|| "yes".into());
        assert!(said.contains(wanted), "{said}\nis not {wanted}");
    }

    #[test]
    fn a_role_gives_what_its_author_has() {
        let get = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        let role = |rules: &Tree| json!({"metadata": {"name": "r"}, "rules": rules});
        check(get.clone(), &kinds::CLUSTER_ROLE, None, role(&get), "yes");
        let all = json!([{"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["pods"]}]);
        let why = "user \"ann\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\" \"delete\"]}";
        check(get.clone(), &kinds::CLUSTER_ROLE, None, role(&all), why);
        check(get.clone(), &kinds::CLUSTER_ROLE, Some(role(&get)), role(&all), why);
        check(get.clone(), &kinds::CLUSTER_ROLE, Some(role(&all)), role(&all), "yes");
        let escalate = json!([{"verbs": ["escalate"], "apiGroups": [GROUP], "resources": ["clusterroles"]}]);
        check(escalate, &kinds::CLUSTER_ROLE, None, role(&all), "yes");
        let aggregates = json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": []}});
        check(get, &kinds::CLUSTER_ROLE, None, aggregates, "must have cluster-admin privileges");
    }

    #[test]
    fn a_binding_gives_what_its_author_has() {
        let binding = json!({"metadata": {"name": "x"}, "subjects": [{"kind": "User", "name": "eve"}],
            "roleRef": {"kind": "ClusterRole", "name": "strong"}});
        let check = |held: Tree, wanted: &str| {
            check(held, &kinds::CLUSTER_ROLE_BINDING, None, binding.clone(), wanted)
        };
        check(json!([]), "is attempting to grant RBAC permissions not currently held");
        check(json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["secrets"]}]), "yes");
        let bind = |name: &str| json!([{"verbs": ["bind"], "apiGroups": [GROUP], "resources": ["clusterroles"], "resourceNames": [name]}]);
        check(bind("strong"), "yes");
        check(bind("other"), "is attempting to grant");
    }
}
