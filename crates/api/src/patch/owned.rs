//! Sets of fields, as `managedFields` names them (FieldsV1), and which fields two objects differ in. Pure.
//!
//! What counts as one field is the schema table's word: members of objects and granular maps each by name, items of
//! keyed lists by their keys, items of sets by their value; atomic lists and maps are one field as a whole.

use std::collections::BTreeMap;

use model::schema::{ListMerge, Schema, Shape, Type};
use serde_json::map::Entry;
use serde_json::{Map, Value, json};

/// One step of a path into an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A member by name (`f:`).
    Name(String),
    /// A list item by its keys, as canonical JSON (`k:`).
    Keys(String),
    /// A set item by its value, as JSON (`v:`).
    Item(String),
}

/// A set of fields, as a tree of steps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    /// Whether the field at this place is itself in the set.
    pub here: bool,
    /// What is in the set below.
    pub below: BTreeMap<Step, Fields>,
}

/// Members that nobody owns: they are the server's, or name the object.
const UNOWNED_META: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
    "managedFields",
];

impl Fields {
    /// Whether nothing is in the set.
    pub fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// Everything in either.
    pub fn union(mut self, other: &Fields) -> Fields {
        self.here |= other.here;
        for (step, fields) in &other.below {
            let own = self.below.remove(step).unwrap_or_default();
            self.below.insert(step.clone(), own.union(fields));
        }
        self
    }

    /// What is in this one and not in the other.
    pub fn minus(&self, other: &Fields) -> Fields {
        self.filter(other, false)
    }

    /// What is in both.
    pub fn and(&self, other: &Fields) -> Fields {
        self.filter(other, true)
    }

    fn filter(&self, other: &Fields, wanted: bool) -> Fields {
        let nothing = Fields::default();
        let mut kept = Fields { here: self.here && other.here == wanted, below: BTreeMap::new() };
        for (step, fields) in &self.below {
            let fields = fields.filter(other.below.get(step).unwrap_or(&nothing), wanted);
            if !fields.is_empty() {
                kept.below.insert(step.clone(), fields);
            }
        }
        kept
    }

    /// The paths in the set, as messages show them: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut found = Vec::new();
        self.collect(String::new(), &mut found);
        found
    }

    fn collect(&self, path: String, found: &mut Vec<String>) {
        for (step, fields) in &self.below {
            fields.collect(format!("{path}{}", step.shown()), found);
        }
        if self.here {
            found.push(path);
        }
    }

    /// As `fieldsV1` carries it.
    pub fn to_v1(&self) -> Value {
        let mut map = Map::new();
        if self.here && !self.below.is_empty() {
            map.insert(".".into(), json!({}));
        }
        for (step, fields) in &self.below {
            map.insert(step.written(), fields.to_v1());
        }
        Value::Object(map)
    }

    /// Reads `fieldsV1`; steps that make no sense are left out.
    pub fn from_v1(value: &Value) -> Fields {
        fn read(value: &Value, root: bool) -> Fields {
            let Value::Object(map) = value else { return Fields::default() };
            let steps = map.iter().filter_map(|(name, below)| Some((Step::read(name)?, read(below, false))));
            let below: BTreeMap<Step, Fields> = steps.collect();
            Fields { here: !root && (below.is_empty() || map.contains_key(".")), below }
        }
        read(value, true)
    }

    /// Every field of an object that somebody can own.
    pub fn of_object(schema: &Schema, shape: &Shape, object: &Value) -> Fields {
        let mut fields = Fields::default();
        fields.insert(schema, shape, object);
        fields.here = false;
        fields.without_server_owned()
    }

    /// The fields in which two objects differ: those that `new` adds or changes, and those that it lacks.
    pub fn difference(schema: &Schema, shape: &Shape, old: &Value, new: &Value) -> (Fields, Fields) {
        let (mut changed, mut removed) = (Fields::default(), Fields::default());
        compare(schema, shape, old, new, &mut changed, &mut removed);
        (changed.without_server_owned(), removed.without_server_owned())
    }

    /// What [`Fields::of_object`] says, as `fieldsV1` carries it: of a new object that is all there is to know.
    pub fn v1_of_object(schema: &Schema, shape: &Shape, object: &Value) -> Value {
        let mut fields = written(schema, shape, object);
        fields.remove("f:apiVersion");
        fields.remove("f:kind");
        if let Some(Value::Object(metadata)) = fields.get_mut("f:metadata") {
            metadata
                .retain(|step, _| !step.strip_prefix("f:").is_some_and(|name| UNOWNED_META.contains(&name)));
            if metadata.is_empty() {
                fields.remove("f:metadata");
            }
        }
        Value::Object(fields)
    }

    fn without_server_owned(mut self) -> Fields {
        for name in ["apiVersion", "kind"] {
            self.below.remove(&Step::Name(name.into()));
        }
        let meta = Step::Name("metadata".into());
        if let Some(fields) = self.below.get_mut(&meta) {
            fields.here = false;
            fields
                .below
                .retain(|step, _| !matches!(step, Step::Name(name) if UNOWNED_META.contains(&name.as_str())));
            if fields.is_empty() {
                self.below.remove(&meta);
            }
        }
        self
    }

    fn insert(&mut self, schema: &Schema, shape: &Shape, value: &Value) {
        match parts(schema, shape, value) {
            Some(parts) if !parts.is_empty() => {
                for part in parts {
                    let is_item = !matches!(part.step, Step::Name(_));
                    let below = self.below.entry(part.step).or_default();
                    below.insert(schema, part.shape, part.value);
                    below.here |= is_item;
                }
            }
            _ => self.here = true,
        }
    }
}

