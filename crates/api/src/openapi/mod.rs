//! `/openapi/v2` and `/openapi/v3`: documents made from the schema table and the served resources.
//!
//! They are made when they are asked for, and not kept: a client asks once and remembers by ETag.

mod custom;
pub mod gnostic;
mod paths;
mod prose;
mod schemas;
mod third;

use std::collections::BTreeSet;

use model::Tree;
use model::kinds::Verbs;
use model::schema::{TypeId, builtin};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::aggregate::{Said, Seen};
use crate::registry::{Meaning, Registry, Resource};
use schemas::{Dialect, Kinds};

/// The document of a path below `/openapi`, if there is one there.
pub fn document(registry: &Registry, seen: &Seen, path: &str) -> Option<Tree> {
    match path.strip_prefix("/openapi/")? {
        "v2" => Some(two(registry, seen)),
        "v3" => Some(index(registry, seen)),
        rest => {
            let place = rest.strip_prefix("v3/")?;
            let (group, version) = match place.split('/').collect::<Vec<_>>().as_slice() {
                ["api", version] => ("", *version),
                ["apis", group, version] => (*group, *version),
                _ => return None,
            };
            match said_in_two(seen, group, version) {
                Some(said) => third::of(&said.openapi_two, group, version),
                None => registry.has_version(group, version).then(|| three(registry, group, version)),
            }
        }
    }
}

fn two(registry: &Registry, seen: &Seen) -> Tree {
    let resources: Vec<&Resource> = registry.all().map(|resource| &**resource).collect();
    let (definitions, paths) = parts(&resources, Dialect::Two);
    let mut document = json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions});
    for (group, said) in away(seen) {
        crate::aggregate::openapi_two(&mut document, group, &said.openapi_two);
    }
    document
}

/// What another server says of a group's version that it describes in OpenAPI v2 alone.
fn said_in_two<'s>(seen: &'s Seen, group: &str, version: &str) -> Option<&'s Said> {
    let group = seen.groups.iter().find(|one| one.name == group)?;
    let (_, away) = group.versions.iter().find(|(one, _)| one == version)?;
    seen.said.get(away.as_ref()?).filter(|said| said.speaks_two_alone())
}

/// What other servers say, with the groups they say it of.
fn away(seen: &Seen) -> impl Iterator<Item = (&str, &Said)> {
    let all = seen.groups.iter().flat_map(|group| {
        group.versions.iter().filter_map(|(_, away)| Some((group.name.as_str(), away.as_ref()?)))
    });
    all.filter_map(|(group, name)| Some((group, seen.said.get(name)?)))
}

fn three(registry: &Registry, group: &str, version: &str) -> Tree {
    let resources: Vec<&Resource> = registry.of_version(group, version).map(|resource| &**resource).collect();
    let (schemas, paths) = parts(&resources, Dialect::Three);
    json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas}})
}

fn info() -> Tree {
    json!({"title": "Kubernetes", "version": crate::settings::GIT_VERSION})
}

/// Where the document of each group's version lies; the hash changes when the document may.
fn index(registry: &Registry, seen: &Seen) -> Tree {
    let mut paths = Map::new();
    for (group, versions) in &registry.groups {
        for version in versions {
            let place =
                if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") };
            let hash = fingerprint(registry, group, version);
            let url = format!("/openapi/v3/{place}?hash={hash}");
            paths.insert(place, json!({"serverRelativeURL": url}));
        }
    }
    for group in &seen.groups {
        for (version, away) in &group.versions {
            let said = away.as_ref().and_then(|name| seen.said.get(name));
            let place = format!("apis/{}/{version}", group.name);
            match said {
                Some(said) if said.openapi_three.is_object() => {
                    paths.insert(place, said.openapi_three.clone());
                }
                Some(said) if said.speaks_two_alone() => {
                    let hash = hex(&Sha256::digest(said.openapi_two.to_string()));
                    let url = format!("/openapi/v3/{place}?hash={hash}");
                    paths.insert(place, json!({"serverRelativeURL": url}));
                }
                _ => {}
            }
        }
    }
    json!({"paths": paths})
}

/// What the document follows from, in short: the served resources and the version of the program.
fn fingerprint(registry: &Registry, group: &str, version: &str) -> String {
    let mut digest = Sha256::new();
    digest.update(crate::settings::GIT_VERSION);
    for resource in registry.of_version(group, version) {
        digest.update(format!("{} {} {}\n", resource.gvr, resource.kind, resource.status));
        if let Meaning::Custom(custom) = &resource.meaning {
            digest.update(format!("{} {custom:?}", resource.list_kind));
        }
    }
    hex(&digest.finalize())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn parts(resources: &[&Resource], dialect: Dialect) -> (Map<String, Value>, Map<String, Value>) {
    let schema = builtin();
    let (mut roots, mut kinds, mut operations) = (BTreeSet::<TypeId>::new(), Kinds::new(), Map::new());
    let mut extra: Vec<(String, Value)> = Vec::new();
    for resource in resources {
        operations.extend(paths::of(resource, dialect));
        let kind = match &resource.meaning {
            Meaning::BuiltIn(kind) => kind,
            Meaning::Custom(own) => {
                roots.extend(custom::USED.iter().filter_map(|name| schema.type_named(name)));
                extra.extend(custom::definitions(resource, own, dialect));
                continue;
            }
        };
        let own = (kind.schema.to_owned(), resource.kind.to_string());
        let list = (format!("{}List", kind.schema), resource.list_kind.to_string());
        let names = if resource.verbs == Verbs::CreateOnly { vec![own] } else { vec![own, list] };
        for (name, kind) in names {
            let Some(id) = schema.type_named(&name) else { continue };
            roots.insert(id);
            let gvk = (resource.gvr.group.to_string(), resource.gvr.version.to_string(), kind);
            kinds.entry(name).or_default().push(gvk);
        }
    }
    let mut definitions = schemas::definitions(schema, &roots, &kinds, dialect);
    definitions.extend(extra);
    (definitions, operations)
}
