//! PATCH: a tree and a patch make a tree. Pure.

pub mod managed;
pub mod owned;
pub mod ssa;
pub mod strategic;

use model::Tree;

use crate::refusal::{Reason, Refusal};
use crate::registry::Resource;

/// How many operations a JSON patch may have: what upstream takes.
const JSON_PATCH_LEN_MAX: usize = 10_000;

/// Makes the object that a patch asks for.
pub fn apply(resource: &Resource, old: &Tree, patch: &[u8], media: &str) -> Result<Tree, Refusal> {
    let _ = resource;
    match media {
        "application/json-patch+json" => json_patch(old, patch),
        "application/merge-patch+json" => merge_patch(old, patch),
        other => Err(Refusal::new(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json (got {other})"
            ),
        )),
    }
}

fn json_patch(old: &Tree, patch: &[u8]) -> Result<Tree, Refusal> {
    let patch: json_patch::Patch = serde_json::from_slice(patch)
        .map_err(|why| Refusal::bad_request(format!("error decoding patch: {why}")))?;
    if patch.0.len() > JSON_PATCH_LEN_MAX {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {JSON_PATCH_LEN_MAX}, got {}",
            patch.0.len()
        );
        return Err(Refusal::new(Reason::TooLarge, message));
    }
    let mut new = old.clone();
    json_patch::patch(&mut new, &patch).map_err(|why| {
        Refusal::new(
            Reason::Invalid,
            format!("the server rejected our request due to an error in our request: {why}"),
        )
    })?;
    Ok(new)
}

fn merge_patch(old: &Tree, patch: &[u8]) -> Result<Tree, Refusal> {
    let patch: Tree = serde_json::from_slice(patch)
        .map_err(|why| Refusal::bad_request(format!("error decoding patch: {why}")))?;
    if !patch.is_object() {
        return Err(Refusal::bad_request("error decoding patch: not an object"));
    }
    let mut new = old.clone();
    json_patch::merge(&mut new, &patch);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_and_merge_patches_change_what_they_name() {
        let resource = crate::testing::resource(&model::kinds::CONFIG_MAP);
        let old = json!({"data": {"a": "1", "b": "2"}});
        let check = |patch: &str, media: &str, wanted: Option<Tree>| {
            assert_eq!(apply(&resource, &old, patch.as_bytes(), media).ok(), wanted, "{patch}");
        };
        let (json, merge) = ("application/json-patch+json", "application/merge-patch+json");
        check(r#"{"data": {"a": null, "c": "3"}}"#, merge, Some(json!({"data": {"b": "2", "c": "3"}})));
        check(
            r#"[{"op": "replace", "path": "/data/a", "value": "9"}]"#,
            json,
            Some(json!({"data": {"a": "9", "b": "2"}})),
        );
        check(r#"[{"op": "add", "path": "/x/y", "value": 1}]"#, json, None);
        check("[]", merge, None);
        check("{}", "text/html", None);
    }
}
