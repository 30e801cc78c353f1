//! A request for a certificate says who made it, and only the server says that.

use model::{Tree, kinds};
use serde_json::json;

use super::{Asked, Extra, Operation};
use crate::refusal::Refusal;
use crate::verbs::{carry, child};

const FIELDS: [&str; 4] = ["username", "uid", "groups", "extra"];

/// Writes the requester into a new request, and keeps it in a changed one.
pub fn admit(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if !asked.resource.is(&kinds::CERTIFICATE_SIGNING_REQUEST) {
        return Ok(());
    }
    let spec = child(object, "spec");
    if asked.operation == Operation::Update {
        if let Some(old) = asked.old.and_then(|old| old["spec"].as_object()) {
            FIELDS.iter().for_each(|field| carry(old, spec, field));
        }
        return Ok(());
    }
    FIELDS.iter().for_each(|field| drop(spec.remove(*field)));
    let who = asked.identity;
    spec.insert("username".into(), json!(who.name));
    spec.insert("groups".into(), json!(who.groups));
    if !who.uid.is_empty() {
        spec.insert("uid".into(), json!(who.uid));
    }
    if !who.extra.is_empty() {
        spec.insert("extra".into(), json!(who.extra));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::check;
    use super::*;

    #[test]
    fn a_request_says_who_made_it() {
        let request = json!({"metadata": {"name": "r"}, "spec": {"username": "root", "uid": "0"}});
        let made =
            check(&[], &kinds::CERTIFICATE_SIGNING_REQUEST, admit, request).expect("nothing against it");
        assert_eq!(made["spec"], json!({"username": "ann", "groups": ["staff", "system:authenticated"]}));
    }
}
