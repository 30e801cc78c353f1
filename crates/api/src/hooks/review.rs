//! How a webhook is asked (`admission.k8s.io` `AdmissionReview`), and what its answer says. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::Tree;
use model::tree::{items, text};
use serde_json::{Value, json};

use super::matching::{Act, Target, kind_of};
use super::{Hook, Sort};
use crate::auth::Identity;

/// What a webhook answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Whether it may be.
    pub allowed: bool,
    /// A JSON patch; empty for none.
    pub patch: Vec<u8>,
    /// The `Status` that says why not; null when there is none.
    pub status: Tree,
    /// What the user is to be told.
    pub warnings: Vec<String>,
    /// What the audit log is to say.
    pub notes: Vec<(String, String)>,
}

/// The review that puts an act to a webhook.
pub fn ask(hook: &Hook, version: &str, uid: &str, act: &Act<'_>, target: &Target, objects: Objects) -> Tree {
    let mut request = self::request(act, target);
    request["uid"] = json!(uid);
    request["object"] = objects.object;
    request["oldObject"] = objects.old;
    debug_assert!(hook.review.is_some());
    json!({"kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{version}"), "request": request})
}

/// An act as reviews and expressions describe it, the objects apart.
pub fn request(act: &Act<'_>, target: &Target) -> Tree {
    let gvr = &target.gvr;
    let own = &act.resource.gvr;
    let kind = |(group, version, kind): &(String, String, String)| json!({"group": group, "version": version, "kind": kind});
    let mut request = json!({
        "kind": kind(&target.kind),
        "resource": {"group": gvr.group, "version": gvr.version, "resource": gvr.plural},
        "requestKind": kind_of(act.resource, act.part).as_ref().map(kind),
        "requestResource": {"group": own.group, "version": own.version, "resource": own.plural},
        "operation": act.operation.as_str(),
        "userInfo": user_info(act.identity),
        "dryRun": act.dry_run,
        "options": act.options,
    });
    let texts = [
        ("subResource", act.part),
        ("requestSubResource", act.part),
        ("name", act.name),
        ("namespace", namespace(act)),
    ];
    for (field, value) in texts.into_iter().filter(|(_, value)| !value.is_empty()) {
        request[field] = json!(value);
    }
    request
}

/// The object as it would be and as it is; null where there is none.
pub struct Objects {
    /// As it would be.
    pub object: Tree,
    /// As it is.
    pub old: Tree,
}

/// A namespace itself counts as lying in the namespace of its name.
fn namespace<'a>(act: &Act<'a>) -> &'a str {
    if act.resource.is(&model::kinds::NAMESPACE) { act.name } else { act.namespace }
}

/// Who asks, as `authentication.k8s.io/v1` `UserInfo`.
pub fn user_info(who: &Identity) -> Tree {
    let mut info = json!({"username": who.name, "groups": who.groups});
    if !who.uid.is_empty() {
        info["uid"] = json!(who.uid);
    }
    if !who.extra.is_empty() {
        info["extra"] = json!(who.extra);
    }
    info
}

/// Reads an answer; `Err` says what is wrong with it.
pub fn read(answer: &Tree, sort: Sort, version: &str, uid: &str) -> Result<Verdict, String> {
    let response = answer.get("response").filter(|response| response.is_object());
    let response = response.ok_or("webhook response was absent")?;
    let named = |field: &str| response[field].as_str();
    if version == "v1" {
        let got = named("uid").unwrap_or_default();
        if got != uid {
            return Err(format!("expected response.uid={uid:?}, got {got:?}"));
        }
        let (group, kind) = (text(answer, "apiVersion"), text(answer, "kind"));
        if (group, kind) != ("admission.k8s.io/v1", "AdmissionReview") {
            return Err(format!(
                "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {group}, Kind={kind}"
            ));
        }
    }
    Ok(Verdict {
        allowed: response["allowed"] == true,
        patch: patch(named("patch").unwrap_or_default(), named("patchType"), sort, version)?,
        status: response["status"].clone(),
        notes: response["auditAnnotations"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
            .collect(),
        warnings: items(response, "warnings").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

fn patch(text: &str, kind: Option<&str>, sort: Sort, version: &str) -> Result<Vec<u8>, String> {
    match (sort, text, kind) {
        (Sort::Validating, "", None) => return Ok(Vec::new()),
        // An old review is taken as it comes.
        (Sort::Validating, ..) if version != "v1" => return Ok(Vec::new()),
        (Sort::Validating, _, Some(_)) if text.is_empty() => {
            return Err("validating webhook may not return response.patchType".into());
        }
        (Sort::Validating, ..) => return Err("validating webhook may not return response.patch".into()),
        (_, "", None) => return Ok(Vec::new()),
        (_, "", Some(_)) if version == "v1" => {
            return Err("webhook returned response.patchType but not response.patch".into());
        }
        (_, _, None) if version == "v1" => {
            return Err("webhook returned response.patch but not response.patchType".into());
        }
        (_, _, Some("")) if version == "v1" => {
            return Err("webhook returned invalid response.patchType of \"\"".into());
        }
        (_, _, Some(other)) if version == "v1" && other != "JSONPatch" => {
            return Err(format!("unsupported patch type {other:?}"));
        }
        _ => {}
    }
    STANDARD.decode(text).map_err(|why| format!("received undecodable patch in webhook response: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(response: Tree, sort: Sort, wanted: Result<bool, &str>) {
        let answer =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
        let told = read(&answer, sort, "v1", "u").map(|verdict| verdict.allowed);
        assert_eq!(told.as_ref().map_err(String::as_str), wanted.as_ref().map_err(|why| *why), "{response}");
    }

    #[test]
    fn answers_have_to_be_what_was_asked_for() {
        check(json!({"uid": "u", "allowed": true}), Sort::Validating, Ok(true));
        check(json!({"uid": "u"}), Sort::Mutating, Ok(false));
        check(Tree::Null, Sort::Validating, Err("webhook response was absent"));
        check(
            json!({"uid": "v", "allowed": true}),
            Sort::Validating,
            Err("expected response.uid=\"u\", got \"v\""),
        );
        check(json!({"allowed": true}), Sort::Mutating, Err("expected response.uid=\"u\", got \"\""));
        check(
            json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}),
            Sort::Validating,
            Err("validating webhook may not return response.patch"),
        );
        check(
            json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}),
            Sort::Mutating,
            Ok(true),
        );
        check(
            json!({"uid": "u", "allowed": true, "patch": "W10="}),
            Sort::Mutating,
            Err("webhook returned response.patch but not response.patchType"),
        );
        check(
            json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "MergePatch"}),
            Sort::Mutating,
            Err("unsupported patch type \"MergePatch\""),
        );
    }

    #[test]
    fn an_answer_of_another_kind_is_none() {
        let answer = json!({"apiVersion": "v1", "kind": "Status", "response": {"uid": "u", "allowed": true}});
        let why = read(&answer, Sort::Validating, "v1", "u").expect_err("must be refused");
        assert!(
            why.contains("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview"),
            "{why}"
        );
    }
}