/// All fields of a value as `fieldsV1` carries them; empty for what is one field as a whole.
fn written(schema: &Schema, shape: &Shape, value: &Value) -> Map<String, Value> {
    let mut fields = Map::new();
    // Members need not be sorted out: each has a name of its own. Most of an object is members.
    if let (Some(members), Value::Object(map)) = (Members::of(schema, shape), value) {
        for (name, value) in map {
            let below = written(schema, members.shape(name), value);
            fields.insert(["f:", name].concat(), Value::Object(below));
        }
        return fields;
    }
    for part in parts(schema, shape, value).into_iter().flatten() {
        let mut below = written(schema, part.shape, part.value);
        if !below.is_empty() {
            below.insert(".".into(), Value::Object(Map::new()));
        }
        match fields.entry(part.step.written()) {
            Entry::Vacant(place) => drop(place.insert(Value::Object(below))),
            // Two items of the same keys are one field.
            Entry::Occupied(mut known) => add(known.get_mut(), below),
        }
    }
    fields
}

/// Adds fields to some.
fn add(fields: &mut Value, more: Map<String, Value>) {
    let Value::Object(fields) = fields else { return };
    for (step, below) in more {
        match (fields.get_mut(&step), below) {
            (Some(known), Value::Object(below)) => add(known, below),
            (_, below) => drop(fields.insert(step, below)),
        }
    }
}

/// One part of a value: a member or an item.
pub struct Part<'a> {
    /// How to get there.
    pub step: Step,
    /// What the table says of it.
    pub shape: &'a Shape,
    /// What it is.
    pub value: &'a Value,
}

/// Takes a value apart into the fields that can be owned apart; `None` when it is one field as a whole.
pub fn parts<'a>(schema: &'a Schema, shape: &'a Shape, value: &'a Value) -> Option<Vec<Part<'a>>> {
    if let (Some(members), Value::Object(map)) = (Members::of(schema, shape), value) {
        let part = |(name, value): (&'a String, &'a Value)| Part {
            step: Step::Name(name.clone()),
            shape: members.shape(name),
            value,
        };
        return Some(map.iter().map(part).collect());
    }
    match (shape, value) {
        (Shape::List { item, merge: ListMerge::Map(keys) }, Value::Array(list)) => {
            let part = |value: &'a Value| {
                Some(Part { step: keys_of(schema, item, keys, value)?, shape: item, value })
            };
            list.iter().map(part).collect()
        }
        (Shape::List { merge: ListMerge::Set, .. }, Value::Array(list)) => {
            // A set item is one field, whatever it is.
            Some(
                list.iter()
                    .map(|value| Part { step: Step::Item(value.to_string()), shape: &Shape::Text, value })
                    .collect(),
            )
        }
        _ => None,
    }
}

