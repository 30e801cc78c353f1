//! What is written of a request at a stage: an `audit.k8s.io/v1` `Event`. Pure.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::USER_AGENT;
use model::Tree;
use serde_json::{Value, json};

use crate::auth::{Attributes, Identity};

/// The longest id that a client may give its request: upstream's.
const ID_LEN_MAX: usize = 64;
/// The most addresses that are noted of a request: what proxies on its way added.
const SOURCES_MAX: usize = 16;
/// The annotation of an event that is cut short.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// The id by which all that is written of a request is found: the client's own where it gives one.
pub fn id_of(headers: &HeaderMap) -> Option<String> {
    let id = headers.get("audit-id")?.to_str().ok()?;
    (!id.is_empty() && id.len() <= ID_LEN_MAX).then(|| id.to_owned())
}

/// Where a request says it comes from, through proxies, and where it does come from.
pub fn sources(headers: &HeaderMap, remote: Option<IpAddr>) -> Vec<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut found: Vec<IpAddr> = text("x-forwarded-for")
        .split(',')
        .filter_map(|one| one.trim().parse().ok())
        .take(SOURCES_MAX)
        .collect();
    if let Ok(real) = text("x-real-ip").parse::<IpAddr>()
        && !found.contains(&real)
    {
        found.push(real);
    }
    if let Some(remote) = remote
        && found.last() != Some(&remote)
    {
        found.push(remote);
    }
    found.iter().map(IpAddr::to_string).collect()
}

/// A user, as events show one.
pub fn user(who: &Identity) -> Tree {
    let mut shown = json!({"username": who.name});
    if !who.uid.is_empty() {
        shown["uid"] = json!(who.uid);
    }
    if !who.groups.is_empty() {
        shown["groups"] = json!(who.groups);
    }
    if !who.extra.is_empty() {
        shown["extra"] = json!(who.extra);
    }
    shown
}

/// The object that is asked for; null for a path that is no resource.
pub fn object_ref(what: &Attributes) -> Tree {
    if !what.is_resource() {
        return Tree::Null;
    }
    let pairs = [
        ("resource", &what.resource),
        ("namespace", &what.namespace),
        ("name", &what.name),
        ("apiGroup", &what.group),
        ("apiVersion", &what.version),
        ("subresource", &what.subresource),
    ];
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    Tree::Object(pairs.map(|(name, value)| (name.to_owned(), json!(value))).collect())
}

/// The part of an event that does not change from stage to stage.
pub fn head(
    id: &str,
    uri: &http::Uri,
    what: &Attributes,
    headers: &HeaderMap,
    remote: Option<IpAddr>,
) -> Tree {
    let mut event = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "auditID": id,
        "requestURI": uri.path_and_query().map_or("", |path| path.as_str()), "verb": what.verb,
    });
    let sources = sources(headers, remote);
    if !sources.is_empty() {
        event["sourceIPs"] = json!(sources);
    }
    if let Some(agent) = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()) {
        event["userAgent"] = json!(agent);
    }
    let object = object_ref(what);
    if !object.is_null() {
        event["objectRef"] = object;
    }
    event
}

/// Fills in what the path alone does not tell of the object, from what was sent.
pub fn complete_ref(object_ref: &mut Tree, sent: &Tree) {
    if !object_ref.is_object() {
        return;
    }
    for (name, from) in
        [("name", "name"), ("namespace", "namespace"), ("uid", "uid"), ("resourceVersion", "resourceVersion")]
    {
        if let Some(value) = sent["metadata"][from].as_str().filter(|value| !value.is_empty())
            && object_ref.get(name).is_none()
        {
            object_ref[name] = json!(value);
        }
    }
}

/// How a request ended: of a failure also why, in the words that its author was told.
pub fn status(code: u16, answer: Option<&Tree>) -> Tree {
    let mut status = json!({"metadata": {}, "code": code});
    if let Some(told) = answer.filter(|answer| answer["kind"] == "Status") {
        for name in ["status", "message", "reason", "details"] {
            if !told[name].is_null() {
                status[name] = told[name].clone();
            }
        }
    }
    status
}

/// Takes the managed fields out of an object or of those of a list.
pub fn without_managed_fields(mut tree: Tree) -> Tree {
    let strip = |object: &mut Tree| {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    };
    strip(&mut tree);
    if let Some(items) = tree.get_mut("items").and_then(Value::as_array_mut) {
        items.iter_mut().for_each(strip);
    }
    tree
}

/// An event without what was sent and answered, which says that it is cut short; `None` for one that has neither to lose.
pub fn without_bodies(event: &Tree) -> Option<Tree> {
    if !matches!(event["level"].as_str(), Some("Request" | "RequestResponse")) {
        return None;
    }
    let mut cut = event.clone();
    let fields = cut.as_object_mut()?;
    fields.remove("requestObject");
    fields.remove("responseObject");
    cut["annotations"][TRUNCATED] = json!("true");
    Some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().expect("a name"), value.parse().expect("a value")))
            .collect()
    }

    #[test]
    fn a_request_comes_from_where_its_proxies_say_and_from_where_it_does() {
        let check = |pairs: &[(&'static str, &str)], wanted: &[&str]| {
            let remote = "10.0.0.9".parse().expect("an address");
            assert_eq!(sources(&headers(pairs), Some(remote)), wanted);
        };
        check(&[], &["10.0.0.9"]);
        check(&[("x-forwarded-for", "1.1.1.1, junk, 2.2.2.2")], &["1.1.1.1", "2.2.2.2", "10.0.0.9"]);
        check(&[("x-forwarded-for", "1.1.1.1, 10.0.0.9")], &["1.1.1.1", "10.0.0.9"]);
        check(&[("x-real-ip", "3.3.3.3")], &["3.3.3.3", "10.0.0.9"]);
    }

    #[test]
    fn an_id_is_the_clients_unless_it_is_too_long() {
        assert_eq!(id_of(&headers(&[("audit-id", "abc")])).as_deref(), Some("abc"));
        assert_eq!(id_of(&headers(&[("audit-id", &"x".repeat(65))])), None);
        assert_eq!(id_of(&headers(&[])), None);
    }

    #[test]
    fn a_failure_says_why_and_nothing_else_of_the_answer() {
        let told = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "no", "code": 404, "metadata": {}});
        let wanted =
            json!({"metadata": {}, "code": 404, "status": "Failure", "reason": "NotFound", "message": "no"});
        assert_eq!(status(404, Some(&told)), wanted);
        let secret = json!({"kind": "Secret", "data": {"a": "b"}});
        assert_eq!(status(200, Some(&secret)), json!({"metadata": {}, "code": 200}));
    }
}
