//! An APIService of one of our own groups is available as soon as it is made.

use model::{Tree, kinds};
use serde_json::json;

use super::{Asked, Extra};
use crate::refusal::Refusal;
use crate::verbs::stamp;

/// Says so in its status.
pub fn finish(asked: &Asked<'_>, object: &mut Tree, _extra: &mut Extra) -> Result<(), Refusal> {
    if asked.creates(&kinds::API_SERVICE) && object["spec"]["service"].is_null() {
        object["status"] = json!({"conditions": [{
            "type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": stamp(asked.drawn.now),
        }]});
    }
    Ok(())
}
