//! What roles and their bindings have in common.

use super::Faults;
use super::table::or;
use crate::tree::{is_set, items, text};
use crate::{Tree, tree};

/// The group of roles and bindings.
const GROUP: &str = "rbac.authorization.k8s.io";

/// May these rules be? Only cluster-wide roles may speak of paths.
pub fn check_rules(object: &Tree, cluster_wide: bool, faults: &mut Faults) {
    for (index, rule) in items(object, "rules").iter().enumerate() {
        let field = format!("rules[{index}]");
        if !is_set(rule, "verbs") {
            faults.required(format!("{field}.verbs"), "verbs must contain at least one value");
        }
        let paths = is_set(rule, "nonResourceURLs");
        let resources = ["apiGroups", "resources", "resourceNames"].iter().any(|name| is_set(rule, name));
        if paths && !cluster_wide {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            faults.invalid(format!("{field}.nonResourceURLs"), rule["nonResourceURLs"].clone(), detail);
        }
        if paths && resources {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            faults.invalid(format!("{field}.nonResourceURLs"), rule["nonResourceURLs"].clone(), detail);
        }
        if !paths {
            if !is_set(rule, "apiGroups") {
                faults.required(
                    format!("{field}.apiGroups"),
                    "resource rules must supply at least one api group",
                );
            }
            if !is_set(rule, "resources") {
                faults.required(
                    format!("{field}.resources"),
                    "resource rules must supply at least one resource",
                );
            }
        }
    }
}

/// Fills in the groups of the role and of those it is bound to.
pub fn fill_binding(object: &mut Tree) {
    object.get_mut("roleRef").into_iter().for_each(|role| tree::fill(role, "apiGroup", GROUP));
    for subject in tree::items_mut(object, "subjects") {
        if matches!(text(subject, "kind"), "User" | "Group") {
            tree::fill(subject, "apiGroup", GROUP);
        }
    }
}

/// May this role be bound to these subjects?
pub fn check_binding(object: &Tree, roles: &[&str], cluster_wide: bool, faults: &mut Faults) {
    let role = &object["roleRef"];
    if text(role, "apiGroup") != GROUP {
        faults.not_supported("roleRef.apiGroup", text(role, "apiGroup"), &[GROUP]);
    }
    if !roles.contains(&text(role, "kind")) {
        faults.not_supported("roleRef.kind", text(role, "kind"), roles);
    }
    match text(role, "name") {
        "" => faults.required("roleRef.name", ""),
        name => faults.each("roleRef.name", name, crate::syntax::path_segment(name)),
    }
    for (index, subject) in items(object, "subjects").iter().enumerate() {
        check_subject(subject, &format!("subjects[{index}]"), cluster_wide, faults);
    }
}

fn check_subject(subject: &Tree, field: &str, cluster_wide: bool, faults: &mut Faults) {
    let (kind, group, name) = (text(subject, "kind"), text(subject, "apiGroup"), text(subject, "name"));
    if name.is_empty() {
        faults.required(format!("{field}.name"), "");
    }
    let wanted = match kind {
        "ServiceAccount" => "",
        "User" | "Group" => GROUP,
        _ => {
            return faults.not_supported(format!("{field}.kind"), kind, &["Group", "ServiceAccount", "User"]);
        }
    };
    if group != wanted {
        faults.not_supported(format!("{field}.apiGroup"), group, &[wanted]);
    }
    if kind == "ServiceAccount" {
        faults.each(format_args!("{field}.name"), name, crate::syntax::dns1123_subdomain(name));
        if cluster_wide && text(subject, "namespace").is_empty() {
            faults.required(format!("{field}.namespace"), "");
        }
    }
}

/// A binding stays with its role.
pub fn change_binding(old: &Tree, new: &Tree, faults: &mut Faults) {
    if old["roleRef"] != new["roleRef"] {
        faults.invalid("roleRef", new["roleRef"].clone(), "cannot change roleRef");
    }
}

/// The role that is bound, as `Role/name`.
pub fn role(object: &Tree) -> Tree {
    format!("{}/{}", text(object, "roleRef.kind"), text(object, "roleRef.name")).into()
}

/// The subjects of a kind.
pub fn subjects(object: &Tree, kind: &str) -> Tree {
    let of_kind = items(object, "subjects").iter().filter(|subject| text(subject, "kind") == kind);
    let shown = of_kind.map(|subject| match (kind, text(subject, "namespace")) {
        ("ServiceAccount", namespace) => format!("{namespace}/{}", text(subject, "name")),
        _ => or(subject, "name", "").as_str().unwrap_or_default().to_owned(),
    });
    shown.collect::<Vec<_>>().join(", ").into()
}
