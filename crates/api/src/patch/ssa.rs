//! Server-side apply: the whole intent of one manager merged into an object, with conflicts told (KEP-555). Pure.

use model::schema::{Schema, Shape};
use model::{Time, Tree};
use serde_json::{Map, Value};

use super::managed::{Entry, Manager, read, write};
use super::owned::{Fields, Step, parts};

/// A field that another manager owns and that the intent would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it, as messages name it: `"kubectl" with subresource "scale"`.
    pub owner: String,
    /// The path, such as `.spec.replicas`.
    pub path: String,
}

/// An intent, and whose it is.
pub struct Intent<'a> {
    /// What the manager wants, and all that it wants.
    pub config: &'a Tree,
    /// Who applies.
    pub manager: &'a Manager,
    /// Whether to take over fields that others own.
    pub force: bool,
}

/// Gives `live` (`{}` when there is none) with the intent merged into it, `managedFields` kept; or the conflicts.
///
/// What the manager applied before and no longer wants goes, unless somebody else owns it too.
pub fn apply(
    schema: &Schema,
    shape: &Shape,
    live: &Tree,
    intent: &Intent<'_>,
    now: Time,
) -> Result<Tree, Vec<Conflict>> {
    let mut config = intent.config.clone();
    if let Some(metadata) = config.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    let wanted = Fields::of_object(schema, shape, &config);
    let mut entries = read(live);
    let before =
        entries.iter().position(|entry| is_same(&entry.manager, intent.manager)).map(|at| entries.remove(at));
    let mut merged = merge(schema, shape, Some(live), &config);
    let (changed, _) = Fields::difference(schema, shape, live, &merged);
    settle_conflicts(&mut entries, &changed, intent)?;
    if let Some(before) = &before {
        let mut keepers: Vec<&Fields> = entries.iter().map(|entry| &entry.fields).collect();
        keepers.push(&wanted);
        prune(schema, shape, &mut merged, &before.fields, &keepers);
    }
    let (_, removed) = Fields::difference(schema, shape, live, &merged);
    for entry in &mut entries {
        entry.fields = entry.fields.minus(&removed);
    }
    let time = match before {
        Some(before) if before.fields == wanted && changed.is_empty() => before.time,
        _ => crate::verbs::stamp(now),
    };
    entries.push(Entry { manager: intent.manager.clone(), time, fields: wanted });
    write(&mut merged, &entries);
    Ok(merged)
}

fn is_same(one: &Manager, other: &Manager) -> bool {
    one.applies && one.name == other.name && one.part == other.part
}

fn settle_conflicts(
    entries: &mut [Entry],
    changed: &Fields,
    intent: &Intent<'_>,
) -> Result<(), Vec<Conflict>> {
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut() {
        let disputed = entry.fields.and(changed);
        if disputed.is_empty() {
            continue;
        }
        if intent.force {
            entry.fields = entry.fields.minus(&disputed);
        } else {
            let owner = owner_shown(entry);
            conflicts
                .extend(disputed.paths().into_iter().map(|path| Conflict { owner: owner.clone(), path }));
        }
    }
    if conflicts.is_empty() { Ok(()) } else { Err(conflicts) }
}

fn owner_shown(entry: &Entry) -> String {
    let manager = &entry.manager;
    let mut shown = format!("{:?}", manager.name);
    if !manager.part.is_empty() {
        shown.push_str(&format!(" with subresource {:?}", manager.part));
    }
    if !manager.applies {
        shown.push_str(&format!(" using {}", manager.api_version));
    }
    shown
}

/// The live value with the wanted one laid over it, field by field as the table says.
pub fn merge(schema: &Schema, shape: &Shape, live: Option<&Value>, wanted: &Value) -> Value {
    let nothing = live.is_none_or(Value::is_null);
    let Some(wanted_parts) = parts(schema, shape, wanted) else { return wanted.clone() };
    match (wanted, live) {
        (Value::Object(_), live) => {
            let mut merged: Map<String, Value> = live.and_then(Value::as_object).cloned().unwrap_or_default();
            for part in wanted_parts {
                let Step::Name(name) = part.step else { continue };
                let old = merged.remove(&name);
                // A null says that the manager has no opinion; a live value stays.
                let new = if part.value.is_null() {
                    old
                } else {
                    Some(merge(schema, part.shape, old.as_ref(), part.value))
                };
                if let Some(new) = new {
                    merged.insert(name, new);
                }
            }
            Value::Object(merged)
        }
        (Value::Array(_), Some(live)) if !nothing => {
            let Some(live_parts) = parts(schema, shape, live) else { return wanted.clone() };
            let mut items: Vec<(Step, Value)> =
                live_parts.into_iter().map(|part| (part.step, part.value.clone())).collect();
            merge_items(schema, &mut items, wanted_parts);
            Value::Array(items.into_iter().map(|(_, value)| value).collect())
        }
        _ => wanted.clone(),
    }
}

/// Merges list items; wanted ones come in the order in which they are wanted, live ones keep their places before the
/// item that followed them.
fn merge_items(schema: &Schema, items: &mut Vec<(Step, Value)>, wanted: Vec<super::owned::Part<'_>>) {
    let mut merged: Vec<(Step, Value)> = Vec::new();
    let is_wanted: Vec<Step> = wanted.iter().map(|part| part.step.clone()).collect();
    let mut live = std::mem::take(items).into_iter().peekable();
    for part in wanted {
        while let Some((step, value)) = live.next_if(|(step, _)| !is_wanted.contains(step)) {
            merged.push((step, value));
        }
        let rest: Vec<(Step, Value)> = live.collect();
        let old = rest.iter().find(|(step, _)| *step == part.step).map(|(_, value)| value);
        let value = merge(schema, part.shape, old, part.value);
        merged.push((part.step.clone(), value));
        live = rest
            .into_iter()
            .filter(|(step, _)| *step != part.step)
            .collect::<Vec<_>>()
            .into_iter()
            .peekable();
    }
    merged.extend(live);
    *items = merged;
}

