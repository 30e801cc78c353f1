//! PATCH: a tree and a patch make a tree. Pure.

pub mod managed;
mod owned;
pub mod ssa;
mod strategic;

use json_patch::PatchOperation;
use model::{Time, Tree};
use serde_json::json;

use crate::codec;
use crate::refusal::{Cause, Reason, Refusal};
use crate::registry::{Meaning, Resource};

/// How many operations a JSON patch may have: what upstream takes.
const JSON_PATCH_LEN_MAX: usize = 10_000;

/// The media type of server-side apply.
pub const APPLY: &str = "application/apply-patch+yaml";

/// Makes the object that a patch asks for; an apply goes another way ([`applied`]).
pub fn patched(resource: &Resource, old: &Tree, patch: &[u8], media: &str) -> Result<Tree, Refusal> {
    match media {
        "application/json-patch+json" => json_patch(resource, old, patch),
        "application/merge-patch+json" => merge_patch(old, patch),
        "application/strategic-merge-patch+json" if matches!(resource.meaning, Meaning::BuiltIn(_)) => {
            let (schema, shape) = codec::shape(resource);
            strategic::merge(schema, &shape, old.clone(), &object(patch)?)
                .map_err(|why| Refusal::bad_request(why.to_string()))
        }
        other => Err(Refusal::new(
            Reason::UnsupportedMediaType,
            format!(
                "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, {APPLY} (got {other})"
            ),
        )),
    }
}

/// Lays an applier's intent over `live` (`{}` when there is nothing yet).
pub fn applied(
    resource: &Resource,
    live: &Tree,
    intent: &ssa::Intent<'_>,
    now: Time,
) -> Result<Tree, Refusal> {
    let (schema, shape) = codec::shape(resource);
    ssa::apply(schema, &shape, live, intent, now).map_err(|conflicts| refuse(resource, intent, &conflicts))
}

/// Names conflicts as clients show them: one cause a field.
fn refuse(resource: &Resource, intent: &ssa::Intent<'_>, conflicts: &[ssa::Conflict]) -> Refusal {
    let name = crate::verbs::meta(intent.config, "name");
    let shown: Vec<String> = conflicts
        .iter()
        .map(|conflict| format!("conflict with {}: {}", conflict.owner, conflict.path))
        .collect();
    let count = conflicts.len();
    let word = if count == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {count} {word}: {}", shown.join(", "));
    let mut refusal = Refusal::new(Reason::Conflict, message);
    refusal.about = Box::new(resource.about(name));
    refusal.causes = conflicts
        .iter()
        .map(|conflict| Cause {
            reason: "FieldManagerConflict".into(),
            message: format!("conflict with {}", conflict.owner),
            field: conflict.path.clone(),
        })
        .collect();
    refusal
}

fn object(patch: &[u8]) -> Result<Tree, Refusal> {
    let patch: Tree = serde_json::from_slice(patch)
        .map_err(|why| Refusal::bad_request(format!("error decoding patch: {why}")))?;
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(Refusal::bad_request("error decoding patch: not an object"))
    }
}

fn json_patch(resource: &Resource, old: &Tree, patch: &[u8]) -> Result<Tree, Refusal> {
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
    // To JSON patches a status is there from the start, if empty: so upstream's typed objects are written.
    if resource.status && new.get("status").is_none() {
        new["status"] = json!({});
    }
    let patch = lenient(&new, patch.0);
    json_patch::patch(&mut new, &patch).map_err(|why| {
        Refusal::new(
            Reason::Invalid,
            format!("the server rejected our request due to an error in our request: {why}"),
        )
    })?;
    if let Some(object) = new.as_object_mut()
        && object.get("status").is_some_and(|status| *status == json!({}))
    {
        object.remove("status");
    }
    Ok(new)
}

/// A patch with what upstream lets pass: to replace a field that is not there is to add it.
fn lenient(old: &Tree, mut operations: Vec<PatchOperation>) -> Vec<PatchOperation> {
    let mut sofar = old.clone();
    for at in 0..operations.len() {
        if let PatchOperation::Replace(replace) = &operations[at]
            && is_unset_field(&sofar, &replace.path.to_string())
        {
            let (path, value) = (replace.path.clone(), replace.value.clone());
            operations[at] = PatchOperation::Add(json_patch::AddOperation { path, value });
        }
        if json_patch::patch(&mut sofar, &operations[at..=at]).is_err() {
            // It is said when the whole is applied.
            break;
        }
    }
    operations
}

/// Whether a pointer leads to a field that its object lacks.
fn is_unset_field(tree: &Tree, pointer: &str) -> bool {
    let Some((parent, key)) = pointer.rsplit_once('/') else { return false };
    let key = key.replace("~1", "/").replace("~0", "~");
    tree.pointer(parent).and_then(Tree::as_object).is_some_and(|object| !object.contains_key(&key))
}

fn merge_patch(old: &Tree, patch: &[u8]) -> Result<Tree, Refusal> {
    let mut new = old.clone();
    json_patch::merge(&mut new, &object(patch)?);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_merge_patches_change_what_they_name() {
        let resource = crate::testing::resource(&model::kinds::CONFIG_MAP);
        let old = json!({"data": {"a": "1", "b": "2"}});
        let check = |patch: &str, media: &str, wanted: Option<Tree>| {
            assert_eq!(patched(&resource, &old, patch.as_bytes(), media).ok(), wanted, "{patch}");
        };
        let (json, merge) = ("application/json-patch+json", "application/merge-patch+json");
        check(r#"{"data": {"a": null, "c": "3"}}"#, merge, Some(json!({"data": {"b": "2", "c": "3"}})));
        check(
            r#"[{"op": "replace", "path": "/data/a", "value": "9"}]"#,
            json,
            Some(json!({"data": {"a": "9", "b": "2"}})),
        );
        check(r#"[{"op": "add", "path": "/x/y", "value": 1}]"#, json, None);
        check(
            r#"[{"op": "remove", "path": "/data/b"}, {"op": "replace", "path": "/data/b", "value": "9"}]"#,
            json,
            Some(json!({"data": {"a": "1", "b": "9"}})),
        );
        check(r#"[{"op": "replace", "path": "/x/y", "value": 1}]"#, json, None);
        check("[]", merge, None);
        check("{}", "text/html", None);
    }
}
