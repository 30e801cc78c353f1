//! Writing a status: only what differs, and only by its one writer.

use model::{Key, Object, Plan, Precondition, Time, Tree, Write, time};
use serde_json::{Map, json};

/// Adds a patch of the status, if anything differs. Fields of `wanted` that are null must be absent; fields that it
/// does not name are left alone.
pub fn write(plan: &mut Plan, key: &Key, object: &Object, wanted: &Tree, why: &str) {
    if let Some(write) = patch(key, object, wanted) {
        plan.act(write, why);
    }
}

/// The patch alone.
pub fn patch(key: &Key, object: &Object, wanted: &Tree) -> Option<Write> {
    let known = of(object);
    let patch = difference(&known, wanted)?;
    let patch = json!({"status": patch});
    Some(Write::Patch { key: key.clone(), part: "status", patch, when: Precondition::exactly(object) })
}

/// The status as it is.
pub fn of(object: &Object) -> Tree {
    let mut tree = object.tree().unwrap_or_default();
    tree["status"].take()
}

/// A merge patch from `known` to `wanted`, which names all that it cares for; `None` when nothing differs.
fn difference(known: &Tree, wanted: &Tree) -> Option<Tree> {
    match (known, wanted) {
        (Tree::Object(_) | Tree::Null, Tree::Object(fields)) => {
            let changed: Map<String, Tree> = fields
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), difference(&known[name.as_str()], value)?)))
                .collect();
            let made = known.is_null();
            (!changed.is_empty() || (made && fields.is_empty())).then_some(Tree::Object(changed))
        }
        _ if known == wanted => None,
        _ => Some(wanted.clone()),
    }
}

/// A count as the API writes it: left out when it is nothing.
pub fn count(count: i64) -> Tree {
    if count == 0 { Tree::Null } else { count.into() }
}

/// The conditions of a status.
pub fn conditions(status: &Tree) -> Vec<Tree> {
    status["conditions"].as_array().cloned().unwrap_or_default()
}

/// A condition by its type.
pub fn condition<'a>(conditions: &'a [Tree], kind: &str) -> Option<&'a Tree> {
    conditions.iter().find(|condition| condition["type"] == kind)
}

/// What a condition says.
#[derive(Debug, Clone, Copy)]
pub struct Says<'a> {
    /// What it is about.
    pub kind: &'a str,
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    /// Why, in one word.
    pub reason: &'a str,
    /// Why.
    pub message: &'a str,
}

/// Sets a condition in its place or at the end; the time of transition moves only when the status does.
pub fn set_condition(conditions: &mut Vec<Tree>, says: Says<'_>, now: Time) {
    let fresh = json!({
        "type": says.kind, "status": says.status, "lastTransitionTime": time::seconds(now),
        "reason": says.reason, "message": says.message,
    });
    match conditions.iter_mut().find(|condition| condition["type"] == says.kind) {
        None => conditions.push(fresh),
        Some(known) => {
            let since = known["lastTransitionTime"].clone();
            let stays = known["status"] == says.status && !since.is_null();
            for field in ["status", "reason", "message", "lastTransitionTime"] {
                known[field] = fresh[field].clone();
            }
            if stays {
                known["lastTransitionTime"] = since;
            }
        }
    }
}

/// Takes a condition away.
pub fn drop_condition(conditions: &mut Vec<Tree>, kind: &str) {
    conditions.retain(|condition| condition["type"] != kind);
}

/// Conditions as a status holds them: absent when there are none.
pub fn written(conditions: Vec<Tree>) -> Tree {
    if conditions.is_empty() { Tree::Null } else { Tree::Array(conditions) }
}
