//! Strategic merge patches: like a merge patch, but lists of objects merge by their key. Pure.
//!
//! The rules are Kubernetes' own (API conventions, "strategic merge patch"): which list merges, and by which key, is
//! in the schema table; the directives `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…` and
//! `$setElementOrder/…` are in the patch.

use model::schema::{Field, Schema, Shape, Type};
use serde_json::{Map, Value};

/// What is wrong with a patch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A directive or item is not as it has to be; nothing was changed.
    #[error("{0}")]
    Malformed(String),
}

const DIRECTIVE: &str = "$patch";
const RETAIN: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

/// Gives `original` with `patch` merged into it, both being of the type that `shape` says.
pub fn merge(schema: &Schema, shape: &Shape, original: Value, patch: &Value) -> Result<Value, Unfit> {
    match patch {
        Value::Object(patch) => {
            let original = match original {
                Value::Object(original) => original,
                _ => Map::new(),
            };
            merge_object(schema, shape, original, patch).map(Value::Object)
        }
        other => Ok(other.clone()),
    }
}

fn merge_object(
    schema: &Schema,
    shape: &Shape,
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, Unfit> {
    match patch.get(DIRECTIVE).map(|directive| directive.as_str().unwrap_or_default()) {
        None => {}
        Some("replace") => return Ok(plain(patch)),
        Some("delete") => return Ok(Map::new()),
        Some("merge") => {}
        Some(other) => return Err(Unfit::Malformed(format!("unrecognized $patch directive {other:?}"))),
    }
    retain_keys(&mut original, patch)?;
    delete_from_primitives(&mut original, patch)?;
    for (name, value) in patch.iter().filter(|(name, _)| !is_directive(name)) {
        let order = patch.get(&format!("{ORDER_PREFIX}{name}"));
        merge_member(schema, &Member::of(schema, shape, name), &mut original, name, value, order)?;
    }
    // An order may be given for a list that the patch does not change otherwise.
    for (name, order) in
        patch.iter().filter_map(|(key, order)| Some((key.strip_prefix(ORDER_PREFIX)?, order)))
    {
        if !patch.contains_key(name)
            && let Some(Value::Array(list)) = original.get_mut(name)
        {
            let key = Member::of(schema, shape, name).merge_key;
            *list = reorder(std::mem::take(list), &[], order, key)?;
        }
    }
    Ok(original)
}

/// What the table says of one member of an object.
struct Member<'a> {
    shape: &'a Shape,
    merge: bool,
    merge_key: Option<&'a str>,
}

impl<'a> Member<'a> {
    fn of(schema: &'a Schema, shape: &'a Shape, name: &str) -> Self {
        let plain = |shape| Member { shape, merge: false, merge_key: None };
        match shape {
            Shape::Object(id) => {
                let parent: &Type = schema.get(*id);
                parent.field(name).map_or(plain(&Shape::Any), |field: &Field| Member {
                    shape: &field.shape,
                    merge: field.patch.merge,
                    merge_key: field.merge_key.as_deref(),
                })
            }
            Shape::Map { value, .. } => plain(value),
            _ => plain(&Shape::Any),
        }
    }
}

fn merge_member(
    schema: &Schema,
    member: &Member<'_>,
    original: &mut Map<String, Value>,
    name: &str,
    value: &Value,
    order: Option<&Value>,
) -> Result<(), Unfit> {
    match value {
        Value::Null => {
            original.remove(name);
        }
        Value::Object(patch) => {
            if patch.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") {
                original.remove(name);
                return Ok(());
            }
            let old = original.remove(name).unwrap_or(Value::Null);
            original.insert(name.to_owned(), merge(schema, member.shape, old, value)?);
        }
        Value::Array(patch) if member.merge => {
            let old = match original.remove(name) {
                Some(Value::Array(old)) => old,
                _ => Vec::new(),
            };
            let merged = merge_list(schema, member, old, patch, order)?;
            original.insert(name.to_owned(), Value::Array(merged));
        }
        other => {
            original.insert(name.to_owned(), without_directives(other));
        }
    }
    Ok(())
}

