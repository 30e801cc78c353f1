//! POST: a new object, named and stamped.

use model::kinds::FaultReason;
use model::{Tree, kinds};
use serde_json::{Value, json};

use super::{Drawn, meta, metadata, stamp};
use crate::refusal::Refusal;
use crate::registry::{Meaning, Resource};

/// The longest name that `generateName` makes, in bytes, and what it appends.
const GENERATED_LEN_MAX: usize = 63;
const SUFFIX_LEN: usize = 5;

/// Makes the object that a POST asks for, before defaults and admission.
pub fn create(
    resource: &Resource,
    namespace: &str,
    mut object: Tree,
    drawn: &Drawn,
) -> Result<Tree, Refusal> {
    check_type(resource, &object)?;
    set_type(resource, &mut object);
    check_namespace(resource, namespace, &mut object)?;
    name(resource, &mut object, &drawn.suffix)?;
    if !matches!(meta(&object, "resourceVersion"), "" | "0") {
        return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let metadata = metadata(&mut object);
    for name in
        ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        metadata.remove(name);
    }
    metadata.insert("uid".into(), json!(drawn.uid));
    metadata.insert("creationTimestamp".into(), stamp(drawn.now));
    begin(resource, &mut object);
    Ok(object)
}

/// Refuses an object of another type than the path's; a type that is left out is the path's.
pub fn check_type(resource: &Resource, object: &Tree) -> Result<(), Refusal> {
    if !object.is_object() {
        return Err(Refusal::bad_request("the body is not an object"));
    }
    let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
    let wanted = resource.api_version();
    if let Some(version) = version.filter(|version| *version != wanted) {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({wanted})"
        )));
    }
    if let Some(kind) = kind.filter(|kind| *kind != resource.kind) {
        return Err(Refusal::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            resource.kind
        )));
    }
    Ok(())
}

/// Names the type of an object.
pub fn set_type(resource: &Resource, object: &mut Tree) {
    object["apiVersion"] = json!(resource.api_version());
    object["kind"] = json!(resource.kind);
}

/// Refuses an object of another namespace than the path's; one that is left out is the path's.
pub fn check_namespace(resource: &Resource, namespace: &str, object: &mut Tree) -> Result<(), Refusal> {
    let own = meta(object, "namespace").to_owned();
    if !own.is_empty() && own != namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if resource.namespaced {
        metadata(object).insert("namespace".into(), json!(namespace));
    } else {
        metadata(object).remove("namespace");
    }
    Ok(())
}

fn name(resource: &Resource, object: &mut Tree, suffix: &str) -> Result<(), Refusal> {
    if !meta(object, "name").is_empty() {
        return Ok(());
    }
    let base = meta(object, "generateName");
    if base.is_empty() {
        let message = "Required value: name or generateName is required";
        return Err(Refusal::invalid_field(
            &resource.about(""),
            "metadata.name",
            FaultReason::Required,
            message,
        ));
    }
    let mut end = base.len().min(GENERATED_LEN_MAX - SUFFIX_LEN);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let name = format!("{}{suffix}", &base[..end]);
    metadata(object).insert("name".into(), json!(name));
    Ok(())
}

/// What the API itself writes into a new object: its generation and its first status.
fn begin(resource: &Resource, object: &mut Tree) {
    match &resource.meaning {
        Meaning::BuiltIn(kind) => kinds::prepare_create(kind, object),
        Meaning::Custom(_) => {
            metadata(object).insert("generation".into(), json!(1));
            if let (true, Value::Object(map)) = (resource.status, object) {
                map.remove("status");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{drawn, resource};

    fn check(gvr: &model::Gvr, namespace: &str, object: Tree, wanted: Result<Tree, &str>) {
        let made = create(&resource(gvr), namespace, object, &drawn());
        match (made, wanted) {
            (Ok(made), Ok(wanted)) => assert_eq!(made, wanted),
            (Err(refusal), Err(wanted)) => assert!(refusal.message.contains(wanted), "{}", refusal.message),
            (made, wanted) => panic!("{made:?} is not {wanted:?}"),
        }
    }

    #[test]
    fn a_new_object_is_stamped_and_loses_what_is_not_its_to_say() {
        check(
            &kinds::CONFIG_MAP,
            "default",
            json!({"metadata": {"name": "a", "uid": "mine", "selfLink": "/x"}, "data": {"k": "v"}}),
            Ok(json!({
                "apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "v"},
                "metadata": {"name": "a", "namespace": "default", "uid": "uid-1", "creationTimestamp": "2026-01-01T00:00:00Z"},
            })),
        );
    }

    #[test]
    fn a_pod_begins_pending_in_its_first_generation() {
        check(
            &kinds::POD,
            "default",
            json!({"metadata": {"generateName": "web-", "generation": 7}, "status": {"phase": "Running"}}),
            Ok(json!({
                "apiVersion": "v1", "kind": "Pod", "status": {"phase": "Pending"},
                "metadata": {"generateName": "web-", "name": "web-abcde", "namespace": "default", "uid": "uid-1",
                    "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
            })),
        );
    }

    #[test]
    fn a_generated_name_is_cut_to_fit() {
        let long = "x".repeat(100);
        let made = create(&resource(&kinds::NODE), "", json!({"metadata": {"generateName": long}}), &drawn());
        assert_eq!(meta(&made.expect("a good request"), "name").len(), 63);
    }

    #[test]
    fn objects_that_do_not_fit_the_path_are_refused() {
        let cm = |metadata: Tree| json!({"metadata": metadata});
        check(
            &kinds::CONFIG_MAP,
            "a",
            cm(json!({"name": "x", "namespace": "b"})),
            Err("does not match the namespace"),
        );
        check(&kinds::CONFIG_MAP, "a", cm(json!({})), Err("name or generateName is required"));
        check(&kinds::CONFIG_MAP, "a", json!({"kind": "Secret"}), Err("does not match the expected kind"));
        check(
            &kinds::CONFIG_MAP,
            "a",
            cm(json!({"name": "x", "resourceVersion": "5"})),
            Err("should not be set"),
        );
        check(&kinds::CONFIG_MAP, "a", json!([]), Err("not an object"));
    }
}
