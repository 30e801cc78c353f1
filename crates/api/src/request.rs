//! What a path and a query ask for. Pure.

use std::borrow::Cow;

use http::{HeaderMap, Method};
use model::selector::{FieldCondition, Op, Requirement};
use model::{FieldSelector, Selector, Tree};
use percent_encoding::percent_decode_str;
use serde_json::{Map, json};

use crate::auth::Attributes;
use crate::refusal::Refusal;
use crate::select::Selection;

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// An object, a collection or a part of an object.
    Resource(Target),
    /// A path that is no resource, its segments cleaned of a trailing slash: discovery, health, version …
    Path(String),
}

/// A resource path, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The plural.
    pub resource: String,
    /// The namespace; empty for none.
    pub namespace: String,
    /// The name; empty for a collection.
    pub name: String,
    /// The subresource; empty for none.
    pub part: String,
    /// What follows the subresource: the path that a proxy asks for, with its leading slash; `None` without one.
    pub rest: Option<String>,
    /// Whether the path has the old `watch/` before the resource.
    pub watch: bool,
}

/// Takes a path apart.
pub fn route(path: &str) -> Result<Route, Refusal> {
    let mut parts = path.split('/').skip(1);
    let mut target = Target::default();
    let rest: Vec<&str> = match parts.next() {
        Some("api") => {
            let Some(version) = parts.next().filter(|version| !version.is_empty()) else {
                return Ok(plain(path));
            };
            target.version = version.to_owned();
            parts.collect()
        }
        Some("apis") => {
            let (Some(group), Some(version)) = (parts.next(), parts.next()) else { return Ok(plain(path)) };
            if group.is_empty() || version.is_empty() {
                return Ok(plain(path));
            }
            (target.group, target.version) = (group.to_owned(), version.to_owned());
            parts.collect()
        }
        _ => return Ok(plain(path)),
    };
    if rest.is_empty() || rest == [""] {
        return Ok(plain(path));
    }
    fill_target(&mut target, &rest)?;
    Ok(Route::Resource(target))
}

fn plain(path: &str) -> Route {
    let trimmed = path.trim_end_matches('/');
    Route::Path(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

fn fill_target(target: &mut Target, rest: &[&str]) -> Result<(), Refusal> {
    let mut rest = rest;
    if rest.first() == Some(&"watch") {
        target.watch = true;
        rest = &rest[1..];
    }
    // `namespaces/N/status` and `/finalize` are parts of the namespace itself.
    if let ["namespaces", namespace, inner, ..] = rest
        && !matches!(*inner, "status" | "finalize" | "")
    {
        target.namespace = decode(namespace)?;
        rest = &rest[2..];
    }
    let Some((resource, rest)) = rest.split_first() else { return Err(Refusal::no_such_path()) };
    target.resource = decode(resource)?;
    if let Some(name) = rest.first() {
        target.name = decode(name)?;
    }
    if let Some(part) = rest.get(1) {
        target.part = decode(part)?;
    }
    if rest.len() > 2 {
        // What a proxy forwards stays as it is encoded.
        target.rest = Some(format!("/{}", rest[2..].join("/")));
    }
    Ok(())
}

fn decode(segment: &str) -> Result<String, Refusal> {
    let text: Cow<'_, str> = percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| Refusal::bad_request(format!("the path segment {segment:?} is not UTF-8")))?;
    if text.contains('/') || text == "." || text == ".." {
        return Err(Refusal::bad_request(format!("invalid path segment {segment:?}")));
    }
    Ok(text.into_owned())
}

/// What a request asks for, as authorization sees it.
pub fn attributes(route: &Route, method: &Method, query: &Query) -> Attributes {
    let target = match route {
        Route::Path(path) => {
            let verb = method.as_str().to_ascii_lowercase();
            return Attributes { verb, path: path.clone(), ..Attributes::default() };
        }
        Route::Resource(target) => target,
    };
    let verb = verb(target, method, query);
    let fields = match verb {
        "list" | "watch" | "deletecollection" => {
            required_fields(query.get("fieldSelector").unwrap_or_default())
        }
        _ => Vec::new(),
    };
    // A selector of one name asks for that object.
    let named = fields.iter().find(|(field, _)| field == "metadata.name").map(|(_, name)| name.clone());
    let name = if target.name.is_empty() { named.unwrap_or_default() } else { target.name.clone() };
    Attributes {
        verb: verb.to_owned(),
        group: target.group.clone(),
        version: target.version.clone(),
        resource: target.resource.clone(),
        subresource: target.part.clone(),
        namespace: namespace_of(target),
        name,
        path: String::new(),
        fields,
        selectors: match verb {
            "list" | "watch" | "deletecollection" => {
                selectors(query.get("fieldSelector"), query.get("labelSelector"))
            }
            _ => Tree::Null,
        },
    }
}

/// A field selector and a label selector as reviews have them: those of their terms that can be read and told.
pub fn selectors(fields: Option<&str>, labels: Option<&str>) -> Tree {
    let terms = |terms: Vec<Tree>| (!terms.is_empty()).then(|| json!({"requirements": terms}));
    let fields = fields.map(|text| FieldSelector::parse(text).unwrap_or_default());
    let fields = fields.map(|fields| {
        let told = |condition: &FieldCondition| {
            let operator = if condition.equal { "In" } else { "NotIn" };
            json!({"key": condition.path, "operator": operator, "values": [condition.value]})
        };
        fields.conditions.iter().map(told).collect()
    });
    let labels = labels.and_then(|text| Selector::parse(text).ok()).map(|labels| {
        let told = |one: &Requirement| match &one.op {
            Op::In(values) => Some(json!({"key": one.key, "operator": "In", "values": values})),
            Op::NotIn(values) => Some(json!({"key": one.key, "operator": "NotIn", "values": values})),
            Op::Exists => Some(json!({"key": one.key, "operator": "Exists"})),
            Op::Absent => Some(json!({"key": one.key, "operator": "DoesNotExist"})),
            Op::Above(_) | Op::Below(_) => None,
        };
        labels.requirements().iter().filter_map(told).collect()
    });
    let mut told = Map::new();
    for (name, found) in [("fieldSelector", fields), ("labelSelector", labels)] {
        if let Some(found) = found.and_then(terms) {
            told.insert(name.to_owned(), found);
        }
    }
    if told.is_empty() { Tree::Null } else { Tree::Object(told) }
}

/// The fields that a selector asks to have certain values; one that cannot be read asks for nothing, and is refused later.
pub fn required_fields(selector: &str) -> Vec<(String, String)> {
    let selector = FieldSelector::parse(selector).unwrap_or_default();
    let equal = selector.conditions.into_iter().filter(|condition| condition.equal);
    equal.map(|condition| (condition.path, condition.value)).collect()
}

/// A namespace itself counts as lying in the namespace of its name.
fn namespace_of(target: &Target) -> String {
    if target.group.is_empty() && target.resource == "namespaces" {
        target.name.clone()
    } else {
        target.namespace.clone()
    }
}

/// The verb that a method is, for a target.
pub fn verb(target: &Target, method: &Method, query: &Query) -> &'static str {
    let collection = target.name.is_empty();
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if collection => "deletecollection",
        Method::DELETE => "delete",
        _ if !target.part.is_empty() => "get",
        _ if query.watch() || target.watch => "watch",
        _ if collection => "list",
        _ => "get",
    }
}

