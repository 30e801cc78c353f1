//! The OpenAPI 2 document in the protobuf form that kubectl before 1.27 asks for (gnostic's `OpenAPIv2.proto`). Pure.
//!
//! Only what our documents hold is written; extensions are carried as JSON, which is YAML too.

use serde_json::{Map, Value};

/// What clients that want this form ask for.
pub const ASKED: &str = "com.github.proto-openapi.spec.v2";
/// The media type of the answer.
pub const MEDIA: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Writes a document.
pub fn write(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 1, &document["swagger"]);
    let mut info = Vec::new();
    text(&mut info, 1, &document["info"]["title"]);
    text(&mut info, 2, &document["info"]["version"]);
    bytes(&mut out, 2, &info);
    let mut paths = Vec::new();
    for (name, path) in members(&document["paths"]) {
        bytes(&mut paths, 2, &named(name, &path_item(path)));
    }
    bytes(&mut out, 8, &paths);
    bytes(&mut out, 9, &schemas(&document["definitions"]));
    out
}

/// `Definitions` and `Properties` alike: named schemas under number 1.
fn schemas(all: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, body) in members(all) {
        bytes(&mut out, 1, &named(name, &schema(body)));
    }
    out
}

fn path_item(path: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if path[method].is_object() {
            bytes(&mut out, number, &operation(&path[method]));
        }
    }
    out
}

fn operation(of: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, 5, &of["operationId"]);
    for parameter in of["parameters"].as_array().into_iter().flatten() {
        let mut query = Vec::new();
        text(&mut query, 2, &parameter["in"]);
        text(&mut query, 4, &parameter["name"]);
        text(&mut query, 6, &parameter["type"]);
        // ParametersItem → Parameter → NonBodyParameter → QueryParameterSubSchema.
        bytes(&mut out, 8, &field(1, &field(2, &field(3, &query))));
    }
    let mut responses = Vec::new();
    for (code, response) in members(&of["responses"]) {
        let mut said = Vec::new();
        text(&mut said, 1, &response["description"]);
        bytes(&mut responses, 1, &named(code, &field(1, &said)));
    }
    bytes(&mut out, 9, &responses);
    extensions(&mut out, 13, of);
    out
}

fn schema(of: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, name) in [(1, "$ref"), (2, "format"), (4, "description"), (13, "pattern")] {
        text(&mut out, number, &of[name]);
    }
    for required in of["required"].as_array().into_iter().flatten() {
        text(&mut out, 19, required);
    }
    if of["additionalProperties"].is_object() {
        bytes(&mut out, 21, &field(1, &schema(&of["additionalProperties"])));
    }
    if of["type"].is_string() {
        let mut kind = Vec::new();
        text(&mut kind, 1, &of["type"]);
        bytes(&mut out, 22, &kind);
    }
    if of["items"].is_object() {
        bytes(&mut out, 23, &field(1, &schema(&of["items"])));
    }
    if of["properties"].is_object() {
        bytes(&mut out, 25, &schemas(&of["properties"]));
    }
    extensions(&mut out, 31, of);
    out
}

fn extensions(out: &mut Vec<u8>, number: u32, of: &Value) {
    for (name, value) in members(of).filter(|(name, _)| name.starts_with("x-")) {
        let mut any = Vec::new();
        text(&mut any, 2, &Value::String(format!("{value}\n")));
        bytes(out, number, &named(name, &any));
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// A message of a name (1) and a value (2).
fn named(name: &str, value: &[u8]) -> Vec<u8> {
    let mut out = field(1, name.as_bytes());
    bytes(&mut out, 2, value);
    out
}

fn field(number: u32, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, number, value);
    out
}

fn text(out: &mut Vec<u8>, number: u32, value: &Value) {
    if let Some(value) = value.as_str().filter(|value| !value.is_empty()) {
        bytes(out, number, value.as_bytes());
    }
}

fn bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    varint(out, u64::from(number) << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_carries_its_type_and_extensions() {
        let written = schema(&json!({"type": "object", "x-a": 1}));
        // TypeItem (22) with value (1) "object", then NamedAny (31): name "x-a", Any with yaml (2) "1\n".
        let kind = [0xb2, 0x01, 8, 0x0a, 6].iter().copied().chain(*b"object");
        let extension =
            [0xfa, 0x01, 11, 0x0a, 3].iter().copied().chain(*b"x-a").chain([0x12, 4, 0x12, 2, b'1', b'\n']);
        assert_eq!(written, kind.chain(extension).collect::<Vec<u8>>());
    }

    #[test]
    fn long_texts_have_lengths_of_several_bytes() {
        let written = schema(&json!({"description": "x".repeat(300)}));
        assert_eq!(&written[..3], &[0x22, 0xac, 0x02]);
    }
}
