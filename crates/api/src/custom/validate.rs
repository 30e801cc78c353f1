//! Whether a custom object is what its schema says, told in the words that clients know. Pure.
//!
//! What an update leaves as it was is not judged again, so that a stricter schema does not hold up objects that were
//! made before it. The rules in expressions have a file of their own, `rules.rs`, and are asked when all else is well.

use std::collections::{BTreeMap, BTreeSet};

use model::Tree;
use model::kinds::{Fault, FaultReason, Faults};
use model::tree::{entries, flag, items, text};
use regex::Regex;

use super::{Custom, formats};

/// The patterns of a schema, made ready once.
#[derive(Debug, Clone, Default)]
pub struct Patterns(BTreeMap<String, Regex>);

impl Patterns {
    /// Those of a schema and all below it. One that cannot be read was refused when its definition was written.
    pub fn of(schema: &Tree) -> Self {
        let mut all = Self::default();
        all.gather(schema);
        all
    }

    fn gather(&mut self, schema: &Tree) {
        if let Some(pattern) = schema["pattern"].as_str()
            && let Ok(regex) = Regex::new(pattern)
        {
            self.0.insert(pattern.to_owned(), regex);
        }
        below(schema).for_each(|schema| self.gather(schema));
    }
}

/// The schemas that stand within one.
pub(super) fn below(schema: &Tree) -> impl Iterator<Item = &Tree> {
    let named = entries(schema, "properties").map(|(_, property)| property);
    let single = ["items", "additionalProperties", "not"].into_iter().map(|name| &schema[name]);
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|name| items(schema, name));
    named.chain(single).chain(lists).filter(|schema| schema.is_object())
}

/// Notes what is wrong with an object, as new or as a change of `old`.
pub fn validate(custom: &Custom, old: Option<&Tree>, object: &Tree, faults: &mut Faults) {
    if !custom.root.is_object() {
        return;
    }
    let found = check(&custom.root, &custom.patterns, old, object, "");
    let blocked = found.iter().any(|fault| BLOCKING.contains(&fault.reason));
    faults.0.extend(found);
    match &custom.rules {
        Some(_) if blocked => faults.0.push(Fault {
            field: "<nil>".into(),
            reason: FaultReason::Invalid,
            message: format!("Invalid value: null: {UNCHECKED}"),
        }),
        Some(rules) => faults.0.extend(rules.check(&custom.root, old, object)),
        None => {}
    }
}

/// Faults of a kind that rules cannot be asked about an object that has one.
const BLOCKING: [FaultReason; 5] = [
    FaultReason::NotSupported,
    FaultReason::Required,
    FaultReason::TooLong,
    FaultReason::TooMany,
    FaultReason::TypeInvalid,
];
const UNCHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// What is wrong with a value that stands at `path`.
pub(super) fn check(
    schema: &Tree,
    patterns: &Patterns,
    old: Option<&Tree>,
    value: &Tree,
    path: &str,
) -> Vec<Fault> {
    let mut judge = Judge { patterns, faults: Vec::new() };
    judge.value(&Place { parent: None, step: Step::Root(path) }, schema, old, value);
    judge.faults
}

/// Where a value stands; written out only when there is something to say.
pub(super) struct Place<'a> {
    pub parent: Option<&'a Place<'a>>,
    pub step: Step<'a>,
}

/// One step to where a value stands.
pub(super) enum Step<'a> {
    Root(&'a str),
    Name(&'a str),
    Key(&'a str),
    Item(usize),
}

impl<'a> Place<'a> {
    pub fn to(&'a self, step: Step<'a>) -> Place<'a> {
        Place { parent: Some(self), step }
    }

    pub fn path(&self) -> String {
        let before = self.parent.map(Place::path).unwrap_or_default();
        match self.step {
            Step::Root(path) => path.to_owned(),
            Step::Item(index) => format!("{before}[{index}]"),
            Step::Name(name) | Step::Key(name) if before.is_empty() => name.to_owned(),
            Step::Name(name) | Step::Key(name) => format!("{before}.{name}"),
        }
    }
}

struct Judge<'a> {
    patterns: &'a Patterns,
    faults: Vec<Fault>,
}