/// A query string, decoded. Names that nobody knows are let be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query string.
    pub fn read(text: &str) -> Self {
        let plain = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (plain(k), plain(v)))
                .collect(),
        )
    }

    /// All pairs, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }

    /// The first value of a name; `None` when it is absent or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, value)| own == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// Every value of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Whether a flag is set: `?pretty`, `?pretty=true`, `?pretty=1`.
    pub fn flag(&self, name: &str) -> bool {
        let value = self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        value.is_some_and(|value| !matches!(value, "false" | "0" | "False" | "f" | "F"))
    }

    /// Whether it is given at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(own, _)| own == name)
    }

    /// Whether it asks for a watch.
    pub fn watch(&self) -> bool {
        self.flag("watch")
    }

    fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let bad = |_| Refusal::bad_request(format!("invalid value {value:?} for the query parameter {name}"));
        value.parse().map(Some).map_err(bad)
    }

    /// Both selectors.
    pub fn selection(&self) -> Result<Selection, Refusal> {
        let bad = |why: model::selector::BadSelector| Refusal::bad_request(why.to_string());
        Ok(Selection {
            labels: Selector::parse(self.get("labelSelector").unwrap_or_default()).map_err(bad)?,
            fields: FieldSelector::parse(self.get("fieldSelector").unwrap_or_default()).map_err(bad)?,
        })
    }
}

/// What a list or watch asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// Which objects.
    pub selection: Selection,
    /// At most so many; 0 for all.
    pub limit: usize,
    /// Where an earlier page ended.
    pub continue_token: Option<String>,
    /// The revision asked for; `None` without one.
    pub revision: Option<u64>,
    /// How the revision is meant.
    pub revision_match: RevisionMatch,
    /// When a watch ends, in seconds.
    pub timeout_seconds: Option<u64>,
    /// Whether a watch tells how far it got now and then.
    pub bookmarks: bool,
    /// Whether a watch begins with what there is.
    pub initial_events: Option<bool>,
}

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RevisionMatch {
    /// Not given.
    #[default]
    Unset,
    /// Exactly that revision.
    Exact,
    /// That revision or a later one.
    NotOlderThan,
}

