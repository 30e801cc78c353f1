//! Requests for certificates: who may approve and who may sign them, and what each of the two may change.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::kinds::FaultReason;
use model::tree::{items, text};
use model::{Tree, kinds, tree};
use serde_json::json;

use super::{Asked, Extra, Operation};
use crate::auth::{Attributes, MASTERS, signing};
use crate::refusal::Refusal;
use crate::verbs::{meta, stamp};

/// Leaves to each subresource what is its own, and fills in when conditions came.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    let (true, Some(old)) = (asked.resource.is(&kinds::CERTIFICATE_SIGNING_REQUEST), asked.old) else {
        return Ok(());
    };
    if !matches!(asked.part, "approval" | "status") {
        return Ok(());
    }
    let Some(status) = tree::object(object, "status") else { return Ok(()) };
    let is_decision = |condition: &&Tree| matches!(text(condition, "type"), "Approved" | "Denied");
    if asked.part == "approval" {
        match old["status"].get("certificate") {
            Some(certificate) => tree::set(status, "certificate", certificate.clone()),
            None => tree::remove(status, "certificate"),
        }
    } else {
        let decided = items(old, "status.conditions").iter().filter(is_decision);
        let others = items(status, "conditions").iter().filter(|condition| !is_decision(condition));
        let conditions: Vec<Tree> = decided.chain(others).cloned().collect();
        if !conditions.is_empty() {
            tree::set(status, "conditions", conditions);
        }
    }
    let now = stamp(asked.drawn.now);
    for condition in tree::items_mut(status, "conditions") {
        for field in ["lastUpdateTime", "lastTransitionTime"] {
            tree::fill(condition, field, now.clone());
        }
    }
    Ok(())
}

/// Lets those approve and sign who may for the signer, and refuses what must never be signed.
pub fn judge(asked: &Asked<'_>, object: &Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if !asked.resource.is(&kinds::CERTIFICATE_SIGNING_REQUEST) {
        return Ok(());
    }
    match (asked.operation, asked.part, asked.old) {
        (Operation::Create, ..) => judge_new(asked, object),
        (_, "approval", Some(old)) => {
            judge_conditions(asked, old, object)?;
            judge_user(asked, object, "approve")
        }
        (_, "status", Some(old)) => {
            judge_conditions(asked, old, object)?;
            let signs = old["status"]["certificate"] != object["status"]["certificate"]
                || old["status"]["conditions"] != object["status"]["conditions"];
            if signs { judge_user(asked, object, "sign") } else { Ok(()) }
        }
        _ => Ok(()),
    }
}

fn judge_new(asked: &Asked<'_>, object: &Tree) -> Result<(), Refusal> {
    let pem = STANDARD.decode(text(object, "spec.request")).ok().and_then(|pem| String::from_utf8(pem).ok());
    let read = match &pem {
        Some(pem) => signing::read(pem),
        None => Err("PEM block type must be CERTIFICATE REQUEST".into()),
    };
    let request = read.map_err(|why| {
        let about = asked.resource.about(meta(object, "name"));
        let shown = object["spec"]["request"].to_string();
        let message = format!("Invalid value: {shown}: {why}");
        Refusal::invalid_field(&about, "spec.request", FaultReason::Invalid, message)
    })?;
    if text(object, "spec.signerName") == signing::API_CLIENT
        && request.groups.iter().any(|group| group == MASTERS)
    {
        let signer = signing::API_CLIENT;
        let why = format!("use of {signer} signer with {MASTERS} group is not allowed");
        return Err(asked.forbid(object, why));
    }
    Ok(())
}

/// What was decided stays decided, one way or the other.
fn judge_conditions(asked: &Asked<'_>, old: &Tree, object: &Tree) -> Result<(), Refusal> {
    let has = |object: &Tree, kind: &str| {
        items(object, "status.conditions").iter().any(|condition| text(condition, "type") == kind)
    };
    let about = asked.resource.about(meta(object, "name"));
    for kind in ["Approved", "Denied", "Failed"] {
        if has(old, kind) && !has(object, kind) {
            let why = format!("Forbidden: updates may not remove a condition of type \"{kind}\"");
            return Err(Refusal::invalid_field(&about, "status.conditions", FaultReason::Forbidden, why));
        }
    }
    for (at, condition) in items(object, "status.conditions").iter().enumerate() {
        if text(condition, "status") != "True"
            && matches!(text(condition, "type"), "Approved" | "Denied" | "Failed")
        {
            let kind = text(condition, "type");
            let why = format!("Invalid value: {}: type {kind} must have status True", condition["status"]);
            let field = format!("status.conditions[{at}].status");
            return Err(Refusal::invalid_field(&about, &field, FaultReason::Invalid, why));
        }
    }
    if has(object, "Approved") && has(object, "Denied") {
        let why = "Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive";
        return Err(Refusal::invalid_field(&about, "status.conditions", FaultReason::Invalid, why));
    }
    Ok(())
}

