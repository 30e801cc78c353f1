//! What is discovered is what Kubernetes v1.36 publishes, and every verb of it is answered.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde_json::{Value, json};

use crate::lab::{Lab, lab, tree};

/// Group, version, plural, kind, singular, scope, verbs, short names, categories, subresources
/// (`name=verbs:group/version/kind`).
const PUBLISHED: &str = include_str!("../../../model/src/kinds/discovery.tsv");

/// A resource or subresource: whether it is namespaced, its verbs, its kind.
type Told = (bool, BTreeSet<String>, String);

fn verbs<'a>(verbs: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    verbs.map(str::to_owned).collect()
}

/// By group, version and name, with `/part` for a subresource.
fn published() -> BTreeMap<(String, String, String), Told> {
    let mut all = BTreeMap::new();
    for line in PUBLISHED.lines() {
        let cells: Vec<&str> = line.split('\t').collect();
        let [group, version, plural, kind, _, scope, own] = cells[..7] else {
            panic!("a short line: {line}")
        };
        let key = |name: String| (group.to_owned(), version.to_owned(), name);
        let namespaced = scope == "namespaced";
        all.insert(key(plural.to_owned()), (namespaced, verbs(own.split(',')), kind.to_owned()));
        for part in cells.get(9).unwrap_or(&"").split(' ').filter(|part| !part.is_empty()) {
            let (name, rest) = part.split_once('=').expect("a name");
            let (own, kind) = rest.split_once(':').expect("a kind");
            let kind = kind.rsplit('/').next().unwrap_or_default().to_owned();
            all.insert(key(format!("{plural}/{name}")), (namespaced, verbs(own.split(',')), kind));
        }
    }
    all
}

async fn get(lab: &Lab, path: &str, accept: &str) -> Value {
    let mut request = lab.request(Method::GET, path, &Value::Null);
    request.headers_mut().insert("accept", accept.parse().expect("a header"));
    tree(lab.client(false).request(request).await.expect("an answer")).await
}

fn texts(list: &Value) -> BTreeSet<String> {
    verbs(list.as_array().into_iter().flatten().filter_map(Value::as_str))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// What is missing or different, and what is too much but for kinds of our own.
fn differences(told: &BTreeMap<(String, String, String), Told>) -> Vec<String> {
    let wanted = published();
    let mut all: Vec<String> = wanted
        .iter()
        .filter(|(key, wanted)| told.get(*key) != Some(*wanted))
        .map(|(key, wanted)| format!("{key:?}: {:?}, should be {wanted:?}", told.get(key)))
        .collect();
    let more = told.keys().filter(|key| !wanted.contains_key(*key) && key.0 != "healing.kintsugi.dev");
    all.extend(more.map(|key| format!("{key:?}: is not published")));
    all
}

#[tokio::test]
async fn the_plain_documents_name_every_group_resource_verb_and_part() {
    let lab = lab().await;
    let groups = get(&lab, "/apis", "application/json").await;
    let mut places = vec![(String::new(), "v1".to_owned(), "/api/v1".to_owned())];
    for group in list(&groups["groups"]) {
        for version in list(&group["versions"]) {
            let (name, version) = (text(&group["name"]), text(&version["version"]));
            places.push((name.clone(), version.clone(), format!("/apis/{name}/{version}")));
        }
    }
    let mut told = BTreeMap::new();
    for (group, version, path) in places {
        for resource in list(&get(&lab, &path, "application/json").await["resources"]) {
            let key = (group.clone(), version.clone(), text(&resource["name"]));
            let namespaced = resource["namespaced"] == true;
            told.insert(key, (namespaced, texts(&resource["verbs"]), text(&resource["kind"])));
        }
    }
    let differences = differences(&told);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn the_aggregated_document_says_the_same() {
    let lab = lab().await;
    let mut told = BTreeMap::new();
    for path in ["/api", "/apis"] {
        let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        let document = get(&lab, path, accept).await;
        assert_eq!(document["kind"], "APIGroupDiscoveryList");
        for group in list(&document["items"]) {
            for version in list(&group["versions"]) {
                for resource in list(&version["resources"]) {
                    let key = |name| (text(&group["metadata"]["name"]), text(&version["version"]), name);
                    let (name, namespaced) = (text(&resource["resource"]), resource["scope"] == "Namespaced");
                    let of = |part: &Value| {
                        (namespaced, texts(&part["verbs"]), text(&part["responseKind"]["kind"]))
                    };
                    told.insert(key(name.clone()), of(resource));
                    for part in list(&resource["subresources"]) {
                        told.insert(key(format!("{name}/{}", text(&part["subresource"]))), of(part));
                    }
                }
            }
        }
    }
    let differences = differences(&told);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What a verb is asked with of an object that is not there: the answer may refuse much, but not the verb.
fn asked(verb: &str, collection: &str, part: &str) -> (Method, String) {
    let one = format!("{collection}/not-there{part}");
    match verb {
        "get" => (Method::GET, one),
        "list" => (Method::GET, collection.to_owned()),
        "watch" => (Method::GET, format!("{collection}?watch=1&timeoutSeconds=0")),
        "create" if part.is_empty() => (Method::POST, collection.to_owned()),
        "create" => (Method::POST, one),
        "update" => (Method::PUT, one),
        "patch" => (Method::PATCH, one),
        "delete" => (Method::DELETE, one),
        "deletecollection" => (Method::DELETE, collection.to_owned()),
        other => panic!("an unknown verb: {other}"),
    }
}

#[tokio::test]
async fn every_verb_that_is_published_is_answered() {
    let lab = lab().await;
    let client = lab.client(false);
    let mut refused = Vec::new();
    for ((group, version, name), (namespaced, verbs, _)) in published() {
        let (plural, part) = name
            .split_once('/')
            .map_or((&*name, String::new()), |(plural, part)| (plural, format!("/{part}")));
        let root =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let place = if namespaced { "/namespaces/default" } else { "" };
        for verb in verbs {
            let (method, path) = asked(&verb, &format!("{root}{place}/{plural}"), &part);
            let mut request = lab.request(method, &path, &json!({"metadata": {"name": "not-there"}}));
            if verb == "patch" {
                let media = "application/merge-patch+json".parse().expect("a header");
                request.headers_mut().insert("content-type", media);
            }
            let answer = client.request(request).await.expect("an answer");
            let code = answer.status().as_u16();
            let told = tree(answer).await;
            // What is not there is named; a path that is not served is not.
            let unserved = code == 404 && told["details"]["name"] != "not-there";
            if code == 405 || code >= 500 || unserved {
                refused.push(format!("{verb} {path}: {code} {}", told["message"]));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}