impl ListOptions {
    /// Reads them from a query.
    pub fn read(query: &Query) -> Result<Self, Refusal> {
        let revision = query
            .get("resourceVersion")
            .map(|text| {
                text.parse().map_err(|_| Refusal::bad_request(format!("invalid resource version {text:?}")))
            })
            .transpose()?;
        let revision_match = match query.get("resourceVersionMatch") {
            None => RevisionMatch::Unset,
            Some("Exact") => RevisionMatch::Exact,
            Some("NotOlderThan") => RevisionMatch::NotOlderThan,
            Some(other) => {
                return Err(Refusal::bad_request(format!(
                    "resourceVersionMatch: Unsupported value: {other:?}"
                )));
            }
        };
        let limit = query.number("limit")?.unwrap_or(0);
        Ok(Self {
            selection: query.selection()?,
            limit: usize::try_from(limit).unwrap_or(0),
            continue_token: query.get("continue").map(str::to_owned),
            revision,
            revision_match,
            timeout_seconds: query.number("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok()),
            bookmarks: query.flag("allowWatchBookmarks"),
            initial_events: query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents")),
        })
    }
}

/// What a write asks for beside its object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Whether nothing is to be stored.
    pub dry_run: bool,
    /// Who writes, for managed fields.
    pub manager: String,
    /// What happens to unknown and duplicate fields.
    pub validation: Validation,
    /// Whether an apply takes fields from their owners.
    pub force: bool,
}

/// What happens to unknown and duplicate fields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Validation {
    /// They are dropped.
    Ignore,
    /// They are dropped, with a warning.
    #[default]
    Warn,
    /// They are refused.
    Strict,
}

/// The longest name of a field manager.
const MANAGER_LEN_MAX: usize = 128;

impl WriteOptions {
    /// Reads them from a query; the manager is otherwise named after the client's program.
    pub fn read(query: &Query, headers: &HeaderMap) -> Result<Self, Refusal> {
        let dry_run = match query.all("dryRun").find(|value| !value.is_empty()) {
            None => false,
            Some("All") => true,
            Some(other) => {
                return Err(Refusal::bad_request(format!(
                    "dryRun: Unsupported value: {other:?}: supported values: \"All\""
                )));
            }
        };
        let validation = match query.get("fieldValidation") {
            None | Some("Warn") => Validation::Warn,
            Some("Ignore") => Validation::Ignore,
            Some("Strict") => Validation::Strict,
            Some(other) => {
                return Err(Refusal::bad_request(format!(
                    "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
                )));
            }
        };
        let agent =
            headers.get(http::header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let program = agent.split('/').next().unwrap_or_default();
        let manager =
            query.get("fieldManager").unwrap_or(if program.is_empty() { "unknown" } else { program });
        if manager.len() > MANAGER_LEN_MAX {
            return Err(Refusal::bad_request("fieldManager: Too long: may not be more than 128 bytes"));
        }
        Ok(Self { dry_run, manager: manager.to_owned(), validation, force: query.flag("force") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, wanted: &str) {
        let text = match route(path).expect("a good path") {
            Route::Path(path) => format!("path {path}"),
            Route::Resource(t) => {
                let rest = t.rest.unwrap_or_default();
                format!(
                    "{}/{} {} ns={} name={} part={} rest={rest}",
                    t.group, t.version, t.resource, t.namespace, t.name, t.part
                )
            }
        };
        assert_eq!(text, wanted, "{path}");
    }

    #[test]
    fn paths_are_taken_apart() {
        check("/api", "path /api");
        check("/apis/", "path /apis");
        check("/apis/apps/v1/", "path /apis/apps/v1");
        check("/apis/apps", "path /apis/apps");
        check("/livez/ping", "path /livez/ping");
        check("/api/v1/pods", "/v1 pods ns= name= part= rest=");
        check("/api/v1/namespaces", "/v1 namespaces ns= name= part= rest=");
        check("/api/v1/namespaces/n1", "/v1 namespaces ns= name=n1 part= rest=");
        check("/api/v1/namespaces/n1/finalize", "/v1 namespaces ns= name=n1 part=finalize rest=");
        check("/api/v1/namespaces/n1/pods/p/log", "/v1 pods ns=n1 name=p part=log rest=");
        check(
            "/apis/apps/v1/namespaces/n1/deployments/d%2Dx",
            "apps/v1 deployments ns=n1 name=d-x part= rest=",
        );
        check(
            "/api/v1/namespaces/n/services/https:s:80/proxy/a/b%2Fc/",
            "/v1 services ns=n name=https:s:80 part=proxy rest=/a/b%2Fc/",
        );
        check("/api/v1/namespaces/n/pods/p/proxy/", "/v1 pods ns=n name=p part=proxy rest=/");
        assert!(route("/api/v1/namespaces/a%2Fb/pods").is_err());
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::read("labelSelector=a%3Db%2Cc+in+(d)&watch&limit=5&dryRun=All");
        assert_eq!(query.get("labelSelector"), Some("a=b,c in (d)"));
        assert!(query.watch() && !query.flag("pretty"));
        assert_eq!(ListOptions::read(&query).expect("good").limit, 5);
        assert!(WriteOptions::read(&query, &HeaderMap::new()).expect("good").dry_run);
        assert!(WriteOptions::read(&Query::read("dryRun=Some"), &HeaderMap::new()).is_err());
    }
}