/// What the table says of the members of an object or a map that can be owned apart.
enum Members<'a> {
    /// Those of a type.
    Typed(&'a Type),
    /// All are alike.
    Alike(&'a Shape),
}

impl<'a> Members<'a> {
    fn of(schema: &'a Schema, shape: &'a Shape) -> Option<Self> {
        match shape {
            Shape::Object(id) => Some(Self::Typed(schema.get(*id))).filter(|_| !schema.get(*id).atomic),
            Shape::Map { value, atomic: false } => Some(Self::Alike(value)),
            Shape::Any => Some(Self::Alike(&Shape::Any)),
            _ => None,
        }
    }

    fn shape(&self, name: &str) -> &'a Shape {
        match self {
            Self::Typed(of) => of.field(name).map_or(&Shape::Any, |field| &field.shape),
            Self::Alike(shape) => shape,
        }
    }
}

fn keys_of(schema: &Schema, item: &Shape, keys: &[std::sync::Arc<str>], value: &Value) -> Option<Step> {
    let map = value.as_object()?;
    let default = |key: &str| match item {
        Shape::Object(id) => schema.get(*id).field(key).and_then(|field| field.default.clone()),
        _ => None,
    };
    let mut named = Map::new();
    for key in keys {
        if let Some(value) = map.get(&**key).cloned().or_else(|| default(key)) {
            named.insert(key.to_string(), value);
        }
    }
    (!named.is_empty()).then(|| Step::Keys(Value::Object(named).to_string()))
}