/// Takes out of `value` what was `applied` before and that no keeper has, neither itself nor anything below it.
fn prune(schema: &Schema, shape: &Shape, value: &mut Value, applied: &Fields, keepers: &[&Fields]) {
    for (step, below) in &applied.below {
        let kept: Vec<&Fields> = keepers.iter().filter_map(|fields| fields.below.get(step)).collect();
        if kept.is_empty() {
            remove(schema, shape, value, step);
        } else if let Some((shape, part)) = part_mut(schema, shape, value, step) {
            prune(schema, &shape, part, below, &kept);
        }
    }
}

fn position(schema: &Schema, shape: &Shape, value: &Value, step: &Step) -> Option<(usize, Shape)> {
    let parts = parts(schema, shape, value)?;
    let at = parts.iter().position(|part| part.step == *step)?;
    Some((at, parts[at].shape.clone()))
}

fn remove(schema: &Schema, shape: &Shape, value: &mut Value, step: &Step) {
    let Some((at, _)) = position(schema, shape, value, step) else { return };
    match (value, step) {
        (Value::Object(map), Step::Name(name)) => {
            map.remove(name);
        }
        (Value::Array(list), _) => {
            list.remove(at);
        }
        _ => {}
    }
}

fn part_mut<'a>(
    schema: &Schema,
    shape: &Shape,
    value: &'a mut Value,
    step: &Step,
) -> Option<(Shape, &'a mut Value)> {
    let (at, shape) = position(schema, shape, value, step)?;
    let part = match (value, step) {
        (Value::Object(map), Step::Name(name)) => map.get_mut(name)?,
        (Value::Array(list), _) => list.get_mut(at)?,
        _ => return None,
    };
    Some((shape, part))
}

#[cfg(test)]
mod tests {
    use model::schema::builtin;
    use serde_json::json;

    use super::*;

    fn shape() -> Shape {
        Shape::Object(builtin().type_named("io.k8s.api.apps.v1.Deployment").expect("a published type"))
    }

    fn manager(name: &str) -> Manager {
        Manager { name: name.into(), applies: true, api_version: "apps/v1".into(), part: String::new() }
    }

    fn applied(live: &Tree, who: &str, config: &Tree, force: bool) -> Result<Tree, Vec<Conflict>> {
        let intent = Intent { config, manager: &manager(who), force };
        apply(builtin(), &shape(), live, &intent, Time::from_second(1).expect("in range"))
    }

    fn spec(spec: Tree) -> Tree {
        json!({"metadata": {"name": "web"}, "spec": spec})
    }

    #[test]
    fn what_is_no_longer_wanted_goes_unless_another_wants_it() {
        let first = applied(&json!({}), "ann", &spec(json!({"replicas": 3, "paused": true})), false);
        let first = first.expect("nobody else is there");
        let both = applied(&first, "bob", &spec(json!({"paused": true})), false).expect("the same value");
        let less = applied(&both, "ann", &spec(json!({})), false).expect("no change of others'");
        assert_eq!(less["spec"], json!({"paused": true}));
    }

    #[test]
    fn a_field_of_another_conflicts_unless_forced() {
        let first =
            applied(&json!({}), "ann", &spec(json!({"replicas": 3})), false).expect("nobody else is there");
        let conflicts =
            applied(&first, "bob", &spec(json!({"replicas": 5})), false).expect_err("ann owns it");
        assert_eq!(conflicts, [Conflict { owner: "\"ann\"".into(), path: ".spec.replicas".into() }]);
        let forced = applied(&first, "bob", &spec(json!({"replicas": 5})), true).expect("forced");
        assert_eq!(forced["spec"]["replicas"], 5);
        let names: Vec<String> = read(&forced).into_iter().map(|entry| entry.manager.name).collect();
        assert_eq!(names, ["bob"]);
    }

    #[test]
    fn items_merge_by_key_and_go_with_their_owner() {
        let containers = |list: Tree| spec(json!({"template": {"spec": {"containers": list}}}));
        let ann = containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]));
        let first = applied(&json!({}), "ann", &ann, false).expect("nobody else is there");
        let bob = containers(json!([{"name": "side", "image": "9"}, {"name": "b", "tty": true}]));
        let both = applied(&first, "bob", &bob, false).expect("no field in common");
        let less = applied(&both, "ann", &containers(json!([{"name": "a", "image": "2"}])), false)
            .expect("ann's own");
        assert_eq!(
            less["spec"]["template"]["spec"]["containers"],
            json!([{"name": "a", "image": "2"}, {"name": "side", "image": "9"}, {"name": "b", "tty": true}])
        );
    }

    #[test]
    fn applying_twice_changes_nothing() {
        let config =
            spec(json!({"replicas": 3, "template": {"spec": {"containers": [{"name": "a", "image": "1"}]}}}));
        let first = applied(&json!({}), "ann", &config, false).expect("nobody else is there");
        let intent = Intent { config: &config, manager: &manager("ann"), force: false };
        let later = Time::from_second(99).expect("in range");
        assert_eq!(apply(builtin(), &shape(), &first, &intent, later), Ok(first));
    }
}
