//! YAML bodies, in and out. What is JSON under the name of YAML is taken as it is.

use bytes::Bytes;
use serde_saphyr::options::DuplicateKeyPolicy;

use crate::refusal::Refusal;

/// The JSON that a YAML body says. Keys that are there twice are refused when `strict`; else the last one counts.
pub fn to_json(body: &Bytes, strict: bool) -> Result<Bytes, Refusal> {
    // Most clients send JSON under this name.
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        return Ok(body.clone());
    }
    let bad =
        |why: &dyn std::fmt::Display| Refusal::bad_request(format!("error converting YAML to JSON: {why}"));
    let text = std::str::from_utf8(body).map_err(|why| bad(&why))?;
    let options = serde_saphyr::options! {
        duplicate_keys: if strict { DuplicateKeyPolicy::Error } else { DuplicateKeyPolicy::LastWins },
        with_snippet: false,
    };
    let tree: model::Tree = serde_saphyr::from_str_with_options(text, options).map_err(|why| bad(&why))?;
    Ok(model::schema::to_bytes(&tree))
}

/// A tree as YAML.
pub fn from_tree(tree: &model::Tree) -> Bytes {
    // A tree's keys are strings and its numbers finite, so it always has a YAML form; JSON is one too.
    let text = serde_saphyr::to_string(tree).unwrap_or_else(|_| tree.to_string());
    Bytes::from(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_is_read_as_the_json_it_says() {
        let read = |text: &'static str, strict: bool| {
            let json = to_json(&Bytes::from_static(text.as_bytes()), strict);
            json.ok().and_then(|json| serde_json::from_slice::<model::Tree>(&json).ok())
        };
        assert_eq!(
            read("a: {b: [1, 'x', true, null]}\n", true),
            Some(json!({"a": {"b": [1, "x", true, null]}}))
        );
        assert_eq!(read("{\"a\": 1}", true), Some(json!({"a": 1})));
        assert_eq!(read("a: 1\na: 2\n", true), None);
        assert_eq!(read("a: 1\na: 2\n", false), Some(json!({"a": 2})));
        assert_eq!(read("a: [", true), None);
    }

    #[test]
    fn what_is_written_reads_back() {
        let tree = json!({"a": "yes", "b": ["1", 2, {"c": null}], "d": "x: y\n#", "e": {}});
        let back = to_json(&from_tree(&tree), true).expect("own YAML");
        assert_eq!(serde_json::from_slice::<model::Tree>(&back).ok(), Some(tree));
    }
}
