//! ClusterRoles that are made of others: their rules are those of all roles that they select.

use model::kinds::{CLUSTER_ROLE, of};
use model::{Controller, Key, Object, Plan, Precondition, Selector, Time, Tree, Watch, World};
use serde::Deserialize;
use serde_json::json;

/// The controller.
pub static CONTROLLER: Controller = Controller {
    name: "clusterrole-aggregation-controller",
    primary: of::CLUSTER_ROLE,
    also: &[Watch { gvr: of::CLUSTER_ROLE, wakes: of_role }],
    reconcile,
};

/// What is read of every role.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Aggregated {
    aggregation_rule: Option<Aggregation>,
}

#[derive(Default, Clone, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Aggregation {
    cluster_role_selectors: Vec<Tree>,
}

/// The roles that a role is part of.
fn of_role(role: &Object, world: &dyn World) -> Vec<Key> {
    let all = world.list(&CLUSTER_ROLE, "");
    // Read once for each revision of a role, not once for each pair of them: there are many at a start.
    let takes = |other: &&Object| {
        let rule = other.seen::<Aggregated>().and_then(|seen| seen.aggregation_rule.clone());
        let selectors = rule.unwrap_or_default().cluster_role_selectors;
        let mut selectors = selectors.iter().filter_map(|one| Selector::of_tree(Some(one)).ok());
        selectors.any(|selector| selector.matches(&role.meta().labels))
    };
    all.iter().filter(takes).map(|other| Key::new(&CLUSTER_ROLE, "", other.name())).collect()
}

fn selectors(tree: &Tree) -> Vec<Selector> {
    let all = tree["aggregationRule"]["clusterRoleSelectors"].as_array().into_iter().flatten();
    all.filter_map(|one| Selector::of_tree(Some(one)).ok()).collect()
}

/// Decides on one role.
pub fn reconcile(key: &Key, world: &dyn World, _now: Time) -> Plan {
    let mut plan = Plan::default();
    let Some(role) = world.get(key).filter(|role| !role.is_ending()) else { return plan };
    let tree = role.tree().unwrap_or_default();
    if tree["aggregationRule"].is_null() {
        return plan;
    }
    let selectors = selectors(&tree);
    let mut rules: Vec<Tree> = Vec::new();
    for part in world.list(&CLUSTER_ROLE, "").iter().filter(|part| part.name() != role.name()) {
        if selectors.iter().any(|selector| selector.matches(&part.meta().labels)) {
            let own = part.tree().unwrap_or_default()["rules"].as_array().cloned().unwrap_or_default();
            own.into_iter().filter(|rule| !rules.contains(rule)).collect::<Vec<_>>().into_iter().for_each(
                |rule| {
                    rules.push(rule);
                },
            );
        }
    }
    if tree["rules"].as_array().cloned().unwrap_or_default() != rules {
        let patch = json!({"rules": rules});
        plan.patch(key.clone(), "", patch, Precondition::exactly(&role), "the roles it is made of changed");
    }
    plan
}

#[cfg(test)]
mod tests {
    use model::tiny::check;

    use super::*;

    #[test]
    fn a_role_wakes_those_that_select_it() {
        check(
            r#"clusterroles view aggregationRule.clusterRoleSelectors=[{"matchLabels":{"to":"view"}}]
               clusterroles edit aggregationRule.clusterRoleSelectors=[{"matchLabels":{"to":"edit"}}]
               clusterroles a labels=to:view rules=[]"#,
            5,
            |world: &dyn World, _| {
                let role = world.get(&Key::new(&CLUSTER_ROLE, "", "a")).expect("it is in the world");
                let mut plan = Plan::default();
                for key in of_role(&role, world) {
                    plan.patch(key, "", json!({}), Precondition::default(), "woken");
                }
                plan
            },
            "patch clusterroles view {}",
        );
    }

    #[test]
    fn a_role_has_the_rules_of_all_it_selects() {
        check(
            r#"clusterroles view aggregationRule.clusterRoleSelectors=[{"matchLabels":{"to":"view"}}] rules=[]
               clusterroles a labels=to:view rules=[{"verbs":["get"],"resources":["pods"]}]
               clusterroles b labels=to:view rules=[{"verbs":["get"],"resources":["pods"]},{"verbs":["list"],"resources":["pods"]}]
               clusterroles c rules=[{"verbs":["*"]}]"#,
            5,
            |world: &dyn World, now| reconcile(&Key::new(&CLUSTER_ROLE, "", "view"), world, now),
            r#"patch clusterroles view {"rules":[{"verbs":["get"]},{"verbs":["list"]}]}"#,
        );
    }
}