impl Judge<'_> {
    fn value(&mut self, at: &Place<'_>, schema: &Tree, old: Option<&Tree>, value: &Tree) {
        if old == Some(value) {
            return;
        }
        if !self.kind(at, schema, value) {
            return;
        }
        self.choice(at, schema, value);
        match value {
            Tree::String(text) => self.string(at, schema, text),
            Tree::Number(_) => self.number(at, schema, value),
            Tree::Array(list) => self.list(at, schema, old, list),
            Tree::Object(_) => self.object(at, schema, old, value),
            _ => {}
        }
        self.combined(at, schema, value);
    }

    /// Whether the value is of the schema's type; nothing more is said of one that is not.
    fn kind(&mut self, at: &Place<'_>, schema: &Tree, value: &Tree) -> bool {
        let wanted = match text(schema, "type") {
            "" if flag(schema, "x-kubernetes-int-or-string") => "integer,string",
            named => named,
        };
        let fits = match wanted {
            "" => true,
            _ if value.is_null() => flag(schema, "nullable"),
            "integer" => is_whole(value),
            "integer,string" => is_whole(value) || value.is_string(),
            "number" => value.is_number(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            _ => true,
        };
        if !fits {
            let found = name_of(value);
            let path = at.path();
            let why = format!("{path} in body must be of type {wanted}: {found:?}");
            self.tell(path, FaultReason::TypeInvalid, &found.into(), &why);
        }
        fits && !(value.is_null() && flag(schema, "nullable"))
    }

    fn choice(&mut self, at: &Place<'_>, schema: &Tree, value: &Tree) {
        let allowed = items(schema, "enum");
        if allowed.is_empty() || allowed.iter().any(|one| same(one, value)) {
            return;
        }
        let shown = |one: &Tree| match one {
            Tree::String(_) => one.to_string(),
            other => Tree::from(other.to_string()).to_string(),
        };
        let shown: Vec<String> = allowed.iter().map(shown).collect();
        let why = format!("supported values: {}", shown.join(", "));
        self.tell(at.path(), FaultReason::NotSupported, value, &why);
    }

    fn string(&mut self, at: &Place<'_>, schema: &Tree, value: &str) {
        let length = value.chars().count() as u64;
        if let Some(max) = schema["maxLength"].as_u64().filter(|max| length > *max) {
            let message = format!("Too long: may not be more than {max} bytes");
            self.faults.push(Fault { field: at.path(), reason: FaultReason::TooLong, message });
        }
        if let Some(min) = schema["minLength"].as_u64().filter(|min| length < *min) {
            self.refuse(at, &value.into(), &format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && self.patterns.0.get(pattern).is_some_and(|regex| !regex.is_match(value))
        {
            self.refuse(at, &value.into(), &format!("should match '{pattern}'"));
        }
        let format = text(schema, "format");
        if !format.is_empty() && !formats::is_of(format, value) {
            let path = at.path();
            let why = format!("{path} in body must be of type {format}: {value:?}");
            self.tell(path, FaultReason::TypeInvalid, &value.into(), &why);
        }
    }

    fn number(&mut self, at: &Place<'_>, schema: &Tree, value: &Tree) {
        let Some(number) = value.as_f64() else { return };
        let bound = |name: &str| schema[name].as_f64().map(|bound| (bound, &schema[name]));
        if let Some((max, shown)) = bound("maximum") {
            let exclusive = flag(schema, "exclusiveMaximum");
            if number > max || (exclusive && number >= max) {
                let word = if exclusive { "less than" } else { "less than or equal to" };
                self.refuse(at, value, &format!("should be {word} {}", plain(shown)));
            }
        }
        if let Some((min, shown)) = bound("minimum") {
            let exclusive = flag(schema, "exclusiveMinimum");
            if number < min || (exclusive && number <= min) {
                let word = if exclusive { "greater than" } else { "greater than or equal to" };
                self.refuse(at, value, &format!("should be {word} {}", plain(shown)));
            }
        }
        if let Some((factor, shown)) = bound("multipleOf").filter(|(factor, _)| *factor > 0.0) {
            let times = number / factor;
            if (times - times.round()).abs() > f64::EPSILON * times.abs().max(1.0) {
                self.refuse(at, value, &format!("should be a multiple of {}", plain(shown)));
            }
        }
    }

    fn list(&mut self, at: &Place<'_>, schema: &Tree, old: Option<&Tree>, list: &[Tree]) {
        let count = list.len() as u64;
        if let Some(max) = schema["maxItems"].as_u64().filter(|max| count > *max) {
            let message = format!("Too many: {count}: must have at most {max} items");
            self.faults.push(Fault { field: at.path(), reason: FaultReason::TooMany, message });
        }
        if let Some(min) = schema["minItems"].as_u64().filter(|min| count < *min) {
            self.refuse(at, &count.into(), &format!("should have at least {min} items"));
        }
        let keys = list_keys(schema);
        let olds = old.and_then(Tree::as_array).filter(|_| !keys.is_empty());
        if schema["items"].is_object() {
            for (index, item) in list.iter().enumerate() {
                // Items are known again by their keys alone.
                let key = key_of(&keys, item);
                let before = olds.and_then(|olds| olds.iter().find(|old| key_of(&keys, old) == key));
                self.value(&at.to(Step::Item(index)), &schema["items"], before, item);
            }
        }
        self.unique(at, schema, &keys, list);
    }

    fn unique(&mut self, at: &Place<'_>, schema: &Tree, keys: &[&str], list: &[Tree]) {
        let set = text(schema, "x-kubernetes-list-type") == "set" || flag(schema, "uniqueItems");
        if !set && keys.is_empty() {
            return;
        }
        let mut seen = BTreeSet::new();
        for (index, item) in list.iter().enumerate() {
            let shown = if keys.is_empty() { item.clone() } else { key_of(keys, item) };
            if !seen.insert(shown.to_string()) {
                let path = at.to(Step::Item(index)).path();
                self.tell(path, FaultReason::Duplicate, &shown, "");
            }
        }
    }

    fn object(&mut self, at: &Place<'_>, schema: &Tree, old: Option<&Tree>, value: &Tree) {
        let Some(map) = value.as_object() else { return };
        let count = map.len() as u64;
        if let Some(max) = schema["maxProperties"].as_u64().filter(|max| count > *max) {
            let message = format!("Too many: {count}: must have at most {max} items");
            self.faults.push(Fault { field: at.path(), reason: FaultReason::TooMany, message });
        }
        if let Some(min) = schema["minProperties"].as_u64().filter(|min| count < *min) {
            self.refuse(at, &count.into(), &format!("should have at least {min} properties"));
        }
        for name in items(schema, "required").iter().filter_map(Tree::as_str) {
            if !map.contains_key(name) {
                self.require(at.to(Step::Name(name)).path(), "");
            }
        }
        if flag(schema, "x-kubernetes-embedded-resource") {
            for name in ["apiVersion", "kind"].into_iter().filter(|name| text(value, name).is_empty()) {
                self.require(at.to(Step::Name(name)).path(), "must not be empty");
            }
        }
        let (known, more) = (&schema["properties"], &schema["additionalProperties"]);
        for (name, value) in map {
            let before = old.and_then(|old| old.get(name));
            match known.get(name) {
                Some(property) => self.value(&at.to(Step::Name(name)), property, before, value),
                None if more.is_object() => self.value(&at.to(Step::Key(name)), more, before, value),
                None => {}
            }
        }
    }

    /// `allOf`, `anyOf`, `oneOf` and `not`.
    fn combined(&mut self, at: &Place<'_>, schema: &Tree, value: &Tree) {
        for one in items(schema, "allOf") {
            self.value(at, one, None, value);
        }
        let passing = |list: &str| items(schema, list).iter().filter(|one| self.passes(one, value)).count();
        let (any, one) = (passing("anyOf"), passing("oneOf"));
        let refused = schema["not"].is_object() && self.passes(&schema["not"], value);
        let path = at.path();
        let mut say = |why: String| self.tell(path.clone(), FaultReason::Invalid, &"".into(), &why);
        if any == 0 && !items(schema, "anyOf").is_empty() {
            say(format!("\"{path}\" must validate at least one schema (anyOf)"));
        }
        if one != 1 && !items(schema, "oneOf").is_empty() {
            let found = if one == 0 { "none valid".to_owned() } else { format!("{one} valid alternatives") };
            say(format!("\"{path}\" must validate one and only one schema (oneOf). Found {found}"));
        }
        if refused {
            say(format!("\"{path}\" must not validate the schema (not)"));
        }
    }

    fn passes(&self, schema: &Tree, value: &Tree) -> bool {
        check(schema, self.patterns, None, value, "").is_empty()
    }

    fn refuse(&mut self, at: &Place<'_>, value: &Tree, why: &str) {
        let path = at.path();
        let why = format!("{path} in body {why}");
        self.tell(path, FaultReason::Invalid, value, &why);
    }

    fn require(&mut self, field: String, why: &str) {
        let colon = if why.is_empty() { "" } else { ": " };
        let message = format!("Required value{colon}{why}");
        self.faults.push(Fault { field, reason: FaultReason::Required, message });
    }

    fn tell(&mut self, field: String, reason: FaultReason, value: &Tree, why: &str) {
        let colon = if why.is_empty() { "" } else { ": " };
        let message = format!("{}: {value}{colon}{why}", reason.words());
        self.faults.push(Fault { field, reason, message });
    }
}

fn is_whole(value: &Tree) -> bool {
    value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
}

fn name_of(value: &Tree) -> &'static str {
    match value {
        Tree::Null => "null",
        Tree::Bool(_) => "boolean",
        Tree::Number(_) if value.is_f64() => "number",
        Tree::Number(_) => "integer",
        Tree::String(_) => "string",
        Tree::Array(_) => "array",
        Tree::Object(_) => "object",
    }
}

/// Whether two values are equal; 1 is 1.0.
fn same(one: &Tree, other: &Tree) -> bool {
    one == other || (one.is_number() && other.is_number() && one.as_f64() == other.as_f64())
}

/// A number without the fraction that it has only because bounds are kept as doubles.
fn plain(number: &Tree) -> String {
    number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string())
}

