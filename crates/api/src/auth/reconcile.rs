//! Default roles and bindings of an older data directory get what newer ones have, as upstream's do at each start. Pure.
//!
//! What an administrator added stays. One who sets the annotation `rbac.authorization.kubernetes.io/autoupdate` to `false`
//! keeps the whole object as it is.

use model::Tree;
use serde_json::{Value, json};

use super::rbac::{Rule, Rules};

/// The annotation by which a default object is kept up to date, unless it is `false`.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// What is to be done with a default object that is there.
#[derive(Debug, Clone, PartialEq)]
pub enum Mend {
    /// It lacks nothing.
    Nothing,
    /// It is to be like this.
    Put(Tree),
    /// It binds another role, which cannot be changed: it is to be deleted and made anew.
    Anew,
}

/// Compares a default object with what is there.
pub fn mend(found: &Tree, wanted: &Tree) -> Mend {
    if found["metadata"]["annotations"][AUTOUPDATE] == "false" {
        return Mend::Nothing;
    }
    if wanted["roleRef"].is_object() && found["roleRef"] != wanted["roleRef"] {
        return Mend::Anew;
    }
    let mut new = found.clone();
    for map in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][map].as_object().into_iter().flatten() {
            if found["metadata"][map].get(key).is_none() {
                new["metadata"][map][key] = value.clone();
            }
        }
    }
    if wanted["aggregationRule"].is_object() {
        // The rules of such a role are gathered from its parts.
        let pointer = "clusterRoleSelectors";
        let parts = wanted["aggregationRule"][pointer].as_array().into_iter().flatten();
        append_missing(&mut new["aggregationRule"][pointer], parts, |there, one| there == one);
    } else if let Some(rules) = wanted["rules"].as_array() {
        let held: Vec<Rule> = read(&found["rules"]);
        let lacks = rules.iter().filter(|rule| {
            let wanted: Vec<Rule> = read(&json!([rule]));
            !Rules::missing(&wanted, &held).is_empty()
        });
        append_missing(&mut new["rules"], lacks, |_, _| false);
    }
    if let Some(subjects) = wanted["subjects"].as_array() {
        let is_same = |there: &Tree, one: &Tree| {
            ["kind", "name", "namespace"].iter().all(|field| there[*field] == one[*field])
        };
        append_missing(&mut new["subjects"], subjects.iter(), is_same);
    }
    if new == *found { Mend::Nothing } else { Mend::Put(new) }
}

fn read(rules: &Tree) -> Vec<Rule> {
    serde_json::from_value(rules.clone()).unwrap_or_default()
}

/// Appends what a list lacks.
fn append_missing<'a>(
    list: &mut Tree,
    wanted: impl Iterator<Item = &'a Tree>,
    is_same: impl Fn(&Tree, &Tree) -> bool,
) {
    for one in wanted {
        match list {
            Value::Array(there) if there.iter().any(|other| is_same(other, one)) => {}
            Value::Array(there) => there.push(one.clone()),
            _ => *list = json!([one]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(rules: Tree) -> Tree {
        json!({"metadata": {"name": "r", "annotations": {AUTOUPDATE: "true"}}, "rules": rules})
    }

    fn rule(verbs: &[&str], resources: &[&str]) -> Tree {
        json!({"verbs": verbs, "apiGroups": [""], "resources": resources})
    }

    #[test]
    fn a_role_gets_the_rules_it_lacks_and_keeps_those_it_was_given() {
        let wanted = role(json!([rule(&["get", "list"], &["pods"]), rule(&["get"], &["secrets"])]));
        assert_eq!(mend(&wanted, &wanted), Mend::Nothing);
        let wider = role(json!([rule(&["*"], &["*"])]));
        assert_eq!(mend(&wider, &wanted), Mend::Nothing);
        let old = role(json!([rule(&["get"], &["pods"]), rule(&["delete"], &["nodes"])]));
        let new = role(json!([
            rule(&["get"], &["pods"]),
            rule(&["delete"], &["nodes"]),
            rule(&["get", "list"], &["pods"]),
            rule(&["get"], &["secrets"]),
        ]));
        assert_eq!(mend(&old, &wanted), Mend::Put(new.clone()));
        assert_eq!(mend(&new, &wanted), Mend::Nothing, "once is enough");
    }

    #[test]
    fn who_says_so_keeps_it_as_it_is() {
        let wanted = role(json!([rule(&["get"], &["pods"])]));
        let mut own = role(json!([]));
        own["metadata"]["annotations"][AUTOUPDATE] = json!("false");
        assert_eq!(mend(&own, &wanted), Mend::Nothing);
        own["metadata"]["annotations"] = Tree::Null;
        assert_eq!(mend(&own, &wanted), Mend::Put(wanted), "no word is no objection");
    }

    #[test]
    fn a_binding_gets_its_subjects_and_is_made_anew_for_another_role() {
        let bound = |role: &str, names: &[&str]| {
            let subjects: Vec<Tree> =
                names.iter().map(|name| json!({"kind": "Group", "name": name})).collect();
            json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": subjects})
        };
        let wanted = bound("r", &["a", "b"]);
        assert_eq!(mend(&bound("r", &["mine", "a"]), &wanted), Mend::Put(bound("r", &["mine", "a", "b"])));
        assert_eq!(mend(&bound("other", &["a", "b"]), &wanted), Mend::Anew);
    }

    #[test]
    fn the_rules_of_an_aggregated_role_are_its_controllers() {
        let part = |name: &str| json!({"matchLabels": {name: "true"}});
        let aggregated = |parts: Tree, rules: Tree| json!({"metadata": {"name": "r"}, "aggregationRule": {"clusterRoleSelectors": parts}, "rules": rules});
        let wanted = aggregated(json!([part("a")]), json!([rule(&["get"], &["pods"])]));
        assert_eq!(mend(&aggregated(json!([part("a")]), json!([])), &wanted), Mend::Nothing);
        let mended = aggregated(json!([part("mine"), part("a")]), json!([]));
        assert_eq!(mend(&aggregated(json!([part("mine")]), json!([])), &wanted), Mend::Put(mended));
    }
}
