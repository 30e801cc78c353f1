//! What is shown of our own groups and of those of servers behind this one, together. Pure.

use model::Tree;
use model::tree::{items, text};
use serde_json::{Map, Value, json};

use super::{Extension, Said};
use crate::registry::{Registry, version_rank};

/// A group and its versions, preferred first; the versions that another server serves are marked by its APIService.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The group; empty for the core group.
    pub name: String,
    /// Its versions, each with the APIService of who serves it, if that is not us.
    pub versions: Vec<(String, Option<String>)>,
}

/// All groups in the order in which they are shown: ours, then the others'.
pub fn groups(registry: &Registry, away: &[Extension]) -> Vec<Group> {
    let own = registry.groups.iter().map(|(name, versions)| Group {
        name: name.clone(),
        versions: versions.iter().map(|version| (version.clone(), None)).collect(),
    });
    let mut all: Vec<Group> = own.collect();
    for extension in away {
        let version = (extension.version.clone(), Some(extension.name.clone()));
        match all.iter_mut().find(|group| group.name == extension.group) {
            Some(group) => {
                group.versions.retain(|(known, _)| *known != extension.version);
                group.versions.push(version);
                group.versions.sort_by_key(|(version, _)| std::cmp::Reverse(version_rank(version)));
            }
            None => all.push(Group { name: extension.group.clone(), versions: vec![version] }),
        }
    }
    all
}

/// A version of another server as aggregated discovery shows it.
pub fn aggregated_entry(version: &str, said: Option<&Said>) -> Tree {
    let fresh = if said.is_some_and(|said| said.current) { "Current" } else { "Stale" };
    let all = said.map_or(&[][..], |said| items(&said.resources, "resources"));
    let (parts, whole): (Vec<&Tree>, Vec<&Tree>) =
        all.iter().partition(|resource| text(resource, "name").contains('/'));
    let shown = whole.into_iter().map(|resource| {
        let name = text(resource, "name");
        let own = parts.iter().filter(|part| text(part, "name").split('/').next() == Some(name));
        shown(resource, &own.map(|part| part_shown(part)).collect::<Vec<_>>())
    });
    json!({"version": version, "resources": shown.collect::<Vec<_>>(), "freshness": fresh})
}

fn shown(resource: &Tree, parts: &[Tree]) -> Tree {
    let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
    let mut told = json!({
        "resource": text(resource, "name"), "responseKind": kind(resource), "scope": scope,
        "singularResource": text(resource, "singularName"), "verbs": resource["verbs"],
    });
    for name in ["shortNames", "categories"] {
        if !items(resource, name).is_empty() {
            told[name] = resource[name].clone();
        }
    }
    if !parts.is_empty() {
        told["subresources"] = json!(parts);
    }
    told
}

fn part_shown(part: &Tree) -> Tree {
    let name = text(part, "name").split_once('/').map_or("", |(_, name)| name);
    json!({"subresource": name, "responseKind": kind(part), "verbs": part["verbs"]})
}

fn kind(resource: &Tree) -> Tree {
    json!({"group": text(resource, "group"), "version": text(resource, "version"), "kind": text(resource, "kind")})
}

/// An OpenAPI v2 document with what another server's says of its group. What both define is ours.
pub fn openapi_two(document: &mut Tree, group: &str, other: &Tree) {
    let prefix = format!("/apis/{group}/");
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else { return };
    let of = |name: &str| -> Map<String, Value> { other[name].as_object().cloned().unwrap_or_default() };
    let own = of("paths")
        .into_iter()
        .filter(|(path, _)| path.starts_with(&prefix) || *path == prefix[..prefix.len() - 1]);
    for (path, item) in own {
        paths.entry(path).or_insert(item);
    }
    let Some(definitions) = document.get_mut("definitions").and_then(Value::as_object_mut) else { return };
    for (name, definition) in of("definitions") {
        definitions.entry(name).or_insert(definition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_shown_with_its_parts() {
        let resources = json!({"resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["update"]}]});
        let said = Said { resources, current: true, ..Said::default() };
        let shown = aggregated_entry("v1", Some(&said));
        let one = &shown["resources"][0];
        assert_eq!(
            (&one["resource"], &one["scope"], &one["shortNames"]),
            (&json!("flunders"), &json!("Namespaced"), &json!(["fl"]))
        );
        assert_eq!(
            (&one["subresources"][0]["subresource"], &shown["freshness"]),
            (&json!("status"), &json!("Current"))
        );
        assert_eq!(aggregated_entry("v1", None)["freshness"], "Stale");
    }

    #[test]
    fn documents_are_merged_and_ours_stay() {
        let mut document = json!({"paths": {"/apis/": 1}, "definitions": {"A": 1}});
        let other = json!({"paths": {"/apis/x.io/v1/foos": 2, "/apis/": 2, "/apis/x.iox/": 2}, "definitions": {"A": 2, "B": 2}});
        openapi_two(&mut document, "x.io", &other);
        assert_eq!(
            document,
            json!({"paths": {"/apis/": 1, "/apis/x.io/v1/foos": 2}, "definitions": {"A": 1, "B": 2}})
        );
    }
}
