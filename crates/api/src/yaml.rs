//! YAML bodies, in and out. What is JSON under the name of YAML is taken as it is.

use bytes::Bytes;
use serde_saphyr::options::DuplicateKeyPolicy;

use crate::refusal::Refusal;

/// The JSON that a YAML body says, and a complaint of the first key that is there twice: the last one counts.
pub fn to_json(body: &Bytes) -> Result<(Bytes, Option<String>), Refusal> {
    // Most clients send JSON under this name.
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        return Ok((body.clone(), None));
    }
    let bad =
        |why: &dyn std::fmt::Display| Refusal::bad_request(format!("error converting YAML to JSON: {why}"));
    let text = std::str::from_utf8(body).map_err(|why| bad(&why))?;
    match read(text, DuplicateKeyPolicy::Error) {
        Ok(tree) => Ok((model::schema::to_bytes(&tree), None)),
        Err(serde_saphyr::Error::DuplicateMappingKey { key, location }) => {
            let key = key.unwrap_or_default();
            let line = location.line();
            let told = format!("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map");
            let tree = read(text, DuplicateKeyPolicy::LastWins).map_err(|why| bad(&why))?;
            Ok((model::schema::to_bytes(&tree), Some(told)))
        }
        Err(why) => Err(bad(&why)),
    }
}

fn read(text: &str, duplicate_keys: DuplicateKeyPolicy) -> Result<model::Tree, serde_saphyr::Error> {
    let options = serde_saphyr::options! { duplicate_keys: duplicate_keys, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options)
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
        let read = |text: &'static str| {
            let (json, told) = to_json(&Bytes::from_static(text.as_bytes())).ok()?;
            Some((serde_json::from_slice::<model::Tree>(&json).ok()?, told.unwrap_or_default()))
        };
        let plain = |tree: model::Tree| Some((tree, String::new()));
        assert_eq!(read("a: {b: [1, 'x', true, null]}\n"), plain(json!({"a": {"b": [1, "x", true, null]}})));
        assert_eq!(read("{\"a\": 1}"), plain(json!({"a": 1})));
        let twice = "yaml: unmarshal errors:\n  line 3: key \"a\" already set in map".to_owned();
        assert_eq!(read("\na: 1\na: 2\n"), Some((json!({"a": 2}), twice)));
        assert_eq!(read("a: ["), None);
    }

    #[test]
    fn what_is_written_reads_back() {
        let tree = json!({"a": "yes", "b": ["1", 2, {"c": null}], "d": "x: y\n#", "e": {}});
        let (back, _) = to_json(&from_tree(&tree)).expect("own YAML");
        assert_eq!(serde_json::from_slice::<model::Tree>(&back).ok(), Some(tree));
    }
}
