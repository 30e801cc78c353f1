//! YAML bodies.

use bytes::Bytes;

use crate::refusal::Refusal;

/// The JSON that a YAML body says.
pub fn to_json(body: &Bytes) -> Result<Bytes, Refusal> {
    // JSON is YAML too, and what most clients send under this name.
    if serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok() {
        return Ok(body.clone());
    }
    Err(Refusal::bad_request("error converting YAML to JSON: only the JSON form of YAML is read"))
}

/// A tree as YAML.
pub fn from_tree(tree: &model::Tree) -> Bytes {
    let mut out = serde_json::to_vec_pretty(tree).unwrap_or_default();
    out.push(b'\n');
    Bytes::from(out)
}