/// Whether the user may do it for the signer: for this one, or for all of its domain.
fn judge_user(asked: &Asked<'_>, object: &Tree, verb: &str) -> Result<(), Refusal> {
    let signer = text(object, "spec.signerName");
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    let may = |name: &str| {
        let what = Attributes {
            verb: verb.into(),
            group: "certificates.k8s.io".into(),
            version: "*".into(),
            resource: "signers".into(),
            name: name.into(),
            ..Attributes::default()
        };
        asked.guard.may(asked.identity, &what).allowed
    };
    if may(signer) || may(&domain) {
        return Ok(());
    }
    let why = format!("user not permitted to {verb} requests with signerName {}", json!(signer));
    Err(asked.forbid(object, why))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{change, change_as};
    use super::*;
    use crate::auth::Identity;

    fn request(user: &str, group: &str, signer: &str) -> Tree {
        let (_, pem) = signing::new_request(user, group, &[]).expect("keys can be drawn");
        json!({"metadata": {"name": "r"}, "spec": {"signerName": signer, "request": STANDARD.encode(pem)}})
    }

    fn look(asked: &Asked<'_>, object: &mut Tree, extra: &mut Extra) -> Result<(), Refusal> {
        admit(asked, object, extra)?;
        judge(asked, object, extra)
    }

    #[test]
    fn nobody_asks_for_the_group_that_may_do_everything() {
        let make = |group: &str, signer: &str| {
            let made =
                change(&[], &kinds::CERTIFICATE_SIGNING_REQUEST, look, None, request("ann", group, signer));
            made.err().unwrap_or_default()
        };
        assert_eq!(make("staff", signing::API_CLIENT), "");
        assert!(make(MASTERS, signing::API_CLIENT).contains("system:masters group is not allowed"));
        assert_eq!(make(MASTERS, "example.com/own"), "");
        let bad = json!({"metadata": {"name": "r"}, "spec": {"signerName": "a.b/c", "request": "eA=="}});
        let why = change(&[], &kinds::CERTIFICATE_SIGNING_REQUEST, look, None, bad).expect_err("no request");
        assert!(why.contains("PEM block type must be CERTIFICATE REQUEST"), "{why}");
    }

    #[test]
    fn each_subresource_changes_what_is_its_own() {
        let mut old = request("ann", "staff", signing::API_CLIENT);
        old["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "lastUpdateTime": "x", "lastTransitionTime": "x"}]});
        let who = Identity::user("ann", &[]);
        let with = |status: Tree| {
            let mut new = old.clone();
            new["status"] = status;
            new
        };
        let made = |part: &str, status: Tree| {
            let made = change_as(
                &who,
                part,
                &[],
                &kinds::CERTIFICATE_SIGNING_REQUEST,
                look,
                Some(&old),
                with(status),
            );
            made.map(|(made, _)| made["status"].clone())
        };
        let stays = old["status"]["conditions"].clone();
        let signed = made("status", json!({"certificate": "C", "conditions": []})).expect("let happen");
        assert_eq!(signed, json!({"certificate": "C", "conditions": stays}));
        let decided = made("approval", json!({"certificate": "C", "conditions": stays})).expect("let happen");
        assert_eq!(decided, json!({"conditions": stays}));
        let gone = made("approval", json!({"conditions": []})).expect_err("decided already");
        assert!(gone.contains("updates may not remove a condition of type \"Approved\""), "{gone}");
        let both = json!([stays[0], {"type": "Denied", "status": "True"}]);
        assert!(
            made("approval", json!({"conditions": both}))
                .is_err_and(|why| why.contains("mutually exclusive"))
        );
    }
}