fn compare(
    schema: &Schema,
    shape: &Shape,
    old: &Value,
    new: &Value,
    changed: &mut Fields,
    removed: &mut Fields,
) {
    if old == new {
        return;
    }
    let (Some(old_parts), Some(new_parts)) = (parts(schema, shape, old), parts(schema, shape, new)) else {
        changed.here = true;
        return;
    };
    if old_parts.is_empty() || new_parts.is_empty() {
        // From or to an empty value: the place itself changes as well.
        (if new_parts.is_empty() { &mut *changed } else { &mut *removed }).here |=
            old_parts.is_empty() != new_parts.is_empty();
    }
    let find = |parts: &[Part<'_>], step: &Step| parts.iter().position(|part| part.step == *step);
    for part in &new_parts {
        match find(&old_parts, &part.step) {
            Some(at) => {
                let (mut below_changed, mut below_removed) = (Fields::default(), Fields::default());
                compare(
                    schema,
                    part.shape,
                    old_parts[at].value,
                    part.value,
                    &mut below_changed,
                    &mut below_removed,
                );
                keep(changed, &part.step, below_changed);
                keep(removed, &part.step, below_removed);
            }
            None => {
                let mut below = Fields::default();
                below.insert(schema, part.shape, part.value);
                below.here |= !matches!(part.step, Step::Name(_));
                keep(changed, &part.step, below);
            }
        }
    }
    for part in old_parts.iter().filter(|part| find(&new_parts, &part.step).is_none()) {
        let mut below = Fields::default();
        below.insert(schema, part.shape, part.value);
        below.here |= !matches!(part.step, Step::Name(_));
        keep(removed, &part.step, below);
    }
}

fn keep(fields: &mut Fields, step: &Step, below: Fields) {
    if !below.is_empty() {
        fields.below.insert(step.clone(), below);
    }
}

impl Step {
    fn written(&self) -> String {
        match self {
            Step::Name(name) => format!("f:{name}"),
            Step::Keys(keys) => format!("k:{keys}"),
            Step::Item(item) => format!("v:{item}"),
        }
    }

    fn read(text: &str) -> Option<Step> {
        let (sort, rest) = text.split_once(':')?;
        // Keys and values are compared as canonical JSON, however a client wrote them.
        let canonical = || serde_json::from_str::<Value>(rest).ok().map(|value| value.to_string());
        match sort {
            "f" => Some(Step::Name(rest.to_owned())),
            "k" => canonical().map(Step::Keys),
            "v" => canonical().map(Step::Item),
            _ => None,
        }
    }

    fn shown(&self) -> String {
        match self {
            Step::Name(name) => format!(".{name}"),
            Step::Item(item) => format!("[={item}]"),
            Step::Keys(keys) => {
                let map: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let pairs: Vec<String> = map.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("[{}]", pairs.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use model::schema::builtin;

    use super::*;

    fn deployment() -> Shape {
        Shape::Object(builtin().type_named("io.k8s.api.apps.v1.Deployment").expect("a published type"))
    }

    fn check_set(object: Value, wanted: Value) {
        let fields = Fields::of_object(builtin(), &deployment(), &object);
        assert_eq!(fields.to_v1(), wanted);
        assert_eq!(Fields::from_v1(&wanted), fields, "what is written can be read");
        assert_eq!(Fields::v1_of_object(builtin(), &deployment(), &object), wanted, "and written at once");
    }

    #[test]
    fn members_and_keyed_items_are_owned_apart() {
        check_set(
            json!({"kind": "Deployment", "metadata": {"name": "a", "labels": {"x": "1"}},
                   "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "c", "image": "i", "args": ["1"]}]}}}}),
            json!({"f:metadata": {"f:labels": {"f:x": {}}},
                   "f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                       "k:{\"name\":\"c\"}": {".": {}, "f:args": {}, "f:image": {}, "f:name": {}}}}}}}),
        );
    }

    #[test]
    fn two_items_of_the_same_keys_are_one_field() {
        check_set(
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "c", "tty": true}]}}}}),
            json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"c\"}": {".": {}, "f:image": {}, "f:name": {}, "f:tty": {}}}}}}}),
        );
    }

    #[test]
    fn what_is_the_servers_is_nobodys() {
        check_set(
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "uid": "u", "managedFields": []}}),
            json!({}),
        );
        check_set(
            json!({"metadata": {"name": "a", "finalizers": ["x/y"], "annotations": {}}, "status": {}}),
            json!({"f:metadata": {"f:annotations": {}, "f:finalizers": {"v:\"x/y\"": {}}}, "f:status": {}}),
        );
    }

    #[test]
    fn a_selector_is_atomic_and_an_empty_map_is_a_field() {
        check_set(
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {}}}}}),
            json!({"f:spec": {"f:selector": {}, "f:template": {"f:metadata": {"f:labels": {}}}}}),
        );
    }

    #[test]
    fn a_ports_key_takes_its_default() {
        check_set(
            json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}]}]}}}}),
            json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
                ".": {}, "f:name": {}, "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}}}}}}}}),
        );
    }

    fn check_difference(old: Value, new: Value, changed: &[&str], removed: &[&str]) {
        let (seen_changed, seen_removed) = Fields::difference(builtin(), &deployment(), &old, &new);
        assert_eq!(
            (seen_changed.paths(), seen_removed.paths()),
            (
                changed.iter().map(|&path| path.to_owned()).collect(),
                removed.iter().map(|&path| path.to_owned()).collect(),
            )
        );
    }

    #[test]
    fn a_difference_names_what_changed_and_what_went() {
        check_difference(
            json!({"metadata": {"labels": {"a": "1", "b": "1"}, "resourceVersion": "1"}, "spec": {"replicas": 1}}),
            json!({"metadata": {"labels": {"a": "2"}, "resourceVersion": "2"}, "spec": {"replicas": 1, "paused": true}}),
            &[".metadata.labels.a", ".spec.paused"],
            &[".metadata.labels.b"],
        );
    }

    #[test]
    fn sets_add_up() {
        let set = |value: Value| Fields::from_v1(&value);
        let (a, b) =
            (set(json!({"f:a": {}, "f:b": {"f:c": {}}})), set(json!({"f:b": {"f:c": {}, "f:d": {}}})));
        assert_eq!(a.minus(&b).to_v1(), json!({"f:a": {}}));
        assert_eq!(a.and(&b).to_v1(), json!({"f:b": {"f:c": {}}}));
        assert_eq!(a.union(&b).to_v1(), json!({"f:a": {}, "f:b": {"f:c": {}, "f:d": {}}}));
    }
}
