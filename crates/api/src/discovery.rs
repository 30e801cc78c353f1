//! `/api`, `/apis` and below: which resources there are, plain and aggregated. Pure.

use bytes::Bytes;
use http::StatusCode;
use http::header::{ACCEPT, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use model::Tree;
use model::kinds::Verbs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::aggregate::{Group, Seen, aggregated_entry};
use crate::answer::{Answer, Body};
use crate::http::negotiate;
use crate::openapi::gnostic;
use crate::refusal::Refusal;
use crate::registry::{Registry, Resource};
use crate::request::Query;

/// The media type of aggregated discovery; clients decide by it.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const ALL_VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The answer of a discovery path.
pub fn answer(
    registry: &Registry,
    seen: &Seen,
    path: &str,
    headers: &HeaderMap,
    query: &Query,
) -> Result<Answer, Refusal> {
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let aggregated = negotiate::wants_aggregated(headers);
    let document = match parts.as_slice() {
        ["api"] if aggregated => return Ok(tagged(headers, AGGREGATED, &aggregate(registry, seen, true))),
        ["apis"] if aggregated => return Ok(tagged(headers, AGGREGATED, &aggregate(registry, seen, false))),
        ["api"] => json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ["apis"] => groups(seen),
        ["api", version] => resources(registry, "", version)?,
        ["apis", group] => group_of(seen, group)?,
        ["apis", group, version] => resources(registry, group, version)?,
        [""] => paths(seen),
        ["openapi", ..] => {
            crate::openapi::document(registry, seen, path).ok_or_else(Refusal::no_such_path)?
        }
        _ => return Err(Refusal::no_such_path()),
    };
    if path == "/openapi/v2" && accepts(headers, gnostic::ASKED) {
        let document = Bytes::from(gnostic::write(&document));
        return Ok(tagged_bytes(headers, gnostic::MEDIA, document));
    }
    // Clients may ask for YAML or for pretty JSON; nearly none does.
    let offer = negotiate::Offer { views: &[negotiate::View::Object], protobuf: false };
    let form = negotiate::form(headers, query, offer)?;
    match form.syntax {
        negotiate::Syntax::Json | negotiate::Syntax::Protobuf => {
            Ok(tagged(headers, "application/json", &document))
        }
        negotiate::Syntax::Pretty => {
            Ok(Answer::json(StatusCode::OK, serde_json::to_vec_pretty(&document).unwrap_or_default().into()))
        }
        negotiate::Syntax::Yaml => {
            Ok(Answer::bytes(StatusCode::OK, "application/yaml", crate::yaml::from_tree(&document)))
        }
    }
}

/// A document with its ETag; not sent again to who has it.
fn tagged(headers: &HeaderMap, media: &'static str, document: &Tree) -> Answer {
    tagged_bytes(headers, media, model::schema::to_bytes(document))
}

/// Whether a client names a form of answer.
fn accepts(headers: &HeaderMap, form: &str) -> bool {
    headers
        .get_all(ACCEPT)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains(form))
}

fn tagged_bytes(headers: &HeaderMap, media: &'static str, bytes: Bytes) -> Answer {
    let digest = Sha256::digest(&bytes);
    let tag: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let known = known.flat_map(|value| value.split(',')).any(|value| value.trim() == tag);
    let mut answer = Answer::bytes(StatusCode::OK, media, bytes);
    if known {
        answer.status = StatusCode::NOT_MODIFIED;
        answer.body = Body::Whole(Bytes::new());
    }
    if let Ok(value) = HeaderValue::from_str(&tag) {
        answer.headers.insert(ETAG, value);
    }
    answer.headers.insert(VARY, HeaderValue::from_static("Accept"));
    answer
}

fn paths(seen: &Seen) -> Tree {
    let mut all = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for Group { name, versions } in seen.groups.iter().filter(|group| !group.name.is_empty()) {
        all.push(format!("/apis/{name}"));
        all.extend(versions.iter().map(|(version, _)| format!("/apis/{name}/{version}")));
    }
    all.extend(
        ["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned),
    );
    json!({"paths": all})
}

fn group_document(group: &Group) -> Tree {
    let version =
        |version: &str| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let versions: Vec<Tree> = group.versions.iter().map(|(name, _)| version(name)).collect();
    json!({"name": group.name, "versions": versions, "preferredVersion": versions.first()})
}

fn groups(seen: &Seen) -> Tree {
    let all: Vec<Tree> =
        seen.groups.iter().filter(|group| !group.name.is_empty()).map(group_document).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": all})
}

fn group_of(seen: &Seen, wanted: &str) -> Result<Tree, Refusal> {
    let found = seen.groups.iter().find(|group| group.name == wanted && !wanted.is_empty());
    let mut document = group_document(found.ok_or_else(Refusal::no_such_path)?);
    document["kind"] = json!("APIGroup");
    document["apiVersion"] = json!("v1");
    Ok(document)
}

fn verbs(resource: &Resource) -> Vec<&'static str> {
    match resource.verbs {
        Verbs::All => ALL_VERBS.into_iter().filter(|verb| resource.has(verb)).collect(),
        Verbs::CreateOnly => vec!["create"],
        Verbs::ReadOnly => vec!["get", "list"],
    }
}