/// The keys of a list's items.
pub(super) fn list_keys(schema: &Tree) -> Vec<&str> {
    if text(schema, "x-kubernetes-list-type") != "map" {
        return Vec::new();
    }
    items(schema, "x-kubernetes-list-map-keys").iter().filter_map(Tree::as_str).collect()
}

/// The values of an item's keys.
pub(super) fn key_of(keys: &[&str], item: &Tree) -> Tree {
    keys.iter().map(|key| ((*key).to_owned(), item.get(*key).cloned().unwrap_or(Tree::Null))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(property: Tree, old: Option<Tree>, value: Tree) -> Vec<String> {
        let schema = json!({"type": "object", "properties": {"x": property}});
        let custom = Custom { patterns: Patterns::of(&schema), root: schema, ..Custom::default() };
        let mut faults = Faults::default();
        let old = old.map(|old| json!({"x": old}));
        validate(&custom, old.as_ref(), &json!({"x": value}), &mut faults);
        faults.0.iter().map(ToString::to_string).collect()
    }

    #[track_caller]
    fn check(property: Tree, good: Tree, bad: Tree, wanted: &str) {
        assert_eq!(told(property.clone(), None, good), Vec::<String>::new());
        assert_eq!(told(property, None, bad), [wanted]);
    }

    #[test]
    fn types_are_told_by_name() {
        let wrong = |wanted: &str, found: &str| {
            format!("x: Invalid value: \"{found}\": x in body must be of type {wanted}: \"{found}\"")
        };
        check(json!({"type": "string"}), json!("a"), json!(1), &wrong("string", "integer"));
        check(json!({"type": "integer"}), json!(2.0), json!(1.5), &wrong("integer", "number"));
        check(json!({"type": "object"}), json!({}), json!(null), &wrong("object", "null"));
        check(json!({"type": "array", "nullable": true}), json!(null), json!({}), &wrong("array", "object"));
        let either = json!({"x-kubernetes-int-or-string": true});
        check(either, json!("50%"), json!(true), &wrong("integer,string", "boolean"));
        let text = json!({"type": "string", "x-kubernetes-int-or-string": true});
        check(text, json!("50%"), json!(1), &wrong("string", "integer"));
    }

    #[test]
    fn texts_and_numbers_have_bounds() {
        check(
            json!({"enum": ["a", "b"]}),
            json!("a"),
            json!("c"),
            "x: Unsupported value: \"c\": supported values: \"a\", \"b\"",
        );
        let short = "x: Invalid value: \"\": x in body should be at least 1 chars long";
        check(json!({"minLength": 1}), json!("é"), json!(""), short);
        check(json!({"maxLength": 1}), json!("é"), json!("ab"), "x: Too long: may not be more than 1 bytes");
        let unlike = "x: Invalid value: \"b\": x in body should match '^a+$'";
        check(json!({"pattern": "^a+$"}), json!("aa"), json!("b"), unlike);
        let no_date = "x: Invalid value: \"b\": x in body must be of type date: \"b\"";
        check(json!({"format": "date"}), json!("2026-01-01"), json!("b"), no_date);
        let large = "x: Invalid value: 11: x in body should be less than or equal to 10";
        check(json!({"maximum": 10.0}), json!(10), json!(11), large);
        let small = "x: Invalid value: 1: x in body should be greater than 1";
        check(json!({"minimum": 1, "exclusiveMinimum": true}), json!(2), json!(1), small);
        let odd = "x: Invalid value: 3: x in body should be a multiple of 2";
        check(json!({"multipleOf": 2}), json!(4), json!(3), odd);
    }

    #[test]
    fn lists_and_maps_have_bounds_and_keys() {
        let strings = json!({"type": "array", "items": {"type": "string"}, "maxItems": 2,
            "x-kubernetes-list-type": "set"});
        check(
            strings.clone(),
            json!(["a"]),
            json!(["a", "b", "c"]),
            "x: Too many: 3: must have at most 2 items",
        );
        check(strings, json!(["a", "b"]), json!(["a", "a"]), "x[1]: Duplicate value: \"a\"");
        let named = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}});
        check(named.clone(), json!([{"name": "a"}]), json!([{}]), "x[0].name: Required value");
        let twice = "x[1]: Duplicate value: {\"name\":\"a\"}";
        check(named, json!([]), json!([{"name": "a"}, {"name": "a"}]), twice);
        let few = "x: Invalid value: 0: x in body should have at least 1 properties";
        let map = json!({"additionalProperties": {"type": "string"}, "minProperties": 1});
        check(map.clone(), json!({"a": "b"}), json!({}), few);
        let wrong = "x.a: Invalid value: \"integer\": x.a in body must be of type string: \"integer\"";
        check(map, json!({"a": "b"}), json!({"a": 1}), wrong);
        let embedded = json!({"type": "object", "x-kubernetes-embedded-resource": true});
        let kindless = "x.kind: Required value: must not be empty";
        check(embedded, json!({"apiVersion": "v1", "kind": "A"}), json!({"apiVersion": "v1"}), kindless);
    }

    #[test]
    fn schemas_combine() {
        let either = json!({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
        let both = "x: Invalid value: \"\": \"x\" must validate one and only one schema (oneOf). Found 2 valid alternatives";
        check(either, json!({"a": 1}), json!({"a": 1, "b": 1}), both);
        let any = json!({"anyOf": [{"minimum": 5}, {"maximum": 1}]});
        check(
            any,
            json!(0),
            json!(3),
            "x: Invalid value: \"\": \"x\" must validate at least one schema (anyOf)",
        );
        let not = json!({"not": {"enum": ["a"]}});
        check(
            not,
            json!("b"),
            json!("a"),
            "x: Invalid value: \"\": \"x\" must not validate the schema (not)",
        );
        check(
            json!({"allOf": [{"minLength": 1}]}),
            json!("a"),
            json!(""),
            "x: Invalid value: \"\": x in body should be at least 1 chars long",
        );
    }

    #[test]
    fn what_an_update_leaves_alone_is_not_judged_again() {
        let schema = json!({"type": "object", "properties": {"a": {"maximum": 1}, "b": {"maximum": 1}}});
        assert!(told(schema.clone(), Some(json!({"a": 5})), json!({"a": 5, "b": 0})).is_empty());
        assert_eq!(told(schema, Some(json!({"a": 5})), json!({"a": 6})).len(), 1);
    }
}