fn merge_list(
    schema: &Schema,
    member: &Member<'_>,
    old: Vec<Value>,
    patch: &[Value],
    order: Option<&Value>,
) -> Result<Vec<Value>, Unfit> {
    let before = old.clone();
    let merged = match member.merge_key {
        Some(key) => merge_keyed(schema, member, key, old, patch)?,
        None => merge_primitives(old, patch),
    };
    // Without an order of its own, a patch's items come in the order in which it has them.
    let own = Value::Array(patch.to_vec());
    reorder(merged, &before, order.unwrap_or(&own), member.merge_key)
}

fn merge_primitives(mut old: Vec<Value>, patch: &[Value]) -> Vec<Value> {
    for value in patch {
        if !old.contains(value) {
            old.push(value.clone());
        }
    }
    old
}

fn merge_keyed(
    schema: &Schema,
    member: &Member<'_>,
    key: &str,
    mut old: Vec<Value>,
    patch: &[Value],
) -> Result<Vec<Value>, Unfit> {
    let Shape::List { item, .. } = member.shape else {
        return Err(Unfit::Malformed("a list is patched where there is none".into()));
    };
    if patch.iter().any(|item| item[DIRECTIVE] == "replace") {
        let kept = patch.iter().filter(|item| !is_bare_directive(item));
        return Ok(kept.map(without_directives).collect());
    }
    for change in patch {
        let Value::Object(map) = change else {
            return Err(Unfit::Malformed(format!(
                "an item of a list that merges by {key:?} is not an object"
            )));
        };
        let Some(wanted) = map.get(key) else {
            return Err(Unfit::Malformed(format!(
                "map: {change} does not contain declared merge key: {key}"
            )));
        };
        let same = |item: &Value| item.get(key) == Some(wanted);
        match map.get(DIRECTIVE).and_then(Value::as_str) {
            Some("delete") => old.retain(|item| !same(item)),
            _ => match old.iter_mut().find(|item| same(item)) {
                Some(found) => *found = merge(schema, item, found.take(), change)?,
                None => old.push(merge(schema, item, Value::Null, change)?),
            },
        }
    }
    Ok(old)
}

/// Puts the items named by `order` into that order; the others keep their places relative to what they were before.
fn reorder(
    list: Vec<Value>,
    before: &[Value],
    order: &Value,
    key: Option<&str>,
) -> Result<Vec<Value>, Unfit> {
    let Value::Array(order) = order else {
        return Err(Unfit::Malformed(format!("{ORDER_PREFIX}… is not a list")));
    };
    let id = |item: &Value| key.map_or(item, |key| &item[key]).clone();
    let order: Vec<Value> = order.iter().map(id).collect();
    let served: Vec<Value> =
        if before.is_empty() { list.iter().map(id).collect() } else { before.iter().map(id).collect() };
    let place = |ids: &[Value], item: &Value| ids.iter().position(|known| *known == id(item));
    let (mut named, rest): (Vec<Value>, Vec<Value>) =
        list.into_iter().partition(|item| place(&order, item).is_some());
    named.sort_by_key(|item| place(&order, item));
    let mut named = named.into_iter().peekable();
    let mut rest = rest.into_iter().peekable();
    let mut merged = Vec::new();
    while let (Some(left), Some(right)) = (named.peek(), rest.peek()) {
        // One that the server had behind the other stays behind it; new ones come first, as the patch wants.
        let right_first = match (place(&served, left), place(&served, right)) {
            (Some(left), Some(right)) => right < left,
            _ => false,
        };
        merged.extend(if right_first { rest.next() } else { named.next() });
    }
    merged.extend(named);
    merged.extend(rest);
    Ok(merged)
}

/// `$retainKeys`: of the original's members only those named stay (for unions such as a Deployment's strategy).
fn retain_keys(original: &mut Map<String, Value>, patch: &Map<String, Value>) -> Result<(), Unfit> {
    let Some(keys) = patch.get(RETAIN) else { return Ok(()) };
    let Value::Array(keys) = keys else {
        return Err(Unfit::Malformed(format!("{RETAIN} is not a list")));
    };
    let keeps = |name: &str| keys.iter().any(|key| key == name);
    if let Some(name) = patch.keys().find(|name| !is_directive(name) && !keeps(name)) {
        return Err(Unfit::Malformed(format!("{RETAIN} does not name {name:?}, which the patch sets")));
    }
    original.retain(|name, _| keeps(name));
    Ok(())
}

