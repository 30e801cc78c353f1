//! The paths of the served resources as OpenAPI operations: as much as clients look for. Pure.
//!
//! kubectl asks here whether a resource's PATCH takes `fieldValidation` and `dryRun` before it leaves validation to
//! the server.

use model::kinds::Verbs;
use serde_json::{Map, Value, json};

use super::schemas::Dialect;
use crate::registry::Resource;

/// The paths of one resource.
pub fn of(resource: &Resource, dialect: Dialect) -> Map<String, Value> {
    let mut paths = Map::new();
    let collection = resource.gvr.collection_path(if resource.namespaced { "{namespace}" } else { "" });
    if resource.verbs == Verbs::CreateOnly {
        paths.insert(collection, json!({"post": operation(resource, "post", "create", dialect)}));
        return paths;
    }
    let writes = resource.verbs == Verbs::All;
    let mut many = json!({"get": operation(resource, "list", "list", dialect)});
    let mut one = json!({"get": operation(resource, "get", "read", dialect)});
    if writes {
        many["post"] = operation(resource, "post", "create", dialect);
        many["delete"] = operation(resource, "deletecollection", "deleteCollection", dialect);
        one["put"] = operation(resource, "put", "replace", dialect);
        one["patch"] = operation(resource, "patch", "patch", dialect);
        one["delete"] = operation(resource, "delete", "delete", dialect);
    }
    if resource.status {
        let status = json!({
            "get": operation(resource, "get", "readStatus", dialect),
            "put": operation(resource, "put", "replaceStatus", dialect),
            "patch": operation(resource, "patch", "patchStatus", dialect),
        });
        paths.insert(format!("{collection}/{{name}}/status"), status);
    }
    paths.insert(format!("{collection}/{{name}}"), one);
    paths.insert(collection, many);
    paths
}

fn operation(resource: &Resource, action: &str, verb: &str, dialect: Dialect) -> Value {
    let mut parameters = Vec::new();
    if matches!(action, "post" | "put" | "patch") {
        parameters
            .extend(["dryRun", "fieldManager", "fieldValidation"].map(|name| query(name, "string", dialect)));
    }
    if action == "patch" {
        parameters.push(query("force", "boolean", dialect));
    }
    let group = resource.gvr.group.split('.').next().unwrap_or_default();
    let scope = if resource.namespaced { "Namespaced" } else { "" };
    let id = format!(
        "{verb}{}{}{scope}{}",
        capital(if group.is_empty() { "core" } else { group }),
        capital(&resource.gvr.version),
        resource.kind
    );
    json!({
        "operationId": id,
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}, "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": resource.gvr.group, "version": resource.gvr.version, "kind": resource.kind},
    })
}

fn query(name: &str, kind: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::Two => json!({"name": name, "in": "query", "type": kind, "uniqueItems": true}),
        Dialect::Three => json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}}),
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