/// A subresource: its name, its kind (group, version, kind) and its verbs.
type Part = (String, (String, String, String), Vec<&'static str>);

/// The subresources of a resource: name, kind (group, version, kind; the resource's own when empty) and verbs.
fn parts(resource: &Resource) -> Vec<Part> {
    let own = (String::new(), String::new(), resource.kind.to_string());
    let mut all = Vec::new();
    if resource.status {
        all.push(("status".to_owned(), own, vec!["get", "patch", "update"]));
    }
    if resource.scale.is_some() {
        let kind = ("autoscaling".to_owned(), "v1".to_owned(), "Scale".to_owned());
        all.push(("scale".to_owned(), kind, vec!["get", "patch", "update"]));
    }
    for other in &resource.others {
        let (group, version, kind) = other.kind;
        let same = kind == resource.kind;
        let place =
            if same { (String::new(), String::new()) } else { (group.to_owned(), version.to_owned()) };
        all.push((other.name.to_owned(), (place.0, place.1, kind.to_owned()), other.verbs.to_vec()));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn resources(registry: &Registry, group: &str, version: &str) -> Result<Tree, Refusal> {
    if !registry.has_version(group, version) {
        return Err(Refusal::no_such_path());
    }
    let mut all = Vec::new();
    for resource in registry.of_version(group, version) {
        all.push(plain(resource));
        for (name, (group, version, kind), verbs) in parts(resource) {
            let mut part = json!({
                "name": format!("{}/{name}", resource.gvr.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": kind, "verbs": verbs,
            });
            if !version.is_empty() {
                part["group"] = json!(group);
                part["version"] = json!(version);
            }
            all.push(part);
        }
    }
    let named = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": named, "resources": all}))
}

fn plain(resource: &Resource) -> Tree {
    let mut told = json!({
        "name": resource.gvr.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": verbs(resource),
    });
    if !resource.short.is_empty() {
        told["shortNames"] = json!(resource.short);
    }
    if !resource.categories.is_empty() {
        told["categories"] = json!(resource.categories);
    }
    if resource.verbs == Verbs::All {
        let stored = format!("{}/{}/{}", resource.stored.group, resource.stored.version, resource.kind);
        let digest = Sha256::digest(stored.as_bytes());
        use base64::Engine;
        told["storageVersionHash"] = json!(base64::engine::general_purpose::STANDARD.encode(&digest[..8]));
    }
    told
}

fn aggregate(registry: &Registry, seen: &Seen, core: bool) -> Tree {
    let mut items = Vec::new();
    for Group { name: group, versions } in seen.groups.iter().filter(|group| group.name.is_empty() == core) {
        let entry = |(version, away): &(String, Option<String>)| match away {
            Some(name) => aggregated_entry(version, seen.said.get(name)),
            None => aggregate_version(registry, group, version),
        };
        let versions: Vec<Tree> = versions.iter().map(entry).collect();
        let metadata = if core { json!({}) } else { json!({"name": group}) };
        items.push(json!({"metadata": metadata, "versions": versions}));
    }
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregate_version(registry: &Registry, group: &str, version: &str) -> Tree {
    let all: Vec<Tree> =
        registry.of_version(group, version).map(|resource| aggregate_resource(resource)).collect();
    json!({"version": version, "resources": all, "freshness": "Current"})
}

fn aggregate_resource(resource: &Resource) -> Tree {
    let kind =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    let scope = if resource.namespaced { "Namespaced" } else { "Cluster" };
    let mut told = json!({
        "resource": resource.gvr.plural, "responseKind": kind("", "", &resource.kind), "scope": scope,
        "singularResource": resource.singular, "verbs": verbs(resource),
    });
    if !resource.short.is_empty() {
        told["shortNames"] = json!(resource.short);
    }
    if !resource.categories.is_empty() {
        told["categories"] = json!(resource.categories);
    }
    let parts: Vec<Value> = parts(resource)
        .into_iter()
        .map(|(name, (group, version, of), verbs)| {
            json!({"subresource": name, "responseKind": kind(&group, &version, &of), "verbs": verbs})
        })
        .collect();
    if !parts.is_empty() {
        told["subresources"] = json!(parts);
    }
    told
}