fn delete_from_primitives(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), Unfit> {
    for (name, gone) in patch.iter().filter_map(|(key, gone)| Some((key.strip_prefix(DELETE_PREFIX)?, gone)))
    {
        let Value::Array(gone) = gone else {
            return Err(Unfit::Malformed(format!("{DELETE_PREFIX}{name} is not a list")));
        };
        if let Some(Value::Array(list)) = original.get_mut(name) {
            list.retain(|item| !gone.contains(item));
        }
    }
    Ok(())
}

fn is_directive(name: &str) -> bool {
    name == DIRECTIVE || name == RETAIN || name.starts_with(DELETE_PREFIX) || name.starts_with(ORDER_PREFIX)
}

/// An item that is nothing but `$patch: replace`.
fn is_bare_directive(item: &Value) -> bool {
    item.as_object().is_some_and(|map| map.keys().all(|name| name == DIRECTIVE))
}

fn plain(map: &Map<String, Value>) -> Map<String, Value> {
    let members = map.iter().filter(|(name, value)| !is_directive(name) && !value.is_null());
    members.map(|(name, value)| (name.clone(), without_directives(value))).collect()
}

fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(plain(map)),
        Value::Array(list) => Value::Array(list.iter().map(without_directives).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use model::schema::builtin;
    use serde_json::json;

    use super::*;

    fn check_type(name: &str, original: Value, patch: Value, wanted: Value) {
        let schema = builtin();
        let id = schema.type_named(name).expect("a published type");
        assert_eq!(merge(schema, &Shape::Object(id), original, &patch), Ok(wanted));
    }

    fn check(original: Value, patch: Value, wanted: Value) {
        check_type("io.k8s.api.core.v1.PodSpec", original, patch, wanted);
    }

    #[test]
    fn containers_merge_by_name_and_new_ones_come_before_those_that_the_patch_does_not_name() {
        check(
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}),
            json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}),
        );
        check(
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "b"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
        );
    }

    #[test]
    fn null_removes_and_delete_takes_an_item_out() {
        check(
            json!({"nodeName": "n", "containers": [{"name": "a", "image": "1"}, {"name": "b"}]}),
            json!({"nodeName": null, "containers": [{"name": "b", "$patch": "delete"}, {"name": "a", "image": null}]}),
            json!({"containers": [{"name": "a"}]}),
        );
    }

    #[test]
    fn atomic_lists_are_replaced() {
        check(
            json!({"tolerations": [{"key": "a"}], "containers": [{"name": "a", "args": ["1", "2"]}]}),
            json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}),
            json!({"tolerations": [{"key": "b"}], "containers": [{"name": "a", "args": ["3"]}]}),
        );
    }

    #[test]
    fn a_replace_directive_replaces_a_list_or_an_object() {
        check(
            json!({"containers": [{"name": "a"}, {"name": "b"}], "securityContext": {"runAsUser": 1, "fsGroup": 2}}),
            json!({"containers": [{"$patch": "replace"}, {"name": "c"}], "securityContext": {"$patch": "replace", "fsGroup": 3}}),
            json!({"containers": [{"name": "c"}], "securityContext": {"fsGroup": 3}}),
        );
    }

    #[test]
    fn retain_keys_leaves_one_member_of_a_union() {
        check_type(
            "io.k8s.api.apps.v1.DeploymentSpec",
            json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}),
            json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
            json!({"strategy": {"type": "Recreate"}}),
        );
    }

    #[test]
    fn primitive_lists_merge_as_sets_and_lose_what_is_named() {
        check_type(
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
            json!({"finalizers": ["a", "b"]}),
            json!({"finalizers": ["c", "a"], "$deleteFromPrimitiveList/finalizers": ["b"]}),
            json!({"finalizers": ["c", "a"]}),
        );
    }

    #[test]
    fn an_order_places_items_and_leaves_the_servers_own_where_they_were() {
        check(
            json!({"containers": [{"name": "a"}, {"name": "sidecar"}, {"name": "b"}]}),
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a", "image": "2"}]}),
            json!({"containers": [{"name": "sidecar"}, {"name": "b"}, {"name": "a", "image": "2"}]}),
        );
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let schema = builtin();
        let id = schema.type_named("io.k8s.api.core.v1.PodSpec").expect("a published type");
        let patch = json!({"containers": [{"image": "x"}]});
        assert!(merge(schema, &Shape::Object(id), json!({}), &patch).is_err());
    }
}
