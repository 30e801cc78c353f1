//! What another server says of its group in OpenAPI v2 alone, as OpenAPI v3. Pure.

use model::Tree;
use model::tree::{entries, items, text};
use serde_json::{Map, Value, json};

/// What of a v2 parameter is its schema in v3.
const OF_SCHEMA: [&str; 12] = [
    "type",
    "format",
    "items",
    "enum",
    "default",
    "uniqueItems",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "multipleOf",
];
/// What of a v2 operation is said otherwise in v3.
const ELSEWHERE: [&str; 5] = ["parameters", "responses", "consumes", "produces", "schemes"];

/// The v3 document of a group's version; `None` when the v2 document says nothing of it.
pub fn of(two: &Tree, group: &str, version: &str) -> Option<Tree> {
    let own = format!("/apis/{group}/{version}");
    let is_own =
        |path: &str| path.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let paths: Map<String, Value> = entries(two, "paths")
        .filter(|(path, _)| is_own(path))
        .map(|(path, item)| (path.to_owned(), referring(&path_item(item))))
        .collect();
    if paths.is_empty() {
        return None;
    }
    let schemas: Map<String, Value> = entries(two, "definitions")
        .map(|(name, definition)| (name.to_owned(), referring(definition)))
        .collect();
    let info =
        if two["info"].is_object() { two["info"].clone() } else { json!({"title": "", "version": ""}) };
    Some(json!({"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}))
}

fn path_item(item: &Tree) -> Tree {
    let mut made = Map::new();
    for (name, said) in item.as_object().into_iter().flatten() {
        match name.as_str() {
            "parameters" => {
                let all: Vec<Tree> = said.as_array().into_iter().flatten().filter_map(parameter).collect();
                made.insert(name.clone(), json!(all));
            }
            "get" | "put" | "post" | "delete" | "options" | "head" | "patch" => {
                made.insert(name.clone(), operation(said));
            }
            _ => _ = made.insert(name.clone(), said.clone()),
        }
    }
    Value::Object(made)
}

fn operation(said: &Tree) -> Tree {
    let mut made = said.as_object().cloned().unwrap_or_default();
    ELSEWHERE.iter().for_each(|name| drop(made.remove(*name)));
    let parameters: Vec<Tree> = items(said, "parameters").iter().filter_map(parameter).collect();
    if !parameters.is_empty() {
        made.insert("parameters".into(), json!(parameters));
    }
    if let Some(body) = items(said, "parameters").iter().find(|one| text(one, "in") == "body") {
        let mut request = json!({"content": content(&said["consumes"], &body["schema"])});
        for name in ["description", "required"] {
            if !body[name].is_null() {
                request[name] = body[name].clone();
            }
        }
        made.insert("requestBody".into(), request);
    }
    let responses = entries(said, "responses").map(|(code, response)| {
        let mut told = json!({"description": text(response, "description")});
        if response["schema"].is_object() {
            told["content"] = content(&said["produces"], &response["schema"]);
        }
        (code.to_owned(), told)
    });
    made.insert("responses".into(), Value::Object(responses.collect()));
    Value::Object(made)
}

/// A parameter that is no body.
fn parameter(said: &Tree) -> Option<Tree> {
    if !said["$ref"].is_null() || matches!(text(said, "in"), "body" | "formData") {
        return None;
    }
    let (schema, mut made): (Map<String, Value>, Map<String, Value>) =
        said.as_object()?.clone().into_iter().partition(|(name, _)| OF_SCHEMA.contains(&name.as_str()));
    made.insert("schema".into(), Value::Object(schema));
    Some(Value::Object(made))
}

fn content(media: &Tree, schema: &Tree) -> Tree {
    let named: Vec<&str> = media.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let named = if named.is_empty() { vec!["application/json"] } else { named };
    Value::Object(named.into_iter().map(|media| (media.to_owned(), json!({"schema": schema}))).collect())
}

/// The same with references to where v3 keeps its schemas.
fn referring(tree: &Tree) -> Tree {
    match tree {
        Value::Object(map) => {
            let one = |(name, value): (&String, &Value)| match (name.as_str(), value) {
                ("$ref", Value::String(to)) => {
                    (name.clone(), json!(to.replacen("#/definitions/", "#/components/schemas/", 1)))
                }
                _ => (name.clone(), referring(value)),
            };
            Value::Object(map.iter().map(one).collect())
        }
        Value::Array(all) => Value::Array(all.iter().map(referring).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_says_the_same_in_the_words_of_the_other_version() {
        let flunder = json!({"$ref": "#/definitions/Flunder"});
        let two = json!({
            "info": {"title": "wardle", "version": "1"},
            "paths": {
                "/apis/x.io/v1/flunders": {
                    "parameters": [{"name": "pretty", "in": "query", "type": "string", "uniqueItems": true}],
                    "post": {"operationId": "create", "consumes": ["*/*"], "produces": ["application/yaml"],
                        "parameters": [{"name": "body", "in": "body", "required": true, "schema": flunder}],
                        "responses": {"201": {"description": "Created", "schema": flunder}, "401": {"description": "no"}}},
                },
                "/apis/x.io/v10/flunders": {}, "/version": {},
            },
            "definitions": {"Flunder": {"properties": {"spec": {"$ref": "#/definitions/Spec"}}}, "Spec": {}},
        });
        let three = of(&two, "x.io", "v1").expect("it says something of it");
        let schema = json!({"$ref": "#/components/schemas/Flunder"});
        let path = json!({
            "parameters": [{"name": "pretty", "in": "query", "schema": {"type": "string", "uniqueItems": true}}],
            "post": {"operationId": "create", "requestBody": {"required": true, "content": {"*/*": {"schema": schema}}},
                "responses": {"201": {"description": "Created", "content": {"application/yaml": {"schema": schema}}},
                    "401": {"description": "no"}}},
        });
        assert_eq!(three["paths"], json!({"/apis/x.io/v1/flunders": path}));
        let spec = &three["components"]["schemas"]["Flunder"]["properties"]["spec"]["$ref"];
        assert_eq!(spec, "#/components/schemas/Spec");
        assert_eq!(of(&two, "x.io", "v2"), None);
    }
}
